//! What the daemon says, read leniently: it may be of another version, so nothing is taken for granted. Every text in here is harmless.

use crate::cli::activity::sentence;
use crate::cli::peer::way;
use crate::cli::watch;
use crate::tui::text::harmless;
use serde_json::Value;

/// A text of a document, harmless; empty if it is not there.
pub fn text(value: &Value, name: &str) -> String {
    harmless(value[name].as_str().unwrap_or_default())
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn each<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

/// Something in a list, found again in the next answer by its key.
pub trait Keyed {
    /// Tells it apart from the others of its list.
    fn key(&self) -> String;
}

/// The daemon as a whole.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// State of all folders together.
    pub state: String,
    /// This device's name.
    pub device: String,
    /// Who is logged in, and the relay's host.
    pub account: Option<(String, String)>,
    /// `connected`, `connecting`, `offline` or `none`.
    pub relay: String,
    /// What else is to be said of the relay or the LAN, one sentence each.
    pub troubles: Vec<String>,
    /// Whether the LAN is used.
    pub lan: bool,
    /// Devices nearby that are connected.
    pub nearby: usize,
    /// Bytes on the wire since the daemon started: LAN in, LAN out, relay in, relay out.
    pub totals: [u64; 4],
    /// Conflicted copies.
    pub conflicts: u64,
    /// Items that need attention.
    pub errors: u64,
}

impl Status {
    /// From the document of `GET /v1/status`.
    pub fn read(value: &Value) -> Self {
        let account = value["account"].as_object().map(|_| {
            let relay = text(&value["account"], "relay");
            (text(&value["account"], "user"), relay.split("://").last().unwrap_or_default().to_owned())
        });
        let mut troubles = Vec::new();
        if let Some(message) = value["relay"]["message"].as_str().filter(|_| value["relay"]["state"] != "connected") {
            troubles.push(format!("relay: {}", harmless(message)));
        }
        if let Some(message) = value["lan"]["message"].as_str() {
            troubles.push(format!("LAN: {}", harmless(message)));
        }
        let transfer = &value["transfer"];
        Self {
            state: text(value, "state"),
            device: text(&value["device"], "name"),
            account,
            relay: text(&value["relay"], "state"),
            troubles,
            lan: value["lan"]["enabled"].as_bool().unwrap_or(true),
            nearby: each(value, "peers").count(),
            totals: ["lan_in_bytes", "lan_out_bytes", "relay_in_bytes", "relay_out_bytes"].map(|name| number(transfer, name)),
            conflicts: number(&value["issues"], "conflicts"),
            errors: number(&value["issues"], "errors"),
        }
    }
}

/// A synced folder.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its root on this device.
    pub path: String,
    /// What it is doing: the stable word.
    pub state: String,
    /// Files in it.
    pub files: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Items pending: up, down, deletes.
    pub pending: [u64; 3],
    /// Bytes still to travel: up, down.
    pub pending_bytes: [u64; 2],
    /// Bytes per second: up, down.
    pub rates: [u64; 2],
    /// Items that something stands in the way of.
    pub blocked: u64,
    /// Deletes that wait for a yes.
    pub held: Option<u64>,
    /// The document, for the words of its state.
    pub document: Value,
}

impl Folder {
    /// The folders of a status document.
    pub fn read_all(status: &Value) -> Vec<Self> {
        each(status, "folders").map(Self::read).collect()
    }

    fn read(value: &Value) -> Self {
        let mut document = value.clone();
        if let Some(fields) = document.as_object_mut() {
            // Up to a thousand of them, and they have a page of their own.
            fields.remove("issues");
        }
        Self {
            id: text(value, "id"),
            name: text(value, "name"),
            path: text(value, "path"),
            state: text(value, "state"),
            files: number(value, "files"),
            bytes: number(value, "bytes"),
            pending: ["upload", "download", "delete"].map(|name| number(&value["pending"], name)),
            pending_bytes: ["upload", "download"].map(|name| number(&value["pending_bytes"], name)),
            rates: ["up_bytes_per_s", "down_bytes_per_s"].map(|name| number(&value["rates"], name)),
            blocked: number(value, "blocked"),
            held: value["held"]["count"].as_u64(),
            document,
        }
    }
}

impl Keyed for Folder {
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// A device that shares a folder with this one.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `connected`, `unreachable` or `searching`.
    pub state: String,
    /// Where it is, or was looked for.
    pub address: String,
    /// How it was found, in words.
    pub found: String,
    /// Why it is not connected.
    pub reason: String,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Bytes per second: from it, to it.
    pub rates: [u64; 2],
}

impl Peer {
    /// From the document of `GET /v1/peers`.
    pub fn read_all(value: &Value) -> Vec<Self> {
        let read = |peer: &Value| {
            let found: Vec<String> = each(peer, "found").filter_map(Value::as_str).map(|f| harmless(way(f))).collect();
            Self {
                id: text(peer, "id"),
                name: text(peer, "name"),
                state: text(peer, "state"),
                address: text(peer, "address"),
                found: found.join(", "),
                reason: text(peer, "reason"),
                rtt_ms: peer["rtt_ms"].as_f64(),
                rates: ["in_bytes_per_s", "out_bytes_per_s"].map(|name| number(peer, name)),
            }
        };
        each(value, "peers").map(read).collect()
    }
}

impl Keyed for Peer {
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// A file on its way.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The folder's id.
    pub folder_id: String,
    /// The folder's name.
    pub folder: String,
    /// The path below it.
    pub path: String,
    /// Whether it goes out.
    pub up: bool,
    /// Which way it takes, in words.
    pub way: String,
    /// Whether it has not begun.
    pub waits: bool,
    /// Bytes of the file.
    pub total: u64,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes per second, as measured between two looks.
    pub rate: f64,
}

impl Transfer {
    /// From the document of `GET /v1/transfers`.
    pub fn read_all(value: &Value) -> Vec<Self> {
        let read = |transfer: &Value| Self {
            folder_id: text(transfer, "folder_id"),
            folder: text(transfer, "folder"),
            path: text(transfer, "path"),
            up: transfer["direction"] == "upload",
            way: harmless(&watch::way(transfer)),
            waits: transfer["via"].is_null(),
            total: number(transfer, "total_bytes"),
            done: number(transfer, "done_bytes"),
            rate: 0.0,
        };
        each(value, "transfers").map(read).collect()
    }

    /// How much of it is there: 0 to 1.
    pub fn part(&self) -> f64 {
        if self.total == 0 { 1.0 } else { (self.done as f64 / self.total as f64).clamp(0.0, 1.0) }
    }
}

impl Keyed for Transfer {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.folder_id, if self.up { "up" } else { "down" }, self.path)
    }
}

/// Something that needs a person.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// Two versions were written at once.
    Conflict {
        /// For settling it.
        id: String,
        /// The folder's name.
        folder: String,
        /// The path that won the name.
        path: String,
        /// The copy beside it.
        copy: String,
        /// The device that wrote the copy.
        device: String,
        /// When, in milliseconds since 1970.
        wall_ms: i64,
        /// Bytes of the copy.
        size: u64,
        /// Whether the copy is this device's own version.
        copy_is_local: bool,
    },
    /// Something stands in the way of an item.
    Issue {
        /// The folder's name.
        folder: String,
        /// The path below it; empty for the folder itself.
        path: String,
        /// The stable code.
        code: String,
        /// One sentence: what is wrong.
        message: String,
        /// One sentence: what to do.
        hint: String,
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
}

impl Trouble {
    /// From the document of `GET /v1/conflicts`.
    pub fn read_conflicts(value: &Value) -> Vec<Self> {
        let read = |item: &Value| Self::Conflict {
            id: text(item, "id"),
            folder: text(item, "folder"),
            path: text(item, "path"),
            copy: text(item, "copy"),
            device: text(item, "device"),
            wall_ms: item["wall_ms"].as_i64().unwrap_or(0),
            size: number(item, "size"),
            copy_is_local: item["copy_is_local"] == true,
        };
        each(value, "conflicts").map(read).collect()
    }

    /// From the document of `GET /v1/issues`.
    pub fn read_issues(value: &Value) -> Vec<Self> {
        let read = |item: &Value| Self::Issue {
            folder: text(item, "folder"),
            path: text(item, "path"),
            code: text(item, "code"),
            message: text(item, "message"),
            hint: text(item, "hint"),
            since_ms: item["since_ms"].as_i64().unwrap_or(0),
        };
        each(value, "issues").map(read).collect()
    }

    /// Where: the folder's name and the path in it.
    pub fn place(&self) -> String {
        let (Self::Conflict { folder, path, .. } | Self::Issue { folder, path, .. }) = self;
        if path.is_empty() { folder.clone() } else { format!("{folder}/{path}") }
    }
}

impl Keyed for Trouble {
    fn key(&self) -> String {
        match self {
            Self::Conflict { id, .. } => format!("conflict {id}"),
            Self::Issue { code, .. } => format!("{code} {}", self.place()),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Happening {
    /// Grows by one per event.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub ts_ms: i64,
    /// What kind of event: the stable word.
    pub kind: String,
    /// In words.
    pub line: String,
}

impl Happening {
    /// From an event.
    pub fn read(event: &Value) -> Self {
        Self {
            id: number(event, "id"),
            ts_ms: event["ts_ms"].as_i64().unwrap_or(0),
            kind: text(event, "type"),
            line: harmless(&sentence(event)),
        }
    }
}

impl Keyed for Happening {
    fn key(&self) -> String {
        self.id.to_string()
    }
}
