//! `ferry tui`: the daemon on one screen, live. A client of the control socket like any other; ending it ends nothing.
//!
//! | module | what it does |
//! |---|---|
//! | [`model`] | what is shown and what a key means: pure, no terminal, no socket, no clock |
//! | [`view`] | draws a model; pure but for the buffer that it writes into |
//! | [`run`] | the hands: the terminal, the keys, the requests |
//! | [`screen`] | takes the terminal and always gives it back |
//!
//! * **W1** Nothing that a name, a message or a peer holds reaches the terminal as anything but text ([`text::harmless`]).
//! * **W2** The terminal is given back however this ends: a key, a signal, a panic, an error.
//! * **W3** The status is asked at most once a second while something runs, every ten seconds while nothing does; events tell of the rest.

pub mod model;
mod run;
mod screen;
#[cfg(test)]
mod tests;
pub mod text;
pub mod view;

pub use run::run;
