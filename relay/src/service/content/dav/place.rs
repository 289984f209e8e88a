//! Directories made, entries deleted, moved and copied, by path.

use super::props::copy_props;
use crate::service::content::edit::Edit;
use crate::service::content::files::check_place;
use crate::service::content::view::{Shown, View};
use crate::service::content::{Content, Entry, Keep, patiently, random};
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::{ChunkId, Dot, NodeId, RelPath, node};
use std::collections::{BTreeMap, BTreeSet};

/// Most entries that one request copies.
const COPY_MAX: usize = 10_000;
/// Most entries that one request replaces.
const REPLACE_MAX: usize = 100_000;

/// A node that goes, and the events that its deletion replaces.
type Doomed = (NodeId, Vec<Dot>);

impl Content {
    /// Makes a directory. The one above it must be there.
    pub async fn dav_make_directory(&self, entry: &Entry, path: &RelPath) -> ServiceResult<()> {
        entry.confine_below(path)?;
        check_place(path)?;
        let attempt = async || {
            let (above, name) = path.split_last().ok_or_else(name_taken)?;
            let view = self.view(entry.row.id);
            let directory = view.directory(&above).await?;
            if view.look(&directory, name).await?.is_some() {
                return Err(name_taken());
            }
            let mut edit = self.edit(entry, &[]).await?;
            edit.make_directories(directory.node(), std::slice::from_ref(name))?;
            self.finish(edit).await
        };
        patiently!(attempt().await).map(drop)
    }

    /// Deletes what is at a place, and everything below it: into the trash.
    pub async fn dav_delete(&self, entry: &Entry, path: &RelPath) -> ServiceResult<()> {
        whole_is_refused(path)?;
        entry.confine_below(path)?;
        let shown = self.view(entry.row.id).at(path).await?.ok_or_else(ServiceError::not_found)?.entry;
        if shown.copy.is_some() {
            // What it showed remains among the versions of its file.
            return self.settle(entry, path, Keep::Current).await.map(drop);
        }
        self.delete_file(entry, shown.node, None).await.map(drop)
    }

    /// Moves what is at `from` to `to`; with `replace`, what is there goes into the trash by the same edit. The node stays the same.
    pub async fn dav_move(&self, entry: &Entry, from: &RelPath, to: &RelPath, replace: bool) -> ServiceResult<()> {
        check_ends(entry, from, to)?;
        if to.starts_with(from) || from.starts_with(to) {
            return Err(ServiceError::forbidden("Nothing can be moved into itself, or in place of a directory that it is in."));
        }
        self.own_node(entry, from).await?;
        self.own_node(entry, to).await?;
        let (above, name) = to.split_last().ok_or_else(ServiceError::not_found)?;
        let attempt = async || {
            let view = self.view(entry.row.id);
            let source = view.at(from).await?.ok_or_else(ServiceError::not_found)?.entry;
            let parent = view.directory(&above).await?.node();
            let doomed = replaced(&view, to, replace).await?;
            // What is shown as one moves as one.
            let twins = source.twins.iter().filter(|(_, copy, _)| copy.is_none()).map(|(twin, _, _)| *twin);
            let moved: Vec<NodeId> = std::iter::once(source.node).chain(twins).collect();
            let ids: Vec<NodeId> = moved.iter().copied().chain(doomed.iter().map(|(id, _)| *id)).collect();
            let mut edit = self.edit(entry, &ids).await?;
            bury(&mut edit, &doomed)?;
            for id in &moved {
                edit.move_to(*id, parent, name.clone())?;
            }
            self.finish(edit).await
        };
        patiently!(attempt().await).map(drop)
    }

    /// Copies what is at `from` to `to`, with `deep` also what is below it; with `replace`, what is there goes into the trash by the same edit, or stays
    /// among the versions where a file takes the place of a file. No bytes are moved: the copies share their chunks.
    pub async fn dav_copy(&self, entry: &Entry, from: &RelPath, to: &RelPath, deep: bool, replace: bool) -> ServiceResult<()> {
        check_ends(entry, from, to)?;
        if from.starts_with(to) {
            return Err(ServiceError::forbidden("Nothing can be copied in place of a directory that it is in."));
        }
        self.own_node(entry, to).await?;
        let (above, _) = to.split_last().ok_or_else(ServiceError::not_found)?;
        let with_props = self.dav_prop_nodes(entry).await?;
        let attempt = async || {
            let view = self.view(entry.row.id);
            let source = view.at(from).await?.ok_or_else(ServiceError::not_found)?;
            let parent = view.directory(&above).await?.node();
            let copied = to_copy(&view, source, to, deep).await?;
            let source = &copied[0].entry;
            let there = view.at(to).await?.map(|shown| shown.entry).filter(|e| replace && e.content.file().is_some());
            let kept = there.filter(|_| source.content.file().is_some());
            let doomed = if kept.is_some() { Vec::new() } else { replaced(&view, to, replace).await? };
            let ids: Vec<NodeId> = kept.iter().map(|k| k.node).chain(doomed.iter().map(|(id, _)| *id)).collect();
            let mut edit = self.edit(entry, &ids).await?;
            self.check_held(&mut edit, entry, &copied).await?;
            bury(&mut edit, &doomed)?;
            let mut pairs = Vec::new();
            match kept {
                Some(there) => {
                    edit.put(there.node, &there.dots, source.content.clone())?;
                    pairs.push((source.node, there.node));
                }
                None => pairs = write_copies(&mut edit, parent, (from, to), &copied)?,
            }
            pairs.retain(|(old, new)| with_props.contains(old) || with_props.contains(new));
            copy_props(edit.tx(), entry.row.id, &pairs).await?;
            self.finish(edit).await
        };
        patiently!(attempt().await).map(drop)
    }

    /// Refuses to copy what the relay has lost a part of.
    async fn check_held(&self, edit: &mut Edit, entry: &Entry, copied: &[Shown]) -> ServiceResult<()> {
        let files = copied.iter().filter_map(|shown| shown.entry.content.file());
        let ids: BTreeSet<ChunkId> = files.flat_map(|f| f.manifest.chunks().iter().map(|c| c.id)).collect();
        let ids: Vec<ChunkId> = ids.into_iter().collect();
        let held = edit.tx().held(entry.row.id, &ids).await?;
        if ids.iter().all(|id| held.get(id).is_some_and(|h| !h.is_damaged)) {
            return Ok(());
        }
        Err(ServiceError::unavailable("A part of this is damaged on the relay. A device that has it will heal it."))
    }

    /// Makes of a conflicted copy a file of its own, under the name that it is shown under: what is edited by its path is one.
    pub(super) async fn own_node(&self, entry: &Entry, path: &RelPath) -> ServiceResult<()> {
        if self.view(entry.row.id).at(path).await?.is_some_and(|shown| shown.entry.copy.is_some()) {
            self.settle(entry, path, Keep::Both).await?;
        }
        Ok(())
    }
}

/// What is copied, parents before children: with `deep` also what is below, but for the place where the copy is to be.
async fn to_copy(view: &View<'_>, source: Shown, to: &RelPath, deep: bool) -> ServiceResult<Vec<Shown>> {
    let below = source.directory().filter(|_| deep);
    let mut copied = vec![source];
    if let Some(below) = below {
        let beside = view.at(to).await?.filter(|there| there.path.starts_with(&below.path));
        let own = match beside.as_ref().and_then(Shown::directory) {
            Some(own) => 1 + view.walk(own, false, None, REPLACE_MAX).await?.0.len(),
            None => usize::from(beside.is_some()),
        };
        let (found, _) = view.walk(below, false, None, COPY_MAX + own).await?;
        copied.extend(found.into_iter().filter(|shown| !shown.path.starts_with(to)));
    }
    if copied.len() > COPY_MAX {
        return Err(ServiceError::too_large(format!("One request copies at most {COPY_MAX} entries. Copy parts of it first.")));
    }
    Ok(copied)
}

/// Creates the copies, the first of them in `parent`. Returns what is a copy of what.
fn write_copies(
    edit: &mut Edit,
    parent: NodeId,
    (from, to): (&RelPath, &RelPath),
    copied: &[Shown],
) -> ServiceResult<Vec<(NodeId, NodeId)>> {
    let mut made: BTreeMap<RelPath, NodeId> = BTreeMap::new();
    let mut pairs = Vec::new();
    for shown in copied {
        let names = to.names().iter().chain(&shown.path.names()[from.names().len()..]).cloned().collect();
        let target = RelPath::from_names(names);
        check_place(&target)?;
        let (above, name) = target.split_last().ok_or_else(ServiceError::not_found)?;
        let parent = made.get(&above).copied().unwrap_or(parent);
        let id = NodeId::from_bytes(random()?);
        edit.create(id, parent, name.clone(), shown.entry.content.clone());
        pairs.push((shown.entry.node, id));
        made.insert(target, id);
    }
    Ok(pairs)
}

/// What must go so that a place is free.
async fn replaced(view: &View<'_>, place: &RelPath, replace: bool) -> ServiceResult<Vec<Doomed>> {
    let Some(there) = view.at(place).await? else { return Ok(Vec::new()) };
    if !replace {
        return Err(name_taken());
    }
    let (below, has_more) = match there.directory() {
        Some(directory) => view.walk(directory, false, None, REPLACE_MAX).await?,
        None => (Vec::new(), false),
    };
    let mut doomed = Vec::new();
    for one in std::iter::once(there).chain(below).map(|shown| shown.entry) {
        doomed.push((one.node, one.dots));
        doomed.extend(one.twins.into_iter().map(|(twin, _, dots)| (twin, dots)));
    }
    if has_more || doomed.len() > REPLACE_MAX {
        return Err(ServiceError::too_large(format!("One request replaces at most {REPLACE_MAX} entries. Delete parts of it first.")));
    }
    Ok(doomed)
}

fn bury(edit: &mut Edit, doomed: &[Doomed]) -> ServiceResult<()> {
    for (id, dots) in doomed {
        edit.put(*id, dots, node::Content::Tombstone)?;
    }
    Ok(())
}

/// Both ends of a COPY or MOVE are places below the open part.
fn check_ends(entry: &Entry, from: &RelPath, to: &RelPath) -> ServiceResult<()> {
    whole_is_refused(from)?;
    whole_is_refused(to)?;
    entry.confine_below(from)?;
    entry.confine_below(to)?;
    check_place(to)
}

fn whole_is_refused(path: &RelPath) -> ServiceResult<()> {
    if path.is_root() { Err(ServiceError::forbidden("A whole folder is not moved, copied or deleted by WebDAV.")) } else { Ok(()) }
}

pub(super) fn name_taken() -> ServiceError {
    ServiceError::conflict("name_taken", "There is something of that name already. Choose another name.")
}
