//! The messages of the control stream, and the pages of a feed.

use crate::bounded;
use crate::grant::SignedGrant;
use crate::id::{ChunkId, ContentHash, Epoch, NamespaceId, ReplicaId};
use crate::limits::{CHUNK_IDS_MAX, DEVICE_NAME_MAX_BYTES, LAN_HAVES_MAX};
use crate::manifest::ChunkRef;
use crate::wire::{Body, DecodeError, FeedPage};
use serde::{Deserialize, Serialize};

/// A place in a device's feed: the run that gave it, and the number in it.
pub type FeedCursor = (Epoch, u64);

/// A chunk of a file that is still being read, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The chunk.
    pub chunk: ChunkRef,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first: which versions the sender speaks.
    Hello {
        /// The oldest.
        min: u16,
        /// The newest.
        max: u16,
    },
    /// A grant that lists both devices and that the receiver may not know yet.
    Grant(SignedGrant),
    /// All grants have been said.
    Ready {
        /// The sender's name, for people; at most 64 bytes.
        name: String,
    },
    /// The sender syncs this namespace.
    Open {
        /// Which.
        namespace: NamespaceId,
        /// Under which id its index writes: whose feed it is.
        replica: ReplicaId,
        /// The present run of its feed.
        run: Epoch,
        /// Whether it reaches a relay and brings there what it tells others.
        relays: bool,
    },
    /// The sender no longer syncs it, or is paused.
    Close {
        /// Which.
        namespace: NamespaceId,
    },
    /// Whether the sender reaches a relay has changed.
    Relays {
        /// For which namespace.
        namespace: NamespaceId,
        /// Now.
        relays: bool,
    },
    /// Asks for the receiver's feed from here on, page after page as it grows.
    Subscribe {
        /// Which.
        namespace: NamespaceId,
        /// How far it was read; nothing for all of it.
        cursor: Option<FeedCursor>,
    },
    /// The sender has taken in the receiver's feed up to here.
    Heard {
        /// Which.
        namespace: NamespaceId,
        /// How far.
        cursor: FeedCursor,
    },
    /// The sender has got these contents whole.
    Have {
        /// In which namespace.
        namespace: NamespaceId,
        /// Which.
        #[serde(deserialize_with = "bounded::list::<LAN_HAVES_MAX, _, _>")]
        contents: Vec<ContentHash>,
    },
    /// The sender has got these chunks from the relay and gives them on.
    Got {
        /// In which namespace.
        namespace: NamespaceId,
        /// Which.
        #[serde(deserialize_with = "bounded::list::<CHUNK_IDS_MAX, _, _>")]
        chunks: Vec<ChunkId>,
    },
    /// A new file is being read by the sender; these of its chunks can be fetched already.
    Offer {
        /// In which namespace.
        namespace: NamespaceId,
        /// The sender's number for the file.
        file: u64,
        /// Its chunks, in the order of their offsets; the file's size is not known yet.
        #[serde(deserialize_with = "bounded::list::<LAN_HAVES_MAX, _, _>")]
        pieces: Vec<Piece>,
    },
    /// That file has been read to its end, or it changed meanwhile.
    OfferEnd {
        /// In which namespace.
        namespace: NamespaceId,
        /// The sender's number for the file.
        file: u64,
        /// What it is; nothing if it came to nothing.
        content: Option<ContentHash>,
    },
}

impl Message {
    /// The namespace that the message is about.
    pub fn namespace(&self) -> Option<NamespaceId> {
        match self {
            Self::Hello { .. } | Self::Grant(_) | Self::Ready { .. } => None,
            Self::Open { namespace, .. }
            | Self::Close { namespace }
            | Self::Relays { namespace, .. }
            | Self::Subscribe { namespace, .. }
            | Self::Heard { namespace, .. }
            | Self::Have { namespace, .. }
            | Self::Got { namespace, .. }
            | Self::Offer { namespace, .. }
            | Self::OfferEnd { namespace, .. } => Some(*namespace),
        }
    }
}

impl Body for Message {
    fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Ready { name } if name.len() > DEVICE_NAME_MAX_BYTES => Err(DecodeError::Limit("length of a device's name")),
            Self::Hello { min, max } if min > max => Err(DecodeError::Malformed("a range of versions that is empty".into())),
            Self::Grant(grant) => grant.check(),
            _ => Ok(()),
        }
    }
}

/// A page of a device's feed, and from where it was read: the reader's cursor moves only if nothing lies between (I11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPage {
    /// Where the page begins; nothing for the start of the feed.
    pub since: Option<FeedCursor>,
    /// The page. Its epoch is the run of the feed.
    pub page: FeedPage,
}

impl Body for PeerPage {
    fn check(&self) -> Result<(), DecodeError> {
        self.page.check()
    }
}
