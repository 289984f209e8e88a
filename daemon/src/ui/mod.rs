//! All printing of the command line: data on stdout, messages and progress on stderr.
//!
//! * **U1** With `--json`, stdout carries one document (or one line per event), and an error is one object on stderr.
//! * **U2** No escape byte leaves unless the stream is a terminal; names from disks and networks are escaped before they come here.
//! * **U3** A reader that goes away (`| head`) ends the program quietly.

pub mod table;

use crate::problem::{Problem, exit};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How text is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Bold.
    Bold,
    /// Faint.
    Dim,
    /// All is well.
    Good,
    /// Under way.
    Busy,
    /// Needs a look.
    Warn,
    /// Went wrong.
    Bad,
}

/// The way to the user.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// One document for machines.
    pub json: bool,
    /// One record per line, tab-separated.
    pub plain: bool,
    /// Only errors.
    pub quiet: bool,
    /// Never ask.
    pub no_input: bool,
    /// Take every confirmation as given.
    pub yes: bool,
    color_out: bool,
    color_err: bool,
    /// Whether stdout is a terminal.
    pub out_is_terminal: bool,
    /// Whether stderr is a terminal.
    pub err_is_terminal: bool,
}

impl Ui {
    /// From the flags and what the streams are.
    pub fn new(json: bool, plain: bool, color: Color, quiet: bool, no_input: bool, yes: bool) -> Self {
        let (out_is_terminal, err_is_terminal) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let allowed = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let paint = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && allowed,
        };
        Self {
            json,
            plain,
            quiet,
            no_input,
            yes,
            color_out: paint(out_is_terminal) && !json && !plain,
            color_err: paint(err_is_terminal) && !json,
            out_is_terminal,
            err_is_terminal,
        }
    }

    /// Whether stdout is coloured.
    pub fn colors(&self) -> bool {
        self.color_out
    }

    /// Text for stdout in a style.
    pub fn paint(&self, style: Style, text: &str) -> String {
        painted(self.color_out, style, text)
    }

    /// One line of data.
    pub fn line(&self, text: &str) {
        write_out(text.as_bytes(), true);
    }

    /// Raw text of data.
    pub fn text(&self, text: &str) {
        write_out(text.as_bytes(), false);
    }

    /// A document: indented for eyes, on one line for pipes.
    pub fn document(&self, value: &Value) {
        let text = if self.out_is_terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.line(&text.unwrap_or_default());
    }

    /// One line of a stream.
    pub fn record(&self, value: &Value) {
        self.line(&value.to_string());
    }

    /// A message that is not data; silent with `--quiet` and `--json`.
    pub fn message(&self, text: &str) {
        if !self.quiet && !self.json {
            // Nobody is left to tell.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A done step: a check mark and a sentence, on stdout.
    pub fn done(&self, text: &str) {
        if !self.quiet && !self.json {
            self.line(&format!("{} {text}", self.paint(Style::Good, "✓")));
        }
    }

    /// A warning on stderr, also with `--json`.
    pub fn warning(&self, text: &str) {
        let line = if self.json {
            serde_json::json!({"type": "warning", "message": text}).to_string()
        } else {
            format!("{}: {text}", painted(self.color_err, Style::Warn, "warning"))
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// An error on stderr: one sentence and a hint, or the error object.
    pub fn problem(&self, problem: &Problem) {
        let text = if self.json {
            problem.to_json().to_string()
        } else {
            let mut text = format!("{}: {}", painted(self.color_err, Style::Bad, "error"), problem.message);
            if !problem.hint.is_empty() {
                text.push_str(&format!("\n  {}", problem.hint));
            }
            text
        };
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Asks before something that cannot be taken back.
    pub fn confirm(&self, question: &str) -> Result<(), Problem> {
        if self.yes {
            return Ok(());
        }
        if self.no_input || self.json || !std::io::stdin().is_terminal() || !self.err_is_terminal {
            return Err(
                Problem::conflict("confirmation_needed", format!("{question}: a confirmation is needed")).hint("confirm with --yes")
            );
        }
        let _ = write!(std::io::stderr(), "{question}? [y/N] ");
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Problem::conflict("not_confirmed", "nothing was changed"))
        }
    }

    /// Replaces the last `lines` lines of stdout by `text`; answers how many lines that is. Only for terminals.
    pub fn redraw(&self, lines: usize, text: &str) -> usize {
        let mut out = String::new();
        if lines > 0 {
            out.push_str(&format!("\x1b[{lines}A"));
        }
        for line in text.lines() {
            out.push_str(line);
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J");
        write_out(out.as_bytes(), false);
        text.lines().count()
    }
}

fn painted(on: bool, style: Style, text: &str) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Good => "32",
        Style::Busy => "36",
        Style::Warn => "33",
        Style::Bad => "31",
    };
    if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn write_out(bytes: &[u8], newline: bool) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| if newline { out.write_all(b"\n") } else { Ok(()) }).and_then(|()| out.flush());
    if written.is_err() {
        // U3: there is nobody to tell.
        std::process::exit(i32::from(exit::OK));
    }
}

/// A bar of `width` characters, `part` of it filled.
pub fn bar(part: f64, width: usize) -> String {
    let filled = (part.clamp(0.0, 1.0) * width as f64).round() as usize;
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_painted_for_a_pipe_or_a_machine() {
        for (json, plain, color) in [(false, false, Color::Never), (true, false, Color::Always), (false, true, Color::Always)] {
            assert_eq!(Ui::new(json, plain, color, false, false, false).paint(Style::Bad, "x"), "x");
        }
        assert!(Ui::new(false, false, Color::Always, false, false, false).paint(Style::Bad, "x").contains('\x1b'));
    }

    #[test]
    fn bars_stay_in_their_width() {
        for part in [-1.0, 0.0, 0.31, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(part, 10).chars().count(), 10);
        }
    }
}
