//! What a file or directory says of itself in the library's words, and the properties of ownCloud's clients, which others have taken up.

use crate::service::content::{DavEntry, DavKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dav_server::fs::{DavDirEntry, DavMetaData, FsError, FsFuture, FsResult};
use ferry_protocol::ContentHash;
use ferry_protocol::wire::Role;
use std::time::{Duration, SystemTime};

/// The XML namespace of ownCloud's properties.
pub(super) const OWNCLOUD: &str = "http://owncloud.org/ns";

/// A file, a directory, or the list of folders.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    is_dir: bool,
    len: u64,
    etag: String,
    modified: Option<SystemTime>,
    created: Option<SystemTime>,
}

impl Meta {
    /// Of an entry. A directory's length is what its owner uses: the library answers questions about quota with it. A directory's ETag changes with every
    /// change of its folder: more often than it must, and never too seldom.
    pub(super) fn of(entry: &DavEntry, head_seq: u64, used_bytes: u64) -> Self {
        let at = |ms: i64| time_ns(ms.saturating_mul(1_000_000));
        match entry.kind {
            DavKind::Directory => Self {
                is_dir: true,
                len: used_bytes,
                etag: format!("d{head_seq}-{}", hex::encode(&entry.node.as_bytes()[..8])),
                modified: entry.updated_at_ms.map(at),
                created: entry.created_at_ms.map(at),
            },
            DavKind::File { size_bytes, hash, mtime_ns } => Self {
                is_dir: false,
                len: size_bytes,
                etag: etag_of(&hash),
                modified: Some(time_ns(mtime_ns)),
                created: entry.created_at_ms.map(at),
            },
        }
    }

    /// Of a folder, seen from the list of folders, or of that list: what changes when one of them does.
    pub(super) fn of_whole(etag: String) -> Self {
        Self { is_dir: true, len: 0, etag, modified: None, created: None }
    }
}

/// A file's ETag without its quotes: the hash of its content, written short, since clients copy several into one header.
pub(super) fn etag_of(hash: &ContentHash) -> String {
    URL_SAFE_NO_PAD.encode(hash.as_bytes())
}

/// The content that an ETag without its quotes is of.
pub(super) fn hash_of(etag: &str) -> Option<ContentHash> {
    let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(etag).ok()?.try_into().ok()?;
    Some(ContentHash::from_bytes(bytes))
}

/// A file's time for the library.
fn time_ns(ns: i64) -> SystemTime {
    let length = Duration::from_nanos(ns.unsigned_abs());
    let at = if ns < 0 { SystemTime::UNIX_EPOCH.checked_sub(length) } else { SystemTime::UNIX_EPOCH.checked_add(length) };
    // The library writes times of HTTP, which begin in 1970.
    at.unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH)
}

impl DavMetaData for Meta {
    fn len(&self) -> u64 {
        self.len
    }

    fn modified(&self) -> FsResult<SystemTime> {
        self.modified.ok_or(FsError::NotImplemented)
    }

    fn is_dir(&self) -> bool {
        self.is_dir
    }

    fn etag(&self) -> Option<String> {
        Some(self.etag.clone())
    }

    fn created(&self) -> FsResult<SystemTime> {
        self.created.ok_or(FsError::NotImplemented)
    }
}

/// One line of a list.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: Vec<u8>,
    pub(super) meta: Meta,
}

impl DavDirEntry for Line {
    fn name(&self) -> Vec<u8> {
        self.name.clone()
    }

    fn metadata(&'_ self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        let meta: Box<dyn DavMetaData> = Box::new(self.meta.clone());
        Box::pin(std::future::ready(Ok(meta)))
    }
}

/// A property that is made of what is known of an entry, as a whole element; none if it has no such property.
pub(super) fn live(entry: &DavEntry, role: Role, space: &str, name: &str) -> Option<String> {
    let of_file = match entry.kind {
        DavKind::File { size_bytes, hash, .. } => Some((size_bytes, hash)),
        DavKind::Directory => None,
    };
    let value = match (space, name) {
        ("DAV:", "displayname") => escaped(&String::from_utf8_lossy(entry.path.names().last()?.as_bytes())),
        (OWNCLOUD, "id" | "fileid") => hex::encode(entry.node.as_bytes()),
        (OWNCLOUD, "size") => of_file?.0.to_string(),
        (OWNCLOUD, "checksums") => format!("<oc:checksum>SHA256:{}</oc:checksum>", of_file?.1),
        (OWNCLOUD, "permissions") => permissions(entry.is_dir(), role).into(),
        _ => return None,
    };
    Some(match space {
        "DAV:" => format!("<D:{name} xmlns:D=\"DAV:\">{value}</D:{name}>"),
        _ => format!("<oc:{name} xmlns:oc=\"{OWNCLOUD}\">{value}</oc:{name}>"),
    })
}

/// Letters for deleting, renaming, moving, and writing a file or making one or a directory in it.
fn permissions(is_dir: bool, role: Role) -> &'static str {
    match (role, is_dir) {
        (Role::Viewer, _) => "",
        (_, true) => "DNVCK",
        (_, false) => "DNVW",
    }
}

/// Text for XML, without what no XML can hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::{NodeId, RelPath};

    #[test]
    fn properties_are_elements_whatever_the_name_is() {
        let path = RelPath::parse("a/<b>&\u{1}\"ü".as_bytes()).unwrap();
        let kind = DavKind::File { size_bytes: 3, hash: ContentHash::of(b"abc"), mtime_ns: -5 };
        let entry = DavEntry { path, node: NodeId::from_bytes([7; 16]), kind, is_copy: false, created_at_ms: Some(1), updated_at_ms: None };
        for (space, name) in
            [("DAV:", "displayname"), (OWNCLOUD, "id"), (OWNCLOUD, "size"), (OWNCLOUD, "checksums"), (OWNCLOUD, "permissions")]
        {
            let xml = live(&entry, Role::Owner, space, name).unwrap();
            let element = xmltree::Element::parse(xml.as_bytes()).unwrap();
            assert_eq!((element.name.as_str(), element.namespace.as_deref()), (name, Some(space)), "{xml}");
        }
        let name = xmltree::Element::parse(live(&entry, Role::Owner, "DAV:", "displayname").unwrap().as_bytes()).unwrap();
        assert_eq!(name.get_text().unwrap(), "<b>&\u{fffd}\"ü");
        assert_eq!(live(&entry, Role::Owner, "DAV:", "getetag"), None);
        let meta = Meta::of(&entry, 9, 0);
        assert_eq!((meta.modified().unwrap(), meta.etag().unwrap()), (SystemTime::UNIX_EPOCH, etag_of(&ContentHash::of(b"abc"))));
        assert_eq!(hash_of(&meta.etag().unwrap()), Some(ContentHash::of(b"abc")));
        assert_eq!((hash_of(""), hash_of("d9-00")), (None, None));
    }
}
