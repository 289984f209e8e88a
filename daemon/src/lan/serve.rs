//! What peers are given: our feed, page after page, and the chunks that they ask for.

use super::body::Bodies;
use super::folder::{LanFolder, PeerWake};
use super::hub::Hub;
use super::link::{Link, NotSent, STALL_MAX};
use crate::fs::{self, Root};
use bytes::Bytes;
use ferry_engine::ChunkPlace;
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::message::FeedCursor;
use ferry_protocol::lan::{ChunkAnswer, ChunkAsk};
use ferry_protocol::limits::CHUNK_MAX_BYTES;
use ferry_protocol::wire::ChunkFrame;
use ferry_protocol::{ChunkId, VerifiedChunk};
use quinn::{RecvStream, SendStream};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Requests of one peer that are answered at once; others wait their turn.
const ANSWERS_MAX: usize = 6;
/// Pieces of an answer that wait to be sent.
const PIECES_AHEAD: usize = 3;
/// Small chunks go out together in pieces of this size, in bytes.
const PIECE_BYTES: usize = 128 << 10;
/// A chunk of which this much, in bytes, compresses well is compressed whole.
const SAMPLE_BYTES: usize = 16 << 10;
/// Chunks below this size, in bytes, are not worth the trouble.
const PACK_MIN_BYTES: usize = SAMPLE_BYTES;
/// How fast and how little zstd compresses.
const PACK_LEVEL: i32 = 1;
/// While our feed goes on growing a peer is told this often: a page costs a write to the disk here, and work there. What comes after a pause is told at
/// once.
const PAGES_EVERY: Duration = Duration::from_millis(80);

/// Answers requests for chunks until the connection ends.
pub(super) async fn accept(hub: Arc<Hub>, link: Arc<Link>) {
    let slots = Arc::new(Semaphore::new(ANSWERS_MAX));
    while let Ok((send, receive)) = link.connection.accept_bi().await {
        let Ok(permit) = slots.clone().acquire_owned().await else { return };
        let (hub, link) = (hub.clone(), link.clone());
        tokio::spawn(async move {
            let _permit = permit;
            answer(&hub, &link, send, receive).await;
        });
    }
}

async fn answer(hub: &Hub, link: &Link, mut send: SendStream, mut receive: RecvStream) {
    let mut kind = [0];
    let read = super::body::timely(async { receive.read_exact(&mut kind).await.map_err(|_| quinn::ReadError::ClosedStream) }).await;
    if read.is_err() || kind[0] != StreamKind::Chunks as u8 || !link.is_greeted() {
        return link.close(ferry_protocol::lan::End::Broken.code());
    }
    let ask = match Bodies::new(receive, StreamKind::Chunks).next::<ChunkAsk>(link, true).await {
        Ok(Some(ask)) => ask,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(peer = %link.device, %error, "a request for chunks");
            return link.close(ferry_protocol::lan::End::Broken.code());
        }
    };
    let again = ChunkAsk { namespace: ask.namespace, ids: Vec::new() };
    let folder = hub.answering(link, &ask);
    let is_given = folder.is_some();
    let _answering = folder.as_ref().map(LanFolder::begin_answer);
    let mut pieces = match folder {
        Some(folder) => read_chunks(folder, ask.ids).await,
        // The same answer as for hashes that nobody has (L2).
        None => absent(ask.ids),
    };
    while let Some(piece) = pieces.recv().await {
        // It may have been removed while this was being answered (L05).
        if is_given && hub.answering(link, &again).is_none() {
            return;
        }
        for bytes in piece {
            if let Err(error) = link.send_bytes(&mut send, bytes).await {
                return tracing::debug!(peer = %link.device, %error, "answering a request for chunks");
            }
        }
    }
    // The peer may have gone; then there is nobody to tell.
    let _ = send.finish();
}

type Pieces = mpsc::Receiver<Vec<Bytes>>;

fn absent(ids: Vec<ChunkId>) -> Pieces {
    let (pieces, out) = mpsc::channel(1);
    let all: Vec<u8> = ids.iter().flat_map(|id| ChunkFrame::absent(*id)).collect();
    // There is room for one.
    let _ = pieces.try_send(vec![Bytes::from(all)]);
    out
}

/// Reads chunks on a thread that may block, a little ahead of what is sent.
async fn read_chunks(folder: LanFolder, ids: Vec<ChunkId>) -> Pieces {
    let (root, places) = match folder.places(ids.clone()).await {
        Some((root, places)) => (Some(root), places),
        // Not open now: what is warm is given all the same.
        None => (None, vec![None; ids.len()]),
    };
    let (pieces, out) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut gathered = Gathered { pieces, small: Vec::new() };
        let mut stale = BTreeSet::new();
        for (id, place) in ids.into_iter().zip(places) {
            let root = root.as_deref();
            let chunk = folder.shared.warm.get(&id).or_else(|| read(root?, place.as_ref()?)).or_else(|| read_offered(root?, &folder, &id));
            if chunk.is_none() {
                stale.extend(place.map(|place| place.path));
            }
            if !gathered.add(id, chunk) {
                break;
            }
        }
        gathered.flush();
        // Whoever asked tries elsewhere; here the files are looked at again.
        if !stale.is_empty() {
            folder.wake(PeerWake::Stale(stale.into_iter().collect()));
        }
    });
    out
}

/// Reads and hashes a chunk: a file that was edited since gives nothing (H03).
fn read(root: &Root, at: &ChunkPlace) -> Option<VerifiedChunk<Bytes>> {
    let read = fs::read_chunk(root, &at.path, at.offset, &at.chunk).ok()?;
    // Hashed already by the reader: this only changes who owns the bytes.
    Some(read.into_owner())
}

/// A chunk of a file that is still being read here.
fn read_offered(root: &Root, folder: &LanFolder, id: &ChunkId) -> Option<VerifiedChunk<Bytes>> {
    let (path, offset, chunk) = folder.shared.offers.place(id)?;
    Some(fs::read_chunk(root, &path, offset, &chunk).ok()?.into_owner())
}

/// Small answers go out together.
struct Gathered {
    pieces: mpsc::Sender<Vec<Bytes>>,
    small: Vec<u8>,
}

impl Gathered {
    /// Whether anybody still wants to hear.
    fn add(&mut self, id: ChunkId, chunk: Option<VerifiedChunk<Bytes>>) -> bool {
        let Some(chunk) = chunk else {
            self.small.extend_from_slice(&ChunkFrame::absent(id));
            return self.flush_if(PIECE_BYTES);
        };
        let bytes = chunk.into_bytes();
        let (header, body) = match pack(&bytes) {
            Some(packed) => (ChunkAnswer::packed_header(id, bytes.len(), packed.len()).to_vec(), Bytes::from(packed)),
            None => (ChunkFrame::header(id, bytes.len()).to_vec(), bytes),
        };
        self.small.extend_from_slice(&header);
        if body.len() >= PIECE_BYTES {
            let head = Bytes::from(std::mem::take(&mut self.small));
            return self.pieces.blocking_send(vec![head, body]).is_ok();
        }
        self.small.extend_from_slice(&body);
        self.flush_if(PIECE_BYTES)
    }

    fn flush_if(&mut self, bytes: usize) -> bool {
        self.small.len() < bytes || self.flush()
    }

    fn flush(&mut self) -> bool {
        let piece = Bytes::from(std::mem::take(&mut self.small));
        piece.is_empty() || self.pieces.blocking_send(vec![piece]).is_ok()
    }
}

/// The chunk compressed, if that makes it clearly smaller: a sample is tried first.
fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < PACK_MIN_BYTES {
        return None;
    }
    let middle = (bytes.len() - bytes.len().min(SAMPLE_BYTES)) / 2;
    let sample = &bytes[middle..middle + bytes.len().min(SAMPLE_BYTES)];
    let gains = |packed: usize, plain: usize| packed < plain - plain / 4;
    let packed_sample = zstd::bulk::compress(sample, PACK_LEVEL).ok()?;
    if !gains(packed_sample.len(), sample.len()) {
        return None;
    }
    if sample.len() == bytes.len() {
        return Some(packed_sample);
    }
    zstd::bulk::compress(bytes, PACK_LEVEL).ok().filter(|packed| gains(packed.len(), bytes.len()))
}

/// The chunk that an answer holds, if it is the right one. Never unpacks more than the largest chunk (L4).
pub(super) fn unpack(id: ChunkId, len: usize, packed: &[u8]) -> Option<VerifiedChunk<Bytes>> {
    let bytes = zstd::bulk::decompress(packed, len.min(CHUNK_MAX_BYTES)).ok()?;
    VerifiedChunk::verify(id, Bytes::from(bytes)).filter(|chunk| chunk.bytes().len() == len)
}

/// Sends our feed to a peer from a cursor on, for as long as both sync the folder. A later subscription takes the place of an earlier one.
pub(super) fn start_feed(hub: Arc<Hub>, link: Arc<Link>, folder: LanFolder, cursor: Option<FeedCursor>) {
    let Some(slot) = link.feed_slot() else { return };
    let number = link.next_feed(folder.shared.namespace);
    tokio::spawn(async move {
        let _slot = slot;
        if let Err(error) = send_feed(&hub, &link, &folder, cursor, number).await {
            tracing::debug!(peer = %link.device, %error, "our feed to a peer ends");
        }
    });
}

async fn send_feed(hub: &Hub, link: &Link, folder: &LanFolder, cursor: Option<FeedCursor>, number: u64) -> Result<(), NotSent> {
    let namespace = folder.shared.namespace;
    // With all streams taken there is no feed now; the peer subscribes again when it opens the folder.
    let opened = tokio::time::timeout(STALL_MAX, link.connection.open_uni()).await;
    let Ok(Ok(mut stream)) = opened else { return Ok(()) };
    if !link.is_feed(namespace, number) {
        return Ok(());
    }
    let _ = stream.set_priority(1);
    link.send_bytes(&mut stream, [&[StreamKind::Feed as u8][..], namespace.as_bytes()].concat().into()).await?;
    let mut growth = folder.growth();
    let (mut cursor, mut first) = (cursor, true);
    let mut told = tokio::time::Instant::now() - PAGES_EVERY;
    loop {
        // Marked as seen before the page is read: what grows meanwhile is asked for again.
        growth.borrow_and_update();
        let (reply, page) = oneshot::channel();
        folder.wake(PeerWake::AskPage { cursor, reply });
        let page = page.await.ok();
        if !link.is_feed(namespace, number) || !hub.still_shares(link, namespace) {
            let _ = stream.finish();
            return Ok(());
        }
        let mut more = false;
        if let Some(page) = page {
            more = page.page.has_more;
            let moved = Some((page.page.epoch, page.page.cursor));
            if first || !page.page.nodes.is_empty() || moved != cursor {
                link.send_bytes(&mut stream, frame::frame(&page).into()).await?;
                (first, told) = (false, tokio::time::Instant::now());
            }
            cursor = moved;
        }
        if !more {
            let grown = async {
                let grown = growth.changed().await;
                tokio::time::sleep_until(told + PAGES_EVERY).await;
                grown
            };
            tokio::select! {
                grown = grown => if grown.is_err() { return Ok(()) },
                // Its place is needed for the newer one.
                () = link.feed_superseded(namespace, number) => {}
                _ = link.connection.closed() => return Ok(()),
            }
        }
    }
}
