//! The client of a relay's HTTP API: accounts, namespaces, the feed, commits, chunks both ways, grants and
//! peers, and wake-ups.
//!
//! [`RelayClient`] is cheap to clone; all clones share connections, tokens, limits and counters. It retries nothing by itself except one
//! request after a token refresh: back-off belongs to the caller, and [`RelayError`] says what to do. Its invariants:
//!
//! * **N1** A chunk leaves this module hashed and found right, or not at all (I5).
//! * **N2** An answer that is not of the type that was asked for is never parsed: a sign-in page is not an empty feed (P10, I3).
//! * **N3** A refresh token is used once, by one task at a time, and its successor is on the disk before it is used.
//! * **N4** Plain HTTP goes to this machine and private networks only; a pinned certificate is the only one accepted.
//! * **N5** Every answer is read up to a limit, and a connection without progress is given up.

mod announce;
mod chunks;
mod client;
mod error;
mod http;
pub mod join_code;
mod session;
#[cfg(test)]
mod tests;
mod tls;
pub mod url;
mod wakeups;

/// How a call of the relay's JSON API is made, see [`RelayClient::json`].
pub use reqwest::Method;

pub use announce::{ADDRESSES_MAX, Announce, Announced, AnnouncedPeer, Report};
pub use chunks::{ChunkStream, FetchedChunk};
pub use client::{DeltaReply, Download, JoinSecret, LoginCodes, RelayClient, RelayOptions, ServerInfo};
pub use error::{Problem, RelayError};
pub use http::{OnSent, Timing, Traffic};
pub use join_code::JoinCode;
pub use session::{DeviceInfo, KeepCredentials};
pub use url::{Pin, RelayUrl};
pub use wakeups::{Wakeup, Wakeups};
