//! What is to be asked of the daemon, and when (W3).

use super::{Model, Page};

/// A question to the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The daemon as a whole, with its folders.
    Status,
    /// The devices nearby.
    Peers,
    /// What is on its way.
    Transfers,
    /// What needs attention.
    Issues,
    /// Conflicted copies.
    Conflicts,
}

impl Question {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Status, Self::Peers, Self::Transfers, Self::Issues, Self::Conflicts];

    /// Its path on the control socket, below the version.
    pub fn path(self) -> &'static str {
        match self {
            Self::Status => "/status",
            Self::Peers => "/peers",
            Self::Transfers => "/transfers",
            Self::Issues => "/issues",
            Self::Conflicts => "/conflicts",
        }
    }

    /// Which pages show the answer.
    fn is_shown_on(self, page: Page) -> bool {
        match self {
            Self::Status => true,
            Self::Peers => page == Page::Overview,
            Self::Transfers => page == Page::Transfers,
            Self::Issues | Self::Conflicts => page == Page::Issues,
        }
    }
}

/// How often the same is asked while something runs, in milliseconds.
pub const BUSY_MS: i64 = 1000;
/// How often the status is asked while nothing runs: what no event tells of, such as a device nearby that has come.
pub const IDLE_MS: i64 = 10_000;
/// How long an answer may take before that is said.
pub const SILENT_MS: i64 = 4000;

/// Where one question stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking {
    /// Asked, and no answer yet.
    under_way: bool,
    /// When it was asked last.
    asked_ms: Option<i64>,
    /// The last answer is known to be old.
    stale: bool,
}

impl Model {
    fn asking(&mut self, question: Question) -> &mut Asking {
        &mut self.asking[question as usize]
    }

    /// The last answers to these questions are old.
    pub(super) fn make_stale(&mut self, questions: &[Question]) {
        for question in questions {
            self.asking(*question).stale = true;
        }
    }

    /// There is an answer, or there will be none.
    pub(super) fn answered(&mut self, question: Question) {
        self.asking(question).under_way = false;
    }

    /// Nothing has been asked yet: for a new connection.
    pub(super) fn ask_anew(&mut self) {
        self.asking = Default::default();
    }

    /// The times of the last questions mean nothing any more.
    pub(super) fn clock_went_back(&mut self, now_ms: i64) {
        for asking in &mut self.asking {
            asking.asked_ms = asking.under_way.then_some(now_ms);
        }
    }

    /// When a question is to be asked, in the same milliseconds as [`Model::tick`]; never with nothing.
    fn due_at(&self, question: Question) -> Option<i64> {
        let asking = self.asking[question as usize];
        if !self.connected || asking.under_way || !question.is_shown_on(self.page) {
            return None;
        }
        let Some(asked_ms) = asking.asked_ms else { return Some(self.now_ms) };
        let after = match question {
            _ if asking.stale => BUSY_MS,
            Question::Status | Question::Peers | Question::Transfers if self.is_busy() => BUSY_MS,
            Question::Status | Question::Peers => IDLE_MS,
            Question::Transfers | Question::Issues | Question::Conflicts => return None,
        };
        Some(asked_ms.saturating_add(after))
    }

    /// What is to be asked now; each of these counts as asked.
    pub fn due(&mut self) -> Vec<Question> {
        let now_ms = self.now_ms;
        let due: Vec<Question> = Question::ALL.into_iter().filter(|q| self.due_at(*q).is_some_and(|at| at <= now_ms)).collect();
        for question in &due {
            *self.asking(*question) = Asking { under_way: true, asked_ms: Some(now_ms), stale: false };
        }
        due
    }

    /// When the next thing happens by itself: a question, or something on the screen that time changes.
    pub fn wakes_at(&self) -> Option<i64> {
        let questions = Question::ALL.into_iter().filter_map(|q| self.due_at(q));
        let flash = self.flash.as_ref().map(|(since_ms, _)| since_ms.saturating_add(super::FLASH_MS));
        let silent = self.asking[0].asked_ms.filter(|_| self.asking[0].under_way && self.connected).map(|asked_ms| {
            // From then on the seconds are counted.
            if self.now_ms < asked_ms.saturating_add(SILENT_MS) {
                asked_ms.saturating_add(SILENT_MS)
            } else {
                self.now_ms.saturating_add(1000)
            }
        });
        questions.chain(flash).chain(silent).min()
    }

    /// For how long the daemon has owed an answer, in milliseconds, if that is long.
    pub fn silent_ms(&self) -> Option<i64> {
        let status = self.asking[0];
        let since_ms = status.asked_ms.filter(|_| status.under_way && self.connected)?;
        Some(self.now_ms.saturating_sub(since_ms)).filter(|ms| *ms >= SILENT_MS)
    }
}
