//! The hands of `ferry tui`: keys and answers go into the model, what it wants goes out, and it is drawn.

use super::model::{Action, Deed, Key, Model, Question, Update};
use super::screen::Screen;
use super::view::{self, Theme};
use crate::cli::Context;
use crate::cli::client::Client;
use crate::problem::{Outcome, Problem, exit};
use crate::supervisor::now_ms;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use jiff::tz::TimeZone;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many events of the past are asked for.
const PAST: usize = 500;
/// How long to wait before a daemon that is gone is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// The shortest time between two drawings, unless a key was pressed: a burst of events is drawn as a whole.
const FRAME: Duration = Duration::from_millis(100);
/// How many keys or updates may wait to be taken in.
const QUEUE: usize = 256;

/// What the terminal says.
#[derive(Debug)]
enum Input {
    Key(Key),
    /// Its size has changed.
    Resized,
}

/// Runs until the user ends it. Exit code 2 without a terminal, 3 without a daemon, 130 after an interrupt.
pub async fn run(context: &Context) -> Outcome<u8> {
    let ui = &context.ui;
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if ui.json || ui.plain || dumb || !ui.out_is_terminal || !std::io::stdin().is_terminal() {
        return Err(Problem::usage("ferry tui needs a terminal")
            .hint("for a look without one use: ferry status      (for programs: ferry status --json)"));
    }
    context.client.get("/version").await?;
    let zone = TimeZone::system();
    let model = Model::new(now_ms(), zone, std::env::var("HOME").unwrap_or_default());
    let (told, updates) = mpsc::channel(QUEUE);
    tokio::spawn(listen(context.client.clone(), told.clone()));
    let screen = Screen::take(ui.colors())?;
    let (pressed, inputs) = mpsc::channel(QUEUE);
    // It ends with the program: nothing can take it away from a read.
    std::thread::spawn(move || read_keys(&pressed));
    let theme = Theme { colors: ui.colors() };
    let mut hands = Hands { client: context.client.clone(), told, screen, model, theme, drawn: None, wanted: true };
    hands.work(inputs, updates).await
}

struct Hands {
    client: Client,
    told: mpsc::Sender<Update>,
    screen: Screen,
    model: Model,
    theme: Theme,
    /// When it was drawn last.
    drawn: Option<Instant>,
    /// Whether something has changed since then.
    wanted: bool,
}

impl Hands {
    async fn work(&mut self, mut inputs: mpsc::Receiver<Input>, mut updates: mpsc::Receiver<Update>) -> Outcome<u8> {
        let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        loop {
            self.model.tick(now_ms());
            for question in self.model.due() {
                self.ask(question);
            }
            if self.screen.is_lost() {
                return Err(Problem::failed("internal_error", "ferry tui ended because of an error in it").hint("its message is above"));
            }
            if self.wanted && self.drawn.is_none_or(|at| at.elapsed() >= FRAME) {
                let (model, theme) = (&self.model, self.theme);
                if self.screen.draw(|frame| view::draw(frame, model, theme)).is_err() {
                    return Ok(exit::INTERRUPTED);
                }
                (self.drawn, self.wanted) = (Some(Instant::now()), false);
            }
            tokio::select! {
                input = inputs.recv() => match input {
                    None => return Ok(exit::INTERRUPTED),
                    Some(input) => if let Some(code) = self.take_in(input)? { return Ok(code) },
                },
                Some(update) = updates.recv() => {
                    self.model.apply(update);
                    while let Ok(update) = updates.try_recv() {
                        self.model.apply(update);
                    }
                    self.wanted = true;
                }
                () = self.rest() => self.wanted = true,
                _ = terminate.recv() => return Ok(exit::INTERRUPTED),
                _ = hangup.recv() => return Ok(exit::INTERRUPTED),
            }
        }
    }

    /// Until something is to be done without a key or an answer.
    async fn rest(&self) {
        let frame = self.drawn.filter(|_| self.wanted).map(|at| FRAME.saturating_sub(at.elapsed()));
        let until = |at_ms: i64| Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0));
        match frame.into_iter().chain(self.model.wakes_at().map(until)).min() {
            Some(span) => tokio::time::sleep(span).await,
            None => std::future::pending().await,
        }
    }

    /// A key, or a new size. The exit code if that is the end.
    fn take_in(&mut self, input: Input) -> Outcome<Option<u8>> {
        // What a person does is seen at once.
        (self.drawn, self.wanted) = (None, true);
        let Input::Key(key) = input else { return Ok(None) };
        match self.model.key(key) {
            None => {}
            Some(Action::Quit) => return Ok(Some(exit::OK)),
            Some(Action::Interrupt) => return Ok(Some(exit::INTERRUPTED)),
            Some(Action::Suspend) => self.screen.suspend()?,
            Some(Action::Redraw) => self.screen.forget()?,
            Some(Action::Do(deed)) => self.act(deed),
        }
        Ok(None)
    }

    fn ask(&self, question: Question) {
        let (client, told) = (self.client.clone(), self.told.clone());
        tokio::spawn(async move {
            let answer = client.get(question.path()).await;
            // It fails only at the end.
            let _ = told.send(Update::Answer(question, answer)).await;
        });
    }

    fn act(&self, deed: Deed) {
        let (client, told) = (self.client.clone(), self.told.clone());
        tokio::spawn(async move {
            let (path, body) = deed.request();
            let outcome = client.post(&path, &body).await;
            let _ = told.send(Update::Done(deed, outcome)).await;
        });
    }
}

/// Follows the daemon's events, and looks for it again when it is gone.
async fn listen(client: Client, told: mpsc::Sender<Update>) {
    while !told.is_closed() {
        let problem = follow(&client, &told).await;
        let _ = told.send(Update::Lost(problem)).await;
        tokio::time::sleep(RETRY).await;
    }
}

/// Follows until the daemon is gone; why it is.
async fn follow(client: &Client, told: &mpsc::Sender<Update>) -> Problem {
    let followed: Outcome<()> = async {
        let past = client.get(&format!("/activity?limit={PAST}")).await?;
        let mut events = client.events(&format!("/events?since={}", past["newest"].as_u64().unwrap_or(0))).await?;
        let _ = told.send(Update::Connected(past)).await;
        while let Some(event) = events.next().await {
            let _ = told.send(Update::Event(event)).await;
        }
        Ok(())
    }
    .await;
    followed.err().unwrap_or_else(Problem::no_daemon)
}

/// Reads keys until nobody wants them.
fn read_keys(pressed: &mpsc::Sender<Input>) {
    while let Ok(event) = crossterm::event::read() {
        let input = match event {
            Event::Key(key) => key_of(key).map(Input::Key),
            Event::Resize(..) => Some(Input::Resized),
            _ => None,
        };
        if input.is_some_and(|input| pressed.blocking_send(input).is_err()) {
            return;
        }
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let with = |modifier| event.modifiers.contains(modifier);
    Some(match event.code {
        KeyCode::Char(c) if with(KeyModifiers::CONTROL) => Key::Control(c.to_ascii_lowercase()),
        KeyCode::Char(_) if with(KeyModifiers::ALT) => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab if with(KeyModifiers::SHIFT) => Key::BackTab,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_terminal_are_known() {
        let key = |code, modifiers| key_of(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('C'), KeyModifiers::CONTROL), Some(Key::Control('c')));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Char('q')));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(key(KeyCode::Tab, KeyModifiers::SHIFT), Some(Key::BackTab));
        assert_eq!(key(KeyCode::F(1), KeyModifiers::NONE), None);
    }
}
