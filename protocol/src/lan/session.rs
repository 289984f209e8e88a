//! One connection between two devices: what may be said and heard, and when. No clock, no sockets: times and messages come in, [`Output`]s go out.
//!
//! ```text
//!  known here ---- Hello, Grant*, Ready ---->  (nothing is said to a device that is not known)
//!             <--- Hello, Grant*, Ready ----   (the other side may know more: its grants count if the relay signed them)
//!  then, of each namespace in which both take part: Open, Subscribe, Heard, Have, Got, Offer; Close
//! ```

use super::book::{GrantBook, Offered};
use super::message::{FeedCursor, Message, Piece};
use super::{VERSION, chunks::ChunkAsk};
use crate::id::{ChunkId, ContentHash, DeviceId, Epoch, NamespaceId, ReplicaId};
use crate::limits::LAN_NAMESPACES_MAX;
use crate::wire::Role;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A folder as its device tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Under which id its index writes.
    pub replica: ReplicaId,
    /// The present run of its feed.
    pub run: Epoch,
    /// Whether it reaches a relay and brings there what it tells others.
    pub relays: bool,
}

/// What follows from what came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To be sent on the control stream, in this order.
    Send(Message),
    /// The peer is one of ours, and this is its name.
    Greeted {
        /// For people; from the peer, so to be shown escaped.
        name: String,
    },
    /// A grant was learned from the peer: tell the other connections, keep it.
    Learned(NamespaceId),
    /// Both sync this namespace now, or the peer opened it anew.
    Opened {
        /// Which.
        namespace: NamespaceId,
        /// What the peer may do in it.
        role: Role,
        /// The peer's side.
        folder: Opened,
    },
    /// That has ended.
    Closed {
        /// Which.
        namespace: NamespaceId,
    },
    /// Whether the peer reaches a relay has changed.
    Relays {
        /// For which namespace.
        namespace: NamespaceId,
        /// Now.
        relays: bool,
    },
    /// The peer wants our feed.
    Subscribed {
        /// Of which namespace.
        namespace: NamespaceId,
        /// From where.
        cursor: Option<FeedCursor>,
    },
    /// The peer has taken in our feed so far.
    Heard {
        /// Of which namespace.
        namespace: NamespaceId,
        /// How far.
        cursor: FeedCursor,
    },
    /// The peer has got these contents whole.
    Have {
        /// In which namespace.
        namespace: NamespaceId,
        /// Which.
        contents: Vec<ContentHash>,
    },
    /// The peer has got these chunks from the relay.
    Got {
        /// In which namespace.
        namespace: NamespaceId,
        /// Which.
        chunks: Vec<ChunkId>,
    },
    /// The peer reads a new file.
    Offered {
        /// In which namespace.
        namespace: NamespaceId,
        /// Its number for the file.
        file: u64,
        /// Chunks that can be fetched already.
        pieces: Vec<Piece>,
    },
    /// That file was read to its end, or not.
    OfferEnded {
        /// In which namespace.
        namespace: NamespaceId,
        /// Its number for the file.
        file: u64,
        /// What it is.
        content: Option<ContentHash>,
    },
    /// The connection ends; nothing follows.
    End(End),
}

/// Why a connection ends. The number goes to the peer, the sentence to our own log and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// No valid grant that is known here lists both devices.
    #[error("it shares no folder with this device")]
    Stranger,
    /// The versions do not overlap.
    #[error("it speaks another version of the protocol: upgrade the older one")]
    Version,
    /// A message that may not come now, or not at all.
    #[error("it broke the protocol")]
    Broken,
}

impl End {
    /// The number under which the peer hears of it.
    pub fn code(self) -> u32 {
        match self {
            Self::Stranger => 1,
            Self::Version => 2,
            Self::Broken => 3,
        }
    }
}

/// The thinking of one connection.
#[derive(Debug)]
pub struct Session {
    own: DeviceId,
    peer: DeviceId,
    own_name: String,
    /// Whether we have said Hello.
    greeted: bool,
    /// Whether the peer has said Hello, and Ready.
    heard_hello: bool,
    heard_ready: bool,
    ended: bool,
    /// The newest grant of each namespace that the peer knows from us or we from it: (epoch, time of issue).
    told: BTreeMap<NamespaceId, (u64, i64)>,
    ours: BTreeMap<NamespaceId, Opened>,
    theirs: BTreeMap<NamespaceId, Opened>,
    /// Namespaces that were opened towards the driver.
    open: BTreeMap<NamespaceId, Role>,
    /// Namespaces of which we have said Open.
    said: BTreeSet<NamespaceId>,
    out: VecDeque<Output>,
}

impl Session {
    /// A connection with a device whose id TLS has proved.
    pub fn new(own: DeviceId, own_name: &str, peer: DeviceId) -> Self {
        Self {
            own,
            peer,
            own_name: own_name.to_owned(),
            greeted: false,
            heard_hello: false,
            heard_ready: false,
            ended: false,
            told: BTreeMap::new(),
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            open: BTreeMap::new(),
            said: BTreeSet::new(),
            out: VecDeque::new(),
        }
    }

    /// What follows, in order.
    pub fn take(&mut self) -> Vec<Output> {
        self.out.drain(..).collect()
    }

    /// Whether the peer is known to be one of ours.
    pub fn is_greeted(&self) -> bool {
        self.heard_ready && self.greeted
    }

    /// The folders of this device that it syncs now: at the beginning, and whenever that changes.
    pub fn set_folders(&mut self, book: &GrantBook, now_ms: i64, folders: BTreeMap<NamespaceId, Opened>) {
        if self.ended {
            return;
        }
        let before = std::mem::replace(&mut self.ours, folders);
        let gone: Vec<NamespaceId> = self.said.iter().filter(|n| !self.ours.contains_key(n)).copied().collect();
        for namespace in gone {
            self.said.remove(&namespace);
            self.send(Message::Close { namespace });
            self.close(namespace);
        }
        for (namespace, now) in self.ours.clone() {
            match before.get(&namespace) {
                Some(old) if (old.replica, old.run) != (now.replica, now.run) => drop(self.said.remove(&namespace)),
                Some(old)
                    if old.relays != now.relays && self.said.contains(&namespace) && self.takes_part(book, now_ms, namespace).is_some() =>
                {
                    self.send(Message::Relays { namespace, relays: now.relays });
                }
                _ => {}
            }
        }
        self.advance(book, now_ms);
    }

    /// The grants changed, or time went on: says what is new, closes what has ended. Call it at least whenever a grant expires.
    pub fn advance(&mut self, book: &GrantBook, now_ms: i64) {
        if self.ended {
            return;
        }
        let shared: BTreeSet<NamespaceId> = book.shared(self.own, self.peer, now_ms).into_iter().collect();
        if shared.is_empty() {
            // Before the peer could show what it has, nothing is known of it; afterwards it is a stranger.
            if self.greeted || self.heard_ready {
                self.end(End::Stranger);
            }
            return;
        }
        if !self.greeted {
            self.greeted = true;
            self.send(Message::Hello { min: VERSION, max: VERSION });
            self.tell_grants(book, &shared);
            let name = self.own_name.clone();
            self.send(Message::Ready { name });
        } else {
            self.tell_grants(book, &shared);
        }
        let lost: Vec<NamespaceId> = self.said.iter().chain(self.open.keys()).filter(|n| !shared.contains(n)).copied().collect();
        for namespace in lost {
            self.said.remove(&namespace);
            self.theirs.remove(&namespace);
            self.close(namespace);
        }
        if !self.is_greeted() {
            return;
        }
        for namespace in shared {
            let Some(ours) = self.ours.get(&namespace).copied() else { continue };
            if self.said.insert(namespace) {
                self.send(Message::Open { namespace, replica: ours.replica, run: ours.run, relays: ours.relays });
            }
            self.meet(book, now_ms, namespace);
        }
    }

    /// Takes in a message. After [`Output::End`] nothing is taken in.
    pub fn handle(&mut self, book: &mut GrantBook, now_ms: i64, message: Message) {
        if self.ended {
            return;
        }
        match message {
            Message::Hello { min, max } if !self.heard_hello => {
                self.heard_hello = true;
                if min > VERSION || max < VERSION {
                    self.end(End::Version);
                }
            }
            _ if !self.heard_hello => self.end(End::Broken),
            Message::Hello { .. } => self.end(End::Broken),
            Message::Grant(signed) => match book.offer(self.own, &signed) {
                Offered::Learned(namespace) => {
                    self.note_told(book, namespace);
                    self.out.push_back(Output::Learned(namespace));
                    self.advance(book, now_ms);
                }
                Offered::Known(namespace) => self.tell_if_newer(book, namespace, now_ms),
                // Of another relay, or of a namespace that is not ours: nothing to do with us.
                Offered::Refused => {}
            },
            Message::Ready { name } if !self.heard_ready => {
                self.heard_ready = true;
                self.advance(book, now_ms);
                if !self.ended {
                    self.out.push_back(Output::Greeted { name });
                    self.advance(book, now_ms);
                }
            }
            _ if !self.is_greeted() => self.end(End::Broken),
            message => self.handle_folder(book, now_ms, message),
        }
    }

    /// Whether the peer may be answered a request for chunks now (L2).
    pub fn may_answer(&self, book: &GrantBook, now_ms: i64, ask: &ChunkAsk) -> bool {
        self.is_greeted() && self.ours.contains_key(&ask.namespace) && self.takes_part(book, now_ms, ask.namespace).is_some()
    }

    /// Whether a page of the peer's feed may be heard now (L2, L3).
    pub fn may_hear(&self, book: &GrantBook, now_ms: i64, namespace: NamespaceId) -> bool {
        self.open.contains_key(&namespace) && self.takes_part(book, now_ms, namespace).is_some_and(|role| role >= Role::Editor)
    }

    fn handle_folder(&mut self, book: &GrantBook, now_ms: i64, message: Message) {
        let Some(namespace) = message.namespace() else { return self.end(End::Broken) };
        // It may have lost its place while this was on its way: the same as a namespace that does not exist (L2).
        if self.takes_part(book, now_ms, namespace).is_none() {
            return;
        }
        match message {
            Message::Open { replica, run, relays, .. } => {
                if !self.theirs.contains_key(&namespace) && self.theirs.len() >= LAN_NAMESPACES_MAX {
                    return self.end(End::Broken);
                }
                self.theirs.insert(namespace, Opened { replica, run, relays });
                self.open.remove(&namespace);
                return self.meet(book, now_ms, namespace);
            }
            Message::Close { .. } => {
                self.theirs.remove(&namespace);
                return self.close(namespace);
            }
            _ => {}
        }
        if !self.open.contains_key(&namespace) {
            return;
        }
        let output = match message {
            Message::Relays { relays, .. } => {
                if let Some(theirs) = self.theirs.get_mut(&namespace) {
                    theirs.relays = relays;
                }
                Output::Relays { namespace, relays }
            }
            Message::Subscribe { cursor, .. } => Output::Subscribed { namespace, cursor },
            Message::Heard { cursor, .. } => Output::Heard { namespace, cursor },
            Message::Have { contents, .. } => Output::Have { namespace, contents },
            Message::Got { chunks, .. } => Output::Got { namespace, chunks },
            Message::Offer { file, pieces, .. } => Output::Offered { namespace, file, pieces },
            Message::OfferEnd { file, content, .. } => Output::OfferEnded { namespace, file, content },
            _ => return,
        };
        self.out.push_back(output);
    }

    /// What the peer may do in a namespace in which both take part.
    fn takes_part(&self, book: &GrantBook, now_ms: i64, namespace: NamespaceId) -> Option<Role> {
        book.role(namespace, self.own, now_ms)?;
        book.role(namespace, self.peer, now_ms)
    }

    /// Opens a namespace towards the driver when both sides have.
    fn meet(&mut self, book: &GrantBook, now_ms: i64, namespace: NamespaceId) {
        let (Some(role), Some(folder)) = (self.takes_part(book, now_ms, namespace), self.theirs.get(&namespace).copied()) else { return };
        // Anew when the peer may do more or less than before.
        if self.said.contains(&namespace) && self.open.insert(namespace, role) != Some(role) {
            self.out.push_back(Output::Opened { namespace, role, folder });
        }
    }

    fn close(&mut self, namespace: NamespaceId) {
        if self.open.remove(&namespace).is_some() {
            self.out.push_back(Output::Closed { namespace });
        }
    }

    fn tell_grants(&mut self, book: &GrantBook, shared: &BTreeSet<NamespaceId>) {
        for namespace in shared {
            self.tell_grant(book, *namespace);
        }
    }

    fn tell_grant(&mut self, book: &GrantBook, namespace: NamespaceId) {
        let Some((signed, grant)) = book.get(namespace) else { return };
        let version = (grant.epoch, grant.issued_ms);
        if self.told.get(&namespace).is_none_or(|told| *told < version) {
            self.told.insert(namespace, version);
            self.send(Message::Grant(signed.clone()));
        }
    }

    /// The peer showed an older grant than ours: it gets ours, if it is listed in it.
    fn tell_if_newer(&mut self, book: &GrantBook, namespace: NamespaceId, now_ms: i64) {
        if self.greeted && self.takes_part(book, now_ms, namespace).is_some() {
            self.tell_grant(book, namespace);
        }
    }

    fn note_told(&mut self, book: &GrantBook, namespace: NamespaceId) {
        if let Some((_, grant)) = book.get(namespace) {
            self.told.insert(namespace, (grant.epoch, grant.issued_ms));
        }
    }

    fn send(&mut self, message: Message) {
        self.out.push_back(Output::Send(message));
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        for namespace in std::mem::take(&mut self.open).into_keys() {
            self.out.push_back(Output::Closed { namespace });
        }
        self.out.push_back(Output::End(end));
    }
}
