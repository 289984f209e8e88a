//! What an app password may do: a login may do everything that its user may, an app password only what it names.

use ferry_protocol::{NamespaceId, NodeId};
use std::str::FromStr;

/// One thing that an app password may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Look at files and fetch them.
    FilesRead = 1,
    /// Add, change, move and delete files.
    FilesWrite = 2,
    /// Mount folders over WebDAV.
    Dav = 4,
}

impl Scope {
    /// Every scope with its name.
    pub const ALL: [(Scope, &'static str); 3] = [(Scope::FilesRead, "files:read"), (Scope::FilesWrite, "files:write"), (Scope::Dav, "dav")];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilesRead => "files:read",
            Self::FilesWrite => "files:write",
            Self::Dav => "dav",
        }
    }
}

impl FromStr for Scope {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(scope, _)| scope).ok_or(())
    }
}

/// A set of scopes that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// These scopes; none when there are none.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Option<Self> {
        Self::from_bits(scopes.into_iter().fold(0, |bits, scope| bits | scope as u8))
    }

    /// From the form in which it is stored.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (1..=7).contains(&bits).then_some(Self(bits))
    }

    /// The form in which it is stored.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether this scope is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|(scope, _)| self.has(*scope)).map(|(_, name)| name).collect()
    }
}

/// The one folder that an app password opens: a namespace, or a directory in it. The directory is known by its node, so the folder may be renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenFolder {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The directory; the root is the whole namespace.
    pub directory: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_closed_and_never_empty() {
        assert_eq!(Scopes::of([]), None);
        assert_eq!((Scopes::from_bits(0), Scopes::from_bits(8)), (None, None));
        let both = Scopes::of([Scope::Dav, Scope::FilesRead]).unwrap();
        assert!(both.has(Scope::Dav) && both.has(Scope::FilesRead) && !both.has(Scope::FilesWrite));
        assert_eq!(both.names(), ["files:read", "dav"]);
        assert_eq!(Scopes::from_bits(both.bits()), Some(both));
        for (scope, name) in Scope::ALL {
            assert_eq!((scope.as_str(), name.parse()), (name, Ok(scope)));
        }
        assert!("files:*".parse::<Scope>().is_err());
    }
}
