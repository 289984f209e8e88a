//! The laws of merging and reading, on random histories of three replicas (`faults.md` 5.3, properties 1, 3, 6, 10, 11 and 14).

use crate::history::{Replica, all_joined, names, run, run_keeping, steps};
use ferry_protocol::node::{Author, Content, Dot, NodeState, Place, Stamp, Value};
use ferry_protocol::read::{Entry, States, break_cycles, name_at, parent_at, resolve, rows_of};
use ferry_protocol::wire::NodeUpdate;
use ferry_protocol::{DeviceId, Name, NodeId, RelPath, ReplicaId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use unicode_normalization::UnicodeNormalization;

fn joined(a: &NodeState, b: &NodeState) -> NodeState {
    let mut out = a.clone();
    out.join(b);
    out
}

/// Equality of bytes: also what `==` leaves aside, such as the modification time of a file's content.
fn bytes(state: &NodeState) -> Vec<u8> {
    postcard::to_stdvec(&NodeUpdate { id: NodeId::from_bytes([9; 16]), state: state.clone() }).unwrap()
}

/// Every pair of states of one node that two replicas hold.
fn triples(all: &[Replica]) -> Vec<[&NodeState; 3]> {
    let ids: BTreeSet<NodeId> = all.iter().flat_map(|r| r.states.keys().copied()).collect();
    let mut out = Vec::new();
    for id in ids {
        let held: Vec<&NodeState> = all.iter().filter_map(|r| r.states.get(&id)).collect();
        out.push([held[0], held[1 % held.len()], held[2 % held.len()]]);
    }
    out
}

proptest! {
    #[test]
    fn join_is_a_semilattice(steps in steps()) {
        for [a, b, c] in triples(&run(&steps)) {
            prop_assert_eq!(bytes(&joined(a, a)), bytes(a), "idempotent");
            prop_assert_eq!(bytes(&joined(a, b)), bytes(&joined(b, a)), "commutative");
            prop_assert_eq!(bytes(&joined(&joined(a, b), c)), bytes(&joined(a, &joined(b, c))), "associative");
        }
    }

    #[test]
    fn includes_says_whether_join_would_change_anything(steps in steps()) {
        for [a, b, _] in triples(&run(&steps)) {
            let ab = joined(a, b);
            prop_assert!(ab.includes(a) && ab.includes(b), "the join is an upper bound");
            prop_assert_eq!(a.includes(b), bytes(&ab) == bytes(a));
            prop_assert_eq!(a.clone().join(b), !a.includes(b), "join tells whether it changed");
        }
    }

    #[test]
    fn what_is_joined_is_a_valid_state(steps in steps()) {
        for [a, b, c] in triples(&run(&steps)) {
            let all = joined(&joined(a, b), c);
            let again = NodeState::from_parts(all.places().to_vec(), all.body().values().to_vec(), all.body().context().to_vec(), *all.attributes());
            prop_assert_eq!(again, Ok(all));
        }
    }

    /// Any order, any doubling, any delay of single node states: the same states and the same tree (property 11, I8).
    #[test]
    fn gossip_order_does_not_matter(steps in steps(), order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..80)) {
        let (all, messages) = run_keeping(&steps);
        let expected = all_joined(&all);
        let mut there = States::new();
        let stray = order.iter().filter(|_| !messages.is_empty()).map(|i| i.get(&messages));
        let every = all.iter().rev().flat_map(|r| r.states.iter().map(|(i, s)| (*i, s.clone()))).collect::<Vec<_>>();
        for (id, state) in stray.chain(&every) {
            there.entry(*id).and_modify(|s| _ = s.join(state)).or_insert_with(|| state.clone());
        }
        prop_assert_eq!(&there, &expected);
        prop_assert_eq!(resolve(&there), resolve(&expected));
    }

    #[test]
    fn resolve_shows_a_tree(steps in steps()) {
        let all = run(&steps);
        for states in all.iter().map(|r| r.states.clone()).chain([all_joined(&all)]) {
            check_tree(&states, &resolve(&states))?;
        }
    }

    /// Every living value stands behind exactly one entry, and the entry shows it (I2, property 6).
    #[test]
    fn resolve_hides_no_living_value(steps in steps()) {
        let states = all_joined(&run(&steps));
        let mut behind: BTreeMap<(NodeId, Dot), Vec<&Content>> = BTreeMap::new();
        let tree = resolve(&states);
        for entry in tree.values() {
            for dot in &entry.dots {
                behind.entry((entry.node, *dot)).or_default().push(&entry.content);
            }
            for (node, _, dots) in &entry.twins {
                for dot in dots {
                    behind.entry((*node, *dot)).or_default().push(&entry.content);
                }
            }
        }
        for (id, state) in &states {
            for value in state.body().values().iter().filter(|v| !v.content.is_tombstone()) {
                prop_assert_eq!(behind.get(&(*id, value.dot)), Some(&vec![&value.content]), "{:?} of {:?}", value, id);
            }
        }
        let copies = tree.values().filter(|e| e.is_conflict).count();
        let claims: usize = states.iter().map(|(id, s)| rows_of(*id, s, true).len()).sum();
        prop_assert!(copies < claims.max(1), "never more copies than claims");
    }

    /// A directory stays while anything in it lives (CR4, CR8): the directories on the way to a living node are alive.
    #[test]
    fn a_living_child_keeps_its_directory(steps in steps()) {
        let states = all_joined(&run(&steps));
        let fallen = break_cycles(&states);
        let shown: BTreeSet<NodeId> = resolve(&states).values().flat_map(|e| e.twins.iter().map(|t| t.0).chain([e.node])).collect();
        for (id, _) in states.iter().filter(|(_, s)| s.body().has_living()) {
            let mut node = *id;
            let mut steps_up = 0;
            while node != NodeId::ROOT {
                prop_assert!(shown.contains(&node), "{node:?} on the way to {id:?}");
                let Some(state) = states.get(&node) else { break };
                node = parent_at(state, fallen.get(&node).copied().unwrap_or(0));
                steps_up += 1;
                prop_assert!(steps_up <= states.len(), "no cycle is left");
            }
        }
    }

    #[test]
    fn a_node_without_rivals_keeps_its_own_name(steps in steps()) {
        let states = all_joined(&run(&steps));
        let fallen = break_cycles(&states);
        for (path, entry) in resolve(&states).iter().filter(|(_, e)| !e.is_conflict) {
            let own = name_at(&states[&entry.node], fallen.get(&entry.node).copied().unwrap_or(0));
            prop_assert_eq!(own, path.names().last().unwrap());
        }
    }

    #[test]
    fn one_fold_key_is_an_equivalence(text in "\\PC{1,20}", other in "\\PC{1,20}") {
        if let (Ok(name), Ok(other)) = (Name::new(&text), Name::new(&other)) {
            let key = name.fold_key();
            prop_assert_eq!(&Name::new(&key).map(|n| n.fold_key()).unwrap_or(key.clone()), &key, "a key is its own key");
            for same in [text.nfc().collect::<String>(), text.nfd().collect(), text.to_lowercase()] {
                if let Ok(same) = Name::new(&same) {
                    prop_assert_eq!(same.fold_key(), key.clone(), "{:?} and {:?}", same, name);
                }
            }
            // Same key, same class: what folds with one folds with the other.
            prop_assert_eq!(name.fold_key() == other.fold_key(), other.fold_key() == name.fold_key());
        }
    }
}

fn check_tree(states: &States, tree: &BTreeMap<RelPath, Entry>) -> Result<(), TestCaseError> {
    let mut seen: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (path, entry) in tree {
        let (parent, name) = path.split_last().expect("the root is no entry");
        prop_assert!(parent.is_root() || tree.get(&parent).is_some_and(|p| p.content.is_dir()), "{path} stands in a directory");
        prop_assert_eq!(&entry.name, name);
        prop_assert!(name.as_bytes().len() <= 255);
        prop_assert!(!entry.content.is_tombstone());
        prop_assert!(states.contains_key(&entry.node));
        if entry.copy.is_none() {
            *seen.entry(entry.node).or_default() += 1;
        }
    }
    prop_assert!(seen.values().all(|n| *n == 1), "a node keeps one name: {seen:?}");
    Ok(())
}

/// A replica that was set back uses its numbers twice. Whoever hears both values keeps the same one, in whatever order.
#[test]
fn two_values_under_one_number_join_to_one() {
    let replica = ReplicaId::from_bytes([1; 16]);
    let state = |counter: u64, target: &[u8]| {
        let stamp = Stamp { counter, replica };
        let mut state = NodeState::new(Place { stamp: Stamp { counter: 1, replica }, parent: NodeId::ROOT, name: Name::new("l").unwrap() });
        let author = Author { device: DeviceId::from_bytes([1; 16]), name: "D".into() };
        let content = Content::Symlink(target.into());
        state.body_mut().put(&[], Value { dot: Dot { replica, counter: 1 }, stamp, content, author, wall_ms: 0 });
        state
    };
    let all = [state(2, b"a"), state(2, b"b"), state(3, b"a"), state(4, b"c")];
    for a in &all {
        assert_eq!(bytes(&joined(a, a)), bytes(a));
        for b in &all {
            let ab = joined(a, b);
            assert_eq!(bytes(&ab), bytes(&joined(b, a)), "commutative");
            assert!(ab.includes(a) && ab.includes(b) && ab.body().values().len() == 1);
            assert_eq!(a.clone().join(b), !a.includes(b), "join tells whether it changed");
            for c in &all {
                assert_eq!(bytes(&joined(&ab, c)), bytes(&joined(a, &joined(b, c))), "associative");
            }
        }
    }
}

#[test]
fn the_names_of_the_histories_clash_as_meant() {
    let names = names();
    let key = |i: usize| names[i].fold_key();
    assert_eq!(key(0), key(2), "a and A");
    assert_eq!(key(3), key(4), "two forms of é");
    assert_ne!(key(0), key(1));
}

/// Every assigned character that folds, alone: its key is stable and does not depend on how it is composed.
#[test]
fn every_character_folds_once_and_for_all() {
    for c in (1..0x3_0000).filter_map(char::from_u32).filter(|c| *c != '/' && *c != '.') {
        let key = |text: &str| Name::new(text).unwrap().fold_key();
        let text = c.to_string();
        let once = key(&text);
        assert_eq!(Name::new(&once).unwrap().fold_key(), once, "U+{:04X}", c as u32);
        assert_eq!(key(&text.nfd().collect::<String>()), once, "U+{:04X} decomposed", c as u32);
        assert_eq!(key(&text.to_lowercase()), once, "U+{:04X} in lower case", c as u32);
    }
}
