//! One request's visit: whose it is, which folder it is about, and what has been found out on the way.

use super::request::{Asked, Place};
use crate::http::AppState;
use crate::http::plain::uuid;
use crate::service::content::{DavEntry, DavLock, Entry};
use crate::service::{Caller, Kind, Scope, ServiceError, ServiceResult};
use dav_server::davpath::DavPath;
use dav_server::fs::{FsError, FsResult};
use ferry_protocol::wire::{NamespaceInfo, Role};
use ferry_protocol::{Name, NodeId, RelPath};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// A folder of the caller under the name that its address has.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) name: String,
    pub(super) info: NamespaceInfo,
}

/// See the module.
pub(super) struct Visit {
    pub(super) app: AppState,
    pub(super) spaces: Vec<Space>,
    own: Option<Own>,
    /// What the folder's owner uses and may use, in bytes, for who asks for properties.
    pub(super) quota: Option<(u64, Option<u64>)>,
    pub(super) asked: Said,
    state: Mutex<State>,
    locks: OnceCell<Vec<DavLock>>,
    prop_nodes: OnceCell<BTreeSet<NodeId>>,
}

/// The folder that the request is about.
struct Own {
    space: usize,
    entry: Entry,
}

/// What of the request the library does not pass on.
pub(super) struct Said {
    pub(super) method: String,
    pub(super) path: RelPath,
    pub(super) is_deep: bool,
    pub(super) terms: crate::service::content::WriteTerms,
}

#[derive(Default)]
struct State {
    /// The first failure that is worth words.
    error: Option<ServiceError>,
    /// Lock tokens that the client has shown.
    tokens: Vec<[u8; 16]>,
    /// The library has asked for the destination of a COPY or MOVE to be removed; that is done together with the rest.
    replaces: bool,
    /// What was looked at.
    seen: HashMap<RelPath, DavEntry>,
}

/// What a path of the library means.
pub(super) enum Where {
    /// The list of folders.
    Top,
    /// A place in the request's own folder.
    Inside(RelPath),
    /// The root of another folder, by its number.
    Other(usize),
}

impl Visit {
    /// Finds the folder and enters it, with leave to write if the request would.
    pub(super) async fn begin(app: AppState, caller: Caller, asked: &Asked) -> ServiceResult<Self> {
        if asked.is_write() && reads_only(&caller) {
            let detail = "This app password is for looking only: it has the scope 'files:read' and not 'files:write'.";
            return Err(ServiceError::new(Kind::Forbidden, "read_only", detail));
        }
        let spaces = named(app.content.namespaces(&caller).await?);
        let mut own = None;
        if let Some(name) = &asked.place.space {
            let space = find(&spaces, name).ok_or_else(ServiceError::not_found)?;
            let role = if asked.is_write() { Role::Editor } else { Role::Viewer };
            own = Some(Own { space, entry: app.content.dav_enter(&caller, spaces[space].info.id, role).await? });
        }
        if let Some(Place { space: Some(name), .. }) = &asked.destination
            && find(&spaces, name) != own.as_ref().map(|own| own.space)
        {
            let detail = "WebDAV copies and moves within one folder only. Copy it out and in again.";
            return Err(ServiceError::new(Kind::Forbidden, "other_folder", detail));
        }
        let quota = match &own {
            Some(own) if asked.method == "PROPFIND" => Some(app.content.dav_quota(&own.entry).await?),
            _ => None,
        };
        let said = Said {
            method: asked.method.clone(),
            path: asked.place.path.clone(),
            is_deep: asked.depth != super::request::Depth::Zero,
            terms: asked.terms.clone(),
        };
        Ok(Self { app, spaces, own, quota, asked: said, state: Mutex::default(), locks: OnceCell::new(), prop_nodes: OnceCell::new() })
    }

    /// The request's own folder, entered; none for the list of folders.
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.own.as_ref().map(|own| &own.entry)
    }

    /// The same where there must be one.
    pub(super) fn inside(&self) -> FsResult<&Entry> {
        self.entry().ok_or(FsError::Forbidden)
    }

    /// The request's own folder by its name.
    pub(super) fn space(&self) -> Option<&Space> {
        self.own.as_ref().map(|own| &self.spaces[own.space])
    }

    /// What a path means.
    pub(super) fn place(&self, path: &DavPath) -> FsResult<Where> {
        let mut parts = path.as_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty());
        let Some(first) = parts.next() else { return Ok(Where::Top) };
        let space = find(&self.spaces, first).ok_or(FsError::NotFound)?;
        let names: Vec<Name> = parts.map(Name::new).collect::<Result<_, _>>().map_err(|_| FsError::NotFound)?;
        match &self.own {
            Some(own) if own.space == space => Ok(Where::Inside(RelPath::from_names(names))),
            _ if names.is_empty() => Ok(Where::Other(space)),
            _ => Err(FsError::NotFound),
        }
    }

    /// The path of a place in the request's own folder, which everything but looking needs.
    pub(super) fn path(&self, path: &DavPath) -> FsResult<RelPath> {
        match self.place(path)? {
            Where::Inside(path) => Ok(path),
            Where::Top | Where::Other(_) => Err(FsError::Forbidden),
        }
    }

    /// What is at a place, asked once.
    pub(super) async fn look(&self, path: &RelPath) -> FsResult<DavEntry> {
        if let Some(seen) = self.state().seen.get(path) {
            return Ok(seen.clone());
        }
        let found = self.app.content.dav_look(self.inside()?, path).await.map_err(|e| self.refuse(e))?.ok_or(FsError::NotFound)?;
        self.see(found.clone());
        Ok(found)
    }

    /// Remembers what is at a place.
    pub(super) fn see(&self, entry: DavEntry) {
        self.state().seen.insert(entry.path.clone(), entry);
    }

    /// The folder's locks, asked once: for showing them, never for deciding.
    pub(super) async fn locks(&self) -> ServiceResult<&[DavLock]> {
        let Some(entry) = self.entry() else { return Ok(&[]) };
        Ok(self.locks.get_or_try_init(|| self.app.content.dav_locks(entry.namespace())).await?)
    }

    /// Whether a node has properties of clients.
    pub(super) async fn has_props(&self, node: NodeId) -> ServiceResult<bool> {
        let Some(entry) = self.entry() else { return Ok(false) };
        Ok(self.prop_nodes.get_or_try_init(|| self.app.content.dav_prop_nodes(entry)).await?.contains(&node))
    }

    /// Remembers a failure for the answer's words, and says it in the library's.
    pub(super) fn refuse(&self, error: ServiceError) -> FsError {
        let said = match (error.kind(), error.code()) {
            (_, "quota_exceeded") | (Kind::StorageFull, _) => FsError::InsufficientStorage,
            (_, "not_a_directory") | (Kind::NotFound, _) => FsError::NotFound,
            (_, "name_taken" | "is_a_directory") => FsError::Exists,
            (Kind::TooLarge, _) => FsError::TooLarge,
            (Kind::Internal | Kind::Unavailable | Kind::TooMany, _) => FsError::GeneralFailure,
            _ => FsError::Forbidden,
        };
        if said != FsError::NotFound {
            self.state().error.get_or_insert(error);
        }
        said
    }

    /// The failure that was remembered.
    pub(super) fn take_error(&self) -> Option<ServiceError> {
        self.state().error.take()
    }

    /// The lock tokens that the client has shown.
    pub(super) fn tokens(&self) -> Vec<[u8; 16]> {
        self.state().tokens.clone()
    }

    pub(super) fn show_tokens(&self, tokens: Vec<[u8; 16]>) {
        self.state().tokens = tokens;
    }

    /// The destination is to go with what comes.
    pub(super) fn note_replaced(&self) {
        self.state().replaces = true;
    }

    pub(super) fn replaces(&self) -> bool {
        self.state().replaces
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An app password that may look at files, and not change them, does neither by WebDAV.
fn reads_only(caller: &Caller) -> bool {
    caller.token.is_some_and(|limits| limits.scopes.has(Scope::FilesRead) && !limits.scopes.has(Scope::FilesWrite))
}

/// Gives each folder the name that its address has. Of several of one name only the caller's home, which comes first, has it; the others have a part of
/// their id behind it: no address ever comes to mean another folder.
fn named(list: Vec<NamespaceInfo>) -> Vec<Space> {
    let plain: Vec<String> = list.iter().map(|info| plain_name(&info.name)).collect();
    let is_alone = |at: usize| at == 0 || plain.iter().filter(|name| **name == plain[at]).count() == 1;
    let names: Vec<String> =
        list.iter().enumerate().map(|(at, info)| if is_alone(at) { plain[at].clone() } else { with_id(&plain[at], info) }).collect();
    names.into_iter().zip(list).map(|(name, info)| Space { name, info }).collect()
}

/// A folder's name as one part of a path.
fn plain_name(name: &str) -> String {
    let text = name.replace(['/', '\0'], "_");
    if text == "." || text == ".." { "_".into() } else { text }
}

fn with_id(name: &str, info: &NamespaceInfo) -> String {
    let id = hex::encode(&info.id.as_bytes()[..4]);
    // With what comes behind it, it must be a name.
    let mut stem = name.len().min(ferry_protocol::limits::NAME_MAX_BYTES - id.len() - 3);
    while !name.is_char_boundary(stem) {
        stem -= 1;
    }
    format!("{} ({id})", &name[..stem])
}

/// The folder of this name, or of this id.
fn find(spaces: &[Space], name: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(name).ok()?;
    let by_name = spaces.iter().position(|space| space.name == text);
    by_name.or_else(|| {
        let is_id = |info: &NamespaceInfo| info.id.to_string() == text || uuid(info.id.as_bytes()) == text;
        spaces.iter().position(|space| is_id(&space.info) || with_id(&plain_name(&space.info.name), &space.info) == text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::{Epoch, NamespaceId, UserId};

    fn info(id: u8, name: &str) -> NamespaceInfo {
        let (owner, epoch) = (UserId::default(), Epoch::default());
        NamespaceInfo { id: NamespaceId::from_bytes([id; 16]), name: name.into(), role: Role::Owner, owner, epoch, head_seq: 0 }
    }

    #[test]
    fn every_folder_has_an_address_of_its_own() {
        let long = "ü".repeat(127);
        let list = ["Ferry", "Ferry", "a/b", "..", "Work", "Work", &long, &long];
        let spaces = named(list.iter().zip(1..).map(|(name, id)| info(id, name)).collect());
        let names: Vec<&str> = spaces.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names[..6], ["Ferry", "Ferry (02020202)", "a_b", "_", "Work (05050505)", "Work (06060606)"]);
        for (at, space) in spaces.iter().enumerate() {
            assert!(Name::new(&space.name).is_ok());
            for name in [space.name.clone(), space.info.id.to_string(), uuid(space.info.id.as_bytes())] {
                assert_eq!(find(&spaces, name.as_bytes()), Some(at), "{name}");
            }
        }
        assert_eq!(find(&spaces, b"Work"), None, "of two, none is meant");
        // Alone it has its plain name, and keeps the other.
        let one = named(vec![info(9, "Home"), info(5, "Work")]);
        assert_eq!((find(&one, b"Work"), find(&one, b"Work (05050505)")), (Some(1), Some(1)));
    }
}
