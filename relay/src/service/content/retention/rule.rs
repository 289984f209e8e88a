//! Which old versions of a file go: a pure function of their times, what is kept in any case, the rule, and now.
//!
//! * **KR1** What a file shows, every content beside it in a conflict, the newest version and every version with a label stay, whatever the rule says.
//! * **KR2** A version's age begins when it was replaced, not when it was written: what stood for years and is overwritten today is one day old tomorrow,
//!   so a folder can be taken back to every moment that is younger than `all_days`.
//! * **KR3** The same again changes nothing, and a rule that keeps no longer keeps no more.

use crate::service::{ServiceError, ServiceResult};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The longest time that a rule may name, in days: a hundred years.
const DAYS_MAX: u32 = 36_500;

/// How long old versions and the trash are kept. The default is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Every version that was replaced less than so many days ago is kept; nothing: every one for ever.
    pub all_days: Option<u32>,
    /// Of what is older, the last version of each day (UTC) that was replaced less than so many days ago; nothing: for ever; 0: none.
    pub daily_days: Option<u32>,
    /// Of all these the newest, at most so many; nothing: any number.
    pub max_versions: Option<u32>,
    /// What lies in the trash for longer goes for good; nothing: it stays until somebody purges it.
    pub trash_days: Option<u32>,
}

impl Rule {
    /// Whether it keeps everything.
    pub fn is_for_ever(&self) -> bool {
        self.all_days.is_none() && self.max_versions.is_none() && self.trash_days.is_none()
    }

    /// The rule, if it is one that can be kept to.
    pub fn checked(self) -> ServiceResult<Self> {
        let wrong = |field: &str, detail: &str| Err(ServiceError::invalid("invalid_retention", detail).with("field", field));
        let is_day = |days: Option<u32>| days.is_none_or(|days| (1..=DAYS_MAX).contains(&days));
        if !is_day(self.all_days) {
            return wrong("all_days", "'all_days' is from 1 to 36500 days, or null for ever.");
        }
        if !is_day(self.trash_days) {
            return wrong("trash_days", "'trash_days' is from 1 to 36500 days, or null for ever.");
        }
        if self.max_versions == Some(0) {
            return wrong("max_versions", "'max_versions' is at least 1, or null for any number.");
        }
        match (self.all_days, self.daily_days) {
            (None, Some(_)) => wrong("daily_days", "'daily_days' is about what is older than 'all_days': give that too."),
            (Some(all), Some(daily)) if daily != 0 && (daily < all || daily > DAYS_MAX) => {
                wrong("daily_days", "'daily_days' counts from the same moment as 'all_days' and is no less; 0 for none, null for ever.")
            }
            _ => Ok(self),
        }
    }

    /// From the database.
    pub(super) fn parse(text: Option<&str>) -> ServiceResult<Option<Self>> {
        text.map(|text| serde_json::from_str(text).map_err(ServiceError::internal)).transpose()
    }

    /// For the database.
    pub(super) fn to_text(self) -> ServiceResult<String> {
        serde_json::to_string(&self).map_err(ServiceError::internal)
    }

    /// Before which time what was deleted is to go, in milliseconds since 1970.
    pub(super) fn trash_before_ms(&self, now_ms: i64) -> Option<i64> {
        self.trash_days.map(|days| now_ms.saturating_sub(i64::from(days) * DAY_MS))
    }
}

/// A version, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// When it came to the relay, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Whether it stays in any case (KR1).
    pub is_safe: bool,
}

/// Which of a file's versions go, by their places in the list; they come oldest first, in the order of their numbers.
pub fn going(versions: &[Kept], rule: &Rule, now_ms: i64) -> Vec<usize> {
    let last_of_day = last_of_days(versions);
    let mut gone = Vec::new();
    let mut stay = Vec::new();
    for (at, version) in versions.iter().enumerate() {
        // The newest of all is replaced by nothing.
        let Some(next) = versions.get(at + 1) else { break };
        if version.is_safe {
            continue;
        }
        let age_ms = now_ms.saturating_sub(next.created_at_ms);
        let is_younger = |days: Option<u32>| days.is_none_or(|days| age_ms < i64::from(days) * DAY_MS);
        let is_last = last_of_day.get(&day(version)) == Some(&at);
        if is_younger(rule.all_days) || (is_last && rule.daily_days != Some(0) && is_younger(rule.daily_days)) {
            stay.push(at);
        } else {
            gone.push(at);
        }
    }
    if let Some(max) = rule.max_versions {
        let surplus = stay.len().saturating_sub(max as usize);
        gone.extend(stay.drain(..surplus));
        gone.sort_unstable();
    }
    gone
}

fn day(version: &Kept) -> i64 {
    version.created_at_ms.div_euclid(DAY_MS)
}

/// The newest version of each day.
fn last_of_days(versions: &[Kept]) -> BTreeMap<i64, usize> {
    versions.iter().enumerate().map(|(at, version)| (day(version), at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: i64 = 20_000 * DAY_MS;

    /// Versions that were written so many days ago, the oldest first.
    fn written(days_ago: &[f64]) -> Vec<Kept> {
        days_ago.iter().map(|days| Kept { created_at_ms: NOW_MS - (days * DAY_MS as f64) as i64, is_safe: false }).collect()
    }

    fn days(all: u32, daily: Option<u32>) -> Rule {
        Rule { all_days: Some(all), daily_days: daily, ..Rule::default() }
    }

    #[test]
    fn by_itself_nothing_goes() {
        assert_eq!(going(&written(&[9000.0, 5000.0, 1.0, 0.0]), &Rule::default(), NOW_MS), [0usize; 0]);
        assert!(Rule::default().is_for_ever() && Rule::default().checked().is_ok());
    }

    #[test]
    fn an_age_begins_when_a_version_was_replaced() {
        // Written three years ago, and what the file was until yesterday.
        assert_eq!(going(&written(&[1000.0, 1.0]), &days(30, Some(0)), NOW_MS), [0usize; 0]);
        assert_eq!(going(&written(&[1000.0, 31.0, 1.0]), &days(30, Some(0)), NOW_MS), [0]);
        assert_eq!(going(&written(&[1000.0]), &days(1, Some(0)), NOW_MS), [0usize; 0], "what stands is replaced by nothing");
    }

    #[test]
    fn after_a_while_one_of_each_day_stays() {
        // Three of one day 50 days ago, one of the day after, one of 400 days ago; then what stands since 40 days.
        let versions = written(&[400.9, 399.0, 50.9, 50.8, 50.1, 49.5, 40.0]);
        assert_eq!(going(&versions, &days(30, Some(365)), NOW_MS), [0, 2, 3]);
        assert_eq!(going(&versions, &days(30, None), NOW_MS), [2, 3], "for ever");
        assert_eq!(going(&versions, &days(30, Some(0)), NOW_MS), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn of_too_many_the_oldest_go_and_what_is_safe_does_not_count() {
        let mut versions = written(&[5.0, 4.0, 3.0, 2.0, 1.0]);
        versions[0].is_safe = true;
        assert_eq!(going(&versions, &Rule { max_versions: Some(2), ..Rule::default() }, NOW_MS), [1]);
    }

    #[test]
    fn only_rules_that_can_be_kept_to_are_taken() {
        let field = |rule: Rule| rule.checked().map_err(|e| e.code());
        for wrong in [
            Rule { all_days: Some(0), ..Rule::default() },
            Rule { all_days: Some(36_501), ..Rule::default() },
            Rule { trash_days: Some(0), ..Rule::default() },
            Rule { max_versions: Some(0), ..Rule::default() },
            Rule { daily_days: Some(3), ..Rule::default() },
            days(30, Some(29)),
        ] {
            assert_eq!(field(wrong), Err("invalid_retention"), "{wrong:?}");
        }
        for right in [days(30, Some(365)), days(30, Some(0)), days(30, None), days(30, Some(30))] {
            assert_eq!(field(right), Ok(right));
            assert_eq!(Rule::parse(Some(&right.to_text().unwrap())).unwrap(), Some(right));
        }
        assert!(Rule::parse(Some("{\"x\": 1}")).is_err());
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let days = || proptest::option::of(1u32..60);
        (days(), proptest::option::of(0u32..120), proptest::option::of(1u32..8)).prop_map(|(all_days, daily_days, max_versions)| Rule {
            all_days,
            daily_days: daily_days.filter(|_| all_days.is_some()),
            max_versions,
            trash_days: None,
        })
    }

    /// Hours between one version and the next, and whether it is safe.
    fn versions() -> impl Strategy<Value = Vec<Kept>> {
        proptest::collection::vec((0i64..24 * 20, proptest::bool::weighted(0.2)), 0..30).prop_map(|steps| {
            let mut at = NOW_MS - 24 * 20 * 30 * 3_600_000;
            let version = |(hours, is_safe): (i64, bool)| {
                at += hours * 3_600_000;
                Kept { created_at_ms: at, is_safe }
            };
            steps.into_iter().map(version).collect()
        })
    }

    fn without(versions: &[Kept], gone: &[usize]) -> Vec<Kept> {
        versions.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, version)| *version).collect()
    }

    proptest! {
        #[test]
        fn what_is_safe_and_the_newest_stay(versions in versions(), rule in rule()) {
            let gone = going(&versions, &rule, NOW_MS);
            prop_assert!(gone.is_sorted());
            prop_assert!(gone.iter().all(|at| !versions[*at].is_safe && at + 1 < versions.len()));
        }

        #[test]
        fn what_was_replaced_lately_stays_unless_there_are_too_many(versions in versions(), rule in rule()) {
            let rule = Rule { max_versions: None, ..rule };
            for at in going(&versions, &rule, NOW_MS) {
                let all = rule.all_days.map(i64::from).unwrap_or(i64::MAX / DAY_MS);
                prop_assert!(NOW_MS - versions[at + 1].created_at_ms >= all * DAY_MS);
            }
        }

        #[test]
        fn no_more_than_the_rule_says_stay_beside_what_is_safe(versions in versions(), rule in rule(), max in 1u32..8) {
            let rule = Rule { max_versions: Some(max), ..rule };
            let left = without(&versions, &going(&versions, &rule, NOW_MS));
            let old = left.iter().rev().skip(1).filter(|version| !version.is_safe).count();
            prop_assert!(old <= max as usize);
        }

        #[test]
        fn each_day_keeps_its_last_as_long_as_days_are_kept(versions in versions(), all in 1u32..30, daily in 30u32..200) {
            let gone = going(&versions, &days(all, Some(daily)), NOW_MS);
            for at in gone {
                let age_ms = NOW_MS - versions[at + 1].created_at_ms;
                let is_last = versions.iter().skip(at + 1).all(|later| day(later) != day(&versions[at]));
                prop_assert!(!is_last || age_ms >= i64::from(daily) * DAY_MS);
            }
        }

        /// KR3: asked again nothing goes, whenever the clock stands still.
        #[test]
        fn again_nothing_goes(versions in versions(), rule in rule()) {
            let left = without(&versions, &going(&versions, &rule, NOW_MS));
            prop_assert_eq!(going(&left, &rule, NOW_MS), Vec::<usize>::new());
        }

        /// KR3: whoever waits longer, allows fewer or names fewer days loses no less.
        #[test]
        fn a_stricter_rule_keeps_no_more(versions in versions(), all in 2u32..60, less in 1u32..60, max in 2u32..8) {
            let (loose, strict) = (days(all, Some(120)), days(all.saturating_sub(less).max(1), Some(120)));
            let (kept, gone) = (going(&versions, &loose, NOW_MS), going(&versions, &strict, NOW_MS));
            prop_assert!(kept.iter().all(|at| gone.contains(at)));
            let fewer = going(&versions, &Rule { max_versions: Some(max - 1), ..loose }, NOW_MS);
            let more = going(&versions, &Rule { max_versions: Some(max), ..loose }, NOW_MS);
            prop_assert!(more.iter().all(|at| fewer.contains(at)));
            let later = going(&versions, &loose, NOW_MS + 7 * DAY_MS);
            prop_assert!(kept.iter().all(|at| later.contains(at)));
        }

        /// Clocks that jump lose nothing that is safe.
        #[test]
        fn clocks_that_go_back_are_survived(times in proptest::collection::vec((proptest::num::i64::ANY, proptest::bool::ANY), 0..20), rule in rule(), now in proptest::num::i64::ANY) {
            let versions: Vec<Kept> = times.into_iter().map(|(created_at_ms, is_safe)| Kept { created_at_ms, is_safe }).collect();
            prop_assert!(going(&versions, &rule, now).iter().all(|at| !versions[*at].is_safe));
        }
    }
}
