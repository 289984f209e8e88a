//! Whole files and parts of them, streamed from verified chunks.

use super::read::runs;
use super::recheck::RECHECK_MS;
use super::{ChunkStream, Content, Entry, Recheck};
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::{ChunkRef, ContentHash, Name, NamespaceId, NodeId, RelPath, read};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A file to be downloaded: what the headers say, and what the body is read from.
#[derive(Debug, Clone)]
pub struct Download {
    namespace: NamespaceId,
    chunks: Vec<ChunkRef>,
    pub(super) recheck: Option<Recheck>,
    /// Its name.
    pub name: Name,
    /// Hash of the whole.
    pub hash: ContentHash,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Its modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// What its name suggests that it is.
    pub media_type: &'static str,
}

impl Download {
    /// Asks this now and then while it is read.
    #[must_use]
    pub fn watched(mut self, recheck: Recheck) -> Self {
        self.recheck = Some(recheck);
        self
    }

    /// The file as an entry shows it.
    pub(super) fn of(namespace: NamespaceId, path: &RelPath, shown: &read::Entry) -> ServiceResult<Self> {
        let name = path.names().last().ok_or_else(ServiceError::not_found)?.clone();
        let content = shown.content.file().ok_or_else(|| ServiceError::conflict("not_a_file", "Only files can be downloaded."))?;
        Ok(Self {
            namespace,
            chunks: content.manifest.chunks().to_vec(),
            recheck: None,
            media_type: super::derive::media_type(name.as_bytes()),
            name,
            hash: content.manifest.hash(),
            size_bytes: content.manifest.size(),
            mtime_ns: content.mtime_ns,
        })
    }
}

/// Batches that wait for a slow reader.
const BATCHES_AHEAD: usize = 2;

impl Content {
    /// The file as it is shown now, or one of its versions by id or by number.
    pub async fn download(&self, entry: &Entry, file: NodeId, version: Option<&str>) -> ServiceResult<Download> {
        entry.check_shown(file, version.is_some())?;
        let nodes = self.meta.nodes(entry.row.id, &[file]).await?;
        let state = &nodes.first().ok_or_else(ServiceError::not_found)?.state;
        let name = state.places()[0].name.clone();
        let media_type = super::derive::media_type(name.as_bytes());
        let namespace = entry.row.id;
        if let Some(wanted) = version {
            let rows = self.meta.versions(namespace, file).await?;
            let row = rows.into_iter().find(|v| is_version(wanted, v.version_id, v.number)).ok_or_else(ServiceError::not_found)?;
            let chunks = self.meta.version_chunks(namespace, row.version_id).await?;
            return Ok(Download {
                namespace,
                chunks,
                recheck: None,
                name,
                hash: row.hash,
                size_bytes: row.size_bytes,
                mtime_ns: row.mtime_ns,
                media_type,
            });
        }
        let shown = read::shown(state.body());
        let value = shown.first().ok_or_else(ServiceError::not_found)?.value;
        let Some(content) = value.content.file() else {
            return Err(ServiceError::conflict("not_a_file", "Only files can be downloaded."));
        };
        let manifest = &content.manifest;
        Ok(Download {
            namespace,
            chunks: manifest.chunks().to_vec(),
            recheck: None,
            name,
            hash: manifest.hash(),
            size_bytes: manifest.size(),
            mtime_ns: state.mtime_ns(value).unwrap_or(content.mtime_ns),
            media_type,
        })
    }

    /// Streams these bytes of the file. What cannot be served whole is an error before the first byte, as far as rows tell, and breaks the
    /// stream off otherwise: never wrong bytes (RC4). So does a right that has ended, a minute later at most (R21).
    pub async fn read_file(self: &Arc<Self>, download: &Download, range: Range<u64>) -> ServiceResult<ChunkStream> {
        let (mut wanted, mut at) = (Vec::new(), 0u64);
        for chunk in &download.chunks {
            let end = at + u64::from(chunk.len);
            if end > range.start && at < range.end {
                wanted.push((at, *chunk));
            }
            at = end;
        }
        let ids: Vec<_> = wanted.iter().map(|(_, c)| c.id).collect();
        let found = self.meta.locate_chunks(download.namespace, &ids, true).await?;
        let Some(locations) = ids.iter().map(|id| found.get(id).copied()).collect::<Option<Vec<_>>>() else {
            tracing::error!(hash = %download.hash, "a committed file lacks chunks");
            return Err(ServiceError::unavailable("A part of this file is damaged on the relay. A device that has it will heal it.")
                .source("chunks of a committed version are not in the store"));
        };
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let (this, recheck) = (Arc::clone(self), download.recheck.clone());
        tokio::spawn(async move {
            let mut asked_at_ms = this.clock.now_ms();
            let mut offsets = wanted.into_iter().map(|(at, _)| at);
            for run in runs(locations) {
                let chunks = match this.read_run(run).await {
                    Ok(chunks) => chunks,
                    Err(error) => return drop(sender.send(Err(error)).await),
                };
                for (id, bytes) in chunks {
                    let (Some(at), Some(bytes)) = (offsets.next(), bytes) else {
                        let error = ServiceError::unavailable("A part of this file is damaged on the relay.").source(id);
                        return drop(sender.send(Err(error)).await);
                    };
                    if let Some(recheck) = &recheck
                        && this.clock.now_ms() - asked_at_ms >= RECHECK_MS
                    {
                        if let Err(error) = recheck.ask().await {
                            return drop(sender.send(Err(error)).await);
                        }
                        asked_at_ms = this.clock.now_ms();
                    }
                    let from = range.start.saturating_sub(at).min(bytes.len() as u64) as usize;
                    let to = (range.end - at).min(bytes.len() as u64) as usize;
                    if sender.send(Ok(bytes.slice(from..to))).await.is_err() {
                        return;
                    }
                }
            }
        });
        ChunkStream::begun(receiver).await
    }
}

pub(super) fn is_version(wanted: &str, id: [u8; 16], number: u64) -> bool {
    wanted.replace('-', "").eq_ignore_ascii_case(&hex::encode(id)) || wanted.parse() == Ok(number)
}
