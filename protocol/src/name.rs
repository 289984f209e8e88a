//! Names and relative paths, valid by construction (P2).

use crate::limits::NAME_MAX_BYTES;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// Why bytes are not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name is not empty")]
    Empty,
    /// More than [`NAME_MAX_BYTES`].
    #[error("a name has at most {NAME_MAX_BYTES} bytes")]
    TooLong,
    /// `.` or `..`.
    #[error("a name is not '.' or '..'")]
    Dots,
    /// A slash or a zero byte.
    #[error("a name holds no '/' and no zero byte")]
    Separator,
}

/// One component of a path: 1 to 255 bytes, no `/`, no zero byte, not `.` or `..`. Any other bytes that Linux allows, UTF-8 or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// The directory at a folder's root that holds Ferry's own files. Never synced, never accepted from outside at the root.
pub const BOOKKEEPING: &[u8] = b".ferry";

impl Name {
    /// A name from bytes, if they are one.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > NAME_MAX_BYTES {
            return Err(NameError::TooLong);
        }
        if bytes == b"." || bytes == b".." {
            return Err(NameError::Dots);
        }
        if bytes.iter().any(|b| *b == b'/' || *b == 0) {
            return Err(NameError::Separator);
        }
        Ok(Self(bytes.into()))
    }

    /// The name's bytes, as the disk holds them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is `.ferry`, which belongs to Ferry at a folder's root.
    pub fn is_bookkeeping(&self) -> bool {
        &*self.0 == BOOKKEEPING
    }

    /// The key under which two names clash on a disk that folds case and normalises Unicode.
    ///
    /// Canonical decomposition, lower case, canonical composition; bytes that are not UTF-8 stand for themselves. Being equal
    /// under this key is an equivalence relation.
    pub fn fold_key(&self) -> Box<[u8]> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => {
                let lower: String = text.nfd().flat_map(char::to_lowercase).collect();
                let folded: String = lower.nfc().flat_map(char::to_lowercase).nfc().collect();
                folded.into_bytes().into_boxed_slice()
            }
            Err(_) => self.0.clone(),
        }
    }

    /// The name for people: control characters, bidirectional overrides and bytes that are not UTF-8 are shown as escapes.
    pub fn display(&self) -> String {
        display_bytes(&self.0)
    }
}

/// Bytes of a name or path for people; what could confuse a terminal is shown as `\xNN` or `\u{…}`.
pub fn display_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || bidi {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in part.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path component")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Name, E> {
                Name::new(bytes).map_err(E::custom)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Name, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    if bytes.len() == NAME_MAX_BYTES {
                        return Err(de::Error::custom(NameError::TooLong));
                    }
                    bytes.push(byte);
                }
                Name::new(bytes).map_err(de::Error::custom)
            }
        }
        d.deserialize_bytes(Visitor)
    }
}

/// A path below a folder's root: names, top first. Empty means the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path from its names.
    pub fn from_names(names: Vec<Name>) -> Self {
        Self(names)
    }

    /// A path from `/`-separated bytes; empty bytes mean the root. Leading, trailing and doubled slashes are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        bytes.split(|b| *b == b'/').map(Name::new).collect::<Result<_, _>>().map(Self)
    }

    /// The names, top first.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of an entry of this directory.
    pub fn join(&self, name: &Name) -> Self {
        let mut names = Vec::with_capacity(self.0.len() + 1);
        names.extend_from_slice(&self.0);
        names.push(name.clone());
        Self(names)
    }

    /// The directory that holds this entry, and the entry's name; nothing for the root.
    pub fn split_last(&self) -> Option<(RelPath, &Name)> {
        let (last, parents) = self.0.split_last()?;
        Some((Self(parents.to_vec()), last))
    }

    /// Whether this path is `other` or lies below it.
    pub fn starts_with(&self, other: &RelPath) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The names joined by `/`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b'/');
            }
            out.extend_from_slice(name.as_bytes());
        }
        out
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display_bytes(&self.to_bytes()))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", display_bytes(&self.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_leave_the_folder_is_not_a_name() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("."), Err(NameError::Dots));
        assert_eq!(Name::new(".."), Err(NameError::Dots));
        assert_eq!(Name::new("a/b"), Err(NameError::Separator));
        assert_eq!(Name::new("/etc"), Err(NameError::Separator));
        assert_eq!(Name::new(b"a\0b"), Err(NameError::Separator));
        assert_eq!(Name::new(vec![b'x'; 256]), Err(NameError::TooLong));
        assert!(Name::new(vec![b'x'; 255]).is_ok());
        assert!(Name::new(b"\xff\xfe").is_ok());
    }

    #[test]
    fn hostile_bytes_are_refused_when_decoded() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            let bytes = postcard::to_stdvec(&serde_bytes_like(bad)).unwrap();
            assert!(postcard::from_bytes::<Name>(&bytes).is_err(), "{bad:?}");
        }
    }

    fn serde_bytes_like(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    #[test]
    fn case_and_normalisation_fold_together() {
        let key = |s: &str| Name::new(s).unwrap().fold_key();
        assert_eq!(key("É"), key("e\u{301}"));
        assert_eq!(key("README"), key("readme"));
        assert_ne!(key("a"), key("b"));
    }

    #[test]
    fn names_for_people_hide_nothing() {
        assert_eq!(Name::new(b"a\x1b[31m\xff\n").unwrap().display(), "a\\u{1b}[31m\\xff\\n");
        assert_eq!(Name::new("a\u{202e}txt.exe").unwrap().display(), "a\\u{202e}txt.exe");
    }

    proptest! {
        #[test]
        fn a_name_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::new(&bytes) {
                prop_assert_eq!(name.as_bytes(), &bytes[..]);
                let wire = postcard::to_stdvec(&name).unwrap();
                prop_assert_eq!(postcard::from_bytes::<Name>(&wire).unwrap(), name);
            }
        }

        #[test]
        fn folding_is_idempotent(text in "[a-zA-Zéèßİıſ\u{301}\u{345}KÅ]{1,12}") {
            let once = Name::new(&text).unwrap().fold_key();
            let twice = Name::new(&once).unwrap().fold_key();
            prop_assert_eq!(once, twice);
        }
    }
}
