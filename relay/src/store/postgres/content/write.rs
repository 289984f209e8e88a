//! [`ContentTx`]: one transaction in one shard, and a second one in the directory where that is another database and members change with it.
//!
//! The directory commits first. What it knows of a namespace that the shard does not have is nothing yet; the other way round a namespace would be
//! there that nobody could find.

use super::{BATCH, chunks, history, nodes, purge, regions, repair, sweep, uploads, versions};
use crate::store::StoreError;
use crate::store::columns::{encode_state, role_text, signed};
use crate::store::content::*;
use crate::store::postgres::database::Writing;
use crate::store::postgres::places::{self, key};
use crate::store::postgres::{Postgres, store_error};
use crate::store::search::fold;
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, CommitId, ContentHash, DeviceId, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// A writing transaction; `begin.rs` begins it. Dropping it rolls back.
pub(in crate::store::postgres) struct PgTx {
    pub(super) store: Postgres,
    pub(super) shard: Shard,
    pub(super) tx: Writing,
    /// The directory's own transaction, once it is needed and is not the same.
    pub(super) directory: Option<Writing>,
    pub(super) identity: Option<Identity>,
    /// How many nodes it has written.
    pub(super) nodes: u64,
}

impl PgTx {
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        self.tx.conn()
    }

    /// A connection to the directory that sees what this transaction has done there.
    pub(in crate::store::postgres) async fn dir(&mut self) -> Result<&mut PgConnection, StoreError> {
        if self.store.is_directory(self.shard) {
            return Ok(self.tx.conn());
        }
        let opened = match self.directory.take() {
            Some(opened) => opened,
            None => self.store.directory().begin().await?,
        };
        Ok(self.directory.insert(opened).conn())
    }
}

/// Writes one batch of nodes.
async fn put_nodes(
    conn: &mut PgConnection,
    shard: Shard,
    namespace: &NamespaceRow,
    batch: &[NodeWrite],
    now_ms: i64,
) -> Result<(), StoreError> {
    let states = batch.iter().map(|n| encode_state(&n.state)).collect::<Result<Vec<_>, _>>()?;
    let place =
        |n: &NodeWrite| n.state.places().first().map(|p| (p.parent.as_bytes().to_vec(), p.name.as_bytes().to_vec())).unwrap_or_default();
    let (parents, names): (Vec<Vec<u8>>, Vec<Vec<u8>>) = batch.iter().map(place).unzip();
    let folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
    sqlx::query(
        "INSERT INTO files (shard_key, namespace_id, user_id, created_at, updated_at, file_id, seq, state, parent_id, file_name, file_size, file_type,
         file_hash, is_deleted, link_target, standing, search_name)
         SELECT $1, $2, $3, $4, $4, t.* FROM UNNEST($5::bytea[], $6::bigint[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bigint[], $11::text[],
         $12::bytea[], $13::boolean[], $14::bytea[], $15::smallint[], $16::text[]) AS t
         ON CONFLICT (shard_key, namespace_id, file_id) DO UPDATE SET seq = excluded.seq, state = excluded.state, parent_id = excluded.parent_id,
         file_name = excluded.file_name, search_name = excluded.search_name,
         file_size = CASE WHEN excluded.is_deleted THEN files.file_size ELSE excluded.file_size END,
         file_type = CASE WHEN excluded.is_deleted THEN files.file_type ELSE excluded.file_type END,
         file_hash = CASE WHEN excluded.is_deleted THEN files.file_hash ELSE excluded.file_hash END,
         link_target = CASE WHEN excluded.is_deleted THEN coalesce(excluded.link_target, files.link_target) ELSE excluded.link_target END,
         purged_at = CASE WHEN excluded.is_deleted THEN files.purged_at ELSE NULL END,
         is_deleted = excluded.is_deleted, updated_at = excluded.updated_at, standing = excluded.standing, is_displaced = false",
    )
    .bind(key(shard))
    .bind(namespace.id.as_bytes().to_vec())
    .bind(namespace.owner.as_bytes().to_vec())
    .bind(now_ms)
    .bind(batch.iter().map(|n| n.id.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(batch.iter().map(|n| signed(n.seq)).collect::<Vec<_>>())
    .bind(states)
    .bind(parents)
    .bind(names)
    .bind(batch.iter().map(|n| signed(n.size_bytes)).collect::<Vec<_>>())
    .bind(batch.iter().map(|n| n.file_type).collect::<Vec<_>>())
    .bind(batch.iter().map(|n| n.hash.map(|h| h.as_bytes().to_vec())).collect::<Vec<_>>())
    .bind(batch.iter().map(|n| n.is_deleted).collect::<Vec<_>>())
    .bind(batch.iter().map(|n| n.link_target.clone()).collect::<Vec<_>>())
    .bind(batch.iter().map(|n| n.standing.code()).collect::<Vec<_>>())
    .bind(folded)
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

#[async_trait]
impl ContentTx for PgTx {
    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        if let Some(directory) = self.directory.take() {
            directory.commit().await?;
        }
        let (db, nodes) = (self.store.shard(self.shard)?.clone(), self.nodes);
        self.tx.commit().await?;
        db.grew(nodes);
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) -> Result<(), StoreError> {
        if let Some(directory) = self.directory.take() {
            directory.rollback().await?;
        }
        self.tx.rollback().await
    }

    async fn identity(&mut self) -> Result<Identity, StoreError> {
        self.identity.ok_or_else(|| StoreError::Unavailable("the relay's identity was not asked for yet".into()))
    }

    async fn create_namespace(&mut self, row: &NamespaceRow, now_ms: i64) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query("INSERT INTO owners (shard_key, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(key(shard))
            .bind(row.owner.as_bytes().to_vec())
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        sqlx::query(
            "INSERT INTO namespaces (shard_key, namespace_id, owner_id, name, is_home, created_at, run_id) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key(shard))
        .bind(row.id.as_bytes().to_vec())
        .bind(row.owner.as_bytes().to_vec())
        .bind(row.name.clone())
        .bind(row.is_home)
        .bind(now_ms)
        .bind(row.run.map(|r| r.as_bytes().to_vec()))
        .execute(self.conn())
        .await
        .map_err(store_error)?;
        // What a creation left that was cut short between the two databases is the same namespace's.
        let done = sqlx::query(
            "INSERT INTO placements (namespace_id, owner_id) VALUES ($1, $2)
             ON CONFLICT (namespace_id) DO UPDATE SET owner_id = excluded.owner_id WHERE placements.owner_id = excluded.owner_id",
        )
        .bind(row.id.as_bytes().to_vec())
        .bind(row.owner.as_bytes().to_vec())
        .execute(self.dir().await?)
        .await
        .map_err(store_error)?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Conflict("a namespace of this id".into()));
        }
        self.set_member(row.id, row.owner, Role::Owner, now_ms).await
    }

    async fn namespace_for(&mut self, namespace: NamespaceId, user: UserId) -> Result<Option<NamespaceRow>, StoreError> {
        if let Some(shard) = self.store.only_shard() {
            return nodes::one_seen_by(self.conn(), shard, user, namespace).await;
        }
        let Some(found) = places::membership(self.dir().await?, namespace, user).await? else { return Ok(None) };
        let shard = self.shard;
        Ok(nodes::namespaces(self.conn(), shard, &[(namespace, found.role)]).await?.pop())
    }

    async fn shared_namespace(&mut self, namespace: NamespaceId, file: NodeId, user: UserId) -> Result<Option<NamespaceRow>, StoreError> {
        let Some(found) = places::shared(self.dir().await?, user, file, Some(namespace)).await?.pop() else { return Ok(None) };
        let shard = self.shard;
        Ok(nodes::namespaces(self.conn(), shard, &[(namespace, found.role)]).await?.pop())
    }

    async fn set_member(&mut self, namespace: NamespaceId, user: UserId, role: Role, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO members (namespace_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (namespace_id, user_id) DO UPDATE SET role = excluded.role",
        )
        .bind(namespace.as_bytes().to_vec())
        .bind(user.as_bytes().to_vec())
        .bind(role_text(role))
        .bind(now_ms)
        .execute(self.dir().await?)
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn remove_member(&mut self, namespace: NamespaceId, user: UserId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM members WHERE namespace_id = $1 AND user_id = $2")
            .bind(namespace.as_bytes().to_vec())
            .bind(user.as_bytes().to_vec())
            .execute(self.dir().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }

    async fn members(&mut self, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError> {
        nodes::members(self.dir().await?, namespace).await
    }

    async fn devices_of_members(&mut self, namespace: NamespaceId, devices: &[DeviceId]) -> Result<BTreeSet<DeviceId>, StoreError> {
        nodes::devices_of_members(self.dir().await?, namespace, devices).await
    }

    async fn nodes(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError> {
        let shard = self.shard;
        nodes::nodes(self.conn(), shard, namespace, ids).await
    }

    async fn put_nodes(
        &mut self,
        namespace: &NamespaceRow,
        nodes: &[NodeWrite],
        head_seq: u64,
        max_counter: u64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let shard = self.shard;
        let before = self.nodes;
        self.nodes += nodes.len() as u64;
        for batch in nodes.chunks(BATCH) {
            put_nodes(self.conn(), shard, namespace, batch, now_ms).await?;
        }
        let (db, now) = (self.store.shard(shard)?.clone(), self.nodes);
        db.grows(self.conn(), before, now).await?;
        history::add(self.conn(), shard, namespace.id, nodes, now_ms).await?;
        sqlx::query(
            "UPDATE namespaces SET head_seq = $3, settled_seq = $3, folded_seq = CASE WHEN folded_seq = head_seq THEN $3 ELSE folded_seq END,
             max_counter = greatest(max_counter, $4)
             WHERE shard_key = $1 AND namespace_id = $2",
        )
        .bind(key(shard))
        .bind(namespace.id.as_bytes().to_vec())
        .bind(signed(head_seq))
        .bind(signed(max_counter))
        .execute(self.conn())
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn skip_numbers(&mut self, namespace: &NamespaceRow, to_seq: u64, run: ReplicaId) -> Result<(), StoreError> {
        let shard = self.shard;
        sqlx::query("INSERT INTO feed_gaps (shard_key, namespace_id, from_seq, to_seq) VALUES ($1, $2, $3, $4)")
            .bind(key(shard))
            .bind(namespace.id.as_bytes().to_vec())
            .bind(signed(namespace.head_seq))
            .bind(signed(to_seq))
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        sqlx::query(
            "UPDATE namespaces SET head_seq = $3, folded_seq = CASE WHEN folded_seq = head_seq THEN $3 ELSE folded_seq END, run_id = $4
             WHERE shard_key = $1 AND namespace_id = $2",
        )
        .bind(key(shard))
        .bind(namespace.id.as_bytes().to_vec())
        .bind(signed(to_seq))
        .bind(run.as_bytes().to_vec())
        .execute(self.conn())
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn add_versions(&mut self, namespace: NamespaceId, versions: &[VersionWrite]) -> Result<(), StoreError> {
        let shard = self.shard;
        versions::add(self.conn(), shard, namespace, versions).await
    }

    async fn begin_rewind(&mut self, namespace: NamespaceId, row: &RewindRow) -> Result<RewindRow, StoreError> {
        let shard = self.shard;
        history::begin_rewind(self.conn(), shard, namespace, row).await
    }

    async fn advance_rewind(&mut self, namespace: NamespaceId, row: &RewindRow, from: Option<NodeId>) -> Result<bool, StoreError> {
        let shard = self.shard;
        history::advance_rewind(self.conn(), shard, namespace, row, from).await
    }

    async fn purge(&mut self, namespace: &NamespaceRow, nodes: &[(NodeId, u64)], now_ms: i64) -> Result<Purged, StoreError> {
        let shard = self.shard;
        purge::purge(self.conn(), shard, namespace, nodes, now_ms).await
    }

    async fn commit_records(
        &mut self,
        namespace: NamespaceId,
        user: UserId,
        ids: &[CommitId],
    ) -> Result<BTreeMap<CommitId, CommitRecord>, StoreError> {
        let shard = self.shard;
        versions::commit_records(self.conn(), shard, namespace, user, ids).await
    }

    async fn add_commit_records(
        &mut self,
        namespace: NamespaceId,
        records: &[(UserId, CommitId, CommitRecord)],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let shard = self.shard;
        versions::add_commit_records(self.conn(), shard, namespace, records, now_ms).await
    }

    async fn held(&mut self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError> {
        let shard = self.shard;
        chunks::held(self.conn(), shard, namespace, ids).await
    }

    async fn stored(&mut self, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
        let shard = self.shard;
        chunks::stored_and_locked(self.conn(), shard, ids).await
    }

    async fn add_pack(&mut self, pack: PackRow, locations: &[ChunkLocation]) -> Result<(), StoreError> {
        let shard = self.shard;
        chunks::add_pack(self.conn(), shard, pack, locations).await
    }

    async fn lease_chunks(&mut self, namespace: NamespaceId, list: &[(ChunkId, u32)], lease_until_ms: i64) -> Result<u64, StoreError> {
        let shard = self.shard;
        chunks::lease(self.conn(), shard, namespace, list, lease_until_ms).await
    }

    async fn quota(&mut self, user: UserId) -> Result<Quota, StoreError> {
        let limit_bytes = chunks::limit(self.dir().await?, user).await?;
        let shard = self.shard;
        Ok(Quota { used_bytes: chunks::used(self.conn(), shard, user, true).await?, limit_bytes })
    }

    async fn add_usage(&mut self, user: UserId, bytes: u64) -> Result<(), StoreError> {
        let shard = self.shard;
        chunks::add_usage(self.conn(), shard, user, bytes).await
    }

    async fn put_upload(&mut self, upload: &UploadRow) -> Result<(), StoreError> {
        let shard = self.shard;
        uploads::put(self.conn(), shard, upload).await
    }

    async fn upload(&mut self, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError> {
        let shard = self.shard;
        uploads::get(self.conn(), shard, version_id).await
    }

    async fn prolong_upload(&mut self, version_id: [u8; 16], until_ms: i64) -> Result<(), StoreError> {
        let shard = self.shard;
        uploads::prolong(self.conn(), shard, version_id, until_ms).await
    }

    async fn put_upload_chunk(&mut self, version_id: [u8; 16], index: u64, chunk: ChunkRef) -> Result<(), StoreError> {
        let shard = self.shard;
        uploads::put_chunk(self.conn(), shard, version_id, index, chunk).await
    }

    async fn complete_upload(&mut self, version_id: [u8; 16], node: NodeId, hash: ContentHash, now_ms: i64) -> Result<(), StoreError> {
        let shard = self.shard;
        uploads::complete(self.conn(), shard, version_id, node, hash, now_ms).await
    }

    async fn delete_upload(&mut self, version_id: [u8; 16]) -> Result<(), StoreError> {
        let shard = self.shard;
        uploads::delete(self.conn(), shard, version_id).await
    }

    async fn recount(&mut self) -> Result<(u64, u64), StoreError> {
        let shard = self.shard;
        repair::recount(self.conn(), shard).await
    }

    async fn mark_sound(&mut self, chunks: &[ChunkLocation]) -> Result<u64, StoreError> {
        let shard = self.shard;
        repair::mark_sound(self.conn(), shard, chunks).await
    }

    async fn mark_damaged(&mut self, list: &[(ChunkLocation, &'static str)], now_ms: i64) -> Result<(), StoreError> {
        let shard = self.shard;
        sweep::mark_damaged(self.conn(), shard, list, now_ms).await
    }

    async fn drop_leases(&mut self, now_ms: i64, limit: usize) -> Result<u64, StoreError> {
        let shard = self.shard;
        sweep::drop_leases(self.conn(), shard, now_ms, limit).await
    }

    async fn drop_expired(&mut self, uploads_before_ms: i64, commits_before_ms: i64) -> Result<(), StoreError> {
        let shard = self.shard;
        sweep::drop_expired(self.conn(), shard, uploads_before_ms, commits_before_ms).await
    }

    async fn mark_orphans(&mut self, now_ms: i64) -> Result<u64, StoreError> {
        let shard = self.shard;
        sweep::mark_orphans(self.conn(), shard, now_ms).await
    }

    async fn delete_orphans(&mut self, before_ms: i64, limit: usize) -> Result<(u64, u64), StoreError> {
        let shard = self.shard;
        sweep::delete_orphans(self.conn(), shard, before_ms, limit).await
    }

    async fn sparse_packs(&mut self, before_ms: i64, live_percent: u64, limit: usize) -> Result<Vec<(PackRow, u64)>, StoreError> {
        let shard = self.shard;
        sweep::sparse_packs(self.conn(), shard, before_ms, live_percent, limit).await
    }

    async fn small_packs(&mut self, before_ms: i64, below_bytes: u64, limit: usize) -> Result<Vec<PackRow>, StoreError> {
        let shard = self.shard;
        sweep::small_packs(self.conn(), shard, before_ms, below_bytes, limit).await
    }

    async fn copies(&mut self, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError> {
        let shard = self.shard;
        regions::copies(self.conn(), shard, packs).await
    }

    async fn set_copies(&mut self, pack: PackId, to: &BTreeSet<String>) -> Result<(), StoreError> {
        let shard = self.shard;
        regions::set_copies(self.conn(), shard, pack, to).await
    }

    async fn set_home_region(&mut self, user: UserId, region: Option<&str>) -> Result<bool, StoreError> {
        regions::set_home_region(self.dir().await?, user, region).await
    }

    async fn move_chunks(&mut self, pack: PackRow, chunks: &[(ChunkLocation, PackId)], now_ms: i64) -> Result<(), StoreError> {
        let shard = self.shard;
        sweep::move_chunks(self.conn(), shard, pack, chunks, now_ms).await
    }

    async fn delete_empty_packs(&mut self, before_ms: i64, limit: usize) -> Result<Vec<PackRow>, StoreError> {
        let shard = self.shard;
        sweep::delete_empty_packs(self.conn(), shard, before_ms, limit).await
    }
}
