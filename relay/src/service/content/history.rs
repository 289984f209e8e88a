//! The history of one file: which versions there are, who made them, what each costs; what it calls them; and what once stood at a place.

use super::trash::TrashItem;
use super::view::Directory;
use super::{Content, Entry, FileInfo};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::{AuthorRow, VersionRow};
use ferry_protocol::{ContentHash, DeviceId, NodeId, RelPath, UserId, read};
use std::collections::{BTreeMap, BTreeSet};

/// Most versions of one page.
const PAGE_MAX: usize = 1000;
/// About how many chunks one answer counts; what is beyond is not said.
const COUNTED_MAX: u64 = 200_000;
/// The chunker cuts no shorter, but at the end of a file.
const CHUNK_MIN_BYTES: u64 = 256 * 1024;
/// Most characters of a label.
const LABEL_MAX: usize = 100;
/// Deleted entries of one name that are looked at in a directory.
const DELETED_MAX: usize = 16;

/// Which versions to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryWish {
    /// Those with a lower number.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// Whether to say what each costs.
    pub with_cost: bool,
}

/// A kept version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// The version.
    pub row: VersionRow,
    /// Whether the file shows it now.
    pub is_current: bool,
    /// The user who wrote it, if that is still known.
    pub user: Option<UserId>,
    /// That user's address.
    pub email: Option<String>,
    /// Whether it was written on the relay itself (web, plain API, WebDAV), not by a device.
    pub by_web: bool,
    /// The number of the newest older version with the same content.
    pub same_as: Option<u64>,
    /// Bytes of the chunks that nothing else in the folder names, neither another version nor another file: what would be free without this version.
    /// Nothing where that was not counted.
    pub cost_bytes: Option<u64>,
}

/// Versions, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The versions.
    pub versions: Vec<VersionInfo>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
    /// How many versions there are in all.
    pub total: usize,
}

/// What stands at a place, and what once stood there and lies in the trash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// What is shown there.
    pub file: Option<FileInfo>,
    /// What was deleted there, newest first.
    pub deleted: Vec<TrashItem>,
}

impl Content {
    /// A page of the versions of a file.
    pub async fn file_history(&self, entry: &Entry, file: NodeId, wish: HistoryWish) -> ServiceResult<HistoryPage> {
        let nodes = self.meta.nodes(entry.row.id, &[file]).await?;
        let state = &nodes.first().ok_or_else(ServiceError::not_found)?.state;
        let current = read::shown(state.body()).first().map(|s| s.value.dot);
        let rows = self.meta.versions(entry.row.id, file).await?;
        let (total, same) = (rows.len(), same_content(&rows));
        let limit = wish.limit.clamp(1, PAGE_MAX);
        let mut page: Vec<VersionRow> = rows.into_iter().filter(|row| wish.before.is_none_or(|before| row.number < before)).collect();
        let next = if page.len() > limit { page.get(limit - 1).map(|row| row.number) } else { None };
        page.truncate(limit);
        let costs = if wish.with_cost { self.costs(entry, &page).await? } else { BTreeMap::new() };
        let devices: Vec<DeviceId> = page.iter().map(|row| row.author_device).collect::<BTreeSet<_>>().into_iter().collect();
        let authors: BTreeMap<DeviceId, AuthorRow> =
            self.meta.authors_among(&devices).await?.into_iter().map(|author| (author.device, author)).collect();
        let info = |row: VersionRow| {
            let author = authors.get(&row.author_device);
            let user = author.and_then(|a| a.user);
            VersionInfo {
                is_current: Some(row.dot) == current,
                user,
                email: author.and_then(|a| a.email.clone()),
                by_web: user.is_some_and(|user| user.as_bytes() == row.author_device.as_bytes()),
                same_as: same.get(&row.number).copied(),
                cost_bytes: costs.get(&row.version_id).copied(),
                row,
            }
        };
        Ok(HistoryPage { versions: page.into_iter().map(info).collect(), next, total })
    }

    /// All versions of a file, newest first.
    pub async fn file_versions(&self, entry: &Entry, file: NodeId) -> ServiceResult<Vec<VersionInfo>> {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = self.file_history(entry, file, HistoryWish { before, limit: PAGE_MAX, with_cost: false }).await?;
            all.extend(page.versions);
            before = page.next;
            if before.is_none() {
                return Ok(all);
            }
        }
    }

    /// What each of these versions costs, the newest first, as far as that is counted.
    async fn costs(&self, entry: &Entry, rows: &[VersionRow]) -> ServiceResult<BTreeMap<[u8; 16], u64>> {
        let mut chunks = 0u64;
        let counted: Vec<[u8; 16]> = rows
            .iter()
            .take_while(|row| {
                chunks = chunks.saturating_add(row.size_bytes / CHUNK_MIN_BYTES + 1);
                chunks <= COUNTED_MAX
            })
            .map(|row| row.version_id)
            .collect();
        let found = self.meta.version_costs(entry.row.id, &counted).await?;
        Ok(counted.into_iter().map(|id| (id, found.get(&id).copied().unwrap_or(0))).collect())
    }

    /// Gives a version a label, which keeps it, or takes the label away.
    pub async fn label_version(
        &self,
        entry: &Entry,
        file: NodeId,
        version_id: [u8; 16],
        label: Option<&str>,
    ) -> ServiceResult<Option<String>> {
        let label = label.map(str::trim).filter(|label| !label.is_empty());
        if label.is_some_and(|label| label.chars().count() > LABEL_MAX || label.chars().any(char::is_control)) {
            let detail = format!("A label has at most {LABEL_MAX} characters, and no control characters.");
            return Err(ServiceError::invalid("invalid_label", detail).with("field", "label"));
        }
        let mut edit = self.edit(entry, &[]).await?;
        if !edit.tx().set_label(entry.row.id, file, version_id, label).await? {
            edit.abandon().await?;
            return Err(ServiceError::not_found());
        }
        self.finish(edit).await?;
        Ok(label.map(str::to_owned))
    }

    /// What stands at a place, and what was deleted there: also where the directories above it were deleted.
    pub async fn at_place(&self, entry: &Entry, path: &RelPath) -> ServiceResult<Place> {
        entry.confine(path)?;
        let Some((last, above)) = path.names().split_last() else { return Ok(Place::default()) };
        let view = self.view(entry.row.id);
        let (mut shown, mut parents) = (Some(Directory::root()), vec![NodeId::ROOT]);
        for name in above {
            let next = match &shown {
                Some(directory) => view.look(directory, name).await?.and_then(|found| found.directory()),
                None => None,
            };
            let gone = self.meta.deleted_at(entry.row.id, &parents, name, DELETED_MAX).await?;
            parents = next.iter().flat_map(|directory| directory.nodes.iter().copied()).collect();
            parents.extend(gone.iter().filter(|row| row.file_type == "directory").map(|row| row.id));
            if parents.is_empty() {
                return Ok(Place::default());
            }
            shown = next;
        }
        let found = match &shown {
            Some(directory) => view.look(directory, last).await?,
            None => None,
        };
        let file = match &found {
            Some(found) => Some(self.describe(entry.row.id, found).await?),
            None => None,
        };
        Ok(Place { file, deleted: self.meta.deleted_at(entry.row.id, &parents, last, DELETED_MAX).await? })
    }
}

/// For each version, by number, the newest older one with the same content. The rows come newest first.
fn same_content(rows: &[VersionRow]) -> BTreeMap<u64, u64> {
    let mut seen: BTreeMap<ContentHash, u64> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for row in rows.iter().rev() {
        if let Some(older) = seen.insert(row.hash, row.number) {
            out.insert(row.number, older);
        }
    }
    out
}
