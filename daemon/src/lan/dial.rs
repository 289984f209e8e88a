//! Where devices may be found, and who is tried when. Addresses are hints from anybody; the handshake decides (L26).
//!
//! * **DI1** The table is bounded, and so is the number of handshakes at once, whatever is announced (L08).
//! * **DI2** What failed is tried again at growing intervals; news of it, or of a grant, makes it due at once, but never more often than
//!   [`RETRY_MIN`].

use super::endpoint::transport;
use super::handshakes::Handshakes;
use super::hub::Hub;
use super::link::Begun;
use super::tls::{self, Tls};
use ferry_protocol::DeviceId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};

/// Targets in the table, and addresses of one.
const TARGETS_MAX: usize = 512;
const TAGS_MAX: usize = 256;
const ADDRESSES_MAX: usize = 32;
/// Targets that are tried at once.
const TRIES_MAX: usize = 8;
/// How long a handshake may take.
const TRY_MAX: Duration = Duration::from_secs(4);
/// Pauses after a failure: the first, doubled up to the last.
pub const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long a device that shares nothing with us is left alone.
const STRANGER_PAUSE: Duration = Duration::from_secs(600);
/// Of two devices that see each other, one waits so long for the other to begin: two handshakes at once are one too many.
const YIELD: Duration = Duration::from_millis(700);

/// How an address came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// An announcement on the network.
    Mdns,
    /// The relay.
    Relay,
    /// The configuration.
    Static,
    /// It connected by itself.
    Incoming,
}

/// What names a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKey {
    /// A device that the relay names.
    Device(DeviceId),
    /// An announcement; who stands behind it the handshake shows.
    Tag(String),
    /// An address of the configuration.
    Address(SocketAddr),
}

#[derive(Debug)]
struct Target {
    addresses: BTreeSet<SocketAddr>,
    /// Who answered, or is expected to.
    device: Option<DeviceId>,
    /// Whether it is the device that is looked for, wherever it is; else whoever is there.
    is_device: bool,
    not_before: Instant,
    failures: u32,
    trying: bool,
    error: Option<String>,
}

impl Target {
    /// Whether a device that was met at an address is what this target leads to.
    fn is_of(&self, device: DeviceId, address: SocketAddr) -> bool {
        if self.is_device { self.device == Some(device) } else { self.device == Some(device) || self.addresses.contains(&address) }
    }
}

/// What is known of a device's addresses, for people.
#[derive(Debug, Clone, Default)]
pub struct Sighting {
    /// How it was found.
    pub found: BTreeSet<Found>,
    /// Its addresses.
    pub addresses: BTreeSet<SocketAddr>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// Whether it is being tried.
    pub trying: bool,
}

/// The table.
#[derive(Default)]
pub struct Targets {
    table: Mutex<BTreeMap<TargetKey, Target>>,
    incoming: Mutex<BTreeSet<DeviceId>>,
    news: Notify,
}

impl Targets {
    fn table(&self) -> MutexGuard<'_, BTreeMap<TargetKey, Target>> {
        // Whole between any two statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses of a target, all that there are now. `patient` lets the other side begin.
    pub fn hint(&self, key: TargetKey, addresses: impl IntoIterator<Item = SocketAddr>, patient: bool) {
        let addresses: BTreeSet<SocketAddr> = addresses.into_iter().take(ADDRESSES_MAX).collect();
        let mut table = self.table();
        let is_tag = |key: &TargetKey| matches!(key, TargetKey::Tag(_));
        // Anybody can announce; what the relay and the configuration name has room of its own.
        let full = if is_tag(&key) { table.keys().filter(|k| is_tag(k)).count() >= TAGS_MAX } else { table.len() >= TARGETS_MAX };
        if full && !table.contains_key(&key) {
            return;
        }
        let device = if let TargetKey::Device(device) = key { Some(device) } else { None };
        let now = Instant::now();
        let wait = if patient { YIELD } else { Duration::ZERO };
        let target = table.entry(key).or_insert_with(|| Target {
            addresses: BTreeSet::new(),
            device,
            is_device: device.is_some(),
            not_before: now + wait,
            failures: 0,
            trying: false,
            error: None,
        });
        if !addresses.is_subset(&target.addresses) && target.failures > 0 {
            target.not_before = now + RETRY_MIN;
            target.failures = 0;
        }
        target.addresses = addresses;
        drop(table);
        self.news.notify_one();
    }

    /// A target is no longer announced.
    pub fn forget(&self, key: &TargetKey) {
        self.table().remove(key);
    }

    /// Forgets where a device was met and why it could not be reached, and looks for it anew. What announcements and the configuration name stays, as
    /// nobody would say it again; what the relay named goes until it is asked. How many addresses went.
    pub fn forget_device(&self, device: DeviceId) -> usize {
        let now = Instant::now();
        let mut gone = 0;
        self.table().retain(|_, target| {
            let is_of = target.device == Some(device);
            if is_of && target.is_device {
                gone += target.addresses.len();
                return false;
            }
            if is_of {
                (target.device, target.error, target.failures, target.not_before) = (None, None, 0, now);
            }
            true
        });
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner).remove(&device);
        self.news.notify_one();
        gone
    }

    /// Keeps only what this says yes to.
    pub fn retain(&self, mut keep: impl FnMut(&TargetKey) -> bool) {
        self.table().retain(|key, _| keep(key));
    }

    /// A device is connected.
    pub fn met(&self, device: DeviceId, address: SocketAddr) {
        let address = unmapped(address);
        let mut known = false;
        for target in self.table().values_mut() {
            if target.is_of(device, address) {
                (target.device, target.failures, target.error, known) = (Some(device), 0, None, true);
            }
        }
        if !known {
            self.incoming.lock().unwrap_or_else(PoisonError::into_inner).insert(device);
        }
    }

    /// A connection with a device is over: it is looked for at once.
    pub fn lost(&self, device: DeviceId) {
        let now = Instant::now();
        for target in self.table().values_mut().filter(|t| t.device == Some(device)) {
            (target.not_before, target.failures) = (now + RETRY_MIN / 2, 0);
        }
        self.news.notify_one();
    }

    /// A device turned out to share nothing with us, or the reverse.
    pub fn refused(&self, device: DeviceId, address: SocketAddr, why: &str) {
        let (now, address) = (Instant::now(), unmapped(address));
        for target in self.table().values_mut().filter(|t| t.is_of(device, address)) {
            (target.device, target.error) = (Some(device), Some(why.to_owned()));
            target.not_before = now + STRANGER_PAUSE;
        }
    }

    /// Grants changed: who was a stranger may be one of ours.
    pub fn forgive(&self) {
        let soon = Instant::now() + RETRY_MIN;
        self.table().values_mut().for_each(|t| t.not_before = t.not_before.min(soon));
        self.news.notify_one();
    }

    /// What is known of each device.
    pub fn sightings(&self) -> BTreeMap<DeviceId, Sighting> {
        let mut out: BTreeMap<DeviceId, Sighting> = BTreeMap::new();
        for (key, target) in self.table().iter() {
            let Some(device) = target.device else { continue };
            let sighting = out.entry(device).or_default();
            sighting.found.insert(match key {
                TargetKey::Device(_) => Found::Relay,
                TargetKey::Tag(_) => Found::Mdns,
                TargetKey::Address(_) => Found::Static,
            });
            sighting.addresses.extend(&target.addresses);
            sighting.trying |= target.trying;
            sighting.error = sighting.error.take().or_else(|| target.error.clone());
        }
        for device in self.incoming.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            out.entry(*device).or_default().found.insert(Found::Incoming);
        }
        out
    }

    /// The next target that is due, or when to look again.
    fn next(&self, is_connected: impl Fn(DeviceId) -> bool) -> Result<(TargetKey, Vec<SocketAddr>, Option<DeviceId>), Option<Instant>> {
        let now = Instant::now();
        let mut table = self.table();
        let open = table.iter_mut().filter(|(_, t)| !t.trying && !t.addresses.is_empty() && !t.device.is_some_and(&is_connected));
        // Those whom the relay or the configuration names come before what is announced, then who has been due longest: nobody can crowd them out.
        let rank = |key: &TargetKey, at: Instant| if at > now { (2, at) } else { (i32::from(matches!(key, TargetKey::Tag(_))), at) };
        match open.min_by_key(|(key, target)| rank(key, target.not_before)) {
            Some((key, target)) if target.not_before <= now => {
                target.trying = true;
                let expected = target.device.filter(|_| target.is_device);
                Ok((key.clone(), target.addresses.iter().copied().collect(), expected))
            }
            Some((_, target)) => Err(Some(target.not_before)),
            None => Err(None),
        }
    }

    fn tried(&self, key: &TargetKey, result: Result<DeviceId, String>) {
        if let Some(target) = self.table().get_mut(key) {
            target.trying = false;
            match result {
                Ok(device) => {
                    if !matches!(key, TargetKey::Device(_)) {
                        target.device = Some(device);
                    }
                    // If nothing comes of it, not at once again.
                    target.not_before = target.not_before.max(Instant::now() + RETRY_MIN);
                    target.error = None;
                }
                Err(error) => {
                    let pause = RETRY_MIN.saturating_mul(1 << target.failures.min(12)).min(RETRY_MAX);
                    target.failures = target.failures.saturating_add(1);
                    target.not_before = Instant::now() + pause;
                    target.error = Some(error);
                    if !target.is_device {
                        // Another device may stand there by now.
                        target.device = None;
                    }
                }
            }
        }
        self.news.notify_one();
    }
}

/// An IPv4 address as such, also where it comes from an IPv6 socket.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Tries targets as they become due, until it is dropped.
pub(super) async fn run(hub: Arc<Hub>, endpoint: quinn::Endpoint, tls: Tls, offload: bool) {
    let slots = Arc::new(Semaphore::new(TRIES_MAX));
    loop {
        let Ok(permit) = slots.clone().acquire_owned().await else { return };
        let next = hub.targets.next(|device| hub.link(device).is_some());
        match next {
            Ok((key, addresses, device)) => {
                let (hub, endpoint, tls) = (hub.clone(), endpoint.clone(), tls.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    let result = try_all(&hub, &endpoint, &tls, offload, &addresses, device).await;
                    hub.targets.tried(&key, result);
                });
            }
            Err(soonest) => {
                drop(permit);
                let news = hub.targets.news.notified();
                match soonest {
                    Some(at) => {
                        tokio::select! {
                            () = tokio::time::sleep_until(at.into()) => {}
                            () = news => {}
                        }
                    }
                    None => news.await,
                }
            }
        }
    }
}

/// Tries all addresses of a target at once; the first handshake that ends well wins.
async fn try_all(
    hub: &Arc<Hub>,
    endpoint: &quinn::Endpoint,
    tls: &Tls,
    offload: bool,
    addresses: &[SocketAddr],
    device: Option<DeviceId>,
) -> Result<DeviceId, String> {
    let crypto = tls.client(device).map_err(|e| e.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(offload));
    let mut tries = tokio::task::JoinSet::new();
    for address in addresses {
        // An address of a kind that this socket cannot reach is an error like any other.
        match endpoint.connect_with(config.clone(), *address, "ferry") {
            Ok(connecting) => {
                let address = *address;
                tries.spawn(async move {
                    match tokio::time::timeout(TRY_MAX, connecting).await {
                        Ok(Ok(connection)) => Ok(connection),
                        Ok(Err(error)) => Err(format!("{address}: {error}")),
                        Err(_) => Err(format!("{address}: no answer")),
                    }
                });
            }
            Err(error) => tracing::trace!(%address, %error, "an address that cannot be tried"),
        }
    }
    let mut error = None;
    while let Some(done) = tries.join_next().await {
        match done {
            Ok(Ok(connection)) => {
                let found = tls::device_of(&connection).ok_or("a certificate without a device")?;
                if found == hub.own() {
                    connection.close(0u32.into(), b"");
                    error = Some("it is this device".to_owned());
                    continue;
                }
                hub.connected(connection, Begun::Here).await;
                return Ok(found);
            }
            Ok(Err(why)) => error = Some(why),
            Err(_) => {}
        }
    }
    Err(error.unwrap_or_else(|| "none of its addresses can be reached from here".into()))
}

/// Accepts connections until the endpoint is closed. Under a flood an address is proved before work is done for it (L20).
pub(super) async fn accept(hub: Arc<Hub>, endpoint: quinn::Endpoint) {
    /// Handshakes under way from which on an address must be proved first, and from which on nothing more is begun.
    const PROVE_FROM: usize = 8;
    const ACCEPT_MAX: usize = 64;
    let slots = Arc::new(Semaphore::new(ACCEPT_MAX));
    let handshakes = Handshakes::default();
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = slots.clone().try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        if ACCEPT_MAX - slots.available_permits() > PROVE_FROM && !incoming.remote_address_validated() {
            // Fails only for an address that is proved already.
            let _ = incoming.retry();
            continue;
        }
        let begun = if incoming.remote_address_validated() {
            match handshakes.begin(incoming.remote_address().ip()) {
                None => {
                    incoming.ignore();
                    continue;
                }
                begun => begun,
            }
        } else {
            None
        };
        let hub = hub.clone();
        tokio::spawn(async move {
            let _permit = (permit, begun);
            let Ok(connecting) = incoming.accept() else { return };
            if let Ok(Ok(connection)) = tokio::time::timeout(TRY_MAX, connecting).await {
                hub.connected(connection, Begun::There).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 16])
    }

    #[test]
    fn forged_announcements_keep_nobody_out() {
        let targets = Targets::default();
        for number in 0..10_000u32 {
            let many = (0..1000u16).map(address);
            targets.hint(TargetKey::Tag(format!("{number:016x}")), many, false);
        }
        assert_eq!(targets.table().len(), TAGS_MAX);
        assert!(targets.table().values().all(|target| target.addresses.len() <= ADDRESSES_MAX));
        targets.hint(TargetKey::Device(device(1)), [address(7)], false);
        targets.hint(TargetKey::Address(address(8)), [address(8)], false);
        assert_eq!(targets.table().len(), TAGS_MAX + 2, "they have room of their own");
        let first: Vec<TargetKey> = (0..3).map(|_| targets.next(|_| false).expect("one is due").0).collect();
        assert!(first.contains(&TargetKey::Device(device(1))) && first.contains(&TargetKey::Address(address(8))), "{first:?}");
        assert!(matches!(first[2], TargetKey::Tag(_)));
    }

    #[test]
    fn who_is_forgotten_is_looked_for_anew() {
        let targets = Targets::default();
        targets.hint(TargetKey::Device(device(1)), [address(7)], false);
        targets.hint(TargetKey::Address(address(8)), [address(8)], false);
        targets.hint(TargetKey::Device(device(2)), [address(9)], false);
        targets.met(device(1), address(8));
        targets.refused(device(1), address(8), "it shares no folder with this device");
        targets.refused(device(2), address(9), "it shares no folder with this device");
        assert!(targets.next(|_| false).is_err(), "all are left alone for a while");
        assert_eq!(targets.forget_device(device(1)), 1);
        assert_eq!(targets.sightings().keys().copied().collect::<Vec<_>>(), [device(2)]);
        let (key, ..) = targets.next(|_| false).expect("the address that was written down is due at once");
        assert_eq!(key, TargetKey::Address(address(8)));
        assert!(targets.next(|_| false).is_err(), "the other is still left alone");
        assert_eq!(targets.forget_device(device(1)), 0, "twice is once");
    }

    #[test]
    fn another_device_at_a_known_address_changes_nothing() {
        let targets = Targets::default();
        targets.hint(TargetKey::Device(device(1)), [address(7)], false);
        targets.refused(device(2), address(7), "it shares no folder with this device");
        targets.met(device(2), address(7));
        let (key, addresses, expected) = targets.next(|_| false).expect("it is still due");
        assert_eq!((key, addresses, expected), (TargetKey::Device(device(1)), vec![address(7)], Some(device(1))));
    }
}
