//! What a public link opens: one file, or a folder and what is below it, with the rights of the link's maker at this moment and no more.
//!
//! The maker's membership is checked as if the maker were calling with an app password of this one folder (RC1, A7), so that whatever keeps those within
//! their folder keeps links there too. Paths are relative to what the link opens; symlinks are not shown and lead nowhere.

use super::files::{check_place, name_of};
use super::uploads::Clash;
use super::view::{Shown, View};
use super::{Archive, Content, Download, Entry, NewUpload, UploadBegun, UploadProgress};
use crate::service::{Caller, Scope, Scopes, ServiceError, ServiceResult, SessionId, TokenFolder, TokenLimits, UserRole};
use bytes::Bytes;
use ferry_protocol::limits::NAME_MAX_BYTES;
use ferry_protocol::wire::Role;
use ferry_protocol::{ContentHash, Name, NamespaceId, NodeId, RelPath, UserId, node};
use std::collections::BTreeSet;

/// Names that are tried for a file whose name is taken.
const NAMES_TRIED_MAX: u32 = 10_000;
/// Of them, so many at once.
const NAMES_TRIED_TOGETHER: u32 = 50;

/// A file or folder as a link shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicItem {
    /// The node; the root for a whole namespace.
    pub node: NodeId,
    /// Its name.
    pub name: Vec<u8>,
    /// Whether it is a folder.
    pub is_directory: bool,
    /// Size in bytes; 0 for a folder.
    pub size_bytes: u64,
    /// What its name suggests that it is; `directory` for a folder.
    pub media_type: &'static str,
    /// Its modification time in nanoseconds since 1970, for files.
    pub mtime_ns: Option<i64>,
}

impl PublicItem {
    fn of(shown: &Shown) -> Option<Self> {
        let name = shown.path.names().last()?.as_bytes().to_vec();
        let (is_directory, file) = match &shown.entry.content {
            node::Content::Dir => (true, None),
            node::Content::File(file) => (false, Some(file)),
            node::Content::Symlink(_) | node::Content::Tombstone => return None,
        };
        Some(Self {
            node: shown.entry.node,
            media_type: if is_directory { "directory" } else { super::derive::media_type(&name) },
            name,
            is_directory,
            size_bytes: file.map_or(0, |f| f.manifest.size()),
            mtime_ns: file.map(|f| f.mtime_ns),
        })
    }
}

impl Content {
    /// Opens a node for whoever holds a link of its maker's. What the maker may no longer do, and what is gone, does not exist.
    pub async fn enter_public(&self, maker: UserId, namespace: NamespaceId, node: NodeId) -> ServiceResult<Entry> {
        let scopes = Scopes::of([Scope::FilesRead, Scope::FilesWrite]).ok_or_else(|| ServiceError::internal("no scopes"))?;
        let caller = Caller {
            user_id: maker,
            device_id: None,
            session_id: SessionId::from_bytes([0; 16]),
            role: UserRole::User,
            expires_at_ms: i64::MAX,
            token: Some(TokenLimits { scopes, folder: Some(TokenFolder { namespace, directory: node }) }),
        };
        // Only those who may change a folder may let others in; whoever may no longer, their links neither.
        self.enter_part(&caller, Some(namespace), Role::Editor).await
    }

    /// What stands at a path of what the link opens.
    pub async fn public_item(&self, entry: &Entry, path: &RelPath) -> ServiceResult<PublicItem> {
        let view = self.view(entry.row.id);
        let at = within(&view, entry, path).await?;
        if at.is_root() {
            return Ok(PublicItem {
                node: NodeId::ROOT,
                name: entry.row.name.as_bytes().to_vec(),
                is_directory: true,
                size_bytes: 0,
                media_type: "directory",
                mtime_ns: None,
            });
        }
        let shown = view.at(&at).await?;
        shown.as_ref().and_then(PublicItem::of).ok_or_else(ServiceError::not_found)
    }

    /// What a folder of what the link opens holds, folders first.
    pub async fn public_list(&self, entry: &Entry, path: &RelPath) -> ServiceResult<Vec<PublicItem>> {
        let view = self.view(entry.row.id);
        let at = within(&view, entry, path).await?;
        let directory = view.directory_if_any(&at).await?.ok_or_else(ServiceError::not_found)?;
        let mut items: Vec<PublicItem> = view.list(&directory).await?.iter().filter_map(PublicItem::of).collect();
        items.sort_by_key(|item| !item.is_directory);
        Ok(items)
    }

    /// The file at a path of what the link opens.
    pub async fn public_download(&self, entry: &Entry, path: &RelPath) -> ServiceResult<(NodeId, Download)> {
        let view = self.view(entry.row.id);
        let at = within(&view, entry, path).await?;
        let shown = view.at(&at).await?.filter(|s| s.entry.content.file().is_some()).ok_or_else(ServiceError::not_found)?;
        Ok((shown.entry.node, Download::of(entry.row.id, &at, &shown.entry)?))
    }

    /// An archive of a folder of what the link opens.
    pub async fn public_archive(&self, entry: &Entry, path: &RelPath) -> ServiceResult<Archive> {
        let view = self.view(entry.row.id);
        let at = within(&view, entry, path).await?;
        view.directory_if_any(&at).await?.ok_or_else(ServiceError::not_found)?;
        self.plan_archive_at(entry, at).await
    }

    /// Begins an upload into the folder that the link opens. What is there already is neither asked for nor told.
    pub async fn begin_public_upload(
        &self,
        entry: &Entry,
        file_name: &str,
        size_bytes: u64,
        hash: Option<ContentHash>,
    ) -> ServiceResult<UploadBegun> {
        let path = entry.within.join(&name_of(file_name)?);
        let new = NewUpload {
            file_name: file_name.to_owned(),
            directory: String::new(),
            namespace: Some(entry.row.id),
            size_bytes,
            hash,
            mtime_ns: None,
        };
        self.begin_upload_at(entry, &path, &new).await
    }

    /// Stores one chunk of such an upload.
    pub async fn put_public_chunk(&self, entry: &Entry, version_id: [u8; 16], index: u64, bytes: Bytes) -> ServiceResult<UploadProgress> {
        self.put_upload_chunk(&entry.caller, version_id, index, bytes, None).await
    }

    /// Completes such an upload. Nothing is replaced: if the name is taken, the file gets another one. Answers its size in bytes.
    pub async fn complete_public_upload(&self, entry: &Entry, version_id: [u8; 16], told: Option<ContentHash>) -> ServiceResult<u64> {
        Ok(self.complete_with(&entry.caller, version_id, told, Clash::Beside).await?.size_bytes)
    }
}

/// The place in the namespace that a path of what the link opens names. A file has one path: its name.
async fn within(view: &View<'_>, entry: &Entry, path: &RelPath) -> ServiceResult<RelPath> {
    let root = &entry.within;
    if view.directory_if_any(root).await?.is_none() {
        let is_it = path.is_root() || (path.names().len() == 1 && path.names().last() == root.names().last());
        return if is_it { Ok(root.clone()) } else { Err(ServiceError::not_found()) };
    }
    let at = path.names().iter().fold(root.clone(), |at, name| at.join(name));
    entry.confine(&at)?;
    Ok(at)
}

/// This path, or one beside it that nothing has: `report.pdf`, `report (2).pdf`.
pub(super) async fn free_path(view: &View<'_>, path: &RelPath) -> ServiceResult<RelPath> {
    let (directory, name) = path.split_last().ok_or_else(ServiceError::not_found)?;
    // In a directory that is not there every name is free.
    let Some(there) = view.directory_if_any(&directory).await? else {
        check_place(path)?;
        return Ok(path.clone());
    };
    let mut names = std::iter::once(name.clone()).chain((2..NAMES_TRIED_MAX).map(|n| numbered(name, n)));
    loop {
        let some: Vec<Name> = names.by_ref().take(NAMES_TRIED_TOGETHER as usize).collect();
        if some.is_empty() {
            break;
        }
        let taken = view.taken(&there, &some.iter().cloned().collect::<BTreeSet<Name>>()).await?;
        if let Some(free) = some.iter().find(|name| !taken.contains(*name)) {
            let free = directory.join(free);
            check_place(&free)?;
            return Ok(free);
        }
    }
    Err(ServiceError::conflict("name_taken", "There are too many files of this name. Choose another name."))
}

fn numbered(name: &Name, n: u32) -> Name {
    let bytes = name.as_bytes();
    let middle = format!(" ({n})");
    let dot = bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && bytes.len() - at <= 64).unwrap_or(bytes.len());
    let extension = &bytes[dot..];
    // A stem that is too long is cut where a character ends.
    let mut end = dot.min(NAME_MAX_BYTES - middle.len() - extension.len());
    while end > 1 && end < dot && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    Name::new([&bytes[..end], middle.as_bytes(), extension].concat()).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_ending() {
        let made = |name: &str| String::from_utf8(numbered(&Name::new(name).unwrap(), 12).as_bytes().to_vec()).unwrap();
        assert_eq!(made("report.pdf"), "report (12).pdf");
        assert_eq!(made(".profile"), ".profile (12)");
        assert_eq!(made("none"), "none (12)");
        let long = made(&format!("{}.pdf", "é".repeat(125)));
        assert!(long.len() <= 255 && long.ends_with("é (12).pdf"), "{long}");
        assert!(made(&format!("a.{}", "x".repeat(250))).len() <= 255);
    }
}
