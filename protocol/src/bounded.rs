//! Lists that are refused by the count that they state, before their entries take memory (P4).

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// What a list may reserve on the word of its sender, in bytes; beyond this it grows with the entries that really came.
const RESERVE_MAX_BYTES: usize = 64 * 1024;

/// Reads a list of at most `MAX` entries; for `#[serde(deserialize_with)]`.
pub(crate) fn list<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    struct List<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} entries")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let stated = seq.size_hint().unwrap_or(0);
            if stated > MAX {
                return Err(A::Error::invalid_length(stated, &self));
            }
            let mut list = Vec::with_capacity(stated.min(RESERVE_MAX_BYTES / size_of::<T>().max(1)));
            while let Some(entry) = seq.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(entry);
            }
            Ok(list)
        }
    }
    d.deserialize_seq(List::<T, MAX>(PhantomData))
}
