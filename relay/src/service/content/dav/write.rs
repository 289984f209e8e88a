//! A file on its way in: cut where its content says, as devices cut (so that equal parts are stored once), each chunk durable before the next few are
//! taken; the file itself appears by one edit at the end, or not at all (WD2).

use super::place::name_taken;
use super::{DavEntry, DavKind};
use crate::service::content::files::check_place;
use crate::service::content::uploads::Clash;
use crate::service::content::{Content, Entry, off_thread, patiently, random};
use crate::service::{Kind, ServiceError, ServiceResult};
use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use ferry_protocol::chunker::ChunkSizes;
use ferry_protocol::limits::FILE_MAX_BYTES;
use ferry_protocol::wire::{ChunkFrame, FRAME_HEADER_BYTES};
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, FileContent, Manifest, NodeId, RelPath};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a client says of the file that it sends.
#[derive(Debug, Clone, Default)]
pub struct WriteTerms {
    /// How many bytes will come, if that is known.
    pub size_bytes: Option<u64>,
    /// The file's own time in nanoseconds since 1970; the time of its arrival if nothing is said.
    pub mtime_ns: Option<i64>,
    /// Name and digest of a checksum of the whole, `SHA1` or `SHA256`. Others cannot be checked here and are not looked at.
    pub checksum: Option<(String, Vec<u8>)>,
    /// What must be at the place when the file is whole: nothing, or this content. The outer nothing: whatever it is.
    pub only_over: Option<Option<ContentHash>>,
}

/// A file that is being written. Dropped before [`DavWrite::finish`], it has never been; its chunks go with the sweep.
pub struct DavWrite {
    content: Arc<Content>,
    entry: Entry,
    path: RelPath,
    terms: WriteTerms,
    sizes: ChunkSizes,
    /// Bytes that are not cut yet: at most the largest chunk and one piece of what came.
    rest: BytesMut,
    whole: Sha256,
    checksum: Option<digest::Context>,
    size_bytes: u64,
    chunks: Vec<ChunkRef>,
}

impl std::fmt::Debug for DavWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DavWrite").field("path", &self.path).field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl Content {
    /// Begins to write a file at a place. The directory above it must be there; what cannot fit is refused before its first byte.
    pub async fn dav_write(self: &Arc<Self>, entry: &Entry, path: &RelPath, terms: WriteTerms) -> ServiceResult<DavWrite> {
        entry.confine_below(path)?;
        check_place(path)?;
        let size_bytes = terms.size_bytes.unwrap_or(0);
        if size_bytes > FILE_MAX_BYTES {
            return Err(too_large());
        }
        let (above, name) = path.split_last().ok_or_else(name_taken)?;
        let view = self.view(entry.row.id);
        let directory = view.directory(&above).await?;
        if view.look(&directory, name).await?.is_some_and(|there| there.entry.content.file().is_none()) {
            return Err(name_taken());
        }
        self.check_quota(self.meta.quota(entry.row.owner).await?, size_bytes)?;
        let checksum = terms.checksum.as_ref().and_then(|(name, _)| algorithm(name)).map(digest::Context::new);
        Ok(DavWrite {
            content: self.clone(),
            entry: entry.clone(),
            path: path.clone(),
            sizes: ChunkSizes::for_file(size_bytes),
            terms,
            rest: BytesMut::new(),
            whole: Sha256::new(),
            checksum,
            size_bytes: 0,
            chunks: Vec::new(),
        })
    }
}

impl DavWrite {
    /// Takes the next bytes.
    pub async fn push(&mut self, bytes: &[u8]) -> ServiceResult<()> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > FILE_MAX_BYTES {
            return Err(too_large());
        }
        self.whole.update(bytes);
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() >= self.sizes.max { self.store(false).await } else { Ok(()) }
    }

    /// Cuts what can be cut and makes it durable.
    async fn store(&mut self, is_end: bool) -> ServiceResult<()> {
        let (sizes, rest) = (self.sizes, std::mem::take(&mut self.rest));
        let (rest, frames, chunks) = off_thread(move || cut(sizes, rest, is_end)).await?;
        self.rest = rest;
        if !chunks.is_empty() {
            self.content.put_chunks(&self.entry, frames).await?;
            self.chunks.extend(chunks);
        }
        Ok(())
    }

    /// All bytes are here: checks what was promised of them and lets the file appear. `may_still` is awaited last.
    pub async fn finish(mut self, may_still: impl Future<Output = ServiceResult<()>> + Send) -> ServiceResult<DavEntry> {
        self.store(true).await?;
        if self.terms.size_bytes.is_some_and(|promised| promised != self.size_bytes) {
            return Err(ServiceError::malformed(format!("The body has {} bytes, other than was announced.", self.size_bytes)));
        }
        if let (Some(checksum), Some((name, promised))) = (self.checksum, &self.terms.checksum)
            && checksum.finish().as_ref() != &promised[..]
        {
            let detail = format!("The body does not have the {name} checksum that was promised. Nothing was stored.");
            return Err(ServiceError::new(Kind::Malformed, "checksum_mismatch", detail));
        }
        let hash = ContentHash::from_bytes(self.whole.finalize().into());
        let manifest = Manifest::new(hash, self.chunks).map_err(ServiceError::internal)?;
        may_still.await?;
        if let Some(wanted) = self.terms.only_over {
            let there = self.content.dav_look(&self.entry, &self.path).await?;
            let found = there.and_then(|there| match there.kind {
                DavKind::File { hash, .. } => Some(hash),
                DavKind::Directory => None,
            });
            if found != wanted {
                let detail = "The file has changed while the new one was sent. Read it again and repeat.";
                return Err(ServiceError::new(Kind::PreconditionFailed, "changed", detail));
            }
        }
        self.content.own_node(&self.entry, &self.path).await?;
        let mtime_ns = self.terms.mtime_ns.unwrap_or_else(|| self.content.clock.now_ms().saturating_mul(1_000_000));
        let content = FileContent::new(manifest, mtime_ns);
        let (version_id, fresh) = (random()?, NodeId::from_bytes(random()?));
        let (entry, path) = (&self.entry, &self.path);
        let done = patiently!(self.content.place_file(entry, path, &content, version_id, fresh, &[], None, Clash::NewVersion).await)?;
        let kind = DavKind::File { size_bytes: done.size_bytes, hash, mtime_ns };
        let now_ms = Some(done.created_at_ms);
        Ok(DavEntry { path: self.path, node: done.node, kind, is_copy: false, created_at_ms: now_ms, updated_at_ms: now_ms })
    }
}

/// Cuts the beginning of `rest` into chunks: what remains, the chunks as frames, and the chunks.
fn cut(sizes: ChunkSizes, mut rest: BytesMut, is_end: bool) -> (BytesMut, Bytes, Vec<ChunkRef>) {
    let (mut frames, mut chunks) = (BytesMut::with_capacity(rest.len() + FRAME_HEADER_BYTES), Vec::new());
    while let Some(len) = sizes.next_cut(&rest, is_end) {
        let chunk = rest.split_to(len);
        let id = ChunkId::of(&chunk);
        frames.extend_from_slice(&ChunkFrame::header(id, len));
        frames.extend_from_slice(&chunk);
        chunks.push(ChunkRef { id, len: len as u32 });
    }
    // The room of what was cut off is given back.
    (BytesMut::from(&rest[..]), frames.freeze(), chunks)
}

fn algorithm(name: &str) -> Option<&'static digest::Algorithm> {
    match name.to_ascii_uppercase().as_str() {
        "SHA1" => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        "SHA256" => Some(&digest::SHA256),
        _ => None,
    }
}

fn too_large() -> ServiceError {
    ServiceError::too_large(format!("A file has at most {FILE_MAX_BYTES} bytes."))
}
