//! Moving a user to another shard while the relay serves (docs/adr/0007-sharding-by-user.md).
//!
//! * Bytes are stored anew for the new shard, rows are copied as they are, and both once more for what has changed meanwhile: all of this while
//!   everybody reads and writes. Then writers are told to come back (503), for a time with a bound, while what changed last is copied and compared;
//!   then the directory changes (MV2). Readers go on throughout.
//! * Every step may be the last one that this process lives to see: the next run finds what was noted, and goes on or goes back. Nothing is removed
//!   from the old shard before everybody has been led to the new one.
//! * Feed numbers, epochs, ids of versions and answers to commits are rows: devices notice nothing.

use super::read::runs;
use super::regions::rows_for;
use super::rewrite::packed;
use super::{Content, patiently, random};
use crate::service::{Kind, ServiceError, ServiceResult};
use crate::store::content::{ChunkLocation, PackId, PackRow, Scope, Shard, StoredChunk};
use crate::store::moves::{Alone, Brought, MoveRow, ShardMoves, Switched};
use bytes::Bytes;
use ferry_protocol::{ChunkId, NamespaceId, UserId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Chunks that are looked at at once.
const BATCH: usize = 2000;
/// A new pack is written when so many bytes are gathered.
const GATHER_BYTES: usize = 16 * 1024 * 1024;
/// Rounds of copying before writers are kept out; each finds less that is new.
const ROUNDS_MAX: usize = 5;
/// How often a namespace is copied again because chunks that it needs came, or were swept away in the new shard, meanwhile.
const AGAIN_MAX: usize = 3;
/// What is left of the time for which writers are kept out when the copying in it must be done: for the switch.
const SWITCH_FOR: Duration = Duration::from_secs(10);

/// A move that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct MoveWish {
    /// Whose content.
    pub user: UserId,
    /// To where.
    pub to: Shard,
    /// How long writers may be kept out while the last changes are copied; ten seconds more for the switch.
    pub pause_max: Duration,
    /// How long the old rows stay for readers that have just asked where to read: longer than one may wait for a connection.
    pub settle: Duration,
}

/// What has happened, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum MoveStep {
    /// A move that an earlier run left is taken up.
    Resumed,
    /// What an earlier run left was taken back.
    Undone,
    /// It is noted.
    Noted,
    /// So many chunks of these bytes have been stored for the new shard since the last such step.
    Chunks {
        /// Chunks.
        chunks: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A namespace was compared, and copied if it was another.
    Namespace {
        /// Its rows.
        rows: u64,
        /// Whether it was copied.
        is_copied: bool,
    },
    /// Writers are kept out.
    Held,
    /// Everybody is led to the new shard.
    Switched,
    /// The copy is no copy any more.
    Arrived,
    /// The old rows are gone.
    Cleared,
}

/// What a move did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MoveReport {
    /// Where the user was.
    pub from: u16,
    /// Where the user is now.
    pub to: u16,
    /// Namespaces of the user.
    pub namespaces: u64,
    /// Their rows.
    pub rows: u64,
    /// Chunks that were stored for the new shard.
    pub chunks: u64,
    /// Their bytes.
    pub chunk_bytes: u64,
    /// Chunks that are damaged, there as here, until a device sends them again.
    pub chunks_damaged: u64,
    /// For how many milliseconds writers were told to come back.
    pub paused_ms: u64,
}

/// Hears of each step; an error ends the move there, as if the process had ended.
pub type Told<'a> = dyn FnMut(MoveStep) -> ServiceResult<()> + Send + 'a;

impl Content {
    fn moves(&self) -> ServiceResult<&dyn ShardMoves> {
        self.meta.moves().filter(|_| self.meta.shards().len() > 1).ok_or_else(|| {
            ServiceError::conflict("one_shard", "This relay has one shard.")
                .hint("Name more databases in database.shards; see the operations guide.")
        })
    }

    fn must_know(&self, shard: Shard) -> ServiceResult<()> {
        if self.meta.shards().contains(&shard) {
            return Ok(());
        }
        Err(ServiceError::conflict("no_such_shard", format!("There is no shard {shard} in database.shards.")))
    }

    /// Moves that are not finished.
    pub async fn unfinished_moves(&self) -> ServiceResult<Vec<MoveRow>> {
        match self.meta.moves() {
            Some(moves) => Ok(moves.noted().await?),
            None => Ok(Vec::new()),
        }
    }

    /// Lets no user move as long as the answer lives; nothing where nobody can.
    pub async fn hold_moves(&self) -> ServiceResult<Option<Alone>> {
        match self.meta.moves() {
            Some(moves) => Ok(Some(alone(moves).await?)),
            None => Ok(None),
        }
    }

    /// All users of a shard.
    pub async fn users_in(&self, shard: Shard) -> ServiceResult<Vec<UserId>> {
        self.must_know(shard)?;
        let moves = self.moves()?;
        let mut all = Vec::new();
        loop {
            let page = moves.users_in(shard, all.last().copied(), BATCH).await?;
            let is_last = page.len() < BATCH;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Shards in which nobody new is placed.
    pub async fn closed_shards(&self) -> ServiceResult<BTreeSet<Shard>> {
        match self.meta.moves() {
            Some(moves) => Ok(moves.closed().await?),
            None => Ok(BTreeSet::new()),
        }
    }

    /// Says whether new users may be placed in a shard; who is there stays, with what they make there. One stays open.
    pub async fn close_shard(&self, shard: Shard, is_closed: bool) -> ServiceResult<()> {
        self.must_know(shard)?;
        let moves = self.moves()?;
        let closed = moves.closed().await?;
        let others = self.meta.shards().into_iter().filter(|other| *other != shard && !closed.contains(other)).count();
        if is_closed && others == 0 {
            return Err(ServiceError::conflict("last_shard", format!("No other shard than {shard} takes new users."))
                .hint("Open one with ferry-relay shard open, or add one to database.shards."));
        }
        let attempt = async || ServiceResult::Ok(moves.set_closed(shard, is_closed, self.clock.now_ms()).await?);
        patiently!(attempt().await)
    }

    /// What a move would copy, without changing anything.
    pub async fn rehearse_move(&self, user: UserId, to: Shard) -> ServiceResult<MoveReport> {
        let moves = self.moves()?;
        self.must_know(to)?;
        let from = moves.place_of(user).await?.ok_or_else(ServiceError::not_found)?;
        let mut report = MoveReport { from: from.0, to: to.0, ..MoveReport::default() };
        if from == to {
            return Ok(report);
        }
        let row = MoveRow { user, from, to, is_switched: false, started_at_ms: 0 };
        for namespace in moves.namespaces(&row).await? {
            report.namespaces += 1;
            report.rows += moves.rows(from, namespace).await?;
            let mut after = None;
            loop {
                let (lacking, next) = moves.lacking(&row, namespace, after, BATCH).await?;
                report.chunks += lacking.len() as u64;
                report.chunk_bytes += lacking.iter().map(|c| u64::from(c.location.len)).sum::<u64>();
                report.chunks_damaged += lacking.iter().filter(|c| c.is_damaged).count() as u64;
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(report)
    }

    /// Moves a user, or takes up a move that was cut short; to where the user is already: takes it back. Done once more, nothing happens.
    pub async fn move_user(&self, wish: &MoveWish, told: &mut Told<'_>) -> ServiceResult<MoveReport> {
        let moves = self.moves()?;
        self.must_know(wish.to)?;
        let _alone = alone(moves).await?;
        let left = moves.noted().await?.into_iter().find(|row| row.user == wish.user);
        if let Some(left) = left {
            if left.is_switched {
                told(MoveStep::Resumed)?;
                self.end_move(moves, &left, wish.settle, told).await?;
            } else if left.to != wish.to || moves.place_of(wish.user).await?.is_none() {
                undo(moves, &left).await?;
                told(MoveStep::Undone)?;
            } else {
                told(MoveStep::Resumed)?;
            }
        }
        let from = moves.place_of(wish.user).await?.ok_or_else(ServiceError::not_found)?;
        if from == wish.to {
            return Ok(MoveReport { from: left.map_or(from, |left| left.from).0, to: from.0, ..MoveReport::default() });
        }
        moves.note(wish.user, from, wish.to, self.clock.now_ms()).await?;
        told(MoveStep::Noted)?;
        let row = MoveRow { user: wish.user, from, to: wish.to, is_switched: false, started_at_ms: 0 };
        self.carry(moves, &row, wish, told).await
    }

    async fn carry(&self, moves: &dyn ShardMoves, row: &MoveRow, wish: &MoveWish, told: &mut Told<'_>) -> ServiceResult<MoveReport> {
        let mut report = MoveReport { from: row.from.0, to: row.to.0, ..MoveReport::default() };
        for _ in 0..ROUNDS_MAX {
            if !self.bring_all(moves, row, false, &mut report, told).await? {
                break;
            }
        }
        let pause = wish.pause_max + SWITCH_FOR;
        let until_ms = patiently!(hold(moves, row, pause).await)?;
        let held_at = Instant::now();
        let mut has_died = false;
        let mut hears = |step| told(step).inspect_err(|_| has_died = true);
        let switched = self.switch_held(moves, row, wish, until_ms, &mut report, &mut hears).await;
        if let Err(error) = switched {
            if !has_died {
                let_in(moves, row, &error).await;
            }
            return Err(error);
        }
        report.paused_ms = u64::try_from(held_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        told(MoveStep::Switched)?;
        self.end_move(moves, row, wish.settle, told).await?;
        Ok(report)
    }

    /// What is done while writers are kept out.
    async fn switch_held(
        &self,
        moves: &dyn ShardMoves,
        row: &MoveRow,
        wish: &MoveWish,
        until_ms: i64,
        report: &mut MoveReport,
        told: &mut Told<'_>,
    ) -> ServiceResult<()> {
        told(MoveStep::Held)?;
        let brought = tokio::time::timeout(wish.pause_max, self.bring_all(moves, row, true, report, told)).await;
        brought.map_err(|_| {
            let text = format!("The last changes could not be copied in {} s; nothing has changed.", wish.pause_max.as_secs());
            ServiceError::new(Kind::Unavailable, "pause_too_short", text)
                .hint("Allow more time with --pause, or come back when less is written.")
        })??;
        match moves.switch(row, until_ms).await? {
            Switched::Done => Ok(()),
            Switched::Lapsed => {
                Err(ServiceError::unavailable("Writers were let in before everybody was led to the new shard; run this again."))
            }
            Switched::Gone => {
                undo(moves, row).await?;
                Err(ServiceError::not_found())
            }
        }
    }

    /// What comes after the switch.
    async fn end_move(&self, moves: &dyn ShardMoves, row: &MoveRow, settle: Duration, told: &mut Told<'_>) -> ServiceResult<()> {
        moves.arrive(row).await?;
        told(MoveStep::Arrived)?;
        tokio::time::sleep(settle).await;
        moves.clear(row.from, row.user).await?;
        // Deleted since: then nothing is to be kept anywhere.
        if moves.place_of(row.user).await?.is_none() {
            moves.clear(row.to, row.user).await?;
        }
        told(MoveStep::Cleared)?;
        Ok(moves.done(row.user).await?)
    }

    /// Brings every namespace to the new shard. Returns whether anything was not there yet.
    async fn bring_all(
        &self,
        moves: &dyn ShardMoves,
        row: &MoveRow,
        is_held: bool,
        report: &mut MoveReport,
        told: &mut Told<'_>,
    ) -> ServiceResult<bool> {
        let (mut has_changed, mut namespaces, mut rows) = (false, 0, 0);
        for namespace in moves.namespaces(row).await? {
            let brought = match self.bring(moves, row, namespace, report, told).await {
                // So much is written there that its chunks could not be caught up with: they are when writers are kept out.
                Err(error) if error.kind() == Kind::Conflict && !is_held => Brought { has_changed: true, rows: 0 },
                other => other?,
            };
            has_changed |= brought.has_changed;
            namespaces += 1;
            rows += brought.rows;
            told(MoveStep::Namespace { rows: brought.rows, is_copied: brought.has_changed })?;
        }
        (report.namespaces, report.rows) = (namespaces, rows);
        Ok(has_changed)
    }

    async fn bring(
        &self,
        moves: &dyn ShardMoves,
        row: &MoveRow,
        namespace: NamespaceId,
        report: &mut MoveReport,
        told: &mut Told<'_>,
    ) -> ServiceResult<Brought> {
        let mut again = 0;
        loop {
            self.bring_chunks(moves, row, namespace, report, told).await?;
            let brought = patiently!(async { ServiceResult::Ok(moves.bring(row, namespace).await?) }.await);
            match brought {
                Err(error) if error.kind() == Kind::Conflict && again < AGAIN_MAX => again += 1,
                other => return other,
            }
        }
    }

    /// Stores the chunks that the new shard lacks.
    async fn bring_chunks(
        &self,
        moves: &dyn ShardMoves,
        row: &MoveRow,
        namespace: NamespaceId,
        report: &mut MoveReport,
        told: &mut Told<'_>,
    ) -> ServiceResult<()> {
        let mut after = None;
        loop {
            let (lacking, next) = moves.lacking(row, namespace, after, BATCH).await?;
            let damaged = self.bring_page(row, lacking, report, told).await?;
            report.chunks_damaged += damaged.len() as u64;
            self.write_damaged(row, damaged).await?;
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Stores these chunks, read as their neighbours stand. Returns those of which there are no good bytes.
    async fn bring_page(
        &self,
        row: &MoveRow,
        lacking: Vec<StoredChunk>,
        report: &mut MoveReport,
        told: &mut Told<'_>,
    ) -> ServiceResult<Vec<ChunkLocation>> {
        let mut wanted: Vec<ChunkLocation> = lacking.into_iter().map(|c| c.location).collect();
        wanted.sort_by_key(|l| (l.pack, l.offset));
        let by_id: BTreeMap<ChunkId, ChunkLocation> = wanted.iter().map(|l| (l.id, *l)).collect();
        let (mut gathered, mut bytes, mut damaged) = (Vec::new(), 0, Vec::new());
        for run in runs(wanted) {
            for (id, chunk) in self.read_run(run).await? {
                let Some(location) = by_id.get(&id) else { continue };
                match chunk {
                    Some(chunk) => {
                        bytes += chunk.len();
                        gathered.push((*location, chunk));
                    }
                    None => damaged.push(*location),
                }
            }
            if bytes >= GATHER_BYTES {
                self.write_pack(row, std::mem::take(&mut gathered), report, told).await?;
                bytes = 0;
            }
        }
        self.write_pack(row, gathered, report, told).await?;
        Ok(damaged)
    }

    /// The blob first, then its rows in the new shard (I7).
    async fn write_pack(
        &self,
        row: &MoveRow,
        chunks: Vec<(ChunkLocation, Bytes)>,
        report: &mut MoveReport,
        told: &mut Told<'_>,
    ) -> ServiceResult<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let (number, bytes) = (chunks.len() as u64, chunks.iter().map(|(_, b)| b.len() as u64).sum::<u64>());
        let id = PackId(random()?);
        let (parts, locations, length_bytes) = packed(id, chunks);
        self.place_pack(row, PackRow { id, length_bytes, created_at_ms: self.clock.now_ms() }, parts, &locations, false).await?;
        report.chunks += number;
        report.chunk_bytes += bytes;
        told(MoveStep::Chunks { chunks: number, bytes })
    }

    /// Chunks of which there are no good bytes stay what they are, for devices to be asked for them: marked, in a pack of nothing.
    async fn write_damaged(&self, row: &MoveRow, chunks: Vec<ChunkLocation>) -> ServiceResult<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let id = PackId(random()?);
        let locations: Vec<ChunkLocation> = chunks.into_iter().map(|l| ChunkLocation { pack: id, offset: 0, ..l }).collect();
        self.place_pack(row, PackRow { id, length_bytes: 0, created_at_ms: self.clock.now_ms() }, Vec::new(), &locations, true).await
    }

    async fn place_pack(
        &self,
        row: &MoveRow,
        pack: PackRow,
        parts: Vec<Bytes>,
        locations: &[ChunkLocation],
        is_damaged: bool,
    ) -> ServiceResult<()> {
        let region = self.blobs.home_of(row.user).await?;
        let copies = rows_for(&[region.clone()].into());
        self.blobs.put(&region, pack.id, parts).await?;
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Shard(row.to)).await?;
            tx.add_pack(pack, locations).await?;
            if !copies.is_empty() {
                tx.set_copies(pack.id, &copies).await?;
            }
            if is_damaged {
                let marks: Vec<_> = locations.iter().map(|l| (*l, "missing")).collect();
                tx.mark_damaged(&marks, pack.created_at_ms).await?;
            }
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)
    }
}

async fn alone(moves: &dyn ShardMoves) -> ServiceResult<Alone> {
    moves.alone().await?.ok_or_else(|| {
        ServiceError::new(Kind::Unavailable, "moves_busy", "Another process moves a user, or makes a backup. Try again when it is done.")
    })
}

async fn hold(moves: &dyn ShardMoves, row: &MoveRow, pause: Duration) -> ServiceResult<i64> {
    Ok(moves.hold(row, i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)).await?)
}

/// Lets writers in again after a failure in their pause, if the user surely is where they write. If not, the pause ends by itself, and whoever comes then
/// asks the directory.
async fn let_in(moves: &dyn ShardMoves, row: &MoveRow, after: &ServiceError) {
    let released = async {
        match moves.place_of(row.user).await? {
            Some(place) if place == row.from && !after.is_in_doubt() => moves.release(row).await.map(|()| true),
            place => Ok(place.is_none()),
        }
    };
    match released.await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(user = %row.user, "where the user is now is not certain: writers come back when the pause ends"),
        Err(error) => tracing::warn!(user = %row.user, %error, "writers could not be let in again: they come back when the pause ends"),
    }
}

/// Takes a move back that has not been switched: writers first, then the copy.
async fn undo(moves: &dyn ShardMoves, row: &MoveRow) -> ServiceResult<()> {
    moves.release(row).await?;
    moves.clear(row.to, row.user).await?;
    if moves.place_of(row.user).await?.is_none() {
        moves.clear(row.from, row.user).await?;
    }
    Ok(moves.done(row.user).await?)
}
