//! How the plain API writes ids, times and paths: UUIDs, RFC 3339, slashes.

use crate::service::content::FileInfo;
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::{NamespaceId, NodeId, RelPath, node};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// 16 bytes as a UUID.
pub(super) fn uuid(bytes: &[u8; 16]) -> String {
    Uuid::from_bytes(*bytes).to_string()
}

/// The bytes of a UUID, with or without dashes. What is not one does not exist.
pub(super) fn bytes_of(text: &str) -> ServiceResult<[u8; 16]> {
    Uuid::parse_str(text).map(Uuid::into_bytes).map_err(|_| ServiceError::not_found())
}

/// A file's id from a path parameter.
pub(super) fn node_of(text: &str) -> ServiceResult<NodeId> {
    bytes_of(text).map(NodeId::from_bytes)
}

/// A namespace's id from a parameter or a body.
pub(super) fn namespace_of(text: &str) -> ServiceResult<NamespaceId> {
    bytes_of(text).map(NamespaceId::from_bytes)
}

/// `?space_id=` beside a file's id: the folder in which it is meant.
#[derive(Deserialize)]
pub(super) struct InFolder {
    space_id: Option<String>,
}

impl InFolder {
    pub(super) fn namespace(&self) -> ServiceResult<Option<NamespaceId>> {
        self.space_id.as_deref().map(namespace_of).transpose()
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.to_string())
}

/// Nanoseconds since 1970 as RFC 3339.
pub(super) fn time_ns(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |t| t.to_string())
}

/// Nanoseconds since 1970 from RFC 3339 or from seconds since 1970, with or without a fraction.
pub(super) fn parse_time_ns(text: &str) -> Option<i64> {
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return i64::try_from(t.as_nanosecond()).ok();
    }
    let seconds: f64 = text.parse().ok()?;
    (seconds.is_finite() && seconds.abs() < 9e9)
        .then(|| if seconds.fract() == 0.0 { seconds as i64 * 1_000_000_000 } else { (seconds * 1e9) as i64 })
}

/// A shown path with a slash before it.
pub(super) fn path_text(path: &RelPath) -> String {
    format!("/{}", String::from_utf8_lossy(&path.to_bytes()))
}

/// `directory`, `file` or `symlink`.
pub(super) fn kind(content: &node::Content) -> &'static str {
    match content {
        node::Content::Dir => "directory",
        node::Content::File(_) => "file",
        node::Content::Symlink(_) => "symlink",
        node::Content::Tombstone => "deleted",
    }
}

/// The value that `If-Match` compares for a file's metadata.
pub(super) fn etag(seq: u64) -> String {
    format!("\"m{seq}\"")
}

/// The number in an `If-Match`; `*` is any.
pub(super) fn parse_etag(text: &str) -> ServiceResult<Option<u64>> {
    if text.trim() == "*" {
        return Ok(None);
    }
    let number = text.trim().trim_matches('"').strip_prefix('m').and_then(|n| n.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| ServiceError::new(crate::service::Kind::PreconditionFailed, "changed", "The file has another ETag. Read it again."))
}

/// A file as the plain API shows it.
pub(super) fn file_json(info: &FileInfo) -> Value {
    let (size, hash) = info.content.file().map_or((0, None), |f| (f.manifest.size(), Some(f.manifest.hash().to_string())));
    let name = info.path.names().last().map_or(String::new(), |n| String::from_utf8_lossy(n.as_bytes()).into_owned());
    let target = if let node::Content::Symlink(t) = &info.content { Some(String::from_utf8_lossy(t).into_owned()) } else { None };
    json!({
        "file_id": uuid(info.node.as_bytes()),
        "space_id": uuid(info.namespace.as_bytes()),
        "file_name": name,
        "file_path": path_text(&info.path),
        "file_size": size,
        "file_type": info.file_type,
        "file_hash": hash,
        "kind": kind(&info.content),
        "target": target,
        "is_deleted": false,
        "is_conflict": info.is_conflict,
        "version_id": info.version_id.as_ref().map(uuid),
        "created_at": time(info.created_at_ms),
        "updated_at": time(info.updated_at_ms),
        "modified_at": info.mtime_ns.map(time_ns),
        "etag": etag(info.seq),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(parse_time_ns("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(parse_time_ns("1970-01-01T01:00:01.5+01:00"), Some(1_500_000_000));
        assert_eq!(parse_time_ns("1795343400"), Some(1_795_343_400_000_000_000));
        assert_eq!(parse_time_ns("1.5"), Some(1_500_000_000));
        for wrong in ["", "yesterday", "nan", "inf", "1e300", "2026-11-22"] {
            assert_eq!(parse_time_ns(wrong), None, "{wrong}");
        }
        assert_eq!(time(1_795_343_400_000), "2026-11-22T10:30:00Z");
    }

    #[test]
    fn ids_are_read_with_and_without_dashes() {
        let id = [7; 16];
        assert_eq!(bytes_of(&uuid(&id)).unwrap(), id);
        assert_eq!(bytes_of(&hex::encode(id)).unwrap(), id);
        assert!(bytes_of("../x").is_err());
    }
}
