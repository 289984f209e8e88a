//! Handshakes under way, by where they come from: one source cannot take all the places (L20).
//!
//! Only handshakes of addresses that are proved count for a source: with forged ones somebody could use up another's places. Those that are not
//! proved have few places for all of them together, and none when these are taken; see `dial.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handshakes of one address at once. Devices behind one address connect one after the other, and a handshake takes milliseconds.
const EACH_MAX: usize = 8;
/// Handshakes of one IPv6 network at once: a host has as many addresses of its network as it likes, but the network has other hosts too.
const NETWORK_MAX: usize = 32;
const _: () = assert!(EACH_MAX < NETWORK_MAX);

/// Where handshakes come from: an address, or a network of 64 bits, named by its first address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Address(IpAddr),
    Network(Ipv6Addr),
}

impl Source {
    fn max(self) -> usize {
        match self {
            Self::Address(_) => EACH_MAX,
            Self::Network(_) => NETWORK_MAX,
        }
    }
}

/// Counts them.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshakes(Arc<Mutex<BTreeMap<Source, usize>>>);

/// One that is under way; over when this is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    of: Handshakes,
    address: IpAddr,
}

impl Handshakes {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Source, usize>> {
        // Whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one from a proved address; nothing if the address or its network has enough of them.
    pub fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let mut counts = self.counts();
        if sources_of(address).any(|source| counts.get(&source).is_some_and(|count| *count >= source.max())) {
            return None;
        }
        for source in sources_of(address) {
            *counts.entry(source).or_default() += 1;
        }
        Some(Handshake { of: self.clone(), address })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        for source in sources_of(self.address) {
            if let Some(count) = counts.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&source);
                }
            }
        }
    }
}

/// Who is meant by an address: the host, and its network where one host can have many addresses. On a link each has its own.
fn sources_of(address: IpAddr) -> impl Iterator<Item = Source> {
    let address = address.to_canonical();
    let network = match address {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Some(Source::Network(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
        }
        _ => None,
    };
    std::iter::once(Source::Address(address)).chain(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn begin_many(handshakes: &Handshakes, addresses: impl Iterator<Item = String>) -> Vec<Handshake> {
        addresses.filter_map(|address| handshakes.begin(ip(&address))).collect()
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let handshakes = Handshakes::default();
        for (one, again, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8:0:0::1", "2001:db8::2"),
            ("fe80::1", "fe80::1", "fe80::2"),
            ("::1", "::1", "127.0.0.1"),
        ] {
            let begun = begin_many(&handshakes, (0..100).map(|_| one.to_owned()));
            assert_eq!(begun.len(), EACH_MAX, "{one}");
            assert!(handshakes.begin(ip(again)).is_none(), "{again} is the same host");
            assert!(handshakes.begin(ip(other)).is_some(), "{other} is another");
            drop(begun);
            assert!(handshakes.begin(ip(one)).is_some(), "what is over does not count");
            assert!(handshakes.counts().is_empty(), "nothing stays behind");
        }
    }

    #[test]
    fn the_hosts_of_one_network_have_places_of_their_own_up_to_a_bound() {
        let handshakes = Handshakes::default();
        let mut begun = begin_many(&handshakes, (0..100).map(|n| format!("2001:db8::{n:x}")));
        assert_eq!(begun.len(), NETWORK_MAX);
        assert!(handshakes.begin(ip("2001:db8:0:0:ffff::1")).is_none(), "of the same 64 bits");
        assert!(handshakes.begin(ip("2001:db8:0:1::1")).is_some(), "the network beside it");
        // What was refused for the network did not count for its address.
        begun.pop();
        assert!(handshakes.begin(ip("2001:db8::99")).is_some());
        drop(begun);
        assert!(handshakes.counts().is_empty());
        let on_link = begin_many(&handshakes, (0..100).map(|n| format!("fe80::{n:x}")));
        assert_eq!(on_link.len(), 100, "on a link every host has its own");
    }

    #[test]
    fn eight_of_one_host_leave_its_network_open() {
        let handshakes = Handshakes::default();
        let _one = begin_many(&handshakes, (0..100).map(|_| "2001:db8::1".to_owned()));
        let others = begin_many(&handshakes, (2..100).map(|n| format!("2001:db8::{n:x}")));
        assert_eq!(others.len(), NETWORK_MAX - EACH_MAX);
    }
}
