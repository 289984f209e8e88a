//! Styles. Only the terminal's own sixteen colours, on its own background, so that light and dark terminals both can be read; and nothing is said
//! by colour alone.

use crate::ui;
use ratatui::style::{Color, Modifier, Style};

/// How text is set.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// Whether colours are used; without them only bold, faint and reversed.
    pub colors: bool,
}

impl Theme {
    fn color(self, color: Color) -> Style {
        if self.colors { Style::new().fg(color) } else { Style::new() }
    }

    /// Plain text.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// Headings and hints.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// What matters most.
    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The chosen row, the open page.
    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// All is well.
    pub fn good(self) -> Style {
        self.color(Color::Green)
    }

    /// Under way.
    pub fn busy(self) -> Style {
        self.color(Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// Needs a look. Yellow cannot be read on white.
    pub fn warn(self) -> Style {
        self.color(Color::Magenta).add_modifier(Modifier::BOLD)
    }

    /// Went wrong.
    pub fn bad(self) -> Style {
        self.color(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Over the LAN.
    pub fn lan(self) -> Style {
        self.color(Color::Green)
    }

    /// Over the relay.
    pub fn relay(self) -> Style {
        self.color(Color::Cyan)
    }

    /// A style of the command line.
    pub fn of(self, style: ui::Style) -> Style {
        match style {
            ui::Style::Bold => self.bold(),
            ui::Style::Dim => self.dim(),
            ui::Style::Good => self.good(),
            ui::Style::Busy => self.busy(),
            ui::Style::Warn => self.warn(),
            ui::Style::Bad => self.bad(),
        }
    }
}
