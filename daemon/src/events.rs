//! What happened: a bounded ring in memory that the event stream and the activity log read.
//!
//! * **V1** Ids grow by one per event and are never reused within one life of the daemon; the first id continues after the persisted log.
//! * **V2** Emitting never waits and never fails; a reader that is too slow or asks for something too old is told of the gap (I14, I15).

use crate::folder::{FolderState, HeldDeletes, RelayState, Via};
use ferry_protocol::{NamespaceId, RelPath};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// How many events are kept in memory.
pub const RING_MAX: usize = 4096;

/// Which side made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// On this device's disk.
    Here,
    /// On another device, or on the web.
    Elsewhere,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// The daemon is ready.
    DaemonStarted {
        /// Its version.
        version: &'static str,
    },
    /// The relay's state changed.
    RelayState {
        /// Now.
        state: RelayState,
        /// Why, where there is more to say.
        message: Option<String>,
    },
    /// A folder was added.
    FolderAdded,
    /// A folder was removed; its files stay.
    FolderRemoved,
    /// A folder's state changed.
    FolderState {
        /// Now.
        state: FolderState,
        /// Why.
        reason: Option<String>,
    },
    /// A pass over the disk is finished.
    ScanFinished {
        /// Files seen.
        files: u64,
        /// Bytes seen.
        bytes: u64,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A file of this device is held by the others' source, durably.
    FileUploaded {
        /// Which.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// Its size.
        bytes: u64,
        /// Where to.
        via: Via,
    },
    /// A file is in place on this device, durably.
    FileDownloaded {
        /// Which.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// Its size.
        bytes: u64,
        /// Where from.
        via: Via,
        /// Name of the peer, for the LAN.
        peer: Option<String>,
    },
    /// A directory or symbolic link was made.
    Created {
        /// Which.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// By whom.
        origin: Origin,
    },
    /// Something was deleted.
    Deleted {
        /// Which.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// By whom.
        origin: Origin,
    },
    /// Something was renamed or moved.
    Moved {
        /// From where.
        #[serde(serialize_with = "crate::folder::shown")]
        from: RelPath,
        /// To where.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// By whom.
        origin: Origin,
    },
    /// Two versions were written at once; the copy stands beside the winner.
    Conflict {
        /// The winner.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// The conflicted copy.
        #[serde(serialize_with = "crate::folder::shown")]
        copy: RelPath,
    },
    /// Two versions were written at once, and merged here into the next one.
    Merged {
        /// Which.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
    },
    /// Something needs a look.
    Issue {
        /// Where.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// The stable code.
        code: &'static str,
        /// One sentence.
        message: String,
    },
    /// An issue is over.
    IssueResolved {
        /// Where.
        #[serde(serialize_with = "crate::folder::shown")]
        path: RelPath,
        /// The stable code.
        code: &'static str,
    },
    /// This user is invited to a folder.
    Invited {
        /// To which, and by whom.
        #[serde(flatten)]
        invitation: crate::supervisor::Invitation,
    },
    /// This user may do something else in a folder than before.
    RoleChanged {
        /// Now.
        role: ferry_protocol::wire::Role,
    },
    /// The relay does not take a folder: it is not this user's, or not any more.
    NotShared {
        /// Why.
        reason: String,
    },
    /// Many deletes wait for the user.
    DeletesHeld {
        /// What waits.
        #[serde(flatten)]
        held: HeldDeletes,
    },
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// See V1.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub ts_ms: i64,
    /// The folder's namespace, if it belongs to one.
    pub folder_id: Option<NamespaceId>,
    /// The folder's name.
    pub folder: Option<Arc<str>>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    next_id: u64,
}

/// Where events go. Cheap to clone; all clones share one ring.
#[derive(Debug, Clone)]
pub struct EventSink {
    ring: Arc<Mutex<Ring>>,
    newest: Arc<watch::Sender<u64>>,
    folder: Option<(NamespaceId, Arc<str>)>,
}

/// What a reader finds after an id.
#[derive(Debug, Clone, PartialEq)]
pub struct Since {
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Whether events between the id and the first of these are lost.
    pub gap: bool,
}

impl EventSink {
    /// An empty ring whose first event has the id `first_id`.
    pub fn new(first_id: u64) -> Self {
        let ring = Ring { events: VecDeque::new(), next_id: first_id.max(1) };
        Self { ring: Arc::new(Mutex::new(ring)), newest: Arc::new(watch::channel(0).0), folder: None }
    }

    /// The same ring, its events marked with a folder.
    pub fn of_folder(&self, id: NamespaceId, name: &str) -> Self {
        Self { folder: Some((id, name.into())), ..self.clone() }
    }

    /// Records that something happened now.
    pub fn emit(&self, kind: EventKind) {
        let ts_ms = jiff::Timestamp::now().as_millisecond();
        let id = {
            let mut ring = self.lock();
            let id = ring.next_id;
            ring.next_id += 1;
            if ring.events.len() == RING_MAX {
                ring.events.pop_front();
            }
            let (folder_id, folder) = self.folder.clone().unzip();
            ring.events.push_back(Arc::new(Event { id, ts_ms, folder_id, folder, kind }));
            id
        };
        self.newest.send_if_modified(|newest| {
            let later = id > *newest;
            *newest = id.max(*newest);
            later
        });
    }

    /// The events after `id`, at most `limit`, oldest first.
    pub fn since(&self, id: u64, limit: usize) -> Since {
        let ring = self.lock();
        let oldest = ring.next_id - ring.events.len() as u64;
        let skip = (id + 1).saturating_sub(oldest) as usize;
        Since { events: ring.events.iter().skip(skip).take(limit).cloned().collect(), gap: id != 0 && id + 1 < oldest }
    }

    /// The id of the newest event, 0 before the first; changes wake the receiver.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing between lock and unlock can panic half way, so a poisoned ring is still whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_event_once_and_is_told_of_a_gap() {
        let sink = EventSink::new(7);
        assert_eq!(sink.since(0, 10), Since { events: vec![], gap: false });
        for _ in 0..RING_MAX + 3 {
            sink.emit(EventKind::FolderAdded);
        }
        let read = sink.since(8, 2);
        assert!(read.gap, "events 9 are gone");
        assert_eq!(read.events.iter().map(|e| e.id).collect::<Vec<_>>(), [10, 11]);
        let read = sink.since(11, 1);
        assert!(!read.gap);
        assert_eq!(read.events[0].id, 12);
        let newest = *sink.newest().borrow();
        assert_eq!(newest, 7 + RING_MAX as u64 + 2);
        assert!(sink.since(newest, 10).events.is_empty());
    }

    #[test]
    fn an_event_is_flat_json_with_its_type() {
        let sink = EventSink::new(1).of_folder(NamespaceId::from_bytes([1; 16]), "Photos");
        sink.emit(EventKind::FileDownloaded { path: RelPath::parse(b"raw/a\n").unwrap(), bytes: 3, via: Via::Relay, peer: None });
        let json = serde_json::to_value(&*sink.since(0, 1).events[0]).unwrap();
        assert_eq!(json["type"], "file_downloaded");
        assert_eq!(json["path"], "raw/a\\n");
        assert_eq!(json["folder"], "Photos");
        assert_eq!(json["via"], "relay");
    }
}
