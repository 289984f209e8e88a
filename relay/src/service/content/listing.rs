//! Lists of files, a page at a time: what a page holds is read, and not what came before it. A cursor says after which entry to go on, so that what is
//! made or removed meanwhile moves nothing.

use super::view::{Directory, Shown, View, note_rows_read, plain};
use super::{Content, Entry, FileInfo, off_thread};
use crate::service::{ServiceError, ServiceResult};
use crate::store::tree::{ChildQuery, Order, Standing};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::{Name, RelPath};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Most entries of one page.
const PAGE_MAX: usize = 1000;

/// The order of a list.
pub use crate::store::tree::Order as Sort;

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// The directory; nothing for everything at any depth.
    pub directory: Option<RelPath>,
    /// The order.
    pub sort: Sort,
    /// Largest or newest or last name first.
    pub descending: bool,
    /// The entry after which to go on.
    pub after: Option<ListCursor>,
    /// Most entries in the answer.
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct FilePage {
    /// The entries.
    pub files: Vec<FileInfo>,
    /// Where the next page begins, if there is one.
    pub next: Option<ListCursor>,
}

/// An entry of a list, by what the list is ordered by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListCursor {
    /// Its size in bytes or time in milliseconds since 1970; 0 where names decide.
    key: i64,
    path: RelPath,
}

impl ListCursor {
    fn of(shown: &Shown, sort: Sort) -> Self {
        let size = || shown.entry.content.file().map_or(0, |f| f.manifest.size());
        let key = match sort {
            Sort::Name => 0,
            Sort::Size => i64::try_from(size()).unwrap_or(i64::MAX),
            Sort::Modified => shown.times.updated_at_ms,
        };
        Self { key, path: shown.path.clone() }
    }

    /// Whether `other` comes after it.
    fn is_before(&self, other: &Self, descending: bool) -> bool {
        self.cmp(other) == if descending { Ordering::Greater } else { Ordering::Less }
    }

    /// As clients keep it.
    pub fn to_text(&self) -> String {
        let mut bytes = self.key.to_be_bytes().to_vec();
        bytes.extend(self.path.to_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Back again; nothing for what is no cursor.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (key, path) = bytes.split_first_chunk::<8>()?;
        Some(Self { key: i64::from_be_bytes(*key), path: RelPath::parse(path).ok().filter(|p| !p.is_root())? })
    }
}

/// A directory that is being walked through.
struct Frame {
    directory: Directory,
    /// Read and not given out yet.
    read: VecDeque<Shown>,
    /// The name after which more is to be read; nothing for from the start.
    after: Option<Name>,
    is_whole: bool,
    /// What is given out when the directory is through: the directory itself, where the order is falling.
    last: Option<Shown>,
}

impl Frame {
    fn new(directory: Directory, after: Option<Name>, last: Option<Shown>) -> Self {
        Self { directory, read: VecDeque::new(), after, is_whole: false, last }
    }
}

impl View<'_> {
    /// Entries of a directory after a cursor, in order; whether there are more.
    pub(super) async fn page(
        &self,
        directory: &Directory,
        (order, descending): (Order, bool),
        after: Option<(i64, &Name)>,
        limit: usize,
    ) -> ServiceResult<(Vec<Shown>, bool)> {
        // Both in one read: an entry that becomes contested, or ceases to be, between two would be in neither.
        let (children, mut found) = match directory.nodes[..] {
            [parent] => {
                let query = ChildQuery { parent, order, descending, after, limit: limit.saturating_add(1) };
                let all = self.meta.children(self.namespace, query).await?;
                note_rows_read(self.namespace, all.len());
                let (plain, contested): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.stand.standing == Standing::Plain);
                (plain, self.settle(directory, contested).await?)
            }
            _ => (Vec::new(), self.contested(directory).await?),
        };
        let after_cursor = after.map(|(key, name)| ListCursor { key, path: directory.path.join(name) });
        found.retain(|s| after_cursor.as_ref().is_none_or(|c| c.is_before(&ListCursor::of(s, order), descending)));
        found.extend(children.iter().filter_map(|child| plain(&directory.path, child)));
        found.sort_by_cached_key(|s| ListCursor::of(s, order));
        if descending {
            found.reverse();
        }
        let has_more = found.len() > limit;
        found.truncate(limit);
        Ok((found, has_more))
    }

    /// All that a directory shows, in the order of names.
    pub(super) async fn list(&self, directory: &Directory) -> ServiceResult<Vec<Shown>> {
        let mut out: Vec<Shown> = Vec::new();
        loop {
            let after = out.last().map(|s| (0, s.entry.name.clone()));
            let (page, has_more) =
                self.page(directory, (Order::Name, false), after.as_ref().map(|(key, name)| (*key, name)), PAGE_MAX).await?;
            out.extend(page);
            if !has_more {
                return Ok(out);
            }
        }
    }

    /// Everything below a directory after a cursor, by path; whether there is more.
    pub(super) async fn walk(
        &self,
        top: Directory,
        descending: bool,
        after: Option<&RelPath>,
        limit: usize,
    ) -> ServiceResult<(Vec<Shown>, bool)> {
        let mut frames = self.frames_to(top, descending, after).await?;
        let mut out = Vec::new();
        while let Some(frame) = frames.last_mut() {
            if out.len() > limit {
                break;
            }
            if frame.read.is_empty() && !frame.is_whole {
                let after = frame.after.as_ref().map(|name| (0, name));
                let (read, has_more) = self.page(&frame.directory, (Order::Name, descending), after, limit + 1 - out.len()).await?;
                frame.after = read.last().map(|s| s.entry.name.clone()).or(frame.after.take());
                (frame.read, frame.is_whole) = (read.into(), !has_more);
            }
            let Some(shown) = frame.read.pop_front() else {
                if frame.is_whole {
                    let done = frames.pop();
                    out.extend(done.and_then(|frame| frame.last));
                }
                continue;
            };
            match shown.directory() {
                Some(directory) if descending => frames.push(Frame::new(directory, None, Some(shown))),
                Some(directory) => {
                    frames.push(Frame::new(directory, None, None));
                    out.push(shown);
                }
                None => out.push(shown),
            }
        }
        let has_more = out.len() > limit;
        out.truncate(limit);
        Ok((out, has_more))
    }

    /// The directories between the top and the place where a walk goes on, each after what was given out.
    async fn frames_to(&self, top: Directory, descending: bool, after: Option<&RelPath>) -> ServiceResult<Vec<Frame>> {
        let depth = top.path.names().len();
        let names = after.filter(|path| path.starts_with(&top.path)).map_or(&[][..], |path| &path.names()[depth..]);
        let mut frames = Vec::new();
        let (mut directory, mut last) = (top, None);
        for (n, name) in names.iter().enumerate() {
            let shown = self.look(&directory, name).await?;
            frames.push(Frame::new(directory, Some(name.clone()), last.take()));
            // Falling, a directory that was given out is through; rising, what is in it comes next.
            let is_through = descending && n + 1 == names.len();
            match shown.and_then(|s| Some((s.directory()?, s))) {
                Some((next, shown)) if !is_through => {
                    directory = next;
                    last = descending.then_some(shown);
                }
                _ => return Ok(frames),
            }
        }
        frames.push(Frame::new(directory, None, last));
        Ok(frames)
    }
}

impl Content {
    /// Lists what a namespace shows.
    pub async fn list_files(&self, entry: &Entry, query: &ListQuery) -> ServiceResult<FilePage> {
        let (view, limit) = (self.view(entry.row.id), query.limit.clamp(1, PAGE_MAX));
        let (shown, has_more) = match &query.directory {
            Some(path) => {
                entry.confine(path)?;
                let directory = view.directory(path).await?;
                let after = query.after.as_ref().and_then(|c| Some((c.key, c.path.names().last()?)));
                view.page(&directory, (query.sort, query.descending), after, limit).await?
            }
            None if query.sort == Sort::Name => {
                let top = view.directory(&entry.within).await?;
                view.walk(top, query.descending, query.after.as_ref().map(|c| &c.path), limit).await?
            }
            None => self.everything_by(entry, query, limit).await?,
        };
        let next = shown.last().filter(|_| has_more).map(|s| ListCursor::of(s, query.sort));
        let mut files = Vec::with_capacity(shown.len());
        for one in &shown {
            files.push(self.describe(entry.row.id, one).await?);
        }
        Ok(FilePage { files, next })
    }

    /// Everything at any depth by size or time: the one list that needs the whole tree.
    async fn everything_by(&self, entry: &Entry, query: &ListQuery, limit: usize) -> ServiceResult<(Vec<Shown>, bool)> {
        let tree = self.tree(entry.row.id).await?;
        let (within, query) = (entry.clone(), query.clone());
        let sorted = off_thread(move || {
            let shown = |(path, entry): (&RelPath, &ferry_protocol::read::Entry)| {
                Some(Shown { path: path.clone(), entry: entry.clone(), times: *tree.rows.get(&entry.node)? })
            };
            let is_open = |s: &Shown| within.confine_below(&s.path).is_ok();
            let is_next = |s: &Shown| query.after.as_ref().is_none_or(|c| c.is_before(&ListCursor::of(s, query.sort), query.descending));
            let mut found: Vec<Shown> = tree.entries.iter().filter_map(shown).filter(|s| is_open(s) && is_next(s)).collect();
            found.sort_by_cached_key(|s| ListCursor::of(s, query.sort));
            if query.descending {
                found.reverse();
            }
            let has_more = found.len() > limit;
            found.truncate(limit);
            (found, has_more)
        });
        sorted.await
    }
}

/// The cursor of a client.
pub fn parse_cursor(text: &str) -> ServiceResult<ListCursor> {
    ListCursor::parse(text).ok_or_else(|| ServiceError::malformed("'cursor' is not one of this relay."))
}
