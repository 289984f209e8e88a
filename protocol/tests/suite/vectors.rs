//! `join` and `resolve` agree with the executable specification on every golden vector.
//!
//! `vectors.jsonl` is made by `PYTHONHASHSEED=0 python3 model.py --vectors 3200 1 | python3 pack_vectors.py`; the packer says what a line
//! holds. (Without the fixed hash seed the model makes other histories, as good as these.)

use ferry_protocol::node::{Attributes, Author, Content, Dot, FileContent, NodeState, Place, Stamp, Value};
use ferry_protocol::read::{States, resolve_with};
use ferry_protocol::{ContentHash, DeviceId, Manifest, Name, NodeId, ReplicaId};
use serde_json::Value as Json;
use std::collections::BTreeMap;

const VECTORS: &str = include_str!("../vectors.jsonl");

/// Ids that stand in the order of the model's texts.
fn padded(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn replica(text: &str) -> ReplicaId {
    ReplicaId::from_bytes(padded(text))
}

fn node(text: &str) -> NodeId {
    if text == "root" { NodeId::ROOT } else { NodeId::from_bytes(padded(text)) }
}

fn content(kind: &str, text: &str) -> Content {
    match kind {
        "dir" => Content::Dir,
        "gone" => Content::Tombstone,
        "file" => {
            let chunk = ferry_protocol::VerifiedChunk::of(text.as_bytes());
            let chunks = vec![ferry_protocol::ChunkRef { id: chunk.id(), len: text.len() as u32 }];
            Content::File(FileContent::new(Manifest::new(ContentHash::of(text.as_bytes()), chunks).unwrap(), 0))
        }
        other => panic!("the model has no kind {other}"),
    }
}

fn place(text: &str) -> Place {
    let words: Vec<&str> = text.split(' ').collect();
    Place {
        stamp: Stamp { counter: words[0].parse().unwrap(), replica: replica(words[1]) },
        parent: node(words[2]),
        name: Name::new(words[3]).unwrap(),
    }
}

fn value(text: &str) -> Value {
    let words: Vec<&str> = text.split(' ').collect();
    Value {
        dot: Dot { replica: replica(words[0]), counter: words[1].parse().unwrap() },
        stamp: Stamp { counter: words[2].parse().unwrap(), replica: replica(words[3]) },
        content: content(words[4], words[5]),
        author: Author { device: DeviceId::from_bytes(padded(words[3])), name: words[3].into() },
        wall_ms: 0,
    }
}

fn texts(array: &Json) -> impl Iterator<Item = &str> {
    array.as_array().unwrap().iter().map(|t| t.as_str().unwrap())
}

fn states(json: &Json) -> States {
    let read = |parts: &Json| {
        let context = parts[2].as_object().unwrap().iter().map(|(r, n)| (replica(r), n.as_u64().unwrap())).collect();
        NodeState::from_parts(texts(&parts[0]).map(place).collect(), texts(&parts[1]).map(value).collect(), context, Attributes::default())
            .expect("a state of the model is valid")
    };
    json.as_object().unwrap().iter().map(|(id, parts)| (node(id), read(parts))).collect()
}

fn tree_of_model(json: &Json) -> BTreeMap<Vec<u8>, Content> {
    let read = |text: &Json| {
        let (kind, text) = text.as_str().unwrap().split_once(' ').unwrap();
        content(kind, text)
    };
    json.as_object().unwrap().iter().map(|(path, text)| (path.as_bytes().to_vec(), read(text))).collect()
}

fn joined(a: &States, b: &States) -> States {
    let mut out = a.clone();
    for (id, state) in b {
        out.entry(*id)
            .and_modify(|s| assert_eq!(!s.includes(state), s.join(state), "join tells whether it changed"))
            .or_insert(state.clone());
    }
    out
}

/// The model's own label of a conflicted copy: the device and the counter of the losing value's stamp.
fn model_label(value: &Value) -> String {
    format!("{}, {}", value.author.name, value.stamp.counter)
}

#[test]
fn join_and_resolve_agree_with_the_model() {
    let mut cases = 0;
    for (line, text) in VECTORS.lines().enumerate() {
        let case: Json = serde_json::from_str(text).unwrap();
        let (a, b, join) = (states(&case[0]), states(&case[1]), states(&case[2]));
        let there = joined(&a, &b);
        assert_eq!(there, join, "line {}: join(a, b)", line + 1);
        assert_eq!(joined(&b, &a), join, "line {}: join(b, a)", line + 1);
        let tree: BTreeMap<Vec<u8>, Content> =
            resolve_with(&there, &model_label).into_iter().map(|(path, entry)| (path.to_bytes(), entry.content)).collect();
        assert_eq!(tree, tree_of_model(&case[3]), "line {}: resolve(join(a, b))", line + 1);
        cases += 1;
    }
    assert!(cases >= 3000, "the vectors are there: {cases}");
}

#[test]
fn the_vectors_hold_the_hard_cases() {
    let count = |needle: &str| VECTORS.lines().filter(|l| l.contains(needle)).count();
    assert!(count("conflicted copy") > 300, "conflicts");
    assert!(count("gone -") > 1000, "deletions");
}
