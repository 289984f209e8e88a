//! Taking in the feed of another device: the same states as the relay's, joined by the same law. What it told us the relay may lack.

use crate::engine::Engine;
use crate::hear::{HearError, Heard, Teller};
use crate::policy::Planted;
use crate::trees::{PeerCursor, Result, Trees};
use ferry_protocol::wire::FeedPage;
use ferry_protocol::{Epoch, ReplicaId};

impl<T: Trees> Engine<T> {
    /// From where the feed of this replica is to be read: the run and the newest number that was read; nothing for its start.
    pub fn peer_cursor(&self, replica: ReplicaId) -> Result<Option<(Epoch, u64)>> {
        Ok(self.trees.peer_cursor(replica)?.map(|c| (c.run, c.seq)))
    }

    /// Takes in a page of the feed of another device, whose user may write: the caller has checked that. `since` is where the page begins, as
    /// its sender says; nothing if that is the feed's start.
    ///
    /// A page that leaves a gap is not taken in ([`Heard::follows`]): it could tell of what stands in a directory that is still to come. So pages
    /// that come late, twice or in another order skip nothing (I8, I11).
    ///
    /// With `carries` the peer has a working relay and brings there what it told us; until [`Engine::drop_carrier`] or for a while we leave it
    /// to that peer. With `may_count_as_heard` the end of this feed is as good as the end of the relay's: what is on disk is compared with it
    /// (adoption), and then counts as new.
    pub fn handle_peer_page(
        &mut self,
        page: &FeedPage,
        since: Option<(Epoch, u64)>,
        carries: bool,
        may_count_as_heard: bool,
    ) -> std::result::Result<Heard, HearError> {
        let known = self.trees.peer_cursor(page.replica)?;
        if !follows(page, since, known) && !self.planted(Planted::PeerCursorSkips) {
            self.give_up_middle(page, since, known)?;
            return Ok(Heard::default());
        }
        self.check_page(page)?;
        let group = carries.then(|| self.publishing.carried.begin(page.replica, self.now_ms));
        let mut heard = Heard { changed: 0, follows: true };
        for update in &page.nodes {
            heard.changed += usize::from(self.hear_node(update.id, &update.state, Teller::Peer(group))?);
        }
        if let Some(group) = group {
            self.publishing.carried.end(group);
        }
        self.move_peer_cursor(page, known)?;
        self.trees.meta_mut().heard |= !page.has_more && may_count_as_heard;
        if !page.has_more {
            self.run.heard_peer();
        }
        Ok(heard)
    }

    fn move_peer_cursor(&mut self, page: &FeedPage, known: Option<PeerCursor>) -> Result<()> {
        let read = PeerCursor { run: page.epoch, seq: page.cursor, at_end: !page.has_more };
        let next = match known {
            // A page that comes late or twice moves nothing back.
            Some(known) if known.run == read.run && known.seq > read.seq => known,
            Some(known) if known.run == read.run && known.seq == read.seq => PeerCursor { at_end: known.at_end || read.at_end, ..read },
            _ => read,
        };
        if known == Some(next) { Ok(()) } else { self.trees.set_peer_cursor(page.replica, Some(next)) }
    }

    /// The middle of a feed is not carried over to another run ([`PeerCursor::at_end`]): it is read from its start.
    fn give_up_middle(&mut self, page: &FeedPage, since: Option<(Epoch, u64)>, known: Option<PeerCursor>) -> Result<()> {
        match (since, known) {
            (Some((run, _)), Some(known)) if run == known.run && run != page.epoch => self.trees.set_peer_cursor(page.replica, None),
            _ => Ok(()),
        }
    }
}

/// Whether a page leaves no gap behind what was read.
fn follows(page: &FeedPage, since: Option<(Epoch, u64)>, known: Option<PeerCursor>) -> bool {
    match (since, known) {
        (None, _) => true,
        (Some((run, seq)), Some(known)) => run == known.run && seq <= known.seq && (page.epoch == run || known.at_end),
        (Some(_), None) => false,
    }
}
