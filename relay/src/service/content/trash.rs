//! The trash: what was deleted and can come back. Nothing in it is ever lost to the sweep: its versions hold its chunks.
//!
//! A directory comes back with what was deleted with it: by the same device, without a longer pause between one deletion and the next. What was
//! deleted from it before stays in the trash. If the old place is taken, it comes back beside, under a free name.

use super::edit::Write;
use super::view::{Directory, Shown};
use super::{Content, Entry};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::{DeletedRow, TrashedNode};
use crate::store::versions::KeptContent;
use ferry_protocol::limits::{NAME_MAX_BYTES, PATH_DEPTH_MAX};
use ferry_protocol::{FileContent, Manifest, Name, NamespaceId, NodeId, Place, Value, node, read};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Most entries of one page.
const PAGE_MAX: usize = 1000;
/// Most entries that one request brings back.
const RESTORE_MAX: usize = 100_000;
/// Deletions by one device with no longer pause between them, by its own clock in milliseconds, are one act.
const ACT_PAUSE_MS: u64 = 60_000;

/// Something in the trash.
pub type TrashItem = DeletedRow;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The node.
    pub node: NodeId,
    /// How many entries came back, this one included.
    pub count: usize,
    /// The feed's head after it.
    pub head_seq: u64,
}

impl Content {
    /// What lies in the trash of a namespace, newest first; the second value is the cursor of the next page.
    pub async fn trash(&self, entry: &Entry, before_seq: Option<u64>, limit: usize) -> ServiceResult<(Vec<TrashItem>, Option<u64>)> {
        let limit = limit.clamp(1, PAGE_MAX);
        let items = self.meta.deleted(entry.row.id, before_seq.unwrap_or(i64::MAX as u64), limit).await?;
        let next = if items.len() == limit { items.last().map(|i| i.seq) } else { None };
        Ok((items, next))
    }

    /// Brings back what was deleted, with the newest content that it had, and with a directory what was deleted with it. Directories above it come
    /// back with it (CR8).
    pub async fn restore(&self, entry: &Entry, file: NodeId) -> ServiceResult<Restored> {
        let namespace = entry.row.id;
        let found = self.meta.deleted_below(namespace, file, RESTORE_MAX + 1).await?;
        if found.len() > RESTORE_MAX {
            let detail = format!("One request brings back at most {RESTORE_MAX} entries. Bring back parts of it first.");
            return Err(ServiceError::too_large(detail));
        }
        let Some(place) = found.iter().find(|trashed| trashed.row.id == file).map(|trashed| trashed.row.state.places()[0].clone()) else {
            return Err(self.why_not_in_trash(namespace, file).await?);
        };
        let mut contents = Vec::new();
        let together = deleted_together(file, found);
        let files: Vec<NodeId> = together.iter().filter(|t| is_file(t)).map(|t| t.row.id).collect();
        let mut kept = if files.is_empty() { BTreeMap::new() } else { self.meta.newest_contents(namespace, &files).await? };
        for trashed in together {
            match content_of(&trashed, kept.remove(&trashed.row.id))? {
                Some(content) => contents.push((trashed.row.id, content)),
                None if trashed.row.id == file => {
                    let detail = "What this was is not kept: it was deleted before this relay had seen it.";
                    return Err(ServiceError::conflict("content_not_kept", detail));
                }
                None => {}
            }
        }
        let moved_to = self.free_place(namespace, file, place).await?;
        let ids: Vec<NodeId> = contents.iter().map(|(id, _)| *id).collect();
        let write: Write = Arc::new(move |pen| {
            if let Some((parent, name)) = &moved_to {
                pen.move_to(file, *parent, name.clone())?;
            }
            let mut count = 0;
            for (id, content) in &contents {
                let Some(state) = pen.state(*id).filter(|s| !s.body().has_living()) else { continue };
                // Every tombstone that stands now is replaced; a living value that came meanwhile stays.
                let dots: Vec<_> = state.body().values().iter().filter(|v| v.content.is_tombstone()).map(|v| v.dot).collect();
                pen.put(*id, &dots, content.clone())?;
                count += 1;
            }
            Ok(count)
        });
        let wrote = self.write(entry, ids, write).await?;
        Ok(Restored { node: file, count: wrote.count, head_seq: wrote.head_seq })
    }

    /// What to answer about a node that is not in the trash.
    async fn why_not_in_trash(&self, namespace: NamespaceId, file: NodeId) -> ServiceResult<ServiceError> {
        let states = self.meta.nodes(namespace, &[file]).await?;
        if !read::shown(states.first().ok_or_else(ServiceError::not_found)?.state.body()).is_empty() {
            return Ok(ServiceError::conflict("not_deleted", "This is not in the trash."));
        }
        Ok(ServiceError::conflict("content_not_kept", "This was taken out of the trash for good: its content is gone."))
    }

    /// Where a deleted node must be moved to because its old place is taken; nothing if it is free.
    async fn free_place(&self, namespace: NamespaceId, file: NodeId, place: Place) -> ServiceResult<Option<(NodeId, Name)>> {
        let view = self.view(namespace);
        let mut shown = view.of_nodes(&[file, place.parent]).await?;
        if shown.contains_key(&file) {
            // A directory that is shown because something in it lives.
            return Ok(None);
        }
        let mut line = VecDeque::from([(file, place.name)]);
        let shown = match shown.remove(&place.parent) {
            Some(parent) => Some(parent),
            None => self.hidden_line(namespace, place.parent, &mut line).await?,
        };
        let Some((_, name)) = line.pop_back() else { return Ok(None) };
        let (mut here, mut directory) = (NodeId::ROOT, Some(Directory::root()));
        let mut is_blocked = false;
        if let Some(shown) = shown {
            match shown.directory() {
                Some(there) => (here, directory) = (shown.entry.node, Some(there)),
                None => {
                    is_blocked = true;
                    line.clear();
                }
            }
        }
        for (node, name) in line {
            // In what is not shown nothing has a name.
            let there = match &directory {
                Some(directory) => view.look(directory, &name).await?,
                None => None,
            };
            let next = there.as_ref().map(Shown::directory);
            if matches!(next, Some(None)) {
                is_blocked = true;
                break;
            }
            (here, directory) = (node, next.flatten());
        }
        let (mut free, mut number) = (name.clone(), 0);
        while let Some(directory) = &directory
            && view.look(directory, &free).await?.is_some()
        {
            number += 1;
            free = restored_name(&name, number);
        }
        Ok((number > 0 || is_blocked).then_some((here, free)))
    }

    /// Puts a node that is not shown and the directories above it that are not, with their names, before the line. What is shown above them, if not the root.
    async fn hidden_line(&self, namespace: NamespaceId, node: NodeId, line: &mut VecDeque<(NodeId, Name)>) -> ServiceResult<Option<Shown>> {
        let mut at = node;
        while at != NodeId::ROOT && line.len() < PATH_DEPTH_MAX {
            let states = self.meta.nodes(namespace, &[at]).await?;
            let Some(row) = states.first() else { break };
            let place = &row.state.places()[0];
            line.push_front((at, place.name.clone()));
            at = place.parent;
            if at == NodeId::ROOT {
                break;
            }
            if let Some(shown) = self.view(namespace).of_node(at).await? {
                return Ok(Some(shown));
            }
        }
        Ok(None)
    }
}

fn is_file(trashed: &TrashedNode) -> bool {
    !matches!(trashed.file_type.as_str(), "directory" | "symlink")
}

/// What a deleted node was, of which this is kept if it was a file; nothing if that is not known.
fn content_of(trashed: &TrashedNode, kept: Option<KeptContent>) -> ServiceResult<Option<node::Content>> {
    Ok(match trashed.file_type.as_str() {
        "directory" => Some(node::Content::Dir),
        "symlink" => trashed.link_target.as_deref().map(|target| node::Content::Symlink(target.into())),
        _ => match kept {
            None => None,
            Some(KeptContent { hash, mtime_ns, chunks }) => {
                let manifest = Manifest::new(hash, chunks).map_err(ServiceError::internal)?;
                Some(node::Content::File(FileContent::new(manifest, mtime_ns)))
            }
        },
    })
}

/// The node, and those below it whose deletion was part of one act with its own; parents before what is in them.
fn deleted_together(root: NodeId, found: Vec<TrashedNode>) -> Vec<TrashedNode> {
    let mut acts: Vec<(i64, NodeId)> = Vec::new();
    let mut nodes: BTreeMap<NodeId, TrashedNode> = found.into_iter().map(|t| (t.row.id, t)).collect();
    let Some((author, wall_ms)) = nodes.get(&root).and_then(deletion) else { return Vec::new() };
    acts.extend(nodes.values().filter_map(|t| Some((deletion(t).filter(|(who, _)| *who == author)?.1, t.row.id))));
    acts.sort_unstable();
    let start = acts.partition_point(|(at, _)| *at < wall_ms);
    let mut together = BTreeSet::new();
    // Away from the node's own deletion in both directions, until the first long pause.
    let (before, after): (Vec<_>, Vec<_>) = (acts[..start].iter().rev().collect(), acts[start..].iter().collect());
    for direction in [before, after] {
        let mut last = wall_ms;
        for (at, id) in direction {
            if last.abs_diff(*at) > ACT_PAUSE_MS {
                break;
            }
            together.insert(*id);
            last = *at;
        }
    }
    let mut inside: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for node in nodes.values() {
        inside.entry(node.row.state.places()[0].parent).or_default().push(node.row.id);
    }
    let mut out = Vec::new();
    let mut next = VecDeque::from([root]);
    while let Some(id) = next.pop_front() {
        let Some(node) = nodes.remove(&id) else { continue };
        next.extend(inside.remove(&id).unwrap_or_default());
        if together.contains(&id) {
            out.push(node);
        }
    }
    out
}

/// The device that deleted a node last, and when by its clock.
fn deletion(trashed: &TrashedNode) -> Option<(ferry_protocol::DeviceId, i64)> {
    let tombstones = trashed.row.state.body().values().iter().filter(|v: &&Value| v.content.is_tombstone());
    tombstones.max_by_key(|v| v.stamp).map(|v| (v.author.device, v.wall_ms))
}

/// The name of what comes back beside something of its old name; `number` counts from 1.
fn restored_name(name: &Name, number: u64) -> Name {
    let bytes = name.as_bytes();
    let dot = bytes.iter().skip(1).position(|b| *b == b'.').map_or(bytes.len(), |at| at + 1);
    let middle = if number == 1 { " (restored)".to_owned() } else { format!(" (restored {number})") };
    // The extension gives way to a stem, and a stem is cut where a character ends.
    let extension = &bytes[dot..dot + (bytes.len() - dot).min(64)];
    let mut stem = &bytes[..dot.min(NAME_MAX_BYTES - middle.len() - extension.len())];
    while stem.len() > 1 && bytes.get(stem.len()).is_some_and(|b| b & 0xC0 == 0x80) {
        stem = &stem[..stem.len() - 1];
    }
    Name::new([stem, middle.as_bytes(), extension].concat()).unwrap_or_else(|_| name.clone())
}
