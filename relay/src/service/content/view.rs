//! The tree that a namespace shows, read a part at a time: one name, one directory, the line above a node. What is plain is what its row says; where
//! something is contested, the law of reading (`ferry_protocol::read`) decides from all that claims names there.
//!
//! Nothing is remembered between two requests. The parts of one answer are read one after another, so what changes meanwhile may be in it or not.

use super::{Content, Times};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::ContentStore;
use crate::store::tree::{PlacedNode, Standing};
use ferry_protocol::read::{self, Entry, Row};
use ferry_protocol::{Name, NamespaceId, NodeId, RelPath};
use std::collections::{BTreeMap, BTreeSet};

/// An entry as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Where.
    pub(super) path: RelPath,
    /// What.
    pub(super) entry: Entry,
    /// Number and times of its node.
    pub(super) times: Times,
}

/// A directory as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    /// Where.
    pub(super) path: RelPath,
    /// The nodes whose children it shows: several where directories of one name are one.
    pub(super) nodes: Vec<NodeId>,
}

impl Directory {
    /// The root.
    pub(super) fn root() -> Self {
        Self { path: RelPath::root(), nodes: vec![NodeId::ROOT] }
    }

    /// The node that stands for it: the one in which something new is made.
    pub(super) fn node(&self) -> NodeId {
        self.nodes.first().copied().unwrap_or(NodeId::ROOT)
    }
}

impl Shown {
    /// The entry as a directory, if it is one.
    pub(super) fn directory(&self) -> Option<Directory> {
        let mut nodes = self.entry.directories()?;
        // What stands for it comes first.
        nodes.retain(|node| *node != self.entry.node);
        nodes.insert(0, self.entry.node);
        Some(Directory { path: self.path.clone(), nodes })
    }

    /// Whether the entry shows this node under the node's own name.
    fn shows(&self, node: NodeId) -> bool {
        let twin = |(twin, copy, _): &(NodeId, Option<ferry_protocol::Dot>, Vec<ferry_protocol::Dot>)| *twin == node && copy.is_none();
        (self.entry.node == node && self.entry.copy.is_none()) || self.entry.twins.iter().any(twin)
    }
}

/// A namespace, to be read.
#[derive(Clone, Copy)]
pub(super) struct View<'c> {
    pub(super) meta: &'c dyn ContentStore,
    pub(super) namespace: NamespaceId,
}

/// What a plain node shows.
pub(super) fn plain(directory: &RelPath, placed: &PlacedNode) -> Option<Shown> {
    let rows = read::rows_of(placed.row.id, &placed.row.state, false);
    let entry = read::settle_name(&placed.stand.name, rows, &mut |_| false).into_iter().next()?;
    Some(Shown { path: directory.join(&entry.name), entry, times: Times::from(&placed.row) })
}

/// Notes that so many rows were read.
pub(super) fn note_rows_read(namespace: NamespaceId, rows: usize) {
    #[cfg(test)]
    rows_read::add(namespace, rows);
    #[cfg(not(test))]
    let _ = (namespace, rows);
}

impl View<'_> {
    /// What a directory shows beside its plain entries; all that it shows if it is several nodes.
    pub(super) async fn contested(&self, directory: &Directory) -> ServiceResult<Vec<Shown>> {
        let claims = self.meta.claims(self.namespace, &directory.nodes, directory.nodes.len() == 1).await?;
        note_rows_read(self.namespace, claims.len());
        self.settle(directory, claims).await
    }

    /// Settles claims of which all others in the directory are plain.
    pub(super) async fn settle(&self, directory: &Directory, placed: Vec<PlacedNode>) -> ServiceResult<Vec<Shown>> {
        if placed.is_empty() {
            return Ok(Vec::new());
        }
        let maybe: Vec<NodeId> = placed.iter().filter(|p| !p.stand.is_directory).map(|p| p.row.id).collect();
        let with_child = if maybe.is_empty() { BTreeSet::new() } else { self.meta.with_shown_child(self.namespace, &maybe).await? };
        let mut claims: BTreeMap<Name, Vec<Row>> = BTreeMap::new();
        let mut times: BTreeMap<NodeId, Times> = BTreeMap::new();
        for one in placed {
            times.insert(one.row.id, Times::from(&one.row));
            claims.entry(one.stand.name).or_default().extend(read::rows_of(one.row.id, &one.row.state, with_child.contains(&one.row.id)));
        }
        // Conflict names must not be those of plain entries, and which ones are made depends on that: ask, and settle again with the answers.
        let (mut free, mut taken) = (BTreeSet::new(), BTreeSet::new());
        let entries = loop {
            let mut asked = BTreeSet::new();
            let entries = read::settle_names(&claims, &mut |name| {
                if !free.contains(name) && !taken.contains(name) {
                    asked.insert(name.clone());
                }
                taken.contains(name)
            });
            if asked.is_empty() || directory.nodes.len() > 1 {
                break entries;
            }
            let found = self.meta.taken(self.namespace, directory.node(), &asked).await?;
            let is_done = found.is_empty();
            free.extend(asked.into_iter().filter(|name| !found.contains(name)));
            taken.extend(found);
            if is_done {
                break entries;
            }
        };
        let shown = |entry: Entry| Some(Shown { path: directory.path.join(&entry.name), times: *times.get(&entry.node)?, entry });
        Ok(entries.into_iter().filter_map(shown).collect())
    }

    /// What a directory shows under a name.
    pub(super) async fn look(&self, directory: &Directory, name: &Name) -> ServiceResult<Option<Shown>> {
        let claims = match directory.nodes.as_slice() {
            [node] => self.meta.named(self.namespace, *node, name).await?,
            several => self.meta.claims(self.namespace, several, false).await?,
        };
        note_rows_read(self.namespace, claims.len());
        if directory.nodes.len() == 1
            && let Some(found) = claims.iter().find(|p| p.stand.standing == Standing::Plain)
        {
            return Ok(plain(&directory.path, found));
        }
        let shown = self.settle(directory, claims).await?;
        Ok(shown.into_iter().find(|s| s.entry.name == *name))
    }

    /// Which of these names something has that a directory shows.
    pub(super) async fn taken(&self, directory: &Directory, names: &BTreeSet<Name>) -> ServiceResult<BTreeSet<Name>> {
        let contested = self.contested(directory).await?;
        let mut taken: BTreeSet<Name> = contested.into_iter().map(|s| s.entry.name).filter(|name| names.contains(name)).collect();
        if let [node] = directory.nodes[..] {
            taken.extend(self.meta.taken(self.namespace, node, names).await?);
        }
        Ok(taken)
    }

    /// What is shown at a path; nothing for the root.
    pub(super) async fn at(&self, path: &RelPath) -> ServiceResult<Option<Shown>> {
        let Some((last, above)) = path.names().split_last() else { return Ok(None) };
        let mut directory = Directory::root();
        for name in above {
            match self.look(&directory, name).await?.and_then(|shown| shown.directory()) {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        self.look(&directory, last).await
    }

    /// The directory at a path; the root is one too.
    pub(super) async fn directory(&self, path: &RelPath) -> ServiceResult<Directory> {
        if path.is_root() {
            return Ok(Directory::root());
        }
        let shown = self.at(path).await?.ok_or_else(ServiceError::not_found)?;
        shown.directory().ok_or_else(|| super::files::not_a_directory(path))
    }

    /// The directory at a path, if one is there.
    pub(super) async fn directory_if_any(&self, path: &RelPath) -> ServiceResult<Option<Directory>> {
        match path.is_root() {
            true => Ok(Some(Directory::root())),
            false => Ok(self.at(path).await?.and_then(|shown| shown.directory())),
        }
    }

    /// The lowest directory of a path that is there, and the names below it that are not.
    pub(super) async fn as_far_as_there<'p>(&self, path: &'p RelPath) -> ServiceResult<(Directory, &'p [Name])> {
        let mut directory = Directory::root();
        for (depth, name) in path.names().iter().enumerate() {
            let Some(shown) = self.look(&directory, name).await? else { return Ok((directory, &path.names()[depth..])) };
            directory = shown.directory().ok_or_else(|| super::files::not_a_directory(&shown.path))?;
        }
        Ok((directory, &[]))
    }

    /// The entry that shows a node under its own name.
    pub(super) async fn of_node(&self, node: NodeId) -> ServiceResult<Option<Shown>> {
        Ok(self.of_nodes(&[node]).await?.remove(&node))
    }

    /// The entries that show these nodes under their own names; of twins, the entry behind which they stand. Those that are not shown are not in it.
    pub(super) async fn of_nodes(&self, nodes: &[NodeId]) -> ServiceResult<BTreeMap<NodeId, Shown>> {
        let found = self.meta.line(self.namespace, nodes).await?;
        note_rows_read(self.namespace, found.len());
        let placed: BTreeMap<NodeId, PlacedNode> = found.into_iter().map(|p| (p.row.id, p)).collect();
        let mut known: BTreeMap<NodeId, Option<Shown>> = BTreeMap::new();
        let mut settled: BTreeMap<RelPath, Vec<Shown>> = BTreeMap::new();
        for node in nodes {
            let Some(line) = line_of(*node, &placed, &known) else { continue };
            for id in line.iter().rev() {
                let one = &placed[id];
                let shown = match self.container(one.stand.parent, &known) {
                    None => None,
                    Some(_) if one.stand.standing == Standing::Hidden => None,
                    Some(directory) if directory.nodes.len() == 1 && one.stand.standing == Standing::Plain => plain(&directory.path, one),
                    Some(directory) => {
                        if !settled.contains_key(&directory.path) {
                            let all = self.contested(&directory).await?;
                            settled.insert(directory.path.clone(), all);
                        }
                        settled[&directory.path].iter().find(|s| s.shows(*id)).cloned()
                    }
                };
                known.insert(*id, shown);
            }
        }
        Ok(nodes.iter().filter_map(|node| Some((*node, known.get(node)?.clone()?))).collect())
    }

    /// The directory that a node is shown as, from what is known.
    fn container(&self, node: NodeId, known: &BTreeMap<NodeId, Option<Shown>>) -> Option<Directory> {
        match node == NodeId::ROOT {
            true => Some(Directory::root()),
            false => known.get(&node)?.as_ref()?.directory(),
        }
    }
}

/// A node and those above it, the node first, up to what is known already. Nothing for a node that is not there.
fn line_of(node: NodeId, placed: &BTreeMap<NodeId, PlacedNode>, known: &BTreeMap<NodeId, Option<Shown>>) -> Option<Vec<NodeId>> {
    let (mut line, mut at) = (Vec::new(), node);
    while at != NodeId::ROOT && !known.contains_key(&at) && line.len() <= placed.len() {
        line.push(at);
        at = placed.get(&at)?.stand.parent;
    }
    Some(line)
}

impl Content {
    /// A namespace, to be read.
    pub(super) fn view(&self, namespace: NamespaceId) -> View<'_> {
        View { meta: &*self.meta, namespace }
    }
}

/// How many rows of nodes were read, for tests that hold what an answer costs.
#[cfg(test)]
pub(super) mod rows_read {
    use ferry_protocol::NamespaceId;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    static READ: Mutex<BTreeMap<NamespaceId, usize>> = Mutex::new(BTreeMap::new());

    pub(in super::super) fn add(namespace: NamespaceId, rows: usize) {
        *READ.lock().unwrap().entry(namespace).or_default() += rows;
    }

    /// How many since this was asked last.
    pub(in super::super) fn take(namespace: NamespaceId) -> usize {
        READ.lock().unwrap().remove(&namespace).unwrap_or(0)
    }
}
