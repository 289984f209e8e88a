//! Files that are still being read here: their chunks are offered to devices nearby as they are cut, so that a large file is on its way while
//! its end is not known yet.

use super::folder::LanFolder;
use ferry_protocol::lan::{Message, Piece};
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, RelPath};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files from this size on, in bytes, are offered: for smaller ones there is nothing to gain.
const FILE_MIN_BYTES: u64 = 8 << 20;
/// So many bytes are offered together.
const TOGETHER_BYTES: u64 = 4 << 20;
/// Offered chunks whose place is remembered.
const REMEMBERED_MAX: usize = 65_536;

/// Where offered chunks stand, until the index knows it.
#[derive(Default)]
pub struct Offers {
    places: Mutex<Places>,
    next: AtomicU64,
}

#[derive(Default)]
struct Places {
    by_chunk: HashMap<ChunkId, (RelPath, u64, ChunkRef)>,
    order: VecDeque<ChunkId>,
}

impl Offers {
    fn places(&self) -> MutexGuard<'_, Places> {
        // Whole between any two calls.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, offset in bytes and length of a chunk that was offered. What stands there is to be verified.
    pub fn place(&self, chunk: &ChunkId) -> Option<(RelPath, u64, ChunkRef)> {
        self.places().by_chunk.get(chunk).cloned()
    }

    fn remember(&self, path: &RelPath, piece: &Piece) {
        let mut places = self.places();
        if places.by_chunk.insert(piece.chunk.id, (path.clone(), piece.offset, piece.chunk)).is_none() {
            places.order.push_back(piece.chunk.id);
        }
        while places.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = places.order.pop_front() {
                places.by_chunk.remove(&oldest);
            }
        }
    }
}

/// One file that is being read. Ends when it is dropped.
pub struct Offering<'l> {
    lan: &'l LanFolder,
    path: RelPath,
    file: u64,
    pieces: Vec<Piece>,
    bytes: u64,
    said: bool,
    content: Option<ContentHash>,
}

impl LanFolder {
    /// Begins to offer a file of this size in bytes, if there is anybody to offer it to and it is worth it.
    pub fn offer(&self, path: &RelPath, size: u64) -> Option<Offering<'_>> {
        // What a viewer changes stays here (CR12).
        let is_viewer = self.own_role() == Some(Role::Viewer);
        if size < FILE_MIN_BYTES || is_viewer || self.peers().is_empty() {
            return None;
        }
        let file = self.shared.offers.next.fetch_add(1, Ordering::Relaxed);
        Some(Offering { lan: self, path: path.clone(), file, pieces: Vec::new(), bytes: 0, said: false, content: None })
    }
}

impl Offering<'_> {
    /// Another chunk was cut. Never waits.
    pub fn add(&mut self, piece: Piece) {
        self.lan.shared.offers.remember(&self.path, &piece);
        self.bytes += u64::from(piece.chunk.len);
        self.pieces.push(piece);
        if self.bytes >= TOGETHER_BYTES {
            self.say();
        }
    }

    /// The file was read to its end and is this.
    pub fn end(mut self, content: ContentHash) {
        self.content = Some(content);
    }

    fn say(&mut self) {
        if !self.pieces.is_empty() {
            let pieces = std::mem::take(&mut self.pieces);
            self.bytes = 0;
            self.said = true;
            self.lan.tell(&Message::Offer { namespace: self.lan.shared.namespace, file: self.file, pieces });
        }
    }
}

impl Drop for Offering<'_> {
    fn drop(&mut self) {
        if self.content.is_some() {
            self.say();
        }
        if self.said {
            self.lan.tell(&Message::OfferEnd { namespace: self.lan.shared.namespace, file: self.file, content: self.content });
        }
    }
}
