//! Handshakes under way, by where they come from: one source cannot take all the places (L20).
//!
//! Only handshakes of addresses that are proved count for a source: with forged ones somebody could use up another's places. Those that are not
//! proved have few places for all of them together, and none when these are taken; see `dial.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handshakes of one source at once. Devices behind one address connect one after the other, and a handshake takes milliseconds.
const EACH_MAX: usize = 8;

/// Counts them.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshakes(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One that is under way; over when this is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    of: Handshakes,
    source: IpAddr,
}

impl Handshakes {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one from a proved address; nothing if its source has enough of them.
    pub fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let source = source_of(address);
        let mut counts = self.counts();
        let count = counts.entry(source).or_default();
        if *count >= EACH_MAX {
            return None;
        }
        *count += 1;
        Some(Handshake { of: self.clone(), source })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// Who is meant by an address: a host has as many addresses of its IPv6 network as it likes. On a link each has its own.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let handshakes = Handshakes::default();
        let begun: Vec<Handshake> = (0..100).filter_map(|_| handshakes.begin(ip("192.0.2.1"))).collect();
        assert_eq!(begun.len(), EACH_MAX);
        assert!(handshakes.begin(ip("192.0.2.2")).is_some());
        assert!(handshakes.begin(ip("::ffff:192.0.2.1")).is_none(), "the same host");
        drop(begun);
        assert!(handshakes.begin(ip("192.0.2.1")).is_some(), "what is over does not count");
        assert!(handshakes.counts().is_empty(), "nothing stays behind");
    }

    #[test]
    fn the_addresses_of_one_network_are_one_source() {
        let handshakes = Handshakes::default();
        let begun: Vec<Handshake> = (0..100).filter_map(|n| handshakes.begin(ip(&format!("2001:db8::{n:x}")))).collect();
        assert_eq!(begun.len(), EACH_MAX);
        let on_link: Vec<Handshake> = (0..100).filter_map(|n| handshakes.begin(ip(&format!("fe80::{n:x}")))).collect();
        assert_eq!(on_link.len(), 100, "on a link every host has its own");
    }
}
