//! What nodes showed before they changed, and how far rewinds have come: the words for going back to a time.

use super::StoreError;
use super::content::NodeRow;
use ferry_protocol::{DeviceId, Dot, NodeId, UserId};

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

/// A node that changed after a time, with the changes after it, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The node as it is.
    pub row: NodeRow,
    /// Its changes, its making among them; none for one that did not change since.
    pub history: Vec<HistoryRow>,
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
