//! Every cap of the protocol, with units in its name. What comes from outside is compared with these before memory is allocated (P4).

/// Longest path component, in bytes (Linux `NAME_MAX`).
pub const NAME_MAX_BYTES: usize = 255;
/// Longest target of a symbolic link, in bytes (Linux `PATH_MAX` less the terminator).
pub const SYMLINK_TARGET_MAX_BYTES: usize = 4095;
/// Longest display name of a device, in bytes of UTF-8.
pub const DEVICE_NAME_MAX_BYTES: usize = 64;
/// How many moves of a node are remembered, newest first.
pub const PLACES_MAX: usize = 8;
/// Most concurrent values that one node may carry.
pub const VALUES_MAX: usize = 1024;
/// Most contents that one says it was edited from.
pub const BASES_MAX: usize = 8;
/// Largest text that is merged, in bytes: base and both sides.
pub const MERGE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Most lines of a text that is merged.
pub const MERGE_LINES_MAX: usize = 100_000;
/// Most lines from the first to the last that one side of a merge changed: the time that it takes grows with the square of the changes.
pub const MERGE_CHANGED_LINES_MAX: usize = 10_000;
/// Most replicas in the context of one node.
pub const CONTEXT_MAX: usize = 65_536;
/// Largest chunk, in bytes: the largest that any chunker class cuts.
pub const CHUNK_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most chunks in one manifest; with the large chunker class this is above 4 TiB.
pub const MANIFEST_CHUNKS_MAX: usize = 1 << 20;
/// Largest file, in bytes.
pub const FILE_MAX_BYTES: u64 = 1 << 42;
/// Deepest directory nesting that a device materialises.
pub const PATH_DEPTH_MAX: usize = 1024;
/// How far ahead of everything known a Lamport counter may be; more is refused, so that no member can use the numbers up.
pub const LAMPORT_JUMP_MAX: u64 = 1 << 40;

/// Most nodes in one commit or one page of a feed.
pub const COMMIT_NODES_MAX: usize = 4096;
/// Most chunk ids in one question about chunks.
pub const CHUNK_IDS_MAX: usize = 65_536;
/// Largest body of one request between a device and a relay, in bytes.
pub const REQUEST_MAX_BYTES: usize = 64 * 1024 * 1024;
/// A device aims at chunk requests of this size, in bytes.
pub const CHUNK_BATCH_TARGET_BYTES: usize = 8 * 1024 * 1024;
/// Chunks of a commit travel inside it while their sum stays at or below this, in bytes: one round trip for a small edit.
pub const COMMIT_INLINE_MAX_BYTES: usize = 1024 * 1024;
/// A page of the feed is cut at about this size, in bytes before compression.
pub const PAGE_TARGET_BYTES: usize = 4 * 1024 * 1024;
/// Longest name of a namespace, in bytes of UTF-8.
pub const NAMESPACE_NAME_MAX_BYTES: usize = 255;

/// Most devices in the grant of one namespace.
pub const GRANT_MEMBERS_MAX: usize = 4096;
/// Longest encoded grant, in bytes.
pub const GRANT_MAX_BYTES: usize = 1024 * 1024;
/// Longest message on a control stream between two devices, in bytes: a grant of the largest size, and some.
pub const LAN_MESSAGE_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Longest page of a feed between two devices, in bytes: the state of a file of the largest size has to fit.
pub const LAN_PAGE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most namespaces that one connection, and one device's book of grants, is about.
pub const LAN_NAMESPACES_MAX: usize = 1024;
/// Most contents or chunks in one announcement between two devices.
pub const LAN_HAVES_MAX: usize = 4096;

const _: () = assert!(CHUNK_BATCH_TARGET_BYTES + CHUNK_MAX_BYTES < REQUEST_MAX_BYTES);
const _: () = assert!(COMMIT_INLINE_MAX_BYTES < REQUEST_MAX_BYTES);
const _: () = assert!(PLACES_MAX >= 2 && BASES_MAX >= 4);
// A grant of the most members with the longest names fits: two ids, a role, a length and a name each.
const _: () = assert!(GRANT_MEMBERS_MAX * (16 + 16 + 1 + 1 + DEVICE_NAME_MAX_BYTES) + 64 < GRANT_MAX_BYTES);
