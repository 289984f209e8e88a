//! What keys mean.

use super::{Model, Page, Popup, Trouble};
use crate::cli::client::encode;
use crate::quantity;
use crate::tui::text::wrap;
use serde_json::{Value, json};

/// Rows of a page up or down.
const PAGE_ROWS: isize = 10;
/// Columns for the words of something that is read, in the smallest window.
const COLUMNS_MIN: usize = 30;

/// A key, whatever the terminal sends for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// A character with Control.
    Control(char),
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Tab.
    Tab,
    /// Tab with Shift.
    BackTab,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
}

/// What the hands are to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// End.
    Quit,
    /// End as after an interrupt.
    Interrupt,
    /// Stop for a while, as a shell does it with a job.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Ask the daemon to do something.
    Do(Deed),
}

/// What the daemon is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Something with a folder: its id, its name, and one of the actions of `POST /v1/folders/{folder}/{action}`.
    Folder {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// `pause`, `resume`, `scan`, `approve` or `reject`.
        action: &'static str,
    },
    /// Settles a conflict.
    Resolve {
        /// Its id.
        id: String,
        /// Where.
        place: String,
        /// `local`, `remote` or `both`.
        keep: &'static str,
    },
}

/// All keys and what they do, by page.
pub const HELP: &[(&str, &str)] = &[
    ("1 to 5", "the page of that number"),
    ("Tab, Shift-Tab", "the next page, the one before"),
    ("↑ ↓, j k", "move the choice; PageUp, PageDown, Home, End too"),
    ("Enter", "all that is known of the chosen item"),
    ("q, Ctrl-C", "end; syncing goes on"),
    ("Ctrl-L, Ctrl-Z", "draw anew; stop as a job of the shell"),
    ("", ""),
    ("Folders", ""),
    ("p, r", "pause, resume the chosen folder"),
    ("s", "scan it now"),
    ("a, x", "where deletes wait: let them go through, bring the files back"),
    ("", ""),
    ("Issues", ""),
    ("m", "keep my version: this device's; the other goes to the trash"),
    ("t", "keep theirs: the other device's; mine goes to the trash"),
    ("b", "keep both, as two files"),
    ("", ""),
    ("Activity", ""),
    ("/", "show only what holds a text; Enter keeps it, Esc ends it"),
];

impl Popup {
    /// How far it can be scrolled at most, in rows: so far that its last row is seen in the narrowest window.
    fn rows_max(&self) -> usize {
        let rows = match self {
            Self::Help { .. } => HELP.iter().map(|(_, what)| wrap(what, COLUMNS_MIN).len()).sum(),
            Self::Detail { lines, .. } => lines.iter().map(|(_, text)| wrap(text, COLUMNS_MIN).len()).sum::<usize>(),
            Self::Confirm { .. } => 1,
        };
        rows.saturating_sub(1)
    }
}

impl Deed {
    /// The request: a path of the control socket below its version, and a body.
    pub fn request(&self) -> (String, Value) {
        match self {
            Self::Folder { id, action, .. } => (format!("/folders/{}/{action}", encode(id)), json!({})),
            Self::Resolve { id, keep, .. } => (format!("/conflicts/{}/resolve", encode(id)), json!({"keep": keep})),
        }
    }

    /// What is said when it is done.
    pub fn done(&self, answer: &Value) -> String {
        match self {
            Self::Folder { name, action, .. } => {
                let count = quantity::count(answer["count"].as_u64().unwrap_or(0));
                match *action {
                    "pause" => format!("{name} is paused"),
                    "resume" => format!("{name} syncs again"),
                    "scan" => format!("{name} is being scanned"),
                    "approve" => format!("{name}: {count} deletes go through"),
                    _ => format!("{name}: {count} files are brought back"),
                }
            }
            Self::Resolve { place, keep, .. } => match *keep {
                "local" => format!("{place}: this device's version is kept"),
                "remote" => format!("{place}: the other version is kept"),
                _ => format!("{place}: both versions are kept"),
            },
        }
    }
}

impl Model {
    /// What a key means now.
    pub fn key(&mut self, key: Key) -> Option<Action> {
        self.flash = None;
        match key {
            Key::Control('c') => return Some(Action::Interrupt),
            Key::Control('z') => return Some(Action::Suspend),
            Key::Control('l') => return Some(Action::Redraw),
            _ => {}
        }
        match self.popup.take() {
            Some(Popup::Confirm { deed, .. }) => return self.answer(key, deed),
            Some(popup) => {
                self.scroll(key, popup);
                return None;
            }
            None if self.typing => {
                self.type_filter(key);
                return None;
            }
            None => {}
        }
        match key {
            Key::Char('q') => return Some(Action::Quit),
            Key::Char('?') => self.popup = Some(Popup::Help { scroll: 0 }),
            Key::Char(digit @ '1'..='5') => self.turn(Page::ALL[digit as usize - '1' as usize]),
            Key::Tab | Key::Right => self.turn(self.page.after(1)),
            Key::BackTab | Key::Left => self.turn(self.page.after(Page::ALL.len() - 1)),
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.step(-PAGE_ROWS),
            Key::PageDown => self.step(PAGE_ROWS),
            Key::Home | Key::Char('g') => self.step(isize::MIN),
            Key::End | Key::Char('G') => self.step(isize::MAX),
            Key::Enter => self.popup = self.detail(),
            other => return self.key_of_page(other),
        }
        None
    }

    fn key_of_page(&mut self, key: Key) -> Option<Action> {
        match (self.page, key) {
            (Page::Folders, Key::Char('p')) => self.folder("pause"),
            (Page::Folders, Key::Char('r')) => self.folder("resume"),
            (Page::Folders, Key::Char('s')) => self.folder("scan"),
            (Page::Folders, Key::Char(c @ ('a' | 'x'))) => {
                self.held(c == 'a');
                None
            }
            (Page::Issues, Key::Char('m')) => self.resolve("local"),
            (Page::Issues, Key::Char('t')) => self.resolve("remote"),
            (Page::Issues, Key::Char('b')) => self.resolve("both"),
            (Page::Activity, Key::Char('/')) => {
                self.typing = true;
                None
            }
            (Page::Activity, Key::Escape) => {
                self.set_filter(String::new());
                None
            }
            _ => None,
        }
    }

    fn folder(&self, action: &'static str) -> Option<Action> {
        let folder = self.folders.chosen()?;
        Some(Action::Do(Deed::Folder { id: folder.id.clone(), name: folder.name.clone(), action }))
    }

    /// Deletes that wait are never let through, nor taken back, by one key.
    fn held(&mut self, approve: bool) {
        let Some((folder, count)) = self.folders.chosen().and_then(|f| Some((f, f.held?))) else {
            self.flash = Some((self.now_ms, "no deletes wait in this folder".into()));
            return;
        };
        let count = quantity::count(count);
        let question = match approve {
            true => format!("Let {count} deletes in {} go through?", folder.name),
            false => format!("Bring back the {count} items of {} that were deleted?", folder.name),
        };
        let action = if approve { "approve" } else { "reject" };
        let deed = Deed::Folder { id: folder.id.clone(), name: folder.name.clone(), action };
        self.popup = Some(Popup::Confirm { question, deed });
    }

    /// Keeping both loses nothing and is done at once; where one version goes to the trash, that is asked first.
    fn resolve(&mut self, keep: &'static str) -> Option<Action> {
        let Some(trouble @ Trouble::Conflict { id, .. }) = self.troubles.chosen() else {
            self.flash = Some((self.now_ms, "this is no conflict: see what to do with Enter".into()));
            return None;
        };
        let place = trouble.place();
        let deed = Deed::Resolve { id: id.clone(), place: place.clone(), keep };
        let whose = match keep {
            "local" => "this device's version",
            "remote" => "the other device's version",
            _ => return Some(Action::Do(deed)),
        };
        self.popup = Some(Popup::Confirm { question: format!("Keep {whose} of {place}? The other one goes to the trash."), deed });
        None
    }

    fn answer(&mut self, key: Key, deed: Deed) -> Option<Action> {
        if matches!(key, Key::Char('y' | 'Y')) {
            return Some(Action::Do(deed));
        }
        self.flash = Some((self.now_ms, "nothing was changed".into()));
        None
    }

    /// A key while something is read: it scrolls, or puts it away.
    fn scroll(&mut self, key: Key, mut popup: Popup) {
        let max = popup.rows_max();
        let (Popup::Help { scroll } | Popup::Detail { scroll, .. }) = &mut popup else { return };
        let rows: isize = match key {
            Key::Up | Key::Char('k') => -1,
            Key::Down | Key::Char('j') => 1,
            Key::PageUp => -PAGE_ROWS,
            Key::PageDown | Key::Char(' ') => PAGE_ROWS,
            _ => return,
        };
        *scroll = scroll.saturating_add_signed(rows).min(max);
        self.popup = Some(popup);
    }

    fn type_filter(&mut self, key: Key) {
        let mut filter = self.filter.clone();
        match key {
            Key::Char(c) if !c.is_control() && filter.chars().count() < super::FILTER_MAX => filter.push(c),
            Key::Backspace => {
                filter.pop();
            }
            Key::Escape => {
                filter.clear();
                self.typing = false;
            }
            Key::Enter => self.typing = false,
            Key::Up => self.step(-1),
            Key::Down => self.step(1),
            _ => {}
        }
        self.set_filter(filter);
    }
}
