//! Uploads of the plain API: begin, chunks by index in any order and number, complete. Nothing is visible before it is whole (I4).

use super::files::{check_place, name_of, parse_path};
use super::stage::{Staged, VerifiedFrames, verify_chunk, verify_frames};
use super::{Content, Entry, patiently, random};
use crate::service::{Caller, Kind, ServiceError, ServiceResult};
use crate::store::content::{Scope, UploadRow};
use bytes::Bytes;
use ferry_protocol::limits::FILE_MAX_BYTES;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, ContentHash, FileContent, Manifest, NamespaceId, NodeId, RelPath, node, read};
use std::collections::BTreeMap;

/// The seed's chunk size, in bytes.
pub const CHUNK_SIZE_BYTES: u64 = 4 * 1024 * 1024;
/// Missing indices named in one answer.
const MISSING_NAMED_MAX: usize = 100;

/// What a caller wants to upload.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// The file's name.
    pub file_name: String,
    /// The directory in the namespace; the root if empty.
    pub directory: String,
    /// The namespace; nothing for the caller's home. Of a new version: the one in which the file is meant.
    pub namespace: Option<NamespaceId>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Hash of the whole, if the caller knows it already: it can be told at the end, or be left to us.
    pub hash: Option<ContentHash>,
    /// The file's own time in nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
}

/// How an upload begins.
#[derive(Debug, Clone)]
pub enum UploadBegun {
    /// The caller could already read these bytes: the file is there.
    Deduplicated(Completed),
    /// Send the chunks.
    Begun(UploadRow),
}

/// A completed upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The file.
    pub node: NodeId,
    /// Its version.
    pub version_id: [u8; 16],
    /// Hash of the whole.
    pub hash: ContentHash,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was completed, in milliseconds since 1970.
    pub created_at_ms: i64,
}

/// What becomes of an upload whose name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// It is a new version of the file there.
    NewVersion,
    /// It goes beside it, under another name.
    Beside,
}

/// What an upload has and lacks.
#[derive(Debug, Clone)]
pub struct UploadState {
    /// The upload.
    pub row: UploadRow,
    /// Indices that have arrived.
    pub received: Vec<u64>,
}

/// The answer to one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadProgress {
    /// Its index.
    pub index: u64,
    /// How many are still to come.
    pub remaining: u64,
}

impl Content {
    /// Begins an upload, or makes the file at once from content that the caller may already read.
    pub async fn begin_upload(&self, caller: &Caller, new: &NewUpload) -> ServiceResult<UploadBegun> {
        let entry = self.enter_part(caller, new.namespace, Role::Editor).await?;
        let path = parse_path(&new.directory)?.join(&name_of(&new.file_name)?);
        entry.confine_below(&path)?;
        check_place(&path)?;
        self.begin_at(&entry, &path, NodeId::from_bytes(random()?), new).await
    }

    /// Begins an upload to this place, which `new` need not name.
    pub(super) async fn begin_upload_at(&self, entry: &Entry, path: &RelPath, new: &NewUpload) -> ServiceResult<UploadBegun> {
        entry.confine_below(path)?;
        check_place(path)?;
        self.begin_at(entry, path, NodeId::from_bytes(random()?), new).await
    }

    /// Begins the upload of a new version of a file, whoever may write it: also somebody with whom the file alone is shared. Name and place stay.
    pub async fn begin_version(&self, caller: &Caller, file: NodeId, new: &NewUpload) -> ServiceResult<UploadBegun> {
        let entry = self.enter_file(caller, file, new.namespace, Role::Editor).await?;
        let path = self.path_of_file(&entry, file).await?;
        self.begin_at(&entry, &path, file, new).await
    }

    /// Where a file is shown now.
    async fn path_of_file(&self, entry: &Entry, file: NodeId) -> ServiceResult<RelPath> {
        let shown = self.shown(entry.row.id, file).await?;
        entry.confine_below(&shown.path)?;
        match shown.entry.content {
            node::Content::File(_) => Ok(shown.path),
            _ => Err(ServiceError::conflict("not_a_file", "Only files have versions.")),
        }
    }

    async fn begin_at(&self, entry: &Entry, path: &RelPath, node: NodeId, new: &NewUpload) -> ServiceResult<UploadBegun> {
        let caller = &entry.caller;
        if new.size_bytes > FILE_MAX_BYTES {
            return Err(ServiceError::too_large(format!("A file has at most {FILE_MAX_BYTES} bytes.")));
        }
        if new.size_bytes == 0 && new.hash.is_some_and(|hash| hash != ContentHash::of(b"")) {
            return Err(ServiceError::invalid("file_hash_mismatch", "An empty file has another hash."));
        }
        let now_ms = self.clock.now_ms();
        let row = UploadRow {
            version_id: random()?,
            namespace: entry.row.id,
            user: caller.user_id,
            node,
            path: RelPath::from_names(path.names()[entry.within.names().len()..].to_vec()).to_bytes(),
            below: (!entry.within.is_root()).then(|| super::folder_of(caller)).flatten().map(|folder| folder.directory),
            hash: new.hash,
            size_bytes: new.size_bytes,
            mtime_ns: new.mtime_ns,
            chunk_size_bytes: CHUNK_SIZE_BYTES,
            num_chunks: new.size_bytes.div_ceil(CHUNK_SIZE_BYTES),
            completed_at_ms: None,
            created_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(self.config.grace_ms),
        };
        if let Some(hash) = new.hash
            && let Some(done) = self.deduplicate(entry, path, hash, &row, None).await?
        {
            return Ok(UploadBegun::Deduplicated(done));
        }
        self.check_quota(self.meta.quota(entry.row.owner).await?, new.size_bytes)?;
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            tx.put_upload(&row).await?;
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)?;
        Ok(UploadBegun::Begun(row))
    }

    /// Makes the file of an upload from content that the caller may read already, if there is such. The bytes need not travel again: who can read them
    /// has them. `begun` is the same upload, if it is recorded.
    async fn deduplicate(
        &self,
        entry: &Entry,
        path: &RelPath,
        hash: ContentHash,
        upload: &UploadRow,
        begun: Option<&UploadRow>,
    ) -> ServiceResult<Option<Completed>> {
        // Who may see one folder only must not get at the rest of the account by a hash (RC3).
        if upload.size_bytes == 0 || super::folder_of(&entry.caller).is_some() {
            return Ok(None);
        }
        let found = self.meta.find_content(entry.caller.user_id, entry.row.id, hash, upload.size_bytes).await?;
        let Some((namespace, source)) = found else { return Ok(None) };
        let source = self.meta.nodes(namespace, &[source]).await?;
        let file = source.first().and_then(|row| {
            let shown = read::shown(row.state.body());
            shown.iter().filter_map(|s| s.value.content.file()).find(|f| f.manifest.hash() == hash).cloned()
        });
        let Some(file) = file else { return Ok(None) };
        let chunks: Vec<(ChunkId, u32)> = file.manifest.chunks().iter().map(|c| (c.id, c.len)).collect();
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        if self.meta.held(namespace, &ids).await?.values().any(|h| h.is_damaged) {
            return Ok(None);
        }
        let content = FileContent::new(file.manifest, self.mtime_ns(upload));
        patiently!(self.place_file(entry, path, &content, upload.version_id, upload.node, &chunks, begun, Clash::NewVersion).await)
            .map(Some)
    }

    fn mtime_ns(&self, upload: &UploadRow) -> i64 {
        upload.mtime_ns.unwrap_or(self.clock.now_ms().saturating_mul(1_000_000))
    }

    /// Writes the file at its path: a new node, or a new value of the one that is shown there; or beside it.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn place_file(
        &self,
        entry: &Entry,
        path: &RelPath,
        content: &FileContent,
        version_id: [u8; 16],
        fresh: NodeId,
        leases: &[(ChunkId, u32)],
        upload: Option<&UploadRow>,
        clash: Clash,
    ) -> ServiceResult<Completed> {
        let beside = match clash {
            Clash::NewVersion => None,
            Clash::Beside => Some(super::public::free_path(&self.view(entry.row.id), path).await?),
        };
        let path = beside.as_ref().unwrap_or(path);
        let (directory, name) = path.split_last().ok_or_else(ServiceError::not_found)?;
        let view = self.view(entry.row.id);
        let (directory, to_make) = view.as_far_as_there(&directory).await?;
        // A name that was taken just now is settled as for two devices: both stay.
        let there = match to_make.is_empty() && clash == Clash::NewVersion {
            true => view.look(&directory, name).await?.map(|shown| shown.entry),
            false => None,
        };
        if there.as_ref().is_some_and(|e| e.content.is_dir()) {
            return Err(ServiceError::conflict("is_a_directory", "There is a directory of that name already. Choose another name."));
        }
        let mut edit = self.edit(entry, &there.as_ref().map(|e| e.node).into_iter().chain([fresh]).collect::<Vec<_>>()).await?;
        let now_ms = self.clock.now_ms();
        // Somebody else may have completed it since, or given it up.
        if let Some(upload) = upload
            && edit.tx().upload(upload.version_id).await?.ok_or_else(ServiceError::not_found)?.completed_at_ms.is_some()
        {
            return Err(already_completed());
        }
        if !leases.is_empty() {
            let new_bytes = edit.tx().lease_chunks(entry.row.id, leases, now_ms.saturating_add(self.config.grace_ms)).await?;
            self.check_quota(edit.tx().quota(entry.row.owner).await?, new_bytes)?;
            edit.tx().add_usage(entry.row.owner, new_bytes).await?;
        }
        let ids: Vec<ChunkId> = content.manifest.chunks().iter().map(|c| c.id).collect();
        let held = edit.tx().held(entry.row.id, &ids).await?;
        if ids.iter().any(|id| held.get(id).is_none_or(|h| h.is_damaged)) {
            return Err(ServiceError::conflict("chunks_missing", "Chunks of this upload are no longer there. Send them again."));
        }
        let (hash, size_bytes) = (content.manifest.hash(), content.manifest.size());
        let content = node::Content::File(content.clone());
        let (node, dot) = match &there {
            // A new version of a file that was moved or deleted just now: what stands at its place is not it.
            shown if edit.state(fresh).is_some() && !shown.as_ref().is_some_and(|s| shows(s, fresh)) => {
                return Err(ServiceError::conflict("moved", "The file was moved or deleted meanwhile. Complete the upload again."));
            }
            Some(shown) => (shown.node, edit.put(shown.node, &shown.dots, content)?),
            None => {
                let parent = edit.make_directories(directory.node(), to_make)?;
                (fresh, edit.create(fresh, parent, name.clone(), content))
            }
        };
        edit.name_version(dot, version_id);
        if let Some(upload) = upload {
            edit.tx().complete_upload(upload.version_id, node, hash, now_ms).await?;
        }
        self.finish(edit).await?;
        Ok(Completed { node, version_id, hash, size_bytes, created_at_ms: now_ms })
    }

    /// The caller's upload; anybody else's does not exist.
    async fn own_upload(&self, caller: &Caller, version_id: [u8; 16]) -> ServiceResult<(Entry, UploadRow)> {
        let row = self.meta.upload(caller.user_id, version_id).await?.ok_or_else(ServiceError::not_found)?;
        if row.completed_at_ms.is_none() && row.expires_at_ms < self.clock.now_ms() {
            return Err(ServiceError::new(Kind::Gone, "upload_expired", "This upload was begun too long ago. Begin it again."));
        }
        let entry = match self.enter_part(caller, Some(row.namespace), Role::Editor).await {
            Err(e) => self.enter_shared(caller, Some(row.namespace), row.node, Role::Editor, e).await?,
            Ok(entry) => entry,
        };
        entry.confine_below(&self.path_of_upload(&row).await?)?;
        Ok((entry, row))
    }

    /// Where an upload goes now: the directory that it was begun below may be elsewhere since.
    async fn path_of_upload(&self, row: &UploadRow) -> ServiceResult<RelPath> {
        let path = RelPath::parse(&row.path).map_err(ServiceError::internal)?;
        let Some(directory) = row.below else { return Ok(path) };
        let below = self.shown(row.namespace, directory).await?.path;
        Ok(path.names().iter().fold(below, |at, name| at.join(name)))
    }

    /// What an upload has and lacks.
    pub async fn upload_state(&self, caller: &Caller, version_id: [u8; 16]) -> ServiceResult<UploadState> {
        let (_, row) = self.own_upload(caller, version_id).await?;
        let received = self.meta.upload_chunks(row.namespace, version_id).await?.into_keys().collect();
        Ok(UploadState { row, received })
    }

    /// Gives an upload up.
    pub async fn abort_upload(&self, caller: &Caller, version_id: [u8; 16]) -> ServiceResult<()> {
        let (_, row) = self.own_upload(caller, version_id).await?;
        if row.completed_at_ms.is_some() {
            return Err(already_completed());
        }
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(row.namespace)).await?;
            tx.delete_upload(version_id).await?;
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)
    }

    /// Stores one chunk of an upload; the same again changes nothing.
    pub async fn put_upload_chunk(
        &self,
        caller: &Caller,
        version_id: [u8; 16],
        index: u64,
        bytes: Bytes,
        claimed: Option<ChunkId>,
    ) -> ServiceResult<UploadProgress> {
        let (entry, row) = self.own_upload(caller, version_id).await?;
        if row.completed_at_ms.is_some() {
            return Err(already_completed());
        }
        check_chunk(&row, index, bytes.len() as u64)?;
        let len = bytes.len() as u32;
        let (id, verified) = verify_chunk(bytes, claimed).await?;
        self.precheck_quota(&entry, &verified.chunks()).await?;
        self.store_upload_chunk(&entry, &row, index, ChunkRef { id, len }, &verified).await?;
        let received = self.meta.upload_chunk_count(row.namespace, version_id).await?;
        Ok(UploadProgress { index, remaining: row.num_chunks.saturating_sub(received) })
    }

    async fn store_upload_chunk(
        &self,
        entry: &Entry,
        row: &UploadRow,
        index: u64,
        chunk: ChunkRef,
        verified: &VerifiedFrames,
    ) -> ServiceResult<()> {
        let write = async |staged: &Staged| {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let admitted = self.admit(&mut *tx, entry, staged).await?;
            if admitted {
                tx.put_upload_chunk(row.version_id, index, chunk).await?;
                // What goes on does not end, however long it takes; and what has arrived waits for the rest.
                if self.is_half_over(row.expires_at_ms) {
                    let until_ms = self.clock.now_ms().saturating_add(self.config.grace_ms);
                    tx.prolong_upload(row.version_id, until_ms).await?;
                }
                tx.commit().await?;
            }
            ServiceResult::Ok(admitted)
        };
        for reuse in [true, false] {
            let staged = self.stage(entry, verified, reuse).await?;
            match patiently!(write(&staged).await) {
                Ok(true) => return Ok(()),
                Ok(false) => self.discard(&staged).await,
                Err(error) => {
                    self.discard_after(&staged, &error).await;
                    return Err(error);
                }
            }
        }
        Err(ServiceError::unavailable("The store changed while it was written. Try again."))
    }

    /// Completes an upload: every chunk there, the whole hashed, one commit. The same again gives the same answer. `told` is the hash of the whole, if the
    /// caller says it now; if the caller could read such a file all along, the chunks that have not arrived are not needed. If nobody ever says it, it is
    /// what the chunks make.
    pub async fn complete_upload(&self, caller: &Caller, version_id: [u8; 16], told: Option<ContentHash>) -> ServiceResult<Completed> {
        self.complete_with(caller, version_id, told, Clash::NewVersion).await
    }

    pub(super) async fn complete_with(
        &self,
        caller: &Caller,
        version_id: [u8; 16],
        told: Option<ContentHash>,
        clash: Clash,
    ) -> ServiceResult<Completed> {
        let (entry, row) = self.own_upload(caller, version_id).await?;
        if let Some(done) = completed(&row, told)? {
            return Ok(done);
        }
        match self.complete_open(&entry, &row, told, clash).await {
            // It was completed at the same moment: what stood in the way was the file itself, and both get the same answer (R4).
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {
                let (_, row) = self.own_upload(caller, version_id).await?;
                completed(&row, told)?.ok_or(error)
            }
            done => done,
        }
    }

    /// Completes an upload that is not complete.
    async fn complete_open(&self, entry: &Entry, row: &UploadRow, told: Option<ContentHash>, clash: Clash) -> ServiceResult<Completed> {
        let (version_id, told) = (row.version_id, row.hash.or(told));
        let chunks: BTreeMap<u64, ChunkRef> = self.meta.upload_chunks(row.namespace, version_id).await?;
        let missing: Vec<u64> = (0..row.num_chunks).filter(|i| !chunks.contains_key(i)).take(MISSING_NAMED_MAX).collect();
        if !missing.is_empty() {
            if let Some(hash) = told
                && clash == Clash::NewVersion
                && let Some(done) = self.deduplicate(entry, &self.place_of_upload(entry, row).await?, hash, row, Some(row)).await?
            {
                return Ok(done);
            }
            let detail = format!("{} of {} chunks have not arrived.", row.num_chunks - chunks.len() as u64, row.num_chunks);
            return Err(ServiceError::conflict("chunks_missing", detail).with("missing_chunks", missing));
        }
        let chunks: Vec<ChunkRef> = chunks.into_values().collect();
        let none = verify_frames(Bytes::new()).await?;
        // The hash of one chunk, or of none, is known without looking.
        let hash = match chunks.as_slice() {
            [] => ContentHash::of(b""),
            [only] => ContentHash::from_bytes(*only.id.as_bytes()),
            chunks => match self.check_whole(entry, chunks, told, &none).await? {
                Ok(hash) => hash,
                Err(_) => {
                    return Err(ServiceError::conflict("chunks_missing", "Chunks of this upload are no longer there. Send them again."));
                }
            },
        };
        if told.is_some_and(|told| told != hash) {
            return Err(hash_mismatch("The chunks are not the file that was promised."));
        }
        let manifest = Manifest::new(hash, chunks).map_err(ServiceError::internal)?;
        let path = self.place_of_upload(entry, row).await?;
        let content = FileContent::new(manifest, self.mtime_ns(row));
        patiently!(self.place_file(entry, &path, &content, version_id, row.node, &[], Some(row), clash).await)
    }

    /// Where the file of an upload goes: a new version to where its file is now.
    async fn place_of_upload(&self, entry: &Entry, row: &UploadRow) -> ServiceResult<RelPath> {
        match self.meta.nodes(row.namespace, &[row.node]).await?.is_empty() {
            true => self.path_of_upload(row).await,
            false => self.path_of_file(entry, row.node).await,
        }
    }
}

/// The answer to whoever completes an upload that is complete. An error if another hash is told than it has, or was promised to have.
fn completed(row: &UploadRow, told: Option<ContentHash>) -> ServiceResult<Option<Completed>> {
    if let (Some(promised), Some(told)) = (row.hash, told)
        && promised != told
    {
        return Err(hash_mismatch("This upload has, or was promised to have, another hash."));
    }
    let (Some(created_at_ms), Some(hash)) = (row.completed_at_ms, row.hash.or(told)) else { return Ok(None) };
    Ok(Some(Completed { node: row.node, version_id: row.version_id, hash, size_bytes: row.size_bytes, created_at_ms }))
}

fn hash_mismatch(detail: impl Into<String>) -> ServiceError {
    ServiceError::invalid("file_hash_mismatch", detail)
}

/// Whether an entry shows this node, itself or as one of several that are shown as one.
fn shows(entry: &read::Entry, node: NodeId) -> bool {
    entry.node == node || entry.twins.iter().any(|(twin, _, _)| *twin == node)
}

fn already_completed() -> ServiceError {
    ServiceError::conflict("upload_completed", "This upload is complete. Begin a new one for new content.")
}

fn check_chunk(row: &UploadRow, index: u64, len: u64) -> ServiceResult<()> {
    if index >= row.num_chunks {
        return Err(ServiceError::invalid("chunk_index", format!("This upload has chunks 0 to {}.", row.num_chunks.saturating_sub(1))));
    }
    let expected = row.chunk_size_bytes.min(row.size_bytes - index * row.chunk_size_bytes);
    if len != expected {
        return Err(
            ServiceError::invalid("chunk_size", format!("Chunk {index} has {expected} bytes, not {len}.")).with("expected_bytes", expected)
        );
    }
    Ok(())
}
