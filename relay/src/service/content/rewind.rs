//! Going back to a time: every entry of a folder, or every one that certain devices changed since, becomes what it was (L23).
//!
//! Nothing is taken back in the history: a rewind is made of ordinary edits by whoever asked for it, so it converges like any other, and another rewind
//! takes it back. It goes through the folder in the order of ids, some nodes in one transaction, and remembers how far it came: asked again with its
//! id it goes on, and once it is finished it answers what it did (I8).
//!
//! * **RW1** Times are the relay's: when it heard of a change. No device's clock decides.
//! * **RW2** What somebody changed after the rewind began is left alone and counted.
//! * **RW3** With a choice of devices an entry goes back to what it was before the first change by one of them, unless somebody else has changed it since.

use super::edit::Edit;
use super::{Content, Entry};
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::content::{Before, BeforeKind, Changed, RewindRow, Scope, VersionRow};
use ferry_protocol::wire::Role;
use ferry_protocol::{DeviceId, Dot, FileContent, Manifest, Name, NamespaceId, NodeId, node, read};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Nodes of one transaction.
const PAGE: usize = 500;
/// Nodes of one request; the answer says that there is more.
const REQUEST_MAX: usize = 5000;
/// Entries of one page of a plan.
const ENTRIES_MAX: usize = 1000;

/// What to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindWish {
    /// The time, in milliseconds since 1970: what the relay had heard by then counts.
    pub to_ms: i64,
    /// Only what these devices changed; nothing for whoever it was.
    pub only_by: Option<BTreeSet<DeviceId>>,
}

/// How many entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindCounts {
    /// Were deleted and are back.
    pub restored: u64,
    /// Have the content of then again.
    pub reverted: u64,
    /// Stand where they stood.
    pub moved: u64,
    /// Came later and are in the trash.
    pub removed: u64,
    /// Cannot go back, because their content was purged.
    pub not_kept: u64,
    /// Stay as they are, because somebody else changed them since.
    pub kept_for_others: u64,
    /// Stay as they are, because they changed while the rewind went on.
    pub changed_meanwhile: u64,
}

/// How far a rewind has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewound {
    /// When it was begun, in milliseconds since 1970: what was true just before is what taking it back leads to.
    pub started_at_ms: i64,
    /// Whether all is done; otherwise ask again with the same id.
    pub is_finished: bool,
    /// What was done so far.
    pub counts: RewindCounts,
}

/// What a rewind would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindPlan {
    /// To all entries.
    pub counts: RewindCounts,
    /// To these.
    pub entries: Vec<RewindEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<NodeId>,
}

/// What a rewind would do to one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindEntry {
    /// The node.
    pub node: NodeId,
    /// Its path now, or the name that it had.
    pub path: String,
    /// `restored`, `reverted`, `moved`, `removed`.
    pub acts: Vec<&'static str>,
}

/// What an entry is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Nothing,
    Directory,
    Link(Vec<u8>),
    Version(Dot),
    File(FileContent),
}

/// What is to be done to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    place: Option<(NodeId, Name)>,
    target: Option<Target>,
    was_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Nothing,
    KeptForOthers,
    Do(Task),
}

impl Task {
    fn acts(&self) -> Vec<&'static str> {
        let content = self.target.as_ref().map(|target| match target {
            Target::Nothing => "removed",
            _ if self.was_deleted => "restored",
            _ => "reverted",
        });
        content.into_iter().chain(self.place.as_ref().map(|_| "moved")).collect()
    }

    fn count(&self, counts: &mut RewindCounts) {
        for act in self.acts() {
            match act {
                "removed" => counts.removed += 1,
                "restored" => counts.restored += 1,
                "reverted" => counts.reverted += 1,
                _ => counts.moved += 1,
            }
        }
    }
}

/// What becomes of a node (RW3).
fn decide(changed: &Changed, wish: &RewindWish) -> Decision {
    let state = &changed.row.state;
    let shown = read::shown(state.body());
    let top = shown.first().map(|s| s.value);
    let chosen = |device: Option<DeviceId>| wish.only_by.as_ref().is_none_or(|set| device.is_some_and(|d| set.contains(&d)));
    let is_new = changed.row.created_at_ms > wish.to_ms;
    if is_new && wish.only_by.is_none() {
        let gone = Task { place: None, target: Some(Target::Nothing), was_deleted: false };
        return if top.is_some() { Decision::Do(gone) } else { Decision::Nothing };
    }
    let Some(first) = changed.history.iter().find(|h| chosen(h.changed_by)) else { return Decision::Nothing };
    if !changed.history.last().is_some_and(|h| chosen(h.changed_by)) {
        return Decision::KeptForOthers;
    }
    let before = &first.before;
    let target = target_of(before, top);
    let here = &state.places()[0];
    // Also of what was deleted: a directory is shown as long as something in it lives.
    // What a new node was before it was made stood nowhere.
    let stood = !(is_new && before.kind == BeforeKind::Deleted);
    let moved = stood && (here.parent != before.parent || here.name != before.name);
    let place = moved.then(|| (before.parent, before.name.clone()));
    if target.is_none() && place.is_none() {
        return Decision::Nothing;
    }
    Decision::Do(Task { place, target, was_deleted: top.is_none() })
}

/// What is to be shown instead of what is; nothing if that is it.
fn target_of(before: &Before, top: Option<&ferry_protocol::Value>) -> Option<Target> {
    match before.kind {
        BeforeKind::Deleted => top.map(|_| Target::Nothing),
        BeforeKind::Directory if top.is_some_and(|v| v.content.is_dir()) => None,
        BeforeKind::Directory => Some(Target::Directory),
        BeforeKind::Symlink => {
            let target = before.link_target.clone().unwrap_or_default();
            let is_it = top.is_some_and(|v| matches!(&v.content, node::Content::Symlink(now) if **now == *target));
            (!is_it).then_some(Target::Link(target))
        }
        BeforeKind::File => before.dot.filter(|dot| top.is_none_or(|v| v.dot != *dot)).map(Target::Version),
    }
}

impl Content {
    /// The devices that a name, an id or a user's address stands for, among those that changed something in the namespace.
    pub async fn rewind_authors(&self, entry: &Entry, device: Option<&str>, user: Option<&str>) -> ServiceResult<BTreeSet<DeviceId>> {
        let authors = self.meta.authors(entry.row.id).await?;
        let is_user = |a: &crate::store::content::AuthorRow, wanted: &str| {
            a.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(wanted)) || a.user.is_some_and(|u| u.to_string() == wanted)
        };
        let mut found = BTreeSet::new();
        if let Some(wanted) = device {
            let by_id = wanted.parse::<DeviceId>().ok();
            let named: Vec<DeviceId> = authors.iter().filter(|a| a.name == wanted || Some(a.device) == by_id).map(|a| a.device).collect();
            if named.len() > 1 {
                let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
                let detail = format!("Several devices that changed something here are called '{wanted}'. Name one by its id.");
                return Err(ServiceError::conflict("ambiguous", detail).with("devices", ids));
            }
            found.extend(named);
        }
        if let Some(wanted) = user {
            found.extend(authors.iter().filter(|a| is_user(a, wanted)).map(|a| a.device));
        }
        if found.is_empty() {
            let known: Vec<&str> = authors.iter().map(|a| a.name.as_str()).collect();
            let detail = "Nobody of that name has changed anything in this folder.";
            return Err(ServiceError::new(Kind::NotFound, "no_such_author", detail).with("devices", known.join(", ")));
        }
        Ok(found)
    }

    /// What a rewind would do: to all, and to the entries after `after` by name, at most `limit`.
    pub async fn rewind_plan(&self, entry: &Entry, wish: &RewindWish, after: Option<NodeId>, limit: usize) -> ServiceResult<RewindPlan> {
        self.check_rewind(entry, wish).await?;
        let limit = limit.clamp(1, ENTRIES_MAX);
        let mut plan = RewindPlan { counts: RewindCounts::default(), entries: Vec::new(), next: None };
        let mut position = None;
        loop {
            let page = self.meta.changed_since(entry.row.id, wish.to_ms, position, PAGE).await?;
            let Some(last) = page.last() else {
                self.name_entries(entry.row.id, &mut plan.entries).await?;
                return Ok(plan);
            };
            position = Some(last.row.id);
            for (changed, task) in self.tasks(entry.row.id, wish, &page, &mut plan.counts).await? {
                task.count(&mut plan.counts);
                let id = changed.row.id;
                if after.is_some_and(|after| id <= after) {
                    continue;
                }
                if plan.entries.len() == limit {
                    plan.next = plan.next.or(plan.entries.last().map(|e| e.node));
                    continue;
                }
                let path = changed.row.state.places()[0].name.to_string();
                plan.entries.push(RewindEntry { node: id, path, acts: task.acts() });
            }
        }
    }

    /// Says where what is shown stands.
    async fn name_entries(&self, namespace: NamespaceId, entries: &mut [RewindEntry]) -> ServiceResult<()> {
        let ids: Vec<NodeId> = entries.iter().map(|e| e.node).collect();
        let shown = self.view(namespace).of_nodes(&ids).await?;
        for one in entries {
            if let Some(shown) = shown.get(&one.node) {
                one.path = shown.path.to_string();
            }
        }
        Ok(())
    }

    /// Rewinds, or goes on with the rewind of this id, or answers what that did.
    pub async fn rewind(&self, entry: &Entry, id: [u8; 16], wish: &RewindWish) -> ServiceResult<Rewound> {
        self.check_rewind(entry, wish).await?;
        let namespace = entry.row.id;
        let mut row = self.begin_rewind(entry, id, digest(wish)?).await?;
        let mut counts: RewindCounts = serde_json::from_str(&row.counts).map_err(ServiceError::internal)?;
        let mut looked_at = 0;
        while !row.is_finished && looked_at < REQUEST_MAX {
            let page = self.meta.changed_since(namespace, wish.to_ms, row.position, PAGE).await?;
            looked_at += page.len();
            match page.last() {
                Some(last) => row.position = Some(last.row.id),
                None => row.is_finished = true,
            }
            self.rewind_page(entry, wish, &page, (&mut row, &mut counts)).await?;
        }
        Ok(Rewound { started_at_ms: row.started_at_ms, is_finished: row.is_finished, counts })
    }

    async fn check_rewind(&self, entry: &Entry, wish: &RewindWish) -> ServiceResult<()> {
        self.entry(&entry.caller, entry.row.clone(), Role::Editor)?;
        let since_ms = self.meta.history_since(entry.row.id).await?;
        if wish.to_ms < since_ms {
            let detail = "What entries were called is kept since a later time than this. Choose a later one.";
            return Err(ServiceError::conflict("history_begins_later", detail).with("since_ms", since_ms));
        }
        if wish.to_ms > self.clock.now_ms() {
            return Err(ServiceError::invalid("time_to_come", "This time is still to come."));
        }
        Ok(())
    }

    async fn begin_rewind(&self, entry: &Entry, id: [u8; 16], digest: [u8; 32]) -> ServiceResult<RewindRow> {
        if let Some(row) = self.meta.rewind(entry.row.id, id).await? {
            if row.digest != digest {
                let detail = "A rewind with this id asked for something else. Mint a new id for another rewind.";
                return Err(ServiceError::invalid("rewind_id_reused", detail));
            }
            return Ok(row);
        }
        let counts = serde_json::to_string(&RewindCounts::default()).map_err(ServiceError::internal)?;
        let row = RewindRow { id, digest, started_at_ms: self.clock.now_ms(), position: None, is_finished: false, counts };
        let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
        tx.put_rewind(entry.row.id, &row).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// One transaction: the edits, and how far the rewind has come.
    async fn rewind_page(
        &self,
        entry: &Entry,
        wish: &RewindWish,
        page: &[Changed],
        (row, counts): (&mut RewindRow, &mut RewindCounts),
    ) -> ServiceResult<()> {
        let mut done = *counts;
        let mut tasks = self.tasks(entry.row.id, wish, page, &mut done).await?;
        // Directories before what may stand in them, and what goes last.
        tasks.sort_by_key(|(_, task)| match &task.target {
            Some(Target::Directory) => 0,
            Some(Target::Nothing) => 2,
            _ => 1,
        });
        let ids: Vec<NodeId> = tasks.iter().map(|(changed, _)| changed.row.id).collect();
        let mut edit = self.edit(entry, &ids).await?;
        for (changed, task) in tasks {
            let id = changed.row.id;
            // RW2: since the rewind began, or between the look and this transaction.
            if changed.row.updated_at_ms > row.started_at_ms || edit.state(id) != Some(&changed.row.state) {
                done.changed_meanwhile += 1;
                continue;
            }
            task.count(&mut done);
            carry_out(&mut edit, id, task)?;
        }
        row.counts = serde_json::to_string(&done).map_err(ServiceError::internal)?;
        edit.tx().put_rewind(entry.row.id, row).await?;
        self.finish(edit).await?;
        *counts = done;
        Ok(())
    }

    /// The tasks of a page, each with its content; what stays for a reason is counted.
    async fn tasks<'p>(
        &self,
        namespace: NamespaceId,
        wish: &RewindWish,
        page: &'p [Changed],
        counts: &mut RewindCounts,
    ) -> ServiceResult<Vec<(&'p Changed, Task)>> {
        let mut out = Vec::new();
        for changed in page {
            let mut task = match decide(changed, wish) {
                Decision::Nothing => continue,
                Decision::KeptForOthers => {
                    counts.kept_for_others += 1;
                    continue;
                }
                Decision::Do(task) => task,
            };
            if let Some(Target::Version(dot)) = task.target {
                let versions = self.meta.versions(namespace, changed.row.id).await?;
                match versions.iter().find(|v| v.dot == dot) {
                    Some(version) if shows(changed, version) => task.target = None,
                    Some(version) => task.target = Some(Target::File(self.file_of(namespace, version).await?)),
                    None => {
                        counts.not_kept += 1;
                        task.target = None;
                    }
                }
            }
            if task.target.is_some() || task.place.is_some() {
                out.push((changed, task));
            }
        }
        Ok(out)
    }

    async fn file_of(&self, namespace: NamespaceId, version: &VersionRow) -> ServiceResult<FileContent> {
        let chunks = self.meta.version_chunks(namespace, version.version_id).await?;
        let manifest = Manifest::new(version.hash, chunks).map_err(ServiceError::internal)?;
        Ok(FileContent { manifest, mtime_ns: version.mtime_ns })
    }
}

/// Whether a node shows this content already, whoever wrote it.
fn shows(changed: &Changed, version: &VersionRow) -> bool {
    let shown = read::shown(changed.row.state.body());
    let file = shown.first().and_then(|s| s.value.content.file());
    file.is_some_and(|file| file.manifest.hash() == version.hash && file.manifest.size() == version.size_bytes)
}

fn carry_out(edit: &mut Edit, id: NodeId, task: Task) -> ServiceResult<()> {
    if let Some((parent, name)) = task.place {
        edit.move_to(id, parent, name)?;
    }
    let content = match task.target {
        None | Some(Target::Version(_)) => return Ok(()),
        Some(Target::Nothing) => node::Content::Tombstone,
        Some(Target::Directory) => node::Content::Dir,
        Some(Target::Link(target)) => node::Content::Symlink(target.as_slice().into()),
        Some(Target::File(file)) => node::Content::File(file),
    };
    let state = edit.state(id).ok_or_else(ServiceError::not_found)?;
    let dots: Vec<Dot> = state.body().values().iter().map(|v| v.dot).collect();
    edit.put(id, &dots, content).map(drop)
}

fn digest(wish: &RewindWish) -> ServiceResult<[u8; 32]> {
    let bytes = postcard::to_stdvec(&(wish.to_ms, &wish.only_by)).map_err(ServiceError::internal)?;
    Ok(Sha256::digest(&bytes).into())
}
