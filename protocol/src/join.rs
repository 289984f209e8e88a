//! The one law of merging, used by device and relay alike.
//!
//! [`NodeState::join`] is the least upper bound of a semilattice: associative, commutative, idempotent. So it does not matter who hears
//! what from whom, in which order and how often (I1, I8). `model.py` is its executable specification; property tests and golden vectors
//! hold the two together.

use crate::limits::PLACES_MAX;
use crate::node::{Attributes, Body, NodeState, Place, Stamped, Value};
use std::cmp::Ordering;

impl NodeState {
    /// Takes in what another replica knows of this node. Returns whether anything changed here.
    pub fn join(&mut self, other: &NodeState) -> bool {
        let places = join_places(&self.places, &other.places);
        let body = join_body(&self.body, &other.body);
        let attributes = join_attributes(&self.attributes, &other.attributes);
        let changed = places != self.places || attributes != self.attributes || !same_body(&body, &self.body);
        if changed {
            self.places = places;
            self.body = body;
            self.attributes = attributes;
        }
        changed
    }

    /// Whether joining `other` would change nothing here.
    pub fn includes(&self, other: &NodeState) -> bool {
        join_places(&self.places, &other.places) == self.places
            && join_attributes(&self.attributes, &other.attributes) == self.attributes
            && same_body(&join_body(&self.body, &other.body), &self.body)
    }
}

fn same_body(a: &Body, b: &Body) -> bool {
    a.context == b.context && a.values == b.values
}

/// Values under one dot are the same value, unless a replica was set back and used its numbers twice: then everybody keeps the same one of the
/// two, and the replica notices ([`join_body`] stays a least upper bound).
fn later(a: Value, b: &Value) -> Value {
    // Only a serialiser that reports its own failure can fail here; a value has none.
    let bytes = |v: &Value| postcard::to_allocvec(v).unwrap_or_default();
    let order = if a == *b { Ordering::Equal } else { a.stamp.cmp(&b.stamp).then_with(|| bytes(&a).cmp(&bytes(b))) };
    if order == Ordering::Less { b.clone() } else { a }
}

/// The newest places of both.
fn join_places(a: &[Place], b: &[Place]) -> Vec<Place> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::with_capacity(PLACES_MAX.min(a.len() + b.len()));
    while out.len() < PLACES_MAX && (i < a.len() || j < b.len()) {
        let order = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.cmp(y),
            (Some(_), None) => Ordering::Greater,
            _ => Ordering::Less,
        };
        out.push(if order == Ordering::Less { b[j].clone() } else { a[i].clone() });
        i += usize::from(order != Ordering::Less);
        j += usize::from(order != Ordering::Greater);
    }
    out
}

/// A value stays unless the other side has seen its event and no longer holds it: then it was replaced there.
fn join_body(a: &Body, b: &Body) -> Body {
    let kept = |of: &Body, other: &Body| -> Vec<Value> {
        let kept = of.values.iter().filter(|v| other.value(v.dot).is_some() || !other.covers(v.dot)).cloned();
        kept.map(|v| if let Some(same) = other.value(v.dot) { later(v, same) } else { v }).collect()
    };
    let mut values = kept(a, b);
    values.extend(kept(b, a));
    values.sort_by_key(|v| v.dot);
    values.dedup_by_key(|v| v.dot);
    let mut context = Vec::with_capacity(a.context.len().max(b.context.len()));
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.context.get(i), b.context.get(j)) {
            (None, None) => break,
            (Some(x), Some(y)) if x.0 == y.0 => {
                context.push((x.0, x.1.max(y.1)));
                i += 1;
                j += 1;
            }
            (Some(x), y) if y.is_none_or(|y| x.0 < y.0) => {
                context.push(*x);
                i += 1;
            }
            (_, Some(y)) => {
                context.push(*y);
                j += 1;
            }
            (Some(_), None) => unreachable!("the arm above takes a lone left side"),
        }
    }
    Body { values, context }
}

fn join_attributes(a: &Attributes, b: &Attributes) -> Attributes {
    Attributes { mode: newest(a.mode, b.mode), mtime_ns: newest(a.mtime_ns, b.mtime_ns) }
}

fn newest<T: Copy + Ord>(a: Option<Stamped<T>>, b: Option<Stamped<T>>) -> Option<Stamped<T>> {
    a.max(b)
}
