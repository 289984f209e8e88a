//! The alarm: one device changes or deletes a large share of a folder in a short time, as an infected or hostile one does (L23). The others are told
//! who it was, since when and how much, and how to take it back. Nothing is held: that is the brake's work, where the deletes are made.

use crate::engine::Engine;
use crate::policy::Policy;
use crate::trees::{NodeRecord, Trees};
use ferry_protocol::{Author, Content, DeviceId, NodeId, NodeState, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Nodes that are remembered for one device, so that one that is changed again and again counts once; what is more counts each time.
const NODES_MAX: usize = 1 << 16;
/// Devices that are watched at once; of more, the one that has been quiet for longest is forgotten.
const DEVICES_MAX: usize = 64;
/// A writer's own clock is believed so far back, in milliseconds: an offline device's changes are older than their arrival.
const CLOCK_BACK_MAX_MS: i64 = 30 * 24 * 3600 * 1000;

/// What somebody did to content that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Other content in its place.
    Changed,
    /// Nothing in its place.
    Deleted,
}

/// Many changes by one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MassChange {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// When the first of them was made, by the earlier of its clock and ours, in milliseconds since 1970.
    pub since_ms: i64,
    /// Files with other content.
    pub changed: u64,
    /// Items that were deleted.
    pub deleted: u64,
    /// Of so many items.
    pub total: u64,
}

#[derive(Debug, Default)]
struct Burst {
    /// When each node was last changed, on the engine's clock.
    nodes: BTreeMap<NodeId, (u64, Harm)>,
    /// What did not fit, with when it began to be counted.
    more: u64,
    first_ms: Option<i64>,
    /// The most items that there were since it began.
    total: u64,
    last_at: u64,
    pruned_at: u64,
}

/// What each other device did lately, and what a person is to know of.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    bursts: BTreeMap<DeviceId, Burst>,
    raised: BTreeMap<DeviceId, MassChange>,
}

impl Alarm {
    /// Notes that `author` did this to a node, of `total` items that there are now. `wall_ms` is the earlier of the writer's clock and ours.
    pub fn note(&mut self, policy: &Policy, (now_ms, wall_ms): (u64, i64), author: &Author, (node, harm): (NodeId, Harm), total: u64) {
        if let Some(raised) = self.raised.get_mut(&author.device) {
            // It is known already: this only says how much it is by now.
            match harm {
                Harm::Changed => raised.changed += 1,
                Harm::Deleted => raised.deleted += 1,
            }
            raised.since_ms = raised.since_ms.min(wall_ms);
            return;
        }
        if !self.bursts.contains_key(&author.device) && self.bursts.len() >= DEVICES_MAX {
            let quiet = self.bursts.iter().min_by_key(|(_, burst)| burst.last_at).map(|(device, _)| *device);
            quiet.map(|device| self.bursts.remove(&device));
        }
        let burst = self.bursts.entry(author.device).or_default();
        burst.prune(now_ms, policy.alarm_window_ms);
        burst.last_at = now_ms;
        burst.first_ms = Some(burst.first_ms.map_or(wall_ms, |first| first.min(wall_ms)));
        if burst.nodes.len() < NODES_MAX || burst.nodes.contains_key(&node) {
            burst.nodes.insert(node, (now_ms, harm));
        } else {
            burst.more += 1;
        }
        // Of what there was before it began: what is deleted is gone from the count sooner or later.
        burst.total = burst.total.max(total);
        let count = burst.nodes.len() as u64 + burst.more;
        if count > policy.alarm_items && count * 100 > burst.total * policy.alarm_percent {
            let deleted = burst.nodes.values().filter(|(_, harm)| *harm == Harm::Deleted).count() as u64;
            let raised = MassChange {
                device: author.device,
                name: author.name.to_string(),
                since_ms: burst.first_ms.unwrap_or(wall_ms),
                changed: count - deleted,
                deleted,
                total: burst.total,
            };
            self.bursts.remove(&author.device);
            self.raised.insert(author.device, raised);
        }
    }
}

impl Burst {
    /// Forgets what is over. Looking at everything now and then is enough: what is forgotten late is at most a tenth of the window older.
    fn prune(&mut self, now_ms: u64, window_ms: u64) {
        if now_ms.saturating_sub(self.last_at) > window_ms {
            *self = Self { pruned_at: now_ms, ..Self::default() };
        } else if now_ms.saturating_sub(self.pruned_at) > window_ms / 10 {
            self.pruned_at = now_ms;
            self.nodes.retain(|_, (at, _)| now_ms.saturating_sub(*at) <= window_ms);
            self.more = 0;
        }
    }
}

impl<T: Trees> Engine<T> {
    /// What a person is to know of: it stays until it is dismissed.
    pub fn mass_changes(&self) -> impl Iterator<Item = &MassChange> {
        self.alarm.raised.values()
    }

    /// A person has taken note. How many there were.
    pub fn dismiss_mass_changes(&mut self) -> u64 {
        let count = self.alarm.raised.len() as u64;
        self.alarm.raised.clear();
        count
    }

    /// What was raised before the folder was opened again.
    pub fn recall_mass_changes(&mut self, raised: Vec<MassChange>) {
        self.alarm.raised.extend(raised.into_iter().map(|change| (change.device, change)));
    }

    /// Notes what somebody else's values did to a node.
    pub(crate) fn note_harm(&mut self, id: NodeId, before: &NodeRecord, joined: &NodeState) {
        let old = before.state.body();
        let lived = old.values().iter().any(|v| v.content.file().is_some());
        let is_new = |v: &&Value| old.value(v.dot).is_none() && v.author.device != self.device.device;
        let Some(value) = joined.body().values().iter().filter(is_new).max_by_key(|v| v.stamp).filter(|_| lived) else { return };
        let harm = match &value.content {
            Content::Tombstone => Harm::Deleted,
            Content::File(file) => {
                let had = |v: &Value| v.content.file().is_some_and(|f| f.manifest.hash() == file.manifest.hash());
                if old.values().iter().any(had) {
                    return;
                }
                Harm::Changed
            }
            _ => Harm::Changed,
        };
        let wall_ms = value.wall_ms.min(self.wall_ms).max(self.wall_ms.saturating_sub(CLOCK_BACK_MAX_MS));
        let (author, total) = (value.author.clone(), self.trees.meta().items);
        self.alarm.note(&self.policy, (self.now_ms, wall_ms), &author, (id, harm), total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn author(n: u8) -> Author {
        Author { device: DeviceId::from_bytes([n; 16]), name: "OTHER".into() }
    }

    fn node(n: u32) -> NodeId {
        let mut id = [1; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(id)
    }

    /// Whether so many changes of different nodes, one each `step_ms`, of `total` items, raise it.
    fn raises(count: u32, total: u64, step_ms: u64, harm: Harm) -> bool {
        let (policy, mut alarm) = (Policy::default(), Alarm::default());
        for n in 0..count {
            let left = if harm == Harm::Deleted { total - u64::from(n) - 1 } else { total };
            alarm.note(&policy, (u64::from(n) * step_ms, i64::from(n)), &author(1), (node(n), harm), left);
        }
        !alarm.raised.is_empty()
    }

    #[test]
    fn thresholds() {
        for harm in [Harm::Changed, Harm::Deleted] {
            assert!(!raises(100, 100, 1, harm), "few in number");
            assert!(raises(101, 101, 1, harm));
            assert!(!raises(290, 1000, 1, harm), "29 %");
            assert!(raises(310, 1000, 1, harm), "31 %");
        }
        assert!(!raises(1000, 1000, 60_000, Harm::Changed), "one a minute");
    }

    #[test]
    fn it_says_who_since_when_and_how_much_until_it_is_dismissed() {
        let (policy, mut alarm) = (Policy::default(), Alarm::default());
        for n in 0..200u32 {
            let harm = if n % 4 == 0 { Harm::Deleted } else { Harm::Changed };
            alarm.note(&policy, (u64::from(n), 1000 + i64::from(n)), &author(1), (node(n), harm), 300);
            alarm.note(&policy, (u64::from(n), 0), &author(2), (node(7), Harm::Changed), 300);
        }
        let raised: Vec<_> = alarm.raised.values().collect();
        assert_eq!(raised.len(), 1, "who changes one file again and again is not meant");
        assert_eq!((raised[0].device, raised[0].since_ms, raised[0].changed + raised[0].deleted), (author(1).device, 1000, 200));
        assert_eq!(raised[0].deleted, 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// It is raised for a device exactly when, within the window, it did harm to more than both thresholds; whatever others do meanwhile.
        #[test]
        fn only_what_is_much_in_number_and_share_and_short_in_time(
            steps in proptest::collection::vec((1u8..4, 0u32..400, any::<bool>(), 0u64..50), 1..600),
            total in 1u64..600,
        ) {
            let policy = Policy { alarm_items: 20, alarm_percent: 10, alarm_window_ms: 1000, ..Policy::default() };
            let (mut alarm, mut now) = (Alarm::default(), 0);
            let mut seen: BTreeMap<u8, BTreeMap<u32, u64>> = BTreeMap::new();
            for (who, n, delete, step) in steps {
                now += step;
                let harm = if delete { Harm::Deleted } else { Harm::Changed };
                let known = alarm.raised.contains_key(&author(who).device);
                alarm.note(&policy, (now, now as i64), &author(who), (node(n), harm), total);
                seen.entry(who).or_default().insert(n, now);
                let raised = alarm.raised.contains_key(&author(who).device);
                prop_assert!(!known || raised, "it stays");
                if raised && !known {
                    // With what is pruned late a tenth of the window is not exact.
                    let lately = seen[&who].values().filter(|at| **at + 1100 >= now).count() as u64;
                    prop_assert!(lately > policy.alarm_items, "{lately} of {total}");
                    prop_assert!(lately * 100 > total * policy.alarm_percent);
                }
            }
        }
    }
}
