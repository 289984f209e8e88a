//! The terminal: taken, and always given back (W2).

use crate::problem::{Outcome, Problem};
use crossterm::cursor::{Hide, Show};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{execute, style};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal};
use std::io::{BufWriter, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Enough for a whole page, so that it goes out at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Gives the terminal back, if it is ours. May be called at any time, also while panicking.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Where the terminal is gone, nobody is left to tell.
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

fn take() -> std::io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    let taken = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide));
    if taken.is_err() {
        give_back();
    }
    taken
}

/// The terminal while it is ours; dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal. A panic anywhere in the program gives it back before its message is printed.
    pub fn take(colors: bool) -> Outcome<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                give_back();
                before(info);
            }));
        });
        // Whether there are colours is decided by the command line's rules, not guessed again.
        style::force_color_output(colors);
        let failed = |e: std::io::Error| Problem::failed("terminal", format!("the terminal cannot be used: {e}")).hint("use: ferry status");
        take().map_err(failed)?;
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(BUFFER_BYTES, stdout()))).map_err(|e| {
            give_back();
            failed(e)
        })?;
        Ok(Self { terminal })
    }

    /// Draws; only what has changed goes to the terminal. An error means that the terminal is gone.
    pub fn draw(&mut self, page: impl FnOnce(&mut Frame<'_>)) -> std::io::Result<()> {
        self.terminal.draw(page).map(|_| ())
    }

    /// The next drawing draws everything.
    pub fn forget(&mut self) -> std::io::Result<()> {
        // Not `clear`: that asks the terminal where its cursor is, and the answer would go to whoever reads the keys.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Whether it was given back because something panicked.
    pub fn is_lost(&self) -> bool {
        !TAKEN.load(Ordering::SeqCst)
    }

    /// Gives the terminal back, stops this program as a shell does with Ctrl-Z, and takes the terminal again when it goes on.
    pub fn suspend(&mut self) -> std::io::Result<()> {
        give_back();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
        take()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}
