//! Archives: chosen files and folders as one zip, streamed. Of the content no more is held than what is on its way.
//!
//! * A name in an archive is a relative path of plain names: no root, no `..`, no backslash, no drive, nothing that Windows keeps for itself. What would be
//!   one name on a disk that folds case, normalises Unicode or drops dots and spaces at the end is two names.
//! * Symlinks are left out, and a text in the archive says which.
//! * Before each entry it is asked whether the reader may still have it (R21, R44).
//! * What cannot be read breaks the stream off before the archive's end, so that nobody takes a part for the whole.

use super::view::{Directory, Shown, View};
use super::zip::{Zip, shrinks};
use super::{ChunkStream, Content, Download, Entry, Recheck, off_thread};
use crate::service::{ServiceError, ServiceResult};
use bytes::{Bytes, BytesMut};
use ferry_protocol::{Name, NamespaceId, NodeId, RelPath, node};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Most entries of one archive.
const ENTRIES_MAX: usize = 100_000;
/// Longest path of an entry, in bytes; the format has 16 bits for it.
const PATH_MAX_BYTES: usize = 65_000;
/// Pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 2;
/// Small pieces are gathered up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes from which on packing is done off the threads that serve requests.
const OFF_THREAD_BYTES: usize = 64 * 1024;
/// The entry that names what was left out.
const LEFT_OUT_NAME: &str = "Left out.txt";
/// Symlinks that it names.
const LEFT_OUT_NAMED_MAX: usize = 1000;
/// Symlinks that are read over, in one chosen folder.
const LEFT_OUT_MAX: usize = 100_000;

/// What goes into an archive.
#[derive(Debug, Clone)]
pub struct Archive {
    namespace: NamespaceId,
    items: Vec<(Shown, String)>,
    /// Symlinks that are not in it.
    left_out: Vec<String>,
    left_out_count: usize,
    left_out_name: String,
    recheck: Option<Recheck>,
    /// What to call it, without an ending.
    pub name: String,
}

impl Archive {
    /// Asks this before each entry, and while a long one is sent.
    #[must_use]
    pub fn watched(mut self, recheck: Recheck) -> Self {
        self.recheck = Some(recheck);
        self
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.items.len() + usize::from(self.left_out_count > 0)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Content {
    /// An archive of these entries of the namespace and all that is below them.
    pub async fn plan_archive(&self, entry: &Entry, nodes: &[NodeId]) -> ServiceResult<Archive> {
        let mut tops = BTreeSet::new();
        for node in nodes {
            let path = if *node == NodeId::ROOT { RelPath::root() } else { self.shown(entry.row.id, *node).await?.path };
            entry.confine(&path)?;
            tops.insert(path);
        }
        plan(entry, self.view(entry.row.id), tops).await
    }

    /// An archive of one place of the namespace.
    pub(super) async fn plan_archive_at(&self, entry: &Entry, path: RelPath) -> ServiceResult<Archive> {
        entry.confine(&path)?;
        plan(entry, self.view(entry.row.id), BTreeSet::from([path])).await
    }

    /// Streams an archive.
    pub async fn read_archive(self: &Arc<Self>, archive: Archive) -> ServiceResult<ChunkStream> {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut out = Out { sender, gathered: BytesMut::new() };
            match this.write_archive(archive, &mut out).await {
                Ok(()) | Err(Broken::Left) => {}
                Err(Broken::Failed(error)) => drop(out.sender.send(Err(error)).await),
            }
        });
        ChunkStream::begun(receiver).await
    }

    async fn write_archive(self: &Arc<Self>, archive: Archive, out: &mut Out) -> Result<(), Broken> {
        let mut zip = Zip::default();
        for (shown, name) in &archive.items {
            if let Some(recheck) = &archive.recheck {
                recheck.ask().await?;
            }
            match shown.entry.content.file() {
                None => out.put(&zip.directory(name, shown.times.updated_at_ms / 1000)).await?,
                Some(_) => {
                    let mut download = Download::of(archive.namespace, &shown.path, &shown.entry)?;
                    download.recheck.clone_from(&archive.recheck);
                    zip = self.write_file(zip, name, &download, out).await?;
                }
            }
        }
        if archive.left_out_count > 0 {
            let text = left_out_text(&archive.left_out, archive.left_out_count);
            out.put(&zip.begin(&archive.left_out_name, self.clock.now_ms() / 1000, text.len() as u64, false)).await?;
            out.put(&zip.write(text.as_bytes())?).await?;
            out.put(&zip.end()?).await?;
        }
        out.put(&off_thread(move || zip.finish()).await?).await?;
        out.flush().await
    }

    async fn write_file(self: &Arc<Self>, mut zip: Zip, name: &str, download: &Download, out: &mut Out) -> Result<Zip, Broken> {
        let (size, mtime_s) = (download.size_bytes, download.mtime_ns.div_euclid(1_000_000_000));
        let mut stream = None;
        let mut next = None;
        if size > 0 {
            let mut opened = self.read_file(download, 0..size).await?;
            next = opened.recv().await.transpose()?;
            stream = Some(opened);
        }
        let deflate = next.as_ref().is_some_and(|first: &Bytes| shrinks(first));
        out.put(&zip.begin(name, mtime_s, size, deflate)).await?;
        while let Some(bytes) = next.take() {
            let packed = if deflate && bytes.len() >= OFF_THREAD_BYTES {
                let (back, packed) = off_thread(move || {
                    let packed = zip.write(&bytes);
                    (zip, packed)
                })
                .await?;
                zip = back;
                packed?
            } else {
                zip.write(&bytes)?
            };
            out.put(&packed).await?;
            next = match &mut stream {
                Some(stream) => stream.recv().await.transpose()?,
                None => None,
            };
        }
        out.put(&zip.end()?).await?;
        Ok(zip)
    }
}

/// What goes into an archive of these places: read a directory at a time, and never more than an archive may hold.
async fn plan(entry: &Entry, view: View<'_>, tops: BTreeSet<RelPath>) -> ServiceResult<Archive> {
    let mut names = Names::default();
    let (mut items, mut left_out, mut left_out_count) = (Vec::new(), Vec::new(), 0);
    let mut add = |shown: Shown, parent: Option<&RelPath>| -> ServiceResult<()> {
        let path = &shown.path;
        if matches!(shown.entry.content, node::Content::Symlink(_)) {
            left_out_count += 1;
            if left_out.len() < LEFT_OUT_NAMED_MAX {
                // What is above the open part is nobody's who sees no more than that.
                left_out.push(RelPath::from_names(path.names()[entry.within.names().len()..].to_vec()).to_string());
            }
            return Ok(());
        }
        if items.len() >= ENTRIES_MAX {
            return Err(too_many());
        }
        let name = names.give(path, parent);
        if name.len() > PATH_MAX_BYTES {
            return Err(ServiceError::too_large("A path is too long for an archive. Choose parts of it."));
        }
        items.push((shown, name));
        Ok(())
    };
    let mut last: Option<&RelPath> = None;
    for top in &tops {
        // What is below another chosen folder comes with that.
        if last.is_some_and(|last| top.starts_with(last)) {
            continue;
        }
        last = Some(top);
        let below = match top.is_root() {
            true => Some(Directory::root()),
            false => {
                let shown = view.at(top).await?.ok_or_else(ServiceError::not_found)?;
                let below = shown.directory();
                add(shown, None)?;
                below
            }
        };
        let Some(below) = below else { continue };
        let (found, has_more) = view.walk(below, false, None, ENTRIES_MAX + LEFT_OUT_MAX).await?;
        if has_more {
            return Err(too_many());
        }
        for shown in found {
            let parent = shown.path.split_last().map(|(parent, _)| parent).filter(|parent| !parent.is_root());
            add(shown, parent.as_ref())?;
        }
    }
    let name = match tops.iter().collect::<Vec<_>>()[..] {
        [only] => only.names().last().map_or_else(|| safe(entry.row.name.as_bytes()), |name| safe(name.as_bytes())),
        _ => safe(entry.row.name.as_bytes()),
    };
    let left_out_name = names.unused(LEFT_OUT_NAME);
    Ok(Archive { namespace: entry.row.id, items, left_out, left_out_count, left_out_name, name, recheck: None })
}

fn too_many() -> ServiceError {
    let detail = format!("One archive holds at most {ENTRIES_MAX} entries. Choose parts of it.");
    ServiceError::too_large(detail).with("limit", ENTRIES_MAX)
}

fn left_out_text(named: &[String], count: usize) -> String {
    let mut text = String::from("These are symbolic links, which an archive does not hold:\n");
    for path in named {
        text.push_str(path);
        text.push('\n');
    }
    if count > named.len() {
        text.push_str(&format!("and {} more\n", count - named.len()));
    }
    text
}

/// Names within an archive.
#[derive(Default)]
struct Names {
    given: HashMap<RelPath, String>,
    /// What was given, as a disk compares that takes the most for the same.
    used: HashSet<Vec<u8>>,
    /// By what was wanted, the number from which on none was tried yet.
    next: HashMap<Vec<u8>, u32>,
}

impl Names {
    /// A name for what stands at a path, below that of its directory if it has one here.
    fn give(&mut self, path: &RelPath, parent: Option<&RelPath>) -> String {
        let own = path.names().last().map_or_else(String::new, |name| safe(name.as_bytes()));
        let wanted = match parent.and_then(|parent| self.given.get(parent)) {
            Some(parent) => format!("{parent}/{own}"),
            None => own,
        };
        let name = self.unused(&wanted);
        self.given.insert(path.clone(), name.clone());
        name
    }

    /// This name, or one like it that nothing has.
    fn unused(&mut self, wanted: &str) -> String {
        let key = compared(wanted);
        if self.used.insert(key.clone()) {
            return wanted.to_owned();
        }
        let next = self.next.entry(key).or_insert(2);
        loop {
            let name = numbered(wanted, *next);
            *next += 1;
            if self.used.insert(compared(&name)) {
                return name;
            }
        }
    }
}

/// A path as a disk may compare it: without case, normalised, without dots and spaces at the end of its names.
fn compared(path: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len());
    for part in path.split('/') {
        let part = part.trim_end_matches(['.', ' ']);
        // What is too long for a name is compared as it is.
        match Name::new(part) {
            Ok(name) => key.extend_from_slice(&name.fold_key()),
            Err(_) => key.extend_from_slice(part.as_bytes()),
        }
        key.push(b'/');
    }
    key
}

/// `report.pdf` as `report (2).pdf`, in the last part of a path.
fn numbered(path: &str, n: u32) -> String {
    let at = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = path[at..].char_indices().skip(1).filter(|(_, c)| *c == '.').last().map_or(path.len(), |(dot, _)| at + dot);
    format!("{} ({n}){}", &path[..dot], &path[dot..])
}

/// A name that no program that unpacks takes for anything but a name.
fn safe(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\\' | '/' | '<' | '>' | ':' | '"' | '|' | '?' | '*')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out: String = text.chars().map(|c| if is_odd(c) { '_' } else { c }).collect();
    // Dots and spaces at the end do not count there: what consists of them would be `..`.
    if out.trim_end_matches(['.', ' ']).is_empty() {
        out = out.replace(['.', ' '], "_");
    }
    if is_device(&out) {
        out.insert(0, '_');
    }
    out
}

/// Whether Windows takes this name for a device, whatever its ending.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"].contains(&stem.as_str()) {
        return true;
    }
    let number = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    number.is_some_and(|n| n.chars().count() == 1 && n.chars().all(|c| matches!(c, '0'..='9' | '¹' | '²' | '³')))
}

/// Why an archive was not written to its end.
enum Broken {
    /// Nobody reads any more.
    Left,
    Failed(ServiceError),
}

impl From<ServiceError> for Broken {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(ServiceError::internal(error))
    }
}

/// Where the archive goes.
struct Out {
    sender: mpsc::Sender<ServiceResult<Bytes>>,
    gathered: BytesMut,
}

impl Out {
    async fn put(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.gathered).freeze();
        self.sender.send(Ok(piece)).await.map_err(|_| Broken::Left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_only_names() {
        for (name, expected) in [
            (&b"plan.odt"[..], "plan.odt"),
            (b"..\\..\\x", ".._.._x"),
            (b"C:x", "C_x"),
            (b"12:30.txt", "12_30.txt"),
            (b"a<b>\"c|d?*", "a_b__c_d__"),
            (b"nul", "_nul"),
            (b"Con .txt", "_Con .txt"),
            (b"com1.tar.gz", "_com1.tar.gz"),
            ("LPT².x".as_bytes(), "_LPT².x"),
            (b"com10", "com10"),
            (b"console", "console"),
            (b".. ", "___"),
            (b"...", "___"),
            (b"a\nb", "a_b"),
            ("gpj\u{202e}.exe".as_bytes(), "gpj_.exe"),
            (b"\xff.txt", "\u{fffd}.txt"),
            ("Grüße".as_bytes(), "Grüße"),
        ] {
            assert_eq!(safe(name), expected);
        }
        assert_eq!(
            (numbered("a/b.c/report.tar.gz", 2), numbered("a.b/.profile", 3)),
            ("a/b.c/report.tar (2).gz".into(), "a.b/.profile (3)".into())
        );
    }

    #[test]
    fn what_a_disk_takes_for_one_name_is_two() {
        let given = |wanted: &[&str]| {
            let mut names = Names::default();
            wanted.iter().map(|one| names.unused(one)).collect::<Vec<_>>()
        };
        assert_eq!(given(&["A.txt", "a.txt", "a.TXT"]), ["A.txt", "a (2).txt", "a (3).TXT"]);
        assert_eq!(given(&["x", "x.", "x ", "d./y", "d/y"]), ["x", "x (2).", "x  (3)", "d./y", "d/y (2)"]);
        assert_eq!(given(&["gr\u{fc}n", "gru\u{308}n"]), ["gr\u{fc}n", "gru\u{308}n (2)"]);
        assert_eq!(given(&["a", "a (2)", "A"]), ["a", "a (2)", "A (3)"]);
    }

    /// Of many names of one kind, in time that grows with their number and not with its square.
    #[test]
    fn each_number_is_tried_once() {
        const MANY: usize = 20_000;
        let mut names = Names::default();
        for n in 0..MANY {
            names.unused(if n % 2 == 0 { "same.txt" } else { "SAME.txt" });
        }
        assert_eq!((names.used.len(), names.next.len()), (MANY, 1));
        assert_eq!(names.next.values().next().copied(), u32::try_from(MANY + 1).ok());
    }

    proptest! {
        #[test]
        fn whatever_a_name_holds(name in prop::collection::vec(any::<u8>().prop_filter("valid", |b| *b != 0 && *b != b'/'), 1..40)) {
            let made = safe(&name);
            prop_assert!(!made.is_empty() && !made.contains(['/', '\\', ':', '"', '<', '>', '|', '?', '*']) && !is_device(&made) && !made.chars().any(char::is_control));
            prop_assert!(!made.trim_end_matches(['.', ' ']).is_empty());
        }
    }
}
