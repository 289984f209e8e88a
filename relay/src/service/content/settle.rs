//! Where nodes stand, kept right as they are written: which place counts, and whether what is shown there is plain (`store/tree.rs`).
//!
//! Most writes touch nothing but themselves: an edit of a plain file asks nothing, a new file asks whether its directory is one and whether its name is
//! free. Only what moves, dies or claims a taken name is looked at further. The law itself is `ferry_protocol::read`.
//!
//! * **TS1** After each transaction every node of a settled namespace stands where [`read::standings`] says, and is plain exactly if it shows one living
//!   entry whose name nothing else in its directory claims.

use super::{Content, off_thread, patiently};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::{ContentTx, NamespaceRow, NodeRow, NodeWrite, Scope};
use crate::store::tree::{PlacedNode, Stand, Standing};
use ferry_protocol::read::{self, States};
use ferry_protocol::{Name, NamespaceId, NodeId, NodeState};
use std::collections::{BTreeMap, BTreeSet};

/// What a write moves to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    /// The feed's head after it.
    pub(super) head_seq: u64,
    /// The highest counter after it.
    pub(super) max_counter: u64,
    /// When, in milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// How a node is shown by itself, whoever else claims its name.
pub(super) fn own_standing(node: NodeId, state: &NodeState, has_living_child: bool) -> Standing {
    match read::rows_of(node, state, has_living_child).len() {
        0 => Standing::Hidden,
        1 if state.body().has_living() => Standing::Plain,
        _ => Standing::Contested,
    }
}

fn is_directory(state: &NodeState) -> bool {
    read::shown(state.body()).first().is_some_and(|s| s.value.content.is_dir())
}

/// Nodes, and where they stand.
pub(super) fn rows_and_stands(placed: Vec<PlacedNode>) -> (BTreeMap<NodeId, NodeRow>, BTreeMap<NodeId, Stand>) {
    placed.into_iter().map(|one| ((one.row.id, one.row), (one.stand.node, one.stand))).unzip()
}

/// Writes nodes, and settles what stands otherwise because of it. `was` says where those stand that were there before, as this transaction found them.
pub(super) async fn put_nodes(
    tx: &mut dyn ContentTx,
    namespace: &NamespaceRow,
    writes: &[NodeWrite],
    mut was: BTreeMap<NodeId, Stand>,
    reached: Reached,
) -> ServiceResult<()> {
    let id = namespace.id;
    let is_moved = |w: &&NodeWrite| {
        let place = &w.state.places()[0];
        was.get(&w.id).is_none_or(|s| s.is_displaced || s.parent != place.parent || s.name != place.name)
    };
    let moved: BTreeMap<NodeId, &NodeState> = writes.iter().filter(is_moved).map(|w| (w.id, &w.state)).collect();
    let displaced = if moved.is_empty() { Vec::new() } else { tx.displaced(id).await? };
    tx.put_nodes(namespace, writes, reached.head_seq, reached.max_counter, reached.now_ms).await?;
    if namespace.settled_seq != namespace.head_seq {
        return resettle(tx, id, reached.head_seq).await;
    }
    let mut now: BTreeMap<NodeId, Stand> = writes.iter().map(|w| (w.id, at_newest(w.id, &w.state, w.standing))).collect();
    was.extend(displaced.iter().map(|s| (s.node, s.clone())));
    let parents = unknown_parents(tx, id, &now, &was).await?;
    let starts = starts(&moved, &was, &displaced, &parents);
    if !starts.is_empty() {
        let written: BTreeMap<NodeId, &NodeState> = writes.iter().map(|w| (w.id, &w.state)).collect();
        place_displaced(tx, id, &starts, &written, (&mut was, &mut now)).await?;
    }
    let mut doubts = Doubts::default();
    for (node, stand) in &now {
        doubts.note(*node, was.get(node), stand);
    }
    let known: BTreeMap<NodeId, bool> = parents.iter().filter_map(|(node, stand)| Some((*node, stand.as_ref()?.is_directory))).collect();
    doubts.look_at_parents(tx, id, &known, &now).await?;
    doubts.settle(tx, id).await
}

fn at_newest(node: NodeId, state: &NodeState, standing: Standing) -> Stand {
    let place = &state.places()[0];
    let is_directory = is_directory(state);
    Stand { node, parent: place.parent, name: place.name.clone(), standing, is_displaced: false, is_directory }
}

/// Where the directories stand in which something came or was moved to, and that were not written themselves; nothing for one that nobody knows.
async fn unknown_parents(
    tx: &mut dyn ContentTx,
    namespace: NamespaceId,
    now: &BTreeMap<NodeId, Stand>,
    was: &BTreeMap<NodeId, Stand>,
) -> ServiceResult<BTreeMap<NodeId, Option<Stand>>> {
    let came = now.values().filter(|s| was.get(&s.node).is_none_or(|w| w.parent != s.parent));
    let asked: BTreeSet<NodeId> = came.map(|s| s.parent).filter(|p| *p != NodeId::ROOT && !now.contains_key(p)).collect();
    let mut found: BTreeMap<NodeId, Option<Stand>> = asked.iter().map(|p| (*p, None)).collect();
    if !asked.is_empty() {
        let asked: Vec<NodeId> = asked.into_iter().collect();
        found.extend(tx.stands(namespace, &asked).await?.into_iter().map(|s| (s.node, Some(s))));
    }
    Ok(found)
}

/// The nodes that may be part of a cycle, or stand in what nobody knows, now or before. Whatever closes a cycle was moved, or is new and stands in
/// something new: what was there before stands in nothing that is new. A new name alone closes none; where there is one, it may break it elsewhere.
fn starts(
    moved: &BTreeMap<NodeId, &NodeState>,
    was: &BTreeMap<NodeId, Stand>,
    displaced: &[Stand],
    parents: &BTreeMap<NodeId, Option<Stand>>,
) -> Vec<NodeId> {
    let mut out: BTreeSet<NodeId> = displaced.iter().map(|s| s.node).collect();
    let mut sound: BTreeSet<NodeId> = BTreeSet::new();
    for (node, state) in moved {
        let parent = state.places()[0].parent;
        if displaced.is_empty() && was.get(node).is_some_and(|s| s.parent == parent) {
            continue;
        }
        if was.contains_key(node) || matches!(parents.get(&parent), Some(None)) {
            out.insert(*node);
            continue;
        }
        let (mut line, mut at) = (BTreeSet::new(), *node);
        while let Some(state) = moved.get(&at).filter(|_| !was.contains_key(&at) && !sound.contains(&at)) {
            if !line.insert(at) {
                out.extend(&line);
                break;
            }
            at = state.places()[0].parent;
        }
        sound.extend(line);
    }
    out.into_iter().collect()
}

/// Breaks cycles among what the places of `starts` lead to, and writes where everything stands that stands elsewhere now.
async fn place_displaced(
    tx: &mut dyn ContentTx,
    namespace: NamespaceId,
    starts: &[NodeId],
    written: &BTreeMap<NodeId, &NodeState>,
    (was, now): (&mut BTreeMap<NodeId, Stand>, &mut BTreeMap<NodeId, Stand>),
) -> ServiceResult<()> {
    let (mut states, mut absent) = (States::new(), BTreeSet::new());
    let mut wanted: BTreeSet<NodeId> = starts.iter().copied().collect();
    // A set that is closed under the places that count has the cycles of the whole, in every round of breaking them.
    let fallen = loop {
        states.extend(wanted.iter().filter_map(|id| Some((*id, (*written.get(id)?).clone()))));
        let asked: Vec<NodeId> = wanted.iter().copied().filter(|id| !written.contains_key(id)).collect();
        if !asked.is_empty() {
            states.extend(tx.nodes(namespace, &asked).await?.into_iter().map(|row| (row.id, row.state)));
        }
        absent.extend(wanted.iter().copied().filter(|id| !states.contains_key(id)));
        let fallen = read::break_cycles(&states);
        let parent = |(id, state): (&NodeId, &NodeState)| read::parent_at(state, fallen.get(id).copied().unwrap_or(0));
        wanted = states.iter().map(parent).filter(|p| *p != NodeId::ROOT && !states.contains_key(p) && !absent.contains(p)).collect();
        if wanted.is_empty() {
            break fallen;
        }
    };
    let unseen: Vec<NodeId> = fallen.keys().copied().filter(|id| !was.contains_key(id) && !now.contains_key(id)).collect();
    if !unseen.is_empty() {
        was.extend(tx.stands(namespace, &unseen).await?.into_iter().map(|s| (s.node, s)));
    }
    let mut changed = Vec::new();
    for (id, state) in &states {
        let at = fallen.get(id).copied().unwrap_or(0);
        let parent = Some(read::parent_at(state, at)).filter(|p| !absent.contains(p));
        let is_displaced = at > 0 || parent.is_none();
        let Some(before) = now.get(id).or_else(|| was.get(id)) else { continue };
        let parent = parent.unwrap_or(NodeId::ROOT);
        let stand = Stand { parent, name: read::name_at(state, at).clone(), is_displaced, ..before.clone() };
        if stand != *before {
            changed.push(stand.clone());
            now.insert(*id, stand);
        }
    }
    if !changed.is_empty() {
        tx.set_stands(namespace, &changed).await?;
    }
    Ok(())
}

/// What has to be looked at again.
#[derive(Default)]
struct Doubts {
    /// Names whose claims have changed.
    places: BTreeSet<(NodeId, Name)>,
    /// Nodes that may be shown otherwise by themselves.
    nodes: BTreeSet<NodeId>,
    /// Nodes in which something came to be shown, or is shown no longer.
    parents: BTreeSet<NodeId>,
}

impl Doubts {
    fn note(&mut self, node: NodeId, was: Option<&Stand>, now: &Stand) {
        let (was_shown, is_shown) = (was.is_some_and(|w| w.standing != Standing::Hidden), now.standing != Standing::Hidden);
        let stays = was.is_some_and(|w| w.parent == now.parent);
        if let Some(was) = was.filter(|w| w.standing == Standing::Contested) {
            self.places.insert((was.parent, was.name.clone()));
            self.nodes.insert(node);
        }
        if is_shown && (!was_shown || !stays || was.is_some_and(|w| w.name != now.name) || now.standing == Standing::Contested) {
            self.places.insert((now.parent, now.name.clone()));
        }
        if is_shown && (!was_shown || !stays) {
            self.parents.insert(now.parent);
        }
        if let Some(was) = was.filter(|_| was_shown && (!is_shown || !stays)) {
            self.parents.insert(was.parent);
        }
        // What stands in a plain file, or in nothing that is shown, is not shown itself.
        if !now.is_directory && was.is_some_and(|w| w.is_directory) {
            self.nodes.insert(node);
        }
    }

    /// A directory is shown whatever stands in it; for what is none it matters.
    async fn look_at_parents(
        &mut self,
        tx: &mut dyn ContentTx,
        namespace: NamespaceId,
        known: &BTreeMap<NodeId, bool>,
        now: &BTreeMap<NodeId, Stand>,
    ) -> ServiceResult<()> {
        let mut asked = Vec::new();
        for node in std::mem::take(&mut self.parents).into_iter().filter(|node| *node != NodeId::ROOT) {
            match now.get(&node).map(|s| s.is_directory).or_else(|| known.get(&node).copied()) {
                Some(true) => {}
                Some(false) => _ = self.nodes.insert(node),
                None => asked.push(node),
            }
        }
        if !asked.is_empty() {
            let found = tx.stands(namespace, &asked).await?;
            self.nodes.extend(found.into_iter().filter(|s| !s.is_directory).map(|s| s.node));
        }
        Ok(())
    }

    /// From below upwards until nothing changes, then the names.
    async fn settle(mut self, tx: &mut dyn ContentTx, namespace: NamespaceId) -> ServiceResult<()> {
        let (none_known, none_written) = (BTreeMap::new(), BTreeMap::new());
        while !self.nodes.is_empty() {
            let ids: Vec<NodeId> = std::mem::take(&mut self.nodes).into_iter().collect();
            let with_child = tx.with_shown_child(namespace, &ids).await?;
            let mut changed = Vec::new();
            for PlacedNode { row, stand } in tx.placed(namespace, &ids).await? {
                let own = own_standing(stand.node, &row.state, with_child.contains(&stand.node));
                if own != Standing::Hidden || stand.standing != Standing::Hidden {
                    self.places.insert((stand.parent, stand.name.clone()));
                }
                if (own == Standing::Hidden) != (stand.standing == Standing::Hidden) {
                    self.parents.insert(stand.parent);
                }
                if own != stand.standing {
                    changed.push(Stand { standing: own, ..stand });
                }
            }
            tx.set_stands(namespace, &changed).await?;
            self.look_at_parents(tx, namespace, &none_known, &none_written).await?;
        }
        if self.places.is_empty() {
            return Ok(());
        }
        let places: Vec<(NodeId, Name)> = self.places.into_iter().collect();
        let mut groups: BTreeMap<(NodeId, Name), Vec<PlacedNode>> = BTreeMap::new();
        for placed in tx.crowded(namespace, &places).await? {
            groups.entry((placed.stand.parent, placed.stand.name.clone())).or_default().push(placed);
        }
        let alone: Vec<NodeId> = groups.values().filter(|g| g.len() == 1).map(|g| g[0].row.id).collect();
        let with_child = if alone.is_empty() { BTreeSet::new() } else { tx.with_shown_child(namespace, &alone).await? };
        let mut changed = Vec::new();
        for group in groups.into_values() {
            let is_alone = group.len() == 1;
            for PlacedNode { row, stand } in group {
                let standing = match is_alone {
                    true => own_standing(row.id, &row.state, with_child.contains(&row.id)),
                    false => Standing::Contested,
                };
                if standing != stand.standing {
                    changed.push(Stand { standing, ..stand });
                }
            }
        }
        if !changed.is_empty() {
            tx.set_stands(namespace, &changed).await?;
        }
        Ok(())
    }
}

/// Computes anew where every node of a namespace stands: after something wrote that does not keep this.
async fn resettle(tx: &mut dyn ContentTx, namespace: NamespaceId, head_seq: u64) -> ServiceResult<()> {
    let states: States = tx.all_nodes(namespace).await?.into_iter().map(|row| (row.id, row.state)).collect();
    let wanted = off_thread(move || all_stands(&states)).await?;
    let ids: Vec<NodeId> = wanted.keys().copied().collect();
    for batch in ids.chunks(10_000) {
        let found = tx.stands(namespace, batch).await?;
        let wrong: Vec<Stand> = found.into_iter().filter_map(|s| wanted.get(&s.node).filter(|w| **w != s).cloned()).collect();
        tx.set_stands(namespace, &wrong).await?;
    }
    Ok(tx.set_settled(namespace, head_seq).await?)
}

/// TS1 for a whole namespace.
fn all_stands(states: &States) -> BTreeMap<NodeId, Stand> {
    let standings = read::standings(states);
    let mut claims: BTreeMap<(NodeId, &Name), u32> = BTreeMap::new();
    for here in standings.values().filter(|here| here.is_alive) {
        *claims.entry((here.parent, here.name)).or_default() += 1;
    }
    let stand = |(id, here): (&NodeId, &read::Standing<'_>)| {
        let state = &states[id];
        let own = own_standing(*id, state, here.has_living_child);
        let is_alone = claims.get(&(here.parent, here.name)) == Some(&1);
        let standing = if own == Standing::Plain && !is_alone { Standing::Contested } else { own };
        let newest = &state.places()[0];
        let is_displaced = here.parent != newest.parent || *here.name != newest.name;
        let (name, is_directory) = (here.name.clone(), is_directory(state));
        (*id, Stand { node: *id, parent: here.parent, name, standing, is_displaced, is_directory })
    };
    standings.iter().map(stand).collect()
}

impl Content {
    /// Makes sure that it is known where the nodes of a namespace stand. A release that does not keep this may have written there: then it is computed
    /// anew, which takes as long as the namespace is large, once.
    pub(super) async fn settled(&self, row: &NamespaceRow) -> ServiceResult<()> {
        if row.settled_seq == row.head_seq {
            return Ok(());
        }
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(row.id)).await?;
            let now = tx.namespace_for(row.id, row.owner).await?.ok_or_else(ServiceError::not_found)?;
            if now.settled_seq != now.head_seq {
                resettle(&mut *tx, row.id, now.head_seq).await?;
                tx.commit().await?;
                tracing::info!(namespace = %row.id, "where the nodes of a namespace stand was computed anew");
            }
            ServiceResult::Ok(())
        };
        patiently!(attempt().await)
    }
}
