//! Questions that a person asks: which conflicts there are, and why a path is as it is. Nothing is changed.

use crate::disk::Obstacle;
use crate::engine::Engine;
use crate::trees::{Item, ItemContent, ItemKey, Result, Trees};
use ferry_protocol::{Author, Content, Name, NodeId, RelPath};

/// A conflicted copy that is shown now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which thing.
    pub key: ItemKey,
    /// Where the copy stands.
    pub copy: RelPath,
    /// Where what keeps the name stands.
    pub original: RelPath,
    /// Who wrote the copy.
    pub author: Author,
    /// When, by the writer's clock, in milliseconds since 1970.
    pub wall_ms: i64,
    /// Size of the copy in bytes.
    pub size: u64,
}

/// What is known of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WhyFacts {
    /// What both sides last held there.
    pub item: Option<Item>,
    /// The node that stands there, or is to stand there.
    pub node: Option<NodeId>,
    /// What the remote tree wants there, who wrote it, and when by the writer's clock in milliseconds since 1970.
    pub wanted: Option<(Content, Option<(Author, i64)>)>,
    /// The mode and modification time (nanoseconds since 1970) that the remote tree wants there.
    pub wanted_attributes: Option<(u16, i64)>,
    /// Whether it waits to be sent to the relay.
    pub is_unsent: bool,
    /// Whether it is missing on disk, and that is not yet taken for a delete.
    pub is_missing: bool,
    /// Whether it is being read.
    pub is_being_read: bool,
    /// Whether it is being fetched or placed, or waits for that.
    pub is_planned: bool,
    /// What stands in the way.
    pub obstacle: Option<Obstacle>,
    /// Whether the ignore rules leave it out.
    pub is_ignored: bool,
}

impl<T: Trees> Engine<T> {
    /// The conflicted copies that are shown now, in the order of their directories and names.
    pub fn conflicts(&mut self) -> Result<Vec<Conflict>> {
        let mut out = Vec::new();
        for (directory, name) in self.contested_names() {
            let entries = self.settled(directory, &name)?;
            for entry in entries.iter().filter(|e| e.is_conflict) {
                let (Some(copy), Some(original)) = (self.path_at(directory, &entry.name)?, self.path_at(directory, &name)?) else {
                    continue;
                };
                let Some(record) = self.trees.node(entry.node)? else { continue };
                let values = entry.dots.iter().filter_map(|dot| record.state.body().value(*dot));
                let Some(value) = values.filter(|v| v.content == entry.content).max_by_key(|v| v.stamp) else { continue };
                let key = ItemKey { node: entry.node, copy: entry.copy };
                let size = entry.content.file().map_or(0, |f| f.manifest.size());
                out.push(Conflict { key, copy, original, author: value.author.clone(), wall_ms: value.wall_ms, size });
            }
        }
        Ok(out)
    }

    /// How many names have more than one claim: an upper bound of the conflicts, for the status.
    pub fn contested(&self) -> usize {
        self.contested_names().len()
    }

    /// What is known of a path.
    pub fn why(&mut self, path: &RelPath) -> Result<WhyFacts> {
        let mut facts = WhyFacts::default();
        let Some((directory, name)) = path.split_last() else { return Ok(facts) };
        facts.is_ignored = self.filter.is_ignored(path, false);
        let Some(parent) = self.directory_at(&directory)? else { return Ok(facts) };
        let key = self.trees.item_at(parent, name)?;
        if let Some(key) = key {
            facts.item = self.trees.item(key)?;
            facts.node = Some(key.node);
            facts.is_missing = self.observed.missing.contains_key(&key);
        }
        if let Some(desired) = self.desired_at(parent, name)? {
            facts.node.get_or_insert(desired.key.node);
            let record = self.trees.node(desired.key.node)?;
            let author = record.and_then(|r| {
                let values = desired.dots.iter().filter_map(|dot| r.state.body().value(*dot));
                values.max_by_key(|v| v.stamp).map(|v| (v.author.clone(), v.wall_ms))
            });
            facts.wanted_attributes = Some((desired.mode, desired.mtime_ns));
            facts.wanted = Some((desired.content, author));
        }
        facts.is_being_read = self.is_unsettled(parent, name)?;
        self.why_node(&mut facts)?;
        Ok(facts)
    }

    fn why_node(&self, facts: &mut WhyFacts) -> Result<()> {
        let Some(node) = facts.node else { return Ok(()) };
        facts.is_unsent = self.trees.is_unsent(node)?;
        let fetching = self.plans.fetching.values().any(|(_, nodes)| nodes.contains(&node));
        let in_batch = self.plans.batch.as_ref().is_some_and(|(_, actions)| actions.iter().any(|(_, e)| e.key().node == node));
        facts.obstacle = self.blocked.get(&node).map(|b| b.obstacle).or_else(|| self.sync_obstacle().filter(|_| in_batch));
        facts.is_planned = fetching || in_batch || self.dirty.contains(&node);
        Ok(())
    }

    /// The directory at a path, by the items.
    fn directory_at(&self, path: &RelPath) -> Result<Option<NodeId>> {
        let mut directory = NodeId::ROOT;
        for name in path.names() {
            match self.trees.item_at(directory, name)? {
                Some(key) if self.trees.item(key)?.is_some_and(|i| i.content == ItemContent::Dir) => directory = key.node,
                _ => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    fn contested_names(&self) -> Vec<(NodeId, Name)> {
        self.view.contested_names()
    }
}
