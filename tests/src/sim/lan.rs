//! The LAN of the simulated world: links between devices, pages of their feeds on the way, and chunks from their disks.

use crate::sim::calm::Calm;
use crate::sim::device::{Device, Step};
use crate::sim::disk::CHUNK_BYTES;
use ferry_engine::OwnPage;
use ferry_protocol::{ChunkId, Epoch, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Links, and what is on its way over them.
#[derive(Debug, Default)]
pub struct Lan {
    /// Directions in which something arrives: from, to.
    up: BTreeSet<(usize, usize)>,
    /// Pages on their way.
    pub pages: Vec<Sent>,
    /// As what each device was known to the others when that was last looked at: who it was, and whether it had a working relay.
    known: BTreeMap<usize, (ReplicaId, bool)>,
}

/// A page on its way.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Whose feed it is of.
    pub from: usize,
    /// Who asked for it.
    pub to: usize,
    /// Whether the sender had a working relay.
    pub carries: bool,
    /// The page.
    pub page: OwnPage,
}

impl Lan {
    /// Makes or cuts one direction of a link.
    pub fn set(&mut self, from: usize, to: usize, up: bool) {
        if up {
            self.up.insert((from, to));
        } else {
            self.up.remove(&(from, to));
        }
    }

    /// Connects two devices.
    pub fn connect(&mut self, a: usize, b: usize) {
        self.set(a, b, true);
        self.set(b, a, true);
    }

    /// Connects so many devices, each with each.
    pub fn connect_all(&mut self, count: usize) {
        (0..count).for_each(|a| (0..a).for_each(|b| self.connect(a, b)));
    }

    /// Cuts all links.
    pub fn cut_all(&mut self) {
        self.up.clear();
    }

    /// Whether something arrives in this direction.
    pub fn arrives(&self, from: usize, to: usize) -> bool {
        self.up.contains(&(from, to))
    }

    /// Whether two devices have a connection: what is asked arrives, and its answer.
    pub fn connected(&self, a: usize, b: usize) -> bool {
        self.arrives(a, b) && self.arrives(b, a)
    }

    /// Whether there is a LAN.
    pub fn has_links(&self) -> bool {
        !self.up.is_empty()
    }
}

impl Device {
    /// A page of this device's feed for a reader at this cursor. Everything in it is durable before it leaves (P16).
    pub fn serve_page(&mut self, cursor: Option<(Epoch, u64)>, limit: usize) -> Option<OwnPage> {
        let page = self.engine.feed_page(cursor, limit).expect("trees in memory")?;
        self.durable = self.engine.trees().clone();
        Some(page)
    }

    /// Takes in a page of a peer. Whether anything was new.
    pub fn hear_peer(&mut self, sent: &Sent, may_count_as_heard: bool) -> bool {
        let (page, before) = (&sent.page, self.engine.meta().heard);
        let result = self.engine.handle_peer_page(&page.page, page.since, sent.carries, may_count_as_heard);
        let nodes: Vec<_> = page.page.nodes.iter().map(|u| u.id).collect();
        self.note(format!("hear D{} after {:?} to {}: {nodes:?} -> {result:?}", sent.from, page.since, page.page.cursor));
        let new_life = result.is_err();
        let heard = self.take_heard(result);
        if self.engine.meta().heard && !before {
            self.engine.rescan();
        }
        new_life || heard.changed > 0 || self.engine.meta().heard != before
    }

    /// The bytes of chunks, read from where the engine says that they stand; what is no longer there as it was is left out.
    pub fn serve_chunks(&self, ids: &[ChunkId]) -> BTreeMap<ChunkId, Vec<u8>> {
        let places = self.engine.chunk_places(ids).expect("trees in memory");
        let read = |place: &ferry_engine::ChunkPlace| {
            let bytes = self.disk.stat(&place.path).filter(|s| s.same_version(&place.stat)).and_then(|_| self.disk.read(&place.path))?;
            let bytes = bytes.get(place.offset as usize..place.offset as usize + place.chunk.len as usize)?.to_vec();
            (ChunkId::of(&bytes) == place.chunk.id).then_some((place.chunk.id, bytes))
        };
        places.iter().flatten().filter_map(read).collect()
    }
}

impl Calm {
    /// Whether a device reaches the relay.
    pub fn reaches_relay(&self, index: usize) -> bool {
        self.relay_on && !self.no_relay.contains(&index)
    }

    /// One step of a device, with the relay and the peers that it reaches. Whether anything was there to do.
    pub fn step(&mut self, index: usize, step: Step) -> bool {
        let reaches = self.reaches_relay(index);
        self.devices[index].engine.set_relay_near(reaches);
        match step {
            Step::Hear | Step::TakeCommit | Step::SendCommit if !reaches => false,
            Step::AnswerFetch if !reaches || self.lan.has_links() => {
                let chunks = self.chunks_of_peers(index, usize::MAX);
                self.answer_fetch(index, &chunks)
            }
            Step::Act if self.keeps_trash => {
                let known = self.devices[index].disk.trash.len();
                let done = self.devices[index].step(step, &mut self.relay);
                for bytes in self.devices[index].disk.trash.iter().skip(known) {
                    bytes.chunks(CHUNK_BYTES).for_each(|chunk| self.relay.upload(chunk));
                }
                done
            }
            step => self.devices[index].step(step, &mut self.relay),
        }
    }

    /// Answers a fetch with these chunks of peers and the relay.
    pub fn answer_fetch(&mut self, index: usize, chunks: &BTreeMap<ChunkId, Vec<u8>>) -> bool {
        let relay = self.reaches_relay(index).then_some(&self.relay);
        self.devices[index].answer_fetch(relay, chunks)
    }

    /// What the peers of a device have of the content that it fetches next; each leaves after so many chunks.
    pub fn chunks_of_peers(&self, index: usize, leave_after: usize) -> BTreeMap<ChunkId, Vec<u8>> {
        let ids: Vec<ChunkId> = self.devices[index].wanted().iter().flat_map(|m| m.chunks()).map(|c| c.id).collect();
        let peers = (0..self.devices.len()).filter(|peer| *peer != index && self.lan.connected(index, *peer));
        peers.flat_map(|peer| self.devices[peer].serve_chunks(&ids).into_iter().take(leave_after)).collect()
    }

    /// A device asks a peer for a page of its feed.
    pub fn ask_peer(&mut self, from: usize, to: usize, limit: usize) -> Option<Sent> {
        self.notice_peers();
        if !self.lan.connected(from, to) {
            return None;
        }
        let cursor = self.devices[to].engine.peer_cursor(self.devices[from].engine.meta().replica).expect("trees in memory");
        let carries = self.reaches_relay(from);
        let page = self.devices[from].serve_page(cursor, limit)?;
        Some(Sent { from, to, carries, page })
    }

    /// Whether the sender of a page is still connected, the same, and has a working relay.
    pub fn is_carrier(&self, sent: &Sent) -> bool {
        let same = self.devices[sent.from].engine.meta().replica == sent.page.page.replica;
        same && self.lan.connected(sent.from, sent.to) && self.reaches_relay(sent.from)
    }

    /// Reads the feeds of all peers to their ends. Whether anything was new.
    pub fn hear_peers(&mut self, index: usize) -> bool {
        let mut any = false;
        for from in (0..self.devices.len()).filter(|from| *from != index) {
            for turn in 0.. {
                assert!(turn < 10_000, "the feed of D{from} never ends");
                let Some(sent) = self.ask_peer(from, index, 3) else { break };
                let (run, end) = (sent.page.page.epoch, sent.page.page.head);
                any |= self.devices[index].hear_peer(&sent, true);
                if self.devices[index].engine.peer_cursor(sent.page.page.replica) == Ok(Some((run, end))) {
                    break;
                }
            }
        }
        any
    }

    /// Devices notice that peers left, came back as somebody else, or lost their relay: those bring nothing to the relay any more.
    pub fn notice_peers(&mut self) {
        for index in 0..self.devices.len() {
            let now = (self.devices[index].engine.meta().replica, self.reaches_relay(index));
            let before = self.lan.known.insert(index, now).unwrap_or(now);
            for peer in (0..self.devices.len()).filter(|peer| *peer != index) {
                if before != now || !now.1 || !self.lan.connected(index, peer) {
                    self.devices[peer].engine.drop_carrier(before.0);
                }
            }
        }
    }

    /// Whether a device has nothing more to do with what it reaches. While deletes are held it may be unable to send what it no longer has.
    pub fn rests(&self, index: usize) -> bool {
        let device = &self.devices[index];
        let held = device.engine.held_deletes().is_some();
        if self.reaches_relay(index) && !held { device.is_idle() } else { device.is_settled() }
    }

    /// Whether only a peer has something to do: it brings the relay what this device may not have to send.
    pub fn waits_for_a_carrier(&self, index: usize) -> bool {
        let engine = &self.devices[index].engine;
        self.devices[index].is_settled() && engine.carried() > 0
    }

    /// Lets the time pass after which nobody waits for a peer any more.
    pub fn wait_for_carriers(&mut self) {
        self.notice_peers();
        let waiting = (0..self.devices.len()).filter(|index| self.waits_for_a_carrier(*index));
        if let Some(due) = waiting.filter_map(|index| self.devices[index].engine.deadline_ms()).min() {
            self.now_ms = self.now_ms.max(due);
        }
    }
}
