//! Names as they are searched: the column that is kept beside each name, and the query over it.
//!
//! * **SN1** After each transaction `search_name` of every node is [`fold`] of the name at which it stands, in every namespace whose `folded_seq` is its
//!   head. Where a release before this one has written it is not, and nothing is found there before [`SearchTx::fold_names`].

use super::StoreError;
use async_trait::async_trait;
use ferry_protocol::{NamespaceId, NodeId};
use unicode_normalization::UnicodeNormalization;

/// A name, or what a person types, without what people do not type alike: case, accents, and forms that only look otherwise. Signs of Latin, Greek and
/// Cyrillic letters go; those of scripts in which they are letters of their own stay.
pub fn fold(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase).nfkd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)) {
        match c {
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'ø' => out.push('o'),
            'đ' | 'ð' => out.push('d'),
            'ł' => out.push('l'),
            'þ' => out.push_str("th"),
            'ı' => out.push('i'),
            'ς' => out.push('σ'),
            // What a compatible form was made of may have a case of its own.
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

/// What kind of entry is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Any.
    #[default]
    Any,
    /// Directories.
    Directory,
    /// Files of any kind.
    File,
    /// Symbolic links.
    Symlink,
    /// Files whose folded names end in one of these, dot included. None is longer than [`Kind::ENDING_MAX`] bytes; all are ASCII.
    Ending(&'static [&'static str]),
}

impl Kind {
    /// Longest ending, in bytes.
    pub const ENDING_MAX: usize = 6;

    /// The endings by their length: each length is one look at the end of a name.
    pub(super) fn endings_by_length(self) -> Vec<(usize, Vec<&'static str>)> {
        let Self::Ending(all) = self else { return Vec::new() };
        let of = |length: usize| all.iter().copied().filter(|ending| ending.len() == length).collect::<Vec<_>>();
        (1..=Self::ENDING_MAX).map(|length| (length, of(length))).filter(|(_, endings)| !endings.is_empty()).collect()
    }
}

/// How good a hit is, best first: 0 the name is what was typed, with or without its ending; 1 it begins so; 2 it holds the words.
pub type Rank = u8;

/// What is asked of one namespace.
#[derive(Debug, Clone, Copy)]
pub struct NameQuery<'q> {
    /// What was typed, folded, one space between words; empty for all names.
    pub text: &'q str,
    /// Its words: a name holds all of them, anywhere.
    pub words: &'q [String],
    /// Which kind.
    pub kind: Kind,
    /// Not smaller, in bytes.
    pub min_size: Option<u64>,
    /// Not larger, in bytes.
    pub max_size: Option<u64>,
    /// Not changed before, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only what stands below these directories, at any depth.
    pub below: Option<&'q [NodeId]>,
    /// Nothing that stands directly in one of these directories.
    pub not_in: &'q [NodeId],
    /// Where to go on: this hit, if it is one, comes first.
    pub from: Option<NameHit>,
    /// At most so many.
    pub limit: usize,
}

impl NameQuery<'_> {
    /// Where to go on, as the database orders: rank, time with the other sign, node.
    pub(super) fn bound(&self) -> Option<(i64, i64, Vec<u8>)> {
        self.from.map(|hit| (i64::from(hit.rank), -hit.updated_at_ms, hit.node.as_bytes().to_vec()))
    }

    /// How good a folded name is as a hit; nothing if it is none.
    pub fn rank(&self, name: &str) -> Option<Rank> {
        if !self.words.iter().all(|word| name.contains(word.as_str())) {
            return None;
        }
        let rest = name.strip_prefix(self.text).filter(|_| !self.text.is_empty());
        Some(match rest {
            Some("") => 0,
            Some(rest) if rest.strip_prefix('.').is_some_and(|ending| !ending.contains('.')) => 0,
            Some(_) => 1,
            None => 2,
        })
    }
}

/// A plain node whose name was found. Hits are ordered by rank, the newest first, and by node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameHit {
    /// The node.
    pub node: NodeId,
    /// How good.
    pub rank: Rank,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at_ms: i64,
}

/// Searches.
#[async_trait]
pub trait SearchStore: Send + Sync + 'static {
    /// Plain nodes by their names, in the order of hits; nothing where the names must be folded first (SN1).
    async fn search_names(&self, namespace: NamespaceId, query: &NameQuery<'_>) -> Result<Option<Vec<NameHit>>, StoreError>;
    /// The directories in which something contested stands.
    async fn contested_parents(&self, namespace: NamespaceId) -> Result<Vec<NodeId>, StoreError>;
}

/// Keeps names to be searched.
#[async_trait]
pub trait SearchTx: Send {
    /// Folds every name of a namespace anew (SN1). Returns how many were not.
    async fn fold_names(&mut self, namespace: NamespaceId) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_people_type_them() {
        let alike = [
            ("Ünïcödé.TXT", "unicode.txt"),
            ("Straße", "STRASSE"),
            ("ﬁle №5", "file no5"),
            ("SØREN Łódź", "soren lodz"),
            ("İstanbul ıssız", "istanbul issiz"),
            ("ΟΔΟΣ όδος", "οδοσ οδοσ"),
            ("Ёлка Й", "елка и"),
            ("１２３", "123"),
        ];
        for (a, b) in alike {
            assert_eq!(fold(a.as_bytes()), fold(b.as_bytes()), "{a} {b}");
        }
        // Composed and decomposed are one.
        assert_eq!(fold("é".as_bytes()), fold("e\u{301}".as_bytes()));
        for (a, b) in [("a_b", "a b"), ("100%", "100"), ("हिन्दी", "हनद"), ("a", "b")] {
            assert_ne!(fold(a.as_bytes()), fold(b.as_bytes()), "{a} {b}");
        }
        assert_eq!(fold(b"A\xff"), "a\u{fffd}");
        // Folded once is folded.
        for text in ["Ünïcödé ﬁ ẞ Ǆ ℡ ™", "ΐ ŉ İ", "㎏ Ⅷ"] {
            let once = fold(text.as_bytes());
            assert_eq!(fold(once.as_bytes()), once);
        }
    }

    #[test]
    fn hits_are_ranked_by_how_near_they_are() {
        let words = ["tax".to_owned(), "2026".to_owned()];
        let query = NameQuery {
            text: "tax 2026",
            words: &words,
            kind: Kind::Any,
            min_size: None,
            max_size: None,
            since_ms: None,
            below: None,
            not_in: &[],
            from: None,
            limit: 1,
        };
        let ranks =
            ["tax 2026", "tax 2026.pdf", "tax 2026.tar.gz", "tax 2026 draft", "2026 syntax", "tax 2025"].map(|name| query.rank(name));
        assert_eq!(ranks, [Some(0), Some(0), Some(1), Some(1), Some(2), None]);
        let all = NameQuery { text: "", words: &[], ..query };
        assert_eq!(all.rank("anything"), Some(2), "where nothing was typed the newest is best");
    }
}
