//! What the LAN adds to a run: pages of peers' feeds that are lost, late, twice and in another order; links that come and go; a relay that is
//! away for long, and comes back as it was, older, or empty.

use super::{Fault, LanKind, World};
use crate::sim::lan::Sent;
use crate::sim::relay::SimRelay;
use ferry_protocol::read::{self, States};
use ferry_protocol::{ChunkId, Content};
use std::collections::BTreeSet;

impl World {
    /// Something happens between a device and another.
    pub(super) fn lan_step(&mut self, to: usize) {
        let count = self.calm.devices.len();
        let from = (to + 1 + self.rng.below(count - 1)) % count;
        match self.rng.below(16) {
            0..6 => {
                let limit = 1 + self.rng.below(4);
                let sent = self.calm.ask_peer(from, to, limit);
                self.calm.lan.pages.extend(sent);
                if self.calm.lan.pages.len() > 16 {
                    self.calm.lan.pages.remove(0);
                }
            }
            6..15 => self.page_arrives(),
            _ if self.rng.percent(40) && self.options.faults.contains(&Fault::RelayOff) => {
                let off = self.rng.percent(60);
                self.relay_off(off);
            }
            _ if self.options.lan == LanKind::Flapping => {
                let up = self.rng.percent(50);
                self.calm.lan.set(from, to, up);
                self.calm.devices[to].note(format!("hears D{from}: {up}"));
                self.calm.notice_peers();
            }
            _ => {}
        }
    }

    /// One of the pages on their way arrives; it may come again, or never.
    fn page_arrives(&mut self) {
        if self.calm.lan.pages.is_empty() {
            return;
        }
        let at = self.rng.below(self.calm.lan.pages.len());
        let twice = self.rng.percent(10);
        let sent = if twice { self.calm.lan.pages[at].clone() } else { self.calm.lan.pages.remove(at) };
        if self.rng.percent(10) || !self.calm.lan.arrives(sent.from, sent.to) {
            self.calm.devices[sent.to].note(format!("loses a page of D{}", sent.from));
            return;
        }
        let may_count_as_heard = !self.calm.reaches_relay(sent.to) || self.rng.percent(50);
        self.calm.notice_peers();
        // A page of a connection that has ended is not of somebody who brings it to the relay.
        let carries = sent.carries && self.calm.is_carrier(&sent);
        self.calm.devices[sent.to].hear_peer(&Sent { carries, ..sent }, may_count_as_heard);
    }

    /// A fetch is answered by peers, which may leave in the middle, and by the relay. Without either it waits.
    pub(super) fn fetch_from_peers(&mut self, who: usize) -> bool {
        let leave_after = if self.rng.percent(30) { self.rng.below(3) } else { usize::MAX };
        let chunks = self.calm.chunks_of_peers(who, leave_after);
        if chunks.is_empty() && !self.calm.reaches_relay(who) && self.rng.percent(50) {
            return false;
        }
        self.calm.answer_fetch(who, &chunks)
    }

    /// Nobody reaches the relay, or everybody does again. Before it comes back, the devices may have had time to become equal.
    pub(super) fn relay_off(&mut self, off: bool) {
        if self.calm.relay_on && off {
            self.calm.relay_on = false;
            self.calm.devices[0].note("RELAY OFF");
        } else if !self.calm.relay_on && !off {
            if self.rng.percent(80) {
                self.calm_without_relay();
            }
            self.calm.relay_on = true;
            self.calm.devices[0].note("RELAY ON");
        }
    }

    pub(super) fn relay_replaced(&mut self) {
        if self.rng.percent(30) {
            self.calm.devices[0].note("RELAY REPLACED");
            self.keeping_last_copies(|world| world.calm.relay.restore(&SimRelay::default()));
        }
    }

    /// Faults end, all hear all, but there is no relay: the devices become equal among themselves, if nothing they need is at the relay only.
    fn calm_without_relay(&mut self) {
        self.heal();
        self.calm.lan.connect_all(self.calm.devices.len());
        if !self.calm.devices.iter().any(|d| d.engine.meta().heard) {
            return;
        }
        self.settle();
        if self.wanted_chunks().is_subset(&self.chunks_on_disks()) {
            self.check();
            self.calm.devices[0].note("EQUAL WITHOUT A RELAY");
        }
    }

    /// Chunks of everything that all states together show.
    fn wanted_chunks(&self) -> BTreeSet<ChunkId> {
        let mut all = States::new();
        for (id, state) in self.calm.devices.iter().flat_map(|d| d.engine.trees().states()) {
            all.entry(id).and_modify(|known| _ = known.join(&state)).or_insert(state);
        }
        let shown = read::resolve(&all).into_values();
        let chunks = shown.filter_map(|e| match e.content {
            Content::File(file) => Some(file.manifest.chunks().to_vec()),
            _ => None,
        });
        chunks.flatten().map(|c| c.id).collect()
    }

    fn chunks_on_disks(&self) -> BTreeSet<ChunkId> {
        let contents = self.calm.devices.iter().flat_map(|d| super::user::contents(&d.disk));
        contents.flat_map(|bytes| bytes.chunks(super::CHUNK_BYTES).map(ChunkId::of).collect::<Vec<_>>()).collect()
    }

    /// How the LAN is in the last phase: there, or gone, so that the relay alone must do.
    pub(super) fn end_of_lan(&mut self) {
        if self.options.lan == LanKind::Off {
            return;
        }
        if !self.calm.relay_on && self.rng.percent(80) {
            self.calm_without_relay();
        }
        self.calm.relay_on = true;
        if self.rng.percent(50) {
            self.calm.lan.cut_all();
        } else {
            self.calm.lan.connect_all(self.calm.devices.len());
        }
        self.calm.notice_peers();
    }

    /// With a LAN too the relay has everything in the end.
    pub(super) fn check_relay(&self) {
        if self.options.lan == LanKind::Off {
            return;
        }
        let relay = self.calm.relay.states();
        for device in &self.calm.devices {
            for (id, state) in device.engine.trees().states() {
                assert!(relay.get(&id).is_some_and(|known| known.includes(&state)), "the relay lacks what {} knows of {id}", device.name);
            }
        }
    }
}
