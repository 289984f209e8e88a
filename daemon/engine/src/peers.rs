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
    /// The states of every page are joined. The cursor moves only if the page leaves no gap ([`Heard::follows`]); pages that come late, twice or
    /// in another order skip nothing (I8, I11).
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
        self.check_page(page)?;
        let group = carries.then(|| self.publishing.carried.begin(page.replica, self.now_ms));
        let mut heard = Heard::default();
        for update in &page.nodes {
            heard.changed += usize::from(self.hear_node(update.id, &update.state, Teller::Peer(group))?);
        }
        if let Some(group) = group {
            self.publishing.carried.end(group);
        }
        heard.follows = self.move_peer_cursor(page, since)?;
        if heard.follows && !page.has_more && may_count_as_heard {
            self.trees.meta_mut().heard = true;
        }
        Ok(heard)
    }

    /// Moves the cursor over a page. Whether it left no gap.
    fn move_peer_cursor(&mut self, page: &FeedPage, since: Option<(Epoch, u64)>) -> Result<bool> {
        let known = self.trees.peer_cursor(page.replica)?;
        let follows = match (since, known) {
            (None, _) => true,
            (Some((run, seq)), Some(known)) => run == known.run && seq <= known.seq && (page.epoch == run || known.at_end),
            (Some(_), None) => false,
        };
        if !follows && !self.planted(Planted::PeerCursorSkips) {
            // In the middle of a feed that went on in another run: see `PeerCursor::at_end`.
            if let (Some((run, _)), Some(known)) = (since, known)
                && run == known.run
                && page.epoch != run
            {
                self.trees.set_peer_cursor(page.replica, None)?;
            }
            return Ok(false);
        }
        let read = PeerCursor { run: page.epoch, seq: page.cursor, at_end: !page.has_more };
        let next = match known {
            // A page that comes late or twice moves nothing back.
            Some(known) if known.run == read.run && known.seq > read.seq => known,
            Some(known) if known.run == read.run && known.seq == read.seq => PeerCursor { at_end: known.at_end || read.at_end, ..read },
            _ => read,
        };
        if known != Some(next) {
            self.trees.set_peer_cursor(page.replica, Some(next))?;
        }
        Ok(follows)
    }
}
