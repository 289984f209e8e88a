//! What nodes showed before they changed, and how far rewinds have come: the words for going back to a time.

use super::StoreError;
use super::content::NodeRow;
use ferry_protocol::{DeviceId, Dot, NodeId, ReplicaId, UserId};
use std::collections::BTreeSet;

/// What a node showed, as far as going back to it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Where it stood.
    pub parent: NodeId,
    /// Its name there.
    pub name: ferry_protocol::Name,
    /// What it was.
    pub kind: BeforeKind,
    /// Where the link pointed.
    pub link_target: Option<Vec<u8>>,
    /// The event that wrote the file's content.
    pub dot: Option<Dot>,
    /// The events whose values were shown beside it, as conflicted copies; `None` where that was not kept yet.
    pub copies: Option<Vec<Dot>>,
}

/// Bytes of one event in the database.
const DOT_BYTES: usize = 24;

/// The column of these events: one after the other.
pub fn dots_column(dots: &[Dot]) -> Vec<u8> {
    dots.iter().flat_map(|dot| [&dot.replica.as_bytes()[..], &dot.counter.to_be_bytes()].concat()).collect()
}

/// The events of that column.
pub fn dots_of_column(column: &[u8]) -> Result<Vec<Dot>, StoreError> {
    let (whole, rest) = column.as_chunks::<DOT_BYTES>();
    if !rest.is_empty() {
        return Err(StoreError::Corrupt(format!("{} bytes of events in the history", column.len())));
    }
    let dot = |bytes: &[u8; DOT_BYTES]| {
        let (mut replica, mut counter) = ([0; 16], [0; 8]);
        replica.copy_from_slice(&bytes[..16]);
        counter.copy_from_slice(&bytes[16..]);
        Dot { replica: ReplicaId::from_bytes(replica), counter: u64::from_be_bytes(counter) }
    };
    Ok(whole.iter().map(dot).collect())
}

/// What a node was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeforeKind {
    /// It showed nothing.
    Deleted,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A file.
    File,
}

impl BeforeKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::File => "file",
        }
    }

    /// From that word.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::Deleted, Self::Directory, Self::Symlink, Self::File]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| StoreError::Corrupt(format!("unknown kind '{text}' in the history")))
    }
}

/// One change of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// When the relay heard of it, in milliseconds since 1970.
    pub changed_at_ms: i64,
    /// Who made it, where that is known.
    pub changed_by: Option<DeviceId>,
    /// What was shown before it.
    pub before: Before,
}

/// Which changed nodes to read.
#[derive(Debug, Clone, Copy)]
pub struct ChangesQuery<'q> {
    /// Those of which the relay heard something after this time, in milliseconds since 1970.
    pub since_ms: i64,
    /// Whose changes are asked for; nothing for everybody's.
    pub by: Option<&'q BTreeSet<DeviceId>>,
    /// With a higher id than this.
    pub after: Option<NodeId>,
    /// At most so many.
    pub limit_nodes: usize,
    /// And about so many bytes of states, but at least one node if there is any.
    pub limit_bytes: usize,
}

/// Of nodes with the size of what they hold, in bytes: the first ones that hold together at most so much, but at least one.
pub fn within(sizes: Vec<(NodeId, u64)>, limit_bytes: usize) -> Vec<NodeId> {
    let mut sum = 0u64;
    let fits = |(n, (_, size)): &(usize, (NodeId, u64))| {
        sum = sum.saturating_add(*size);
        *n == 0 || sum <= limit_bytes as u64
    };
    sizes.into_iter().enumerate().take_while(fits).map(|(_, (id, _))| id).collect()
}

/// A node that changed after a time. Of its changes after it, its making among them, only two are needed: there may be any number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The node as it is.
    pub row: NodeRow,
    /// The oldest change that is asked for.
    pub first: Option<HistoryRow>,
    /// The newest by anybody.
    pub last: Option<HistoryRow>,
}

/// A device that changed something in a namespace, and whose it is, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorRow {
    /// The device; for the web access of a user, the user's id.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its user.
    pub user: Option<UserId>,
    /// That user's address.
    pub email: Option<String>,
}

/// A rewind that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindRow {
    /// Its id, given by the client.
    pub id: [u8; 16],
    /// Hash of what was asked.
    pub digest: [u8; 32],
    /// When it was begun, in milliseconds since 1970.
    pub started_at_ms: i64,
    /// The node that was looked at last.
    pub position: Option<NodeId>,
    /// Whether it is done.
    pub is_finished: bool,
    /// What was done so far, as JSON.
    pub counts: String,
}
