//! Who did what when, for people: read from the history of nodes, which is kept anyway. And what an account's folders hold.

use super::view::Shown;
use super::{Content, folder_of};
use crate::service::{Caller, ServiceError, ServiceResult};
use crate::store::activity::{ActKey, ActRow, ShownThen, SpaceTotals};
use crate::store::content::BeforeKind;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::wire::Role;
use ferry_protocol::{DeviceId, NamespaceId, NodeId, NodeState, RelPath, node, read};
use std::collections::BTreeMap;

/// Most acts of one page.
const PAGE_MAX: usize = 500;

/// Which acts.
#[derive(Debug, Clone, Default)]
pub struct ActivityQuery {
    /// Only in this folder.
    pub space: Option<NamespaceId>,
    /// Only by this device.
    pub device: Option<DeviceId>,
    /// The act after which to go on, further back.
    pub after: Option<ActCursor>,
    /// Most acts in the answer.
    pub limit: usize,
}

/// The place of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActCursor(ActKey);

impl ActCursor {
    /// As clients keep it.
    pub fn to_text(self) -> String {
        let (at_ms, node, seq) = self.0;
        URL_SAFE_NO_PAD.encode([&at_ms.to_be_bytes()[..], node.as_bytes(), &seq.to_be_bytes()].concat())
    }

    /// Back again.
    pub fn parse(text: &str) -> ServiceResult<Self> {
        let read = || {
            let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
            let (at, rest) = bytes.split_first_chunk::<8>()?;
            let (node, rest) = rest.split_first_chunk::<16>()?;
            let seq = u64::from_be_bytes(rest.try_into().ok()?);
            Some(Self((i64::from_be_bytes(*at), NodeId::from_bytes(*node), seq)))
        };
        read().ok_or_else(|| ServiceError::malformed("'cursor' is not one of this relay."))
    }
}

/// One change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The folder.
    pub namespace: NamespaceId,
    /// The entry.
    pub node: NodeId,
    /// When the relay heard of it, in milliseconds since 1970.
    pub at_ms: i64,
    /// `created`, `restored`, `deleted`, `moved`, `renamed`, `edited`, or `changed` where it is none of these.
    pub acts: Vec<&'static str>,
    /// `directory`, `file` or `symlink`.
    pub kind: &'static str,
    /// Its name after it; of a deleted one before it.
    pub name: String,
    /// The name before, where it is another.
    pub old_name: Option<String>,
    /// Where the entry is shown now; nothing while it is in the trash or gone.
    pub path: Option<RelPath>,
    /// Where the directory is shown now in which it was left.
    pub directory: Option<RelPath>,
    /// Who did it, where that is known; for the web access of a user, the user's id.
    pub device: Option<DeviceId>,
}

/// A page of acts, the newest first.
#[derive(Debug, Clone, Default)]
pub struct ActivityPage {
    /// The acts.
    pub acts: Vec<Act>,
    /// Where the next page begins, if there is one.
    pub next: Option<ActCursor>,
}

/// What a node shows now.
fn shown_now(state: &NodeState) -> ShownThen {
    let shown = read::shown(state.body()).into_iter().next();
    let place = &state.places()[0];
    let kind = match shown.as_ref().map(|s| &s.value.content) {
        Some(node::Content::Dir) => BeforeKind::Directory,
        Some(node::Content::Symlink(_)) => BeforeKind::Symlink,
        Some(node::Content::File(_)) => BeforeKind::File,
        Some(node::Content::Tombstone) | None => BeforeKind::Deleted,
    };
    let dot = shown.filter(|_| kind == BeforeKind::File).map(|s| s.value.dot);
    ShownThen { kind, parent: place.parent, name: place.name.as_bytes().to_vec(), dot }
}

/// What was done, from what was shown before and after.
fn acts_of(before: &ShownThen, after: &ShownThen, is_first: bool) -> Vec<&'static str> {
    match (before.kind, after.kind) {
        (BeforeKind::Deleted, BeforeKind::Deleted) => return vec!["changed"],
        (BeforeKind::Deleted, _) => return vec![if is_first { "created" } else { "restored" }],
        (_, BeforeKind::Deleted) => return vec!["deleted"],
        _ => {}
    }
    let done = [
        ("moved", before.parent != after.parent),
        ("renamed", before.name != after.name),
        ("edited", before.kind != after.kind || before.dot != after.dot),
    ];
    let acts: Vec<&'static str> = done.into_iter().filter(|(_, is_so)| *is_so).map(|(act, _)| act).collect();
    if acts.is_empty() { vec!["changed"] } else { acts }
}

impl Content {
    /// What happened in the folders that the caller is a member of, the newest first.
    pub async fn activity(&self, caller: &Caller, query: &ActivityQuery) -> ServiceResult<ActivityPage> {
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut spaces = self.meta.namespaces_of(caller.user_id).await?;
        spaces.retain(|row| folder_of(caller).is_none_or(|folder| folder.namespace == row.id));
        if let Some(space) = query.space {
            spaces.retain(|row| row.id == space);
            if spaces.is_empty() {
                return Err(ServiceError::not_found());
            }
        }
        let mut rows: Vec<(NamespaceId, ActRow)> = Vec::new();
        for row in spaces {
            let entry = self.entry(caller, row, Role::Viewer)?;
            self.settled(&entry.row).await?;
            let found = self.meta.activity(entry.row.id, query.after.map(|c| c.0), query.device, limit + 1).await?;
            rows.extend(found.into_iter().map(|one| (entry.row.id, one)));
        }
        rows.sort_unstable_by(|(a_space, a), (b_space, b)| b.key.cmp(&a.key).then(a_space.cmp(b_space)));
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(|(_, last)| ActCursor(last.key));
        Ok(ActivityPage { acts: self.tell(rows).await?, next })
    }

    /// Adds to changes what the tree says now.
    async fn tell(&self, rows: Vec<(NamespaceId, ActRow)>) -> ServiceResult<Vec<Act>> {
        let mut nodes: BTreeMap<NamespaceId, Vec<NodeId>> = BTreeMap::new();
        for (space, row) in &rows {
            nodes.entry(*space).or_default().push(row.key.1);
        }
        let (mut now, mut paths) = (BTreeMap::new(), BTreeMap::<(NamespaceId, NodeId), Shown>::new());
        for (space, ids) in &mut nodes {
            ids.sort_unstable();
            ids.dedup();
            let states = self.meta.nodes(*space, ids).await?;
            now.extend(states.into_iter().map(|row| ((*space, row.id), shown_now(&row.state))));
            let parents = rows.iter().filter(|(of, _)| of == space).map(|(_, row)| match &row.after {
                Some(after) => after.parent,
                None => now.get(&(*space, row.key.1)).map_or(row.before.parent, |now| now.parent),
            });
            ids.extend(parents.filter(|id| *id != NodeId::ROOT));
            ids.sort_unstable();
            ids.dedup();
            let found = self.view(*space).of_nodes(ids).await?;
            paths.extend(found.into_iter().map(|(node, shown)| ((*space, node), shown)));
        }
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let act = |(namespace, row): (NamespaceId, ActRow)| {
            let (at_ms, node, _) = row.key;
            let after = row.after.or_else(|| now.get(&(namespace, node)).cloned())?;
            let last = if after.kind == BeforeKind::Deleted { &row.before } else { &after };
            let directory = match last.parent {
                NodeId::ROOT => Some(RelPath::root()),
                parent => paths.get(&(namespace, parent)).map(|shown| shown.path.clone()),
            };
            Some(Act {
                namespace,
                node,
                at_ms,
                acts: acts_of(&row.before, &after, row.is_first),
                kind: last.kind.as_str(),
                name: text(&last.name),
                old_name: Some(text(&row.before.name)).filter(|_| !row.is_first && row.before.name != last.name),
                path: paths.get(&(namespace, node)).map(|shown| shown.path.clone()),
                directory,
                device: row.device,
            })
        };
        Ok(rows.into_iter().filter_map(act).collect())
    }

    /// What the folders hold that the caller owns.
    pub async fn totals(&self, caller: &Caller) -> ServiceResult<Vec<(NamespaceId, String, SpaceTotals)>> {
        let mut out = Vec::new();
        for row in self.meta.namespaces_of(caller.user_id).await? {
            if row.owner == caller.user_id && folder_of(caller).is_none() {
                out.push((row.id, row.name, self.meta.space_totals(row.id).await?));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_follows_from_before_and_after() {
        let then = |kind, parent: u8, name: &str, counter: u64| ShownThen {
            kind,
            parent: NodeId::from_bytes([parent; 16]),
            name: name.into(),
            dot: (kind == BeforeKind::File).then(|| ferry_protocol::Dot { replica: Default::default(), counter }),
        };
        use BeforeKind::{Deleted, Directory, File};
        let gone = then(Deleted, 1, "a", 0);
        let file = then(File, 1, "a", 1);
        assert_eq!(acts_of(&gone, &file, true), ["created"]);
        assert_eq!(acts_of(&gone, &file, false), ["restored"]);
        assert_eq!(acts_of(&file, &gone, false), ["deleted"]);
        assert_eq!(acts_of(&file, &then(File, 1, "a", 2), false), ["edited"]);
        assert_eq!(acts_of(&file, &then(File, 2, "b", 2), false), ["moved", "renamed", "edited"]);
        assert_eq!(acts_of(&file, &then(Directory, 1, "a", 0), false), ["edited"]);
        assert_eq!(acts_of(&file, &file, false), ["changed"]);
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let cursor = ActCursor((-5, NodeId::from_bytes([7; 16]), u64::MAX));
        assert_eq!(ActCursor::parse(&cursor.to_text()).unwrap(), cursor);
        for wrong in ["", "x", "!!", &"A".repeat(100)] {
            assert!(ActCursor::parse(wrong).is_err(), "{wrong}");
        }
    }
}
