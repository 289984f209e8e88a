//! Real processes on networks of namespaces. Each row of `faults.md` 4 that is played here is named by its id.
//!
//! | module | rows |
//! |---|---|
//! | [`relay_only`] | the LAN is only faster: with it off, or with no way between the devices, all is the same; P02 |
//! | [`finding`] | how devices find each other: by mDNS, by the relay, by static addresses; P09, P26 |
//! | [`relayless`] | devices of one LAN converge without a relay, and with it when it is back; P01, P03, P06, P30 |
//! | [`links`] | bad links: flapping, one-way, lossy, without UDP; P04, P05, P07, P08 |
//! | [`trust`] | who takes part: strangers, revoked devices, old grants; L01, L04, L09, L10, L31 |
//! | [`noise`] | anybody's packets: forged announcements, random bytes; L08, L33 |
//! | [`hostile`] | devices that break the protocol, by [`rogue`]; L01 to L03, L06, L17, L19, L26 |
//! | [`strangers`] | keys that nobody knows, handshakes by the hundred, peers that stall; L01 to L03, L10, L19, L20, Q12 |
//! | [`members`] | a member's key in wrong hands: lies about files, chunks, names and authors; L05, L11 to L16, L18, L22, L24, X01 |
//! | [`sources`] | very many small files; S01 |
//! | [`stale`] | chunks whose files have changed, and peers that have none; H05 |
//! | [`people`] | a folder shared with another person: roles and their end among devices nearby; I13 |
//! | [`told`] | what a person is told of them and may say to them |
//! | [`counted`] | how often the same bytes cross the way to the relay |
//!
//! Sizes and times of the catalogue are scaled down to what a gate can wait for. Results are read from disks; what a device says is looked at only where the row is about what it says.

mod counted;
mod finding;
mod hostile;
mod links;
mod members;
mod noise;
mod people;
mod relay_only;
mod relayless;
mod rogue;
mod sources;
mod stale;
mod strangers;
mod told;
mod trust;
