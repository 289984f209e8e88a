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
/// Parts of the window: a change counts until its part is over, so that what is remembered of repeated changes is bounded.
const SLOTS: u64 = 64;
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

/// What one device did within the window.
#[derive(Debug, Default)]
struct Burst {
    /// In which slot each node was last changed.
    nodes: BTreeMap<NodeId, (u64, Harm)>,
    /// By number, oldest first.
    slots: BTreeMap<u64, Slot>,
    last_at: u64,
}

/// A part of the window in which something was changed.
#[derive(Debug)]
struct Slot {
    /// Changes of nodes that did not fit.
    more: u64,
    /// When the first of the changes was made, in milliseconds since 1970: also of a node that was changed again, since that is where a rewind leads.
    first_ms: i64,
    /// The most items that there were.
    total: u64,
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
        burst.note(now_ms, policy.alarm_window_ms, wall_ms, (node, harm), total);
        // Of what there was before it began: what is deleted is gone from the count sooner or later.
        let total = burst.slots.values().map(|slot| slot.total).max().unwrap_or(total);
        let count = burst.nodes.len() as u64 + burst.slots.values().map(|slot| slot.more).sum::<u64>();
        if count > policy.alarm_items && count * 100 > total * policy.alarm_percent {
            let deleted = burst.nodes.values().filter(|(_, harm)| *harm == Harm::Deleted).count() as u64;
            let since_ms = burst.slots.values().map(|slot| slot.first_ms).min().unwrap_or(wall_ms);
            let raised =
                MassChange { device: author.device, name: author.name.to_string(), since_ms, changed: count - deleted, deleted, total };
            self.bursts.remove(&author.device);
            self.raised.insert(author.device, raised);
        }
    }
}

impl Burst {
    fn note(&mut self, now_ms: u64, window_ms: u64, wall_ms: i64, (node, harm): (NodeId, Harm), total: u64) {
        let now = slot_of(now_ms, window_ms);
        self.last_at = now_ms;
        // What is over. The nodes are looked through once a slot, not at each change.
        let is_over = |slot: u64| !counts(slot, now, window_ms);
        if self.slots.first_key_value().is_some_and(|(oldest, _)| is_over(*oldest)) {
            self.slots.retain(|slot, _| !is_over(*slot));
            self.nodes.retain(|_, (slot, _)| !is_over(*slot));
        }
        let slot = self.slots.entry(now).or_insert(Slot { more: 0, first_ms: wall_ms, total });
        slot.first_ms = slot.first_ms.min(wall_ms);
        slot.total = slot.total.max(total);
        if self.nodes.len() < NODES_MAX || self.nodes.contains_key(&node) {
            self.nodes.insert(node, (now, harm));
        } else {
            slot.more += 1;
        }
    }
}

fn slot_ms(window_ms: u64) -> u64 {
    (window_ms / SLOTS).max(1)
}

/// The slot of a moment.
fn slot_of(at_ms: u64, window_ms: u64) -> u64 {
    at_ms / slot_ms(window_ms)
}

/// Whether all of this slot lies within the window that ends somewhere in slot `now`. So what counts is never older than the window, and what is younger
/// than the window less one slot counts.
fn counts(slot: u64, now: u64, window_ms: u64) -> bool {
    now.saturating_sub(slot) < (window_ms / slot_ms(window_ms)).max(1)
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

    #[test]
    fn of_who_works_steadily_only_what_is_within_the_window_is_told() {
        let policy = Policy { alarm_items: 20, alarm_percent: 30, alarm_window_ms: 1000, ..Policy::default() };
        let mut alarm = Alarm::default();
        // One change each 100 ms for a long time, in a folder that was large once: never quiet, never much.
        for n in 0..500u32 {
            let total = if n < 100 { 1_000_000 } else { 40 };
            alarm.note(&policy, (u64::from(n) * 100, i64::from(n) * 100), &author(1), (node(n), Harm::Changed), total);
        }
        assert!(alarm.raised.is_empty());
        for n in 500..530u32 {
            alarm.note(&policy, (50_000, 50_000 + i64::from(n)), &author(1), (node(n), Harm::Deleted), 40);
        }
        let raised = &alarm.raised[&author(1).device];
        assert!(raised.since_ms >= 49_000, "since {}", raised.since_ms);
        assert_eq!(raised.total, 40);
    }

    #[test]
    fn a_file_that_is_written_twice_is_counted_once_and_since_its_first_change() {
        let (policy, mut alarm) = (Policy::default(), Alarm::default());
        for n in 0..201u32 {
            alarm.note(&policy, (u64::from(n), 1000 + i64::from(n)), &author(1), (node(n / 2), Harm::Changed), 101);
        }
        let raised = &alarm.raised[&author(1).device];
        assert_eq!((raised.since_ms, raised.changed), (1000, 101));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_forgotten_too() {
        let policy = Policy { alarm_items: 1 << 17, alarm_window_ms: 1000, ..Policy::default() };
        let mut alarm = Alarm::default();
        for n in 0..=1u32 << 17 {
            assert!(alarm.raised.is_empty());
            alarm.note(&policy, (0, 0), &author(1), (node(n), Harm::Changed), 1000);
        }
        assert!(!alarm.raised.is_empty());
        let mut alarm = Alarm::default();
        for n in 0..=1u32 << 17 {
            alarm.note(&policy, (if n < 1 << 16 { 0 } else { u64::from(n) }, 0), &author(1), (node(n), Harm::Changed), 1000);
        }
        assert!(alarm.raised.is_empty(), "half of them are over");
    }

    /// A change, as the model remembers it.
    #[derive(Debug, Clone, Copy)]
    struct Done {
        at: u64,
        wall: i64,
        node: u32,
        harm: Harm,
        total: u64,
    }

    /// What is to be told of these changes by one device at `now`, by looking at all of them.
    fn model(policy: &Policy, done: &[Done], now: u64) -> Option<(i64, u64, u64, u64)> {
        let window = policy.alarm_window_ms;
        let lately: Vec<&Done> = done.iter().filter(|d| counts(slot_of(d.at, window), slot_of(now, window), window)).collect();
        let last: BTreeMap<u32, Harm> = lately.iter().map(|d| (d.node, d.harm)).collect();
        let count = last.len() as u64;
        let total = lately.iter().map(|d| d.total).max()?;
        let deleted = last.values().filter(|harm| **harm == Harm::Deleted).count() as u64;
        let since = lately.iter().map(|d| d.wall).min()?;
        (count > policy.alarm_items && count * 100 > total * policy.alarm_percent).then_some((since, count - deleted, deleted, total))
    }

    /// How many different nodes were changed at most `age` before `now`.
    fn nodes_within(done: &[Done], now: u64, age: u64) -> u64 {
        done.iter().filter(|d| d.at + age >= now).map(|d| d.node).collect::<std::collections::BTreeSet<_>>().len() as u64
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// It is raised for a device exactly when, within the window, it did harm to more than both thresholds, whatever others do meanwhile; and it
        /// says what was done within the window, no more.
        #[test]
        fn it_is_raised_exactly_for_what_is_much_in_number_and_share_and_short_in_time(
            steps in proptest::collection::vec((1u8..4, 0u32..400, any::<bool>(), 0u64..50, 0i64..5000, 1u64..600), 1..600),
            window in prop_oneof![Just(10u64), Just(1000), 100u64..5000],
            (alarm_items, alarm_percent) in (0u64..40, 0u64..40),
        ) {
            let policy = Policy { alarm_items, alarm_percent, alarm_window_ms: window, ..Policy::default() };
            let (mut alarm, mut now) = (Alarm::default(), 0);
            let mut done: BTreeMap<u8, Vec<Done>> = BTreeMap::new();
            for (who, n, delete, step, late, total) in steps {
                now += step;
                let (harm, wall) = (if delete { Harm::Deleted } else { Harm::Changed }, now as i64 - late);
                let device = author(who).device;
                let done = done.entry(who).or_default();
                done.push(Done { at: now, wall, node: n, harm, total });
                alarm.note(&policy, (now, wall), &author(who), (node(n), harm), total);
                let told = alarm.raised.get(&device).map(|r| (r.since_ms, r.changed, r.deleted, r.total));
                prop_assert_eq!(told, model(&policy, done, now));
                // Without the slots: never for what is older than the window, always for what is a slot younger than that.
                let most = nodes_within(done, now, window);
                let least = nodes_within(done, now, window.saturating_sub(2 * slot_ms(window)));
                prop_assert!(told.is_none() || most > alarm_items, "{most} within the window");
                if told.is_some() || (least > alarm_items && least * 100 > 600 * alarm_percent) {
                    prop_assert!(told.is_some(), "{least} well within the window");
                    // A person takes note, and it begins anew.
                    alarm.raised.remove(&device);
                    done.clear();
                }
            }
        }

        /// What was raised stays, and goes on counting.
        #[test]
        fn what_was_raised_stays_and_counts_on(more in proptest::collection::vec((any::<bool>(), 0i64..2000), 1..50)) {
            let (policy, mut alarm) = (Policy { alarm_items: 3, ..Policy::default() }, Alarm::default());
            for n in 0..4 {
                alarm.note(&policy, (0, 1000), &author(1), (node(n), Harm::Changed), 4);
            }
            let first = alarm.raised[&author(1).device].clone();
            for (n, (delete, wall)) in more.iter().enumerate() {
                let harm = if *delete { Harm::Deleted } else { Harm::Changed };
                alarm.note(&policy, (1_000_000 * n as u64, *wall), &author(1), (node(n as u32), harm), 4);
            }
            let deleted = more.iter().filter(|(delete, _)| *delete).count() as u64;
            let last = &alarm.raised[&author(1).device];
            prop_assert_eq!((last.deleted, last.changed), (first.deleted + deleted, first.changed + more.len() as u64 - deleted));
            prop_assert_eq!(last.since_ms, more.iter().map(|(_, wall)| *wall).min().unwrap().min(1000));
        }
    }
}
