//! What is shown, what comes in and what a key means: a state and pure functions on it. Times are milliseconds that the caller gives.

mod due;
mod keys;
mod list;
pub mod meter;
mod said;
#[cfg(test)]
pub(super) mod tests;

pub use due::{BUSY_MS, IDLE_MS, Question};
pub use keys::{Action, Deed, HELP, Key};
pub use list::List;
pub use said::{Folder, Happening, Peer, Status, Transfer, Trouble};

use super::text::harmless;
use crate::cli::status::{clock_at, state_words_at};
use crate::cli::tilde_of;
use crate::problem::{Outcome, Problem};
use crate::quantity;
use jiff::tz::TimeZone;
use meter::Meter;
use said::Keyed;
use serde_json::Value;
use std::collections::VecDeque;

/// How many events are kept.
pub const ACTIVITY_MAX: usize = 1000;
/// How long a message stays, in milliseconds.
const FLASH_MS: i64 = 8000;
/// Characters of a filter.
const FILTER_MAX: usize = 60;

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// The whole.
    Overview,
    /// What is on its way.
    Transfers,
    /// Synced folders.
    Folders,
    /// Issues and conflicts.
    Issues,
    /// What happened.
    Activity,
}

impl Page {
    /// In the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Transfers, Self::Folders, Self::Issues, Self::Activity];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Transfers => "Transfers",
            Self::Folders => "Folders",
            Self::Issues => "Issues",
            Self::Activity => "Activity",
        }
    }

    /// The page that many steps on, around the end.
    fn after(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}

/// Something before the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Popup {
    /// All keys.
    Help {
        /// Rows scrolled.
        scroll: usize,
    },
    /// All that is known of one item.
    Detail {
        /// What it is about.
        title: String,
        /// Labels and what they label.
        lines: Vec<(&'static str, String)>,
        /// Rows scrolled.
        scroll: usize,
    },
    /// A question before something is done.
    Confirm {
        /// The question.
        question: String,
        /// What is done after a yes.
        deed: Deed,
    },
}

/// What comes in from the daemon.
#[derive(Debug, Clone)]
pub enum Update {
    /// Connected: the newest events, oldest first, as `GET /v1/activity` tells them.
    Connected(Value),
    /// One more event.
    Event(Value),
    /// The daemon is gone.
    Lost(Problem),
    /// The answer to a question.
    Answer(Question, Outcome<Value>),
    /// How a deed ended.
    Done(Deed, Outcome<Value>),
}

/// All that is shown.
#[derive(Debug, Clone)]
pub struct Model {
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
    /// The zone that times are shown in.
    pub zone: TimeZone,
    /// The home directory, shown as `~`.
    pub home: String,
    /// The page that is open.
    pub page: Page,
    /// What stands before it.
    pub popup: Option<Popup>,
    /// Whether keys go into the filter.
    pub typing: bool,
    /// What the activity must hold to be shown.
    pub filter: String,
    /// A message, and since when it is shown.
    pub flash: Option<(i64, String)>,
    /// Whether the daemon is there.
    pub connected: bool,
    /// Why not, and since when.
    pub lost: Option<(i64, Problem)>,
    /// The daemon as a whole; nothing before the first answer.
    pub status: Option<Status>,
    /// Rates on the wire.
    pub meter: Meter,
    /// Synced folders.
    pub folders: List<Folder>,
    /// Devices nearby.
    pub peers: List<Peer>,
    /// What is on its way.
    pub transfers: List<Transfer>,
    transfers_at_ms: i64,
    /// Conflicts and issues.
    pub troubles: List<Trouble>,
    conflicts: Vec<Trouble>,
    issues: Vec<Trouble>,
    /// What happened and passes the filter, the newest first.
    pub shown: List<Happening>,
    happened: VecDeque<Happening>,
    asking: [due::Asking; Question::ALL.len()],
}

impl Model {
    /// Nothing is known yet.
    pub fn new(now_ms: i64, zone: TimeZone, home: String) -> Self {
        Self {
            now_ms,
            zone,
            home,
            page: Page::Overview,
            popup: None,
            typing: false,
            filter: String::new(),
            flash: None,
            connected: false,
            lost: None,
            status: None,
            meter: Meter::default(),
            folders: List::default(),
            peers: List::default(),
            transfers: List::default(),
            transfers_at_ms: now_ms,
            troubles: List::default(),
            conflicts: Vec::new(),
            issues: Vec::new(),
            shown: List::default(),
            happened: VecDeque::new(),
            asking: Default::default(),
        }
    }

    /// Time has passed. After a clock was set back everything is asked anew, or nothing would be until it has caught up.
    pub fn tick(&mut self, now_ms: i64) {
        if now_ms < self.now_ms {
            self.flash = None;
            self.clock_went_back(now_ms);
        }
        self.now_ms = now_ms;
        if self.flash.as_ref().is_some_and(|(since_ms, _)| self.now_ms >= since_ms.saturating_add(FLASH_MS)) {
            self.flash = None;
        }
    }

    /// Takes in what the daemon said.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Connected(past) => self.connect(&past),
            Update::Event(event) => self.happen(&event),
            Update::Lost(problem) => {
                if self.connected || self.lost.is_none() {
                    self.lost = Some((self.now_ms, problem));
                }
                self.connected = false;
            }
            Update::Answer(question, answer) => {
                self.answered(question);
                match answer {
                    Ok(value) => self.hear(question, &value),
                    // That it is gone is told by the stream of events, once.
                    Err(problem) if problem.code == "daemon_unreachable" => {}
                    Err(problem) => self.say(&problem.message),
                }
            }
            Update::Done(deed, outcome) => {
                match outcome {
                    Ok(answer) => self.say(&deed.done(&answer)),
                    Err(problem) if problem.hint.is_empty() => self.say(&problem.message),
                    Err(problem) => self.say(&format!("{}: {}", problem.message, problem.hint)),
                }
                self.make_stale(&Question::ALL);
            }
        }
    }

    fn say(&mut self, message: &str) {
        self.flash = Some((self.now_ms, harmless(message)));
    }

    fn connect(&mut self, past: &Value) {
        if self.lost.take().is_some() {
            self.say("the daemon is there again");
        }
        self.connected = true;
        self.ask_anew();
        self.happened = past["events"].as_array().into_iter().flatten().rev().take(ACTIVITY_MAX).map(Happening::read).collect();
        self.filter_anew();
    }

    fn hear(&mut self, question: Question, value: &Value) {
        match question {
            Question::Status => {
                let status = Status::read(value);
                self.meter.look(self.now_ms, status.totals);
                let troubles = |s: &Status| (s.conflicts, s.errors);
                if self.status.as_ref().map(troubles) != Some(troubles(&status)) {
                    self.make_stale(&[Question::Issues, Question::Conflicts]);
                }
                self.status = Some(status);
                self.folders.replace(Folder::read_all(value));
            }
            Question::Peers => self.peers.replace(Peer::read_all(value)),
            Question::Transfers => self.hear_transfers(value),
            Question::Issues => {
                self.issues = Trouble::read_issues(value);
                self.gather_troubles();
            }
            Question::Conflicts => {
                self.conflicts = Trouble::read_conflicts(value);
                self.gather_troubles();
            }
        }
    }

    fn gather_troubles(&mut self) {
        self.troubles.replace(self.conflicts.iter().chain(&self.issues).cloned().collect());
    }

    /// Each transfer's rate is what it has grown by since the last look, smoothed.
    fn hear_transfers(&mut self, value: &Value) {
        let mut transfers = Transfer::read_all(value);
        let passed_ms = self.now_ms.saturating_sub(self.transfers_at_ms);
        let before: std::collections::BTreeMap<String, &Transfer> = self.transfers.items().iter().map(|t| (t.key(), t)).collect();
        for transfer in &mut transfers {
            let Some(old) = before.get(&transfer.key()).filter(|old| passed_ms > 0 && old.done <= transfer.done) else { continue };
            let rate = (transfer.done - old.done) as f64 * 1000.0 / passed_ms as f64;
            transfer.rate = if old.rate > 0.0 { (old.rate + rate) / 2.0 } else { rate };
        }
        self.transfers_at_ms = self.now_ms;
        self.transfers.replace(transfers);
    }

    fn happen(&mut self, event: &Value) {
        let happening = Happening::read(event);
        match happening.kind.as_str() {
            "issue" | "issue_resolved" | "folder_removed" => self.make_stale(&[Question::Issues]),
            "conflict" | "deleted" | "merged" | "moved" => self.make_stale(&[Question::Conflicts]),
            "gap" => self.make_stale(&Question::ALL),
            _ => {}
        }
        self.make_stale(&[Question::Status, Question::Peers, Question::Transfers]);
        if self.passes(&happening) {
            self.shown.push_front(happening.clone(), ACTIVITY_MAX);
        }
        self.happened.push_front(happening);
        self.happened.truncate(ACTIVITY_MAX);
    }

    fn passes(&self, happening: &Happening) -> bool {
        self.filter.is_empty() || happening.line.to_lowercase().contains(&self.filter.to_lowercase())
    }

    fn set_filter(&mut self, filter: String) {
        if filter != self.filter {
            self.filter = filter;
            self.filter_anew();
        }
    }

    fn filter_anew(&mut self) {
        let shown = self.happened.iter().filter(|h| self.passes(h)).cloned().collect();
        self.shown.replace(shown);
    }

    /// How many events there are, shown or not.
    pub fn happened(&self) -> usize {
        self.happened.len()
    }

    /// Whether something runs: then the figures are worth a look every second.
    pub fn is_busy(&self) -> bool {
        let works = |folder: &Folder| matches!(folder.state.as_str(), "syncing" | "scanning");
        self.meter.is_busy() || self.folders.items().iter().any(works)
    }

    /// Turns to a page. What it shows is asked for anew.
    fn turn(&mut self, page: Page) {
        if page == self.page {
            return;
        }
        self.page = page;
        self.make_stale(&[Question::Peers, Question::Transfers, Question::Issues, Question::Conflicts]);
    }

    fn step(&mut self, by: isize) {
        match self.page {
            Page::Overview => {}
            Page::Transfers => self.transfers.step(by),
            Page::Folders => self.folders.step(by),
            Page::Issues => self.troubles.step(by),
            Page::Activity => self.shown.step(by),
        }
    }

    /// A moment for people.
    pub fn clock(&self, ms: i64) -> String {
        clock_at(ms, self.now_ms, &self.zone)
    }

    /// A folder's state in a few words.
    pub fn words(&self, folder: &Folder) -> String {
        // What a person can do about it is a key here.
        match folder.held {
            Some(count) => format!("{} deletes wait: a lets them go, x brings back", quantity::count(count)),
            None => harmless(&state_words_at(&folder.document, self.now_ms)),
        }
    }

    /// A path of this machine for people.
    pub fn path(&self, path: &str) -> String {
        tilde_of(path, &self.home)
    }

    /// All that is known of the chosen item.
    fn detail(&self) -> Option<Popup> {
        let (title, lines) = match self.page {
            Page::Overview => return None,
            Page::Transfers => self.transfers.chosen().map(|t| (format!("{}/{}", t.folder, t.path), detail_of_transfer(t)))?,
            Page::Folders => self.folders.chosen().map(|f| (f.name.clone(), self.detail_of_folder(f)))?,
            Page::Issues => self.troubles.chosen().map(|t| (t.place(), self.detail_of_trouble(t)))?,
            Page::Activity => self.shown.chosen().map(|h| (self.clock(h.ts_ms), vec![("", h.line.clone())]))?,
        };
        Some(Popup::Detail { title, lines: lines.into_iter().filter(|(_, text)| !text.is_empty()).collect(), scroll: 0 })
    }

    fn detail_of_folder(&self, folder: &Folder) -> Vec<(&'static str, String)> {
        let [up, down, deletes] = folder.pending.map(quantity::count);
        let [up_bytes, down_bytes] = folder.pending_bytes.map(quantity::bytes);
        let [up_rate, down_rate] = folder.rates.map(quantity::bytes);
        let reason = harmless(folder.document["state_reason"].as_str().unwrap_or_default());
        let blocked = if folder.blocked > 0 { format!("{} items: see Issues", quantity::count(folder.blocked)) } else { String::new() };
        vec![
            ("state", self.words(folder)),
            ("why", reason),
            ("since", folder.document["state_since_ms"].as_i64().map(|ms| self.clock(ms)).unwrap_or_default()),
            ("folder", folder.path.clone()),
            ("holds", format!("{} files, {}", quantity::count(folder.files), quantity::bytes(folder.bytes))),
            ("waits", format!("↓ {down}, {down_bytes}   ↑ {up}, {up_bytes}   {deletes} deletes")),
            ("blocked", blocked),
            ("now", format!("↓ {down_rate}/s   ↑ {up_rate}/s")),
            ("id", folder.id.clone()),
        ]
    }

    fn detail_of_trouble(&self, trouble: &Trouble) -> Vec<(&'static str, String)> {
        match trouble {
            Trouble::Conflict { copy, device, wall_ms, size, copy_is_local, .. } => {
                let (mine, theirs) = ("this device's version", "the other device's version");
                let (winner, loser) = if *copy_is_local { (theirs, mine) } else { (mine, theirs) };
                vec![
                    ("what", "it was changed on two sides at once; both versions are here".to_owned()),
                    ("name", format!("has {winner}")),
                    ("copy", format!("has {loser}: {copy}")),
                    ("copy by", format!("{device}, {}, {}", self.clock(*wall_ms), quantity::bytes(*size))),
                    ("keys", "m keeps this device's, t the other's, b both as two files".to_owned()),
                ]
            }
            Trouble::Issue { code, message, hint, since_ms, .. } => {
                vec![("what", message.clone()), ("to do", hint.clone()), ("since", self.clock(*since_ms)), ("code", code.clone())]
            }
        }
    }
}

fn detail_of_transfer(transfer: &Transfer) -> Vec<(&'static str, String)> {
    vec![
        ("way", format!("{} {}", if transfer.up { "↑ up," } else { "↓ down," }, transfer.way)),
        ("there", format!("{} of {}", quantity::bytes(transfer.done), quantity::bytes(transfer.total))),
        ("now", if transfer.waits { String::new() } else { format!("{}/s", quantity::bytes(transfer.rate as u64)) }),
    ]
}
