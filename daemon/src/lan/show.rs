//! What people are shown of the LAN, and the addresses that this device tells the relay.

use super::dial::{Found, Sighting};
use super::hub::Hub;
use super::{LanState, Link};
use ferry_protocol::name::display_bytes;
use ferry_protocol::{DeviceId, NamespaceId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

/// Addresses that are told the relay at most.
const ADDRESSES_MAX: usize = 32;

/// A device that shares a folder with this one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerDoc {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// `connected`, `unreachable` (an address is known) or `searching` (none is).
    pub state: &'static str,
    /// Where it is connected, or where it was looked for.
    pub address: Option<String>,
    /// All addresses at which it may be, as far as they are known.
    pub addresses: BTreeSet<String>,
    /// The path: always `lan`.
    pub via: &'static str,
    /// How it was found.
    pub found: BTreeSet<Found>,
    /// Why it is not connected.
    pub reason: Option<String>,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Bytes received from it since it connected.
    pub in_bytes: u64,
    /// Bytes sent to it since it connected.
    pub out_bytes: u64,
    /// Bytes per second received from it lately.
    pub in_bytes_per_s: u64,
    /// Bytes per second sent to it lately.
    pub out_bytes_per_s: u64,
    /// The folders that both sync now.
    pub folders: Vec<NamespaceId>,
}

impl Hub {
    /// Forgets where a device was and what was found out about it, and ends the connection with it: it is looked for anew. Its grants stay. How many
    /// addresses went, and whether it was connected.
    pub fn forget_peer(&self, device: DeviceId) -> (usize, bool) {
        let gone = self.targets.forget_device(device);
        let links: Vec<_> = self.links().into_iter().filter(|link| link.device == device).collect();
        links.iter().for_each(|link| link.close_normally());
        (gone, !links.is_empty())
    }

    /// The devices that share a folder with this one, connected or not, by name.
    pub fn peers(&self, state: &LanState, enabled: bool) -> Vec<PeerDoc> {
        let now_ms = self.now_ms();
        let names: BTreeMap<DeviceId, String> = {
            let book = self.book();
            let live = book.all().filter(|(_, grant)| grant.is_live(now_ms));
            live.flat_map(|(_, grant)| &grant.members).map(|m| (m.device, m.name.clone())).collect()
        };
        let sightings = self.targets.sightings();
        let others = names.into_iter().filter(|(device, _)| *device != self.own());
        let mut peers: Vec<PeerDoc> = others
            .map(|(device, name)| {
                let sighting = sightings.get(&device).cloned().unwrap_or_default();
                match self.link(device) {
                    Some(link) => connected(&link, name, sighting),
                    None => missing(device, name, sighting, state, enabled),
                }
            })
            .collect();
        peers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        peers
    }
}

fn connected(link: &Link, name: String, mut sighting: Sighting) -> PeerDoc {
    if sighting.found.is_empty() {
        sighting.found.insert(Found::Incoming);
    }
    let address = shown(link.connection.remote_address());
    PeerDoc {
        id: link.device,
        name: display_bytes(name.as_bytes()).to_string(),
        state: "connected",
        addresses: sighting.addresses.iter().map(|a| shown(*a)).chain([address.clone()]).collect(),
        address: Some(address),
        via: "lan",
        found: sighting.found,
        reason: None,
        rtt_ms: Some(link.connection.rtt().as_secs_f64() * 1000.0),
        in_bytes: link.in_bytes.load(Relaxed),
        out_bytes: link.out_bytes.load(Relaxed),
        in_bytes_per_s: link.rates()[0],
        out_bytes_per_s: link.rates()[1],
        folders: link.folders().keys().copied().collect(),
    }
}

fn shown(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

fn missing(device: DeviceId, name: String, sighting: Sighting, state: &LanState, enabled: bool) -> PeerDoc {
    let known = !sighting.addresses.is_empty();
    let reason = match (&state.problem, &sighting.error) {
        _ if !enabled => "the LAN is turned off here; turn it on with: ferry config set lan.enabled true".to_owned(),
        (Some(problem), _) => problem.clone(),
        (None, Some(error)) => error.clone(),
        (None, None) if sighting.trying => "it is being tried".to_owned(),
        (None, None) if known => "it has not answered yet".to_owned(),
        (None, None) => "no address of it is known: it is off, on another network, or its LAN is turned off".to_owned(),
    };
    PeerDoc {
        id: device,
        name: display_bytes(name.as_bytes()).to_string(),
        state: if known { "unreachable" } else { "searching" },
        address: sighting.addresses.first().map(ToString::to_string),
        addresses: sighting.addresses.iter().map(|a| shown(*a)).collect(),
        via: "lan",
        found: sighting.found,
        reason: Some(reason),
        rtt_ms: None,
        in_bytes: 0,
        out_bytes: 0,
        in_bytes_per_s: 0,
        out_bytes_per_s: 0,
        folders: Vec::new(),
    }
}

/// The addresses under which others on the same networks may reach this device. Loopback only where there is nothing else.
pub fn addresses_here(listen: SocketAddr, port: u16) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![SocketAddr::new(listen.ip(), port)];
    }
    let all: Vec<IpAddr> = if_addrs::get_if_addrs().map(|all| all.into_iter().map(|i| i.ip()).collect()).unwrap_or_default();
    let wanted = |ip: &&IpAddr| match ip {
        IpAddr::V4(_) => true,
        // Without its interface a link-local address says nothing to others.
        IpAddr::V6(v6) => listen.is_ipv6() && !v6.is_unicast_link_local(),
    };
    let (loopback, mut ips): (Vec<IpAddr>, Vec<IpAddr>) = all.iter().filter(wanted).partition(|ip| ip.is_loopback());
    if ips.is_empty() {
        ips = loopback;
    }
    ips.into_iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, port)).collect()
}
