//! What a node state says at a glance: the columns beside it.

use crate::store::content::{Before, BeforeKind, NodeWrite, VersionRow, VersionWrite};
use ferry_protocol::{Content, DeviceId, NamespaceId, NodeId, NodeState, ReplicaId, Value, read};
use sha2::{Digest, Sha256};

/// The row of a node; `before` is its state until now. `writer` is who brings the change, and as which replica.
pub(super) fn node_write(
    id: NodeId,
    seq: u64,
    state: NodeState,
    before: Option<&NodeState>,
    writer: Option<(ReplicaId, DeviceId)>,
) -> NodeWrite {
    let now = summary(&state);
    let (was, changed_by) = match before {
        Some(old) => (summary(old), changed_by(old, &state, writer)),
        // Nothing stood there: who made it is what a rewind of one device's work asks.
        None => {
            let nothing = Before { kind: BeforeKind::Deleted, link_target: None, dot: None, copies: Some(Vec::new()), ..now.clone() };
            (nothing, maker(&state))
        }
    };
    let was = Some(was).filter(|was| *was != now);
    let shown = read::shown(state.body());
    let primary = shown.first().map(|s| &s.value.content);
    let (size_bytes, hash) = match primary {
        Some(Content::File(file)) => (file.manifest.size(), Some(file.manifest.hash())),
        _ => (0, None),
    };
    let file_type = match primary {
        Some(Content::Dir) => "directory",
        Some(Content::Symlink(_)) => "symlink",
        Some(Content::File(_)) => media_type(state.places()[0].name.as_bytes()),
        Some(Content::Tombstone) | None => "deleted",
    };
    let is_deleted = primary.is_none();
    let link_target = if is_deleted { before.and_then(link_target) } else { link_target(&state) };
    let standing = super::settle::own_standing(id, &state, false);
    NodeWrite { id, seq, state, size_bytes, file_type, hash, link_target, is_deleted, standing, before: was, changed_by }
}

/// What a state shows, as far as going back to it needs.
fn summary(state: &NodeState) -> Before {
    let shown = read::shown(state.body());
    let (kind, dot) = match shown.first().map(|s| (&s.value.content, s.value.dot)) {
        Some((Content::Dir, _)) => (BeforeKind::Directory, None),
        Some((Content::Symlink(_), _)) => (BeforeKind::Symlink, None),
        Some((Content::File(_), dot)) => (BeforeKind::File, Some(dot)),
        Some((Content::Tombstone, _)) | None => (BeforeKind::Deleted, None),
    };
    let place = &state.places()[0];
    let copies = Some(shown.iter().skip(1).map(|s| s.value.dot).collect());
    Before { parent: place.parent, name: place.name.clone(), kind, link_target: link_target(state), dot, copies }
}

/// Who made the newest of the changes: the author of a value says so himself; who moved something is known by the replica, if that is the writer's or
/// has written a value too; who settled a conflicted copy left no trace but that he brings it.
fn changed_by(old: &NodeState, new: &NodeState, writer: Option<(ReplicaId, DeviceId)>) -> Option<DeviceId> {
    let values = || new.body().values().iter();
    if let Some(value) = values().filter(|v| old.body().value(v.dot).is_none()).max_by_key(|v| v.stamp) {
        return Some(value.author.device);
    }
    if old.places()[0] == new.places()[0] {
        return writer.map(|(_, device)| device);
    }
    let mover = new.places()[0].stamp.replica;
    let written = values().find(|v| v.dot.replica == mover).map(|v| v.author.device);
    writer.filter(|(replica, _)| *replica == mover).map(|(_, device)| device).or(written)
}

/// Who wrote what a new node shows.
fn maker(state: &NodeState) -> Option<DeviceId> {
    state.body().values().iter().max_by_key(|v| v.stamp).map(|v| v.author.device)
}

fn link_target(state: &NodeState) -> Option<Vec<u8>> {
    match read::shown(state.body()).first().map(|s| &s.value.content) {
        Some(Content::Symlink(target)) => Some(target.to_vec()),
        _ => None,
    }
}

/// The version that a value with a file's content is; nothing for other values.
pub(super) fn version_write(namespace: NamespaceId, node: NodeId, value: &Value, now_ms: i64) -> Option<VersionWrite> {
    let file = value.content.file()?;
    let row = VersionRow {
        version_id: version_id(namespace, node, value),
        node,
        number: 0,
        dot: value.dot,
        hash: file.manifest.hash(),
        size_bytes: file.manifest.size(),
        mtime_ns: file.mtime_ns,
        author_device: value.author.device,
        author_name: value.author.name.to_string(),
        wall_ms: value.wall_ms,
        created_at_ms: now_ms,
        label: None,
    };
    Some(VersionWrite { row, chunks: file.manifest.chunks().to_vec() })
}

/// A version's id is a function of the event that wrote it, so that every relay that hears of it gives it the same one.
fn version_id(namespace: NamespaceId, node: NodeId, value: &Value) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"ferry version");
    hash.update(namespace.as_bytes());
    hash.update(node.as_bytes());
    hash.update(value.dot.replica.as_bytes());
    hash.update(value.dot.counter.to_le_bytes());
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// The media type that a name suggests. What a browser might run is served as an attachment, whatever is said here.
pub(super) fn media_type(name: &[u8]) -> &'static str {
    let extension = name.iter().rposition(|b| *b == b'.').map_or(&b""[..], |dot| &name[dot + 1..]).to_ascii_lowercase();
    match &extension[..] {
        b"txt" | b"md" | b"log" | b"csv" | b"rs" | b"toml" | b"c" | b"h" | b"py" | b"sh" => "text/plain; charset=utf-8",
        b"html" | b"htm" => "text/html",
        b"json" => "application/json",
        b"pdf" => "application/pdf",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"png" => "image/png",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"svg" => "image/svg+xml",
        b"avif" => "image/avif",
        b"bmp" => "image/bmp",
        b"mp3" => "audio/mpeg",
        b"ogg" | b"oga" | b"opus" => "audio/ogg",
        b"wav" => "audio/wav",
        b"flac" => "audio/flac",
        b"m4a" => "audio/mp4",
        b"aac" => "audio/aac",
        b"mp4" | b"m4v" => "video/mp4",
        b"webm" => "video/webm",
        b"ogv" => "video/ogg",
        b"mov" => "video/quicktime",
        b"zip" => "application/zip",
        b"gz" | b"tgz" => "application/gzip",
        _ => "application/octet-stream",
    }
}
