//! A terminal without a person: programs run in a pseudo-terminal, keys are typed, and what would be seen is read.

use crate::poll::until;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rows and columns of the terminal.
pub const SIZE: (usize, usize) = (24, 80);

/// A shell in a pseudo-terminal.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs a shell command line in a terminal of 24 rows and 80 columns. `like` lends its environment.
    ///
    /// # Panics
    /// Where `script` of util-linux is missing.
    pub fn run(like: &Command, line: &str) -> Self {
        let mut command = Command::new("script");
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let line = format!("stty rows {} cols {}; {line}", SIZE.0, SIZE.1);
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("script starts");
        let keys = child.stdin.take().expect("it is piped");
        let mut out = child.stdout.take().expect("it is piped");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count) = out.read(&mut piece)
                && count > 0
            {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
            }
        });
        Self { child, keys, seen }
    }

    /// Types keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the terminal takes keys");
    }

    /// Everything that was sent to the terminal so far.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// What is seen now, a line for each row.
    pub fn page(&self) -> String {
        picture(&self.raw())
    }

    /// Waits until a text is seen; the page then.
    pub fn until_shown(&self, text: &str) -> String {
        until(&format!("the terminal shows {text:?}"), Duration::from_secs(60), || {
            let page = self.page();
            if page.contains(text) { Ok(page) } else { Err(page) }
        })
    }

    /// Waits until the shell has ended; everything that was sent.
    pub fn ended(mut self) -> String {
        until("the shell in the terminal ends", Duration::from_secs(60), || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            _ => Err(self.page()),
        });
        until("the terminal's output is read", Duration::from_secs(10), || {
            if Arc::strong_count(&self.seen) == 1 { Ok(()) } else { Err(self.page()) }
        });
        self.raw()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal of [`SIZE`] shows after these bytes: as much of its language as a page that is drawn cell by cell needs.
fn picture(sent: &str) -> String {
    let mut cells = vec![vec![' '; SIZE.1]; SIZE.0];
    let (mut row, mut column) = (0, 0);
    let mut rest = sent.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.clone().next() == Some('[') => {
                rest.next();
                let mut words = String::new();
                let last = rest.by_ref().find(|c| {
                    ('@'..='~').contains(c) || {
                        words.push(*c);
                        false
                    }
                });
                let number = |i: usize| words.split(';').nth(i).and_then(|n| n.parse::<usize>().ok()).unwrap_or(1).max(1) - 1;
                match last {
                    Some('H') => (row, column) = (number(0), number(1)),
                    Some('J') => cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
                    Some('h' | 'l') if words == "?1049" => cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            c if c.is_control() => {}
            c => {
                if let Some(cell) = cells.get_mut(row).and_then(|line| line.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
        }
    }
    cells.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_stands_where_the_cursor_went() {
        let page = picture("old\x1b[?1049h\x1b[2;3Hab\x1b[31mc\x1b[0m\x1b[2;4HX\x1b[?25l\r\nz");
        assert_eq!(page.lines().take(3).collect::<Vec<_>>(), ["", "  aXc", "z"]);
    }
}
