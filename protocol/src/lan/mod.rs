//! What two devices say to each other on a LAN: sans-IO, so that it runs the same over QUIC, in the simulated world, and under a fuzzer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | bodies with their length before them, and the kinds of streams |
//! | [`message`] | the messages of the control stream |
//! | [`chunks`] | the answer to a request for chunks |
//! | [`book`] | the grants that this device knows: who may take part in which namespace |
//! | [`session`] | one connection: what may be said and heard, and when |
//!
//! A connection proves the peer's device id (TLS). Everything else is decided here:
//!
//! * **L1** To a device that no valid grant known here lists, nothing is said but the end (I13).
//! * **L2** Nothing of a namespace is said to, or heard from, a device that its newest grant does not list; the answer is the same as for a
//!   namespace that does not exist.
//! * **L3** What a viewer says of a tree is not heard.
//! * **L4** Lengths and counts are compared with their limits before memory is taken; what a connection can make us remember is bounded.

pub mod book;
pub mod chunks;
pub mod frame;
pub mod message;
pub mod session;

pub use book::{GrantBook, Offered};
pub use chunks::{ChunkAnswer, ChunkAsk};
pub use frame::{StreamKind, frame};
pub use message::{Message, PeerPage, Piece};
pub use session::{End, Output, Session};

/// The protocol's name in TLS (ALPN). Another value is another protocol: nothing is negotiated down.
pub const ALPN: &[u8] = b"ferry/1";

/// The version of the messages that this side speaks, and the oldest that it understands.
pub const VERSION: u16 = 1;
