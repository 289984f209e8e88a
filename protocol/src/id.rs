//! Ids of fixed size. A bare array or string never crosses a boundary: each kind of id is a type of its own.
//!
//! In text (JSON, command line, logs) an id is lower-case hexadecimal; in binary formats it is its bytes.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// The text is not the hexadecimal form of an id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {expected} hexadecimal digits")]
pub struct IdError {
    kind: &'static str,
    expected: usize,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;
            /// An id from its bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self { Self(bytes) }
            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] { &self.0 }
            /// An id from a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> { bytes.try_into().ok().map(Self) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&hex::encode(self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..4]))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0u8; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError { kind: stringify!($name), expected: $bytes * 2 })?;
                Ok(Self(bytes))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.serialize_str(&hex::encode(self.0)) } else { s.serialize_newtype_struct(stringify!($name), &Fixed(self.0)) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = String::deserialize(d)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    Ok(Self(Fixed::<$bytes>::deserialize(d)?.0))
                }
            }
        }
    };
}

/// Bytes of a length known to both sides: no length on the wire.
struct Fixed<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = s.serialize_tuple(N)?;
        for byte in &self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<'de, const N: usize> de::Visitor<'de> for Visitor<N> {
            type Value = Fixed<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Fixed<N>, A::Error> {
                let mut bytes = [0u8; N];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(i, &self))?;
                }
                Ok(Fixed(bytes))
            }
        }
        d.deserialize_tuple(N, Visitor::<N>)
    }
}

id_type! {
    /// One device of one user: the first 16 bytes of the SHA-256 of its Ed25519 public key.
    DeviceId, 16
}
id_type! {
    /// One life of one store of node states: minted at random with every new index of a device and every new database of a relay.
    ///
    /// Stamps and dots carry it. A device whose index is lost or rolled back goes on under a new replica id, so that a counter is never
    /// used twice for different content (I3, I8).
    ReplicaId, 16
}
id_type! {
    /// A namespace: one synced folder.
    NamespaceId, 16
}
id_type! {
    /// A node: a file, directory or symbolic link, for life. Minted at random by its creator; kept across renames and moves.
    NodeId, 16
}
id_type! {
    /// A user of a relay.
    UserId, 16
}
id_type! {
    /// One life of a feed: a relay that is new, reset or restored has a new one, and cursors of another epoch mean nothing (I11).
    Epoch, 16
}
id_type! {
    /// One commit, minted by the device that sends it: repeating it changes nothing (I8).
    CommitId, 16
}
id_type! {
    /// The SHA-256 of a chunk's bytes.
    ChunkId, 32
}
id_type! {
    /// The SHA-256 of a whole file.
    ContentHash, 32
}

impl NodeId {
    /// The folder itself. It has no state and cannot be moved, renamed or deleted.
    pub const ROOT: NodeId = NodeId([0; 16]);
}

impl DeviceId {
    /// The id that belongs to an Ed25519 public key (its 32 raw bytes).
    pub fn of_public_key(key: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(key);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

impl ChunkId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        Self(Sha256::digest(bytes).into())
    }
}

impl ContentHash {
    /// The hash of content that is wholly in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*ChunkId::of(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_forms_round_trip() {
        let id = NodeId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<NodeId>(&format!("\"{id}\"")).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes, [7; 16]);
        assert_eq!(postcard::from_bytes::<NodeId>(&bytes).unwrap(), id);
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in ["", "07", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32)] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
