//! [`ContentTx`] on the writer connection. Many rows travel in one statement: a commit of thousands of nodes is dozens of statements.

use super::{
    BATCH, SqliteTx, bytes, chunks, count, encode_state, history, nodes, purge, regions, repair, role_text, signed, sweep, uploads,
};
use crate::store::StoreError;
use crate::store::content::*;
use crate::store::search::fold;
use crate::store::sqlite::{commit_error, store_error};
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ChunkRef, CommitId, ContentHash, DeviceId, NamespaceId, NodeId, ReplicaId, UserId};
use sqlx::{QueryBuilder, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

impl SqliteTx {
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Of these versions, those whose event is not recorded yet, and the next version number of each file that has some.
    async fn new_versions<'v>(
        &mut self,
        namespace: NamespaceId,
        versions: &'v [VersionWrite],
    ) -> Result<(Vec<&'v VersionWrite>, BTreeMap<NodeId, u64>), StoreError> {
        let (mut known, mut next) = (BTreeSet::new(), BTreeMap::new());
        for batch in versions.chunks(BATCH) {
            let mut query =
                QueryBuilder::new("SELECT file_id, dot_replica, dot_counter, version_number FROM file_versions WHERE namespace_id = ");
            query.push_bind(namespace.as_bytes().to_vec()).push(" AND file_id IN (");
            let mut list = query.separated(',');
            for version in batch {
                list.push_bind(version.row.node.as_bytes().to_vec());
            }
            query.push(")");
            for row in query.build().fetch_all(self.conn()).await.map_err(store_error)? {
                known.insert((bytes::<16>(&row, 0)?, bytes::<16>(&row, 1)?, count(&row, 2)?));
                let next = next.entry(NodeId::from_bytes(bytes(&row, 0)?)).or_insert(1);
                *next = (*next).max(count(&row, 3)? + 1);
            }
        }
        let is_new = |v: &&VersionWrite| known.insert((*v.row.node.as_bytes(), *v.row.dot.replica.as_bytes(), v.row.dot.counter));
        Ok((versions.iter().filter(is_new).collect(), next))
    }

    async fn insert_versions(
        &mut self,
        namespace: NamespaceId,
        versions: &[&VersionWrite],
        mut next: BTreeMap<NodeId, u64>,
    ) -> Result<(), StoreError> {
        for batch in versions.chunks(BATCH) {
            let mut query = QueryBuilder::new(
                "INSERT INTO file_versions (version_id, namespace_id, file_id, version_number, dot_replica, dot_counter, file_hash, file_size,
                 mtime_ns, author_device, author_name, wall_ms, created_at) ",
            );
            query.push_values(batch, |mut b, v| {
                let number = next.entry(v.row.node).or_insert(1);
                b.push_bind(v.row.version_id.to_vec())
                    .push_bind(namespace.as_bytes().to_vec())
                    .push_bind(v.row.node.as_bytes().to_vec())
                    .push_bind(signed(*number))
                    .push_bind(v.row.dot.replica.as_bytes().to_vec())
                    .push_bind(signed(v.row.dot.counter))
                    .push_bind(v.row.hash.as_bytes().to_vec())
                    .push_bind(signed(v.row.size_bytes))
                    .push_bind(v.row.mtime_ns)
                    .push_bind(v.row.author_device.as_bytes().to_vec())
                    .push_bind(v.row.author_name.clone())
                    .push_bind(v.row.wall_ms)
                    .push_bind(v.row.created_at_ms);
                *number += 1;
            });
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        Ok(())
    }

    async fn insert_file_chunks(&mut self, versions: &[&VersionWrite]) -> Result<(), StoreError> {
        let rows: Vec<([u8; 16], usize, ChunkRef)> =
            versions.iter().flat_map(|v| v.chunks.iter().enumerate().map(|(i, c)| (v.row.version_id, i, *c))).collect();
        for batch in rows.chunks(BATCH) {
            let mut query = QueryBuilder::new("INSERT INTO file_chunks (version_id, chunk_index, chunk_hash, chunk_size) ");
            query.push_values(batch, |mut b, (version, index, chunk)| {
                b.push_bind(version.to_vec())
                    .push_bind(signed(*index as u64))
                    .push_bind(chunk.id.as_bytes().to_vec())
                    .push_bind(i64::from(chunk.len));
            });
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        Ok(())
    }

    async fn add_refs(&mut self, namespace: NamespaceId, refs: &BTreeMap<ChunkId, u64>) -> Result<(), StoreError> {
        let rows: Vec<(&ChunkId, &u64)> = refs.iter().collect();
        for batch in rows.chunks(BATCH) {
            let mut query = QueryBuilder::new("INSERT INTO namespace_chunks (namespace_id, chunk_hash, refs, lease_until) ");
            query.push_values(batch, |mut b, (id, refs)| {
                b.push_bind(namespace.as_bytes().to_vec()).push_bind(id.as_bytes().to_vec()).push_bind(signed(**refs)).push_bind(0i64);
            });
            query.push(" ON CONFLICT (namespace_id, chunk_hash) DO UPDATE SET refs = refs + excluded.refs");
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        Ok(())
    }
}

#[async_trait]
impl ContentTx for SqliteTx {
    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.tx.commit().await.map_err(commit_error)
    }

    async fn rollback(self: Box<Self>) -> Result<(), StoreError> {
        self.tx.rollback().await.map_err(store_error)
    }

    async fn identity(&mut self) -> Result<Identity, StoreError> {
        self.identity.ok_or_else(|| StoreError::Unavailable("the relay's identity was not asked for yet".into()))
    }

    async fn create_namespace(&mut self, row: &NamespaceRow, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO namespaces (namespace_id, owner_id, name, is_home, created_at, run_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
            .bind(row.id.as_bytes().to_vec())
            .bind(row.owner.as_bytes().to_vec())
            .bind(row.name.clone())
            .bind(row.is_home)
            .bind(now_ms)
            .bind(row.run.map(|r| r.as_bytes().to_vec()))
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        self.set_member(row.id, row.owner, Role::Owner, now_ms).await
    }

    async fn namespace_for(&mut self, namespace: NamespaceId, user: UserId) -> Result<Option<NamespaceRow>, StoreError> {
        nodes::namespace_for(self.conn(), namespace, user).await
    }

    async fn shared_namespace(&mut self, namespace: NamespaceId, file: NodeId, user: UserId) -> Result<Option<NamespaceRow>, StoreError> {
        Ok(nodes::shared_namespaces(self.conn(), user, file, Some(namespace)).await?.pop())
    }

    async fn set_member(&mut self, namespace: NamespaceId, user: UserId, role: Role, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO members (namespace_id, user_id, role, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (namespace_id, user_id) DO UPDATE SET role = excluded.role",
        )
        .bind(namespace.as_bytes().to_vec())
        .bind(user.as_bytes().to_vec())
        .bind(role_text(role))
        .bind(now_ms)
        .execute(self.conn())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn remove_member(&mut self, namespace: NamespaceId, user: UserId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM members WHERE namespace_id = ?1 AND user_id = ?2")
            .bind(namespace.as_bytes().to_vec())
            .bind(user.as_bytes().to_vec())
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() > 0)
    }

    async fn members(&mut self, namespace: NamespaceId) -> Result<Vec<(UserId, Role)>, StoreError> {
        nodes::members(self.conn(), namespace).await
    }

    async fn devices_of_members(&mut self, namespace: NamespaceId, devices: &[DeviceId]) -> Result<BTreeSet<DeviceId>, StoreError> {
        nodes::devices_of_members(self.conn(), namespace, devices).await
    }

    async fn nodes(&mut self, namespace: NamespaceId, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError> {
        nodes::nodes(self.conn(), namespace, ids).await
    }

    async fn put_nodes(
        &mut self,
        namespace: &NamespaceRow,
        nodes: &[NodeWrite],
        head_seq: u64,
        max_counter: u64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        for batch in nodes.chunks(BATCH) {
            let states = batch.iter().map(|n| encode_state(&n.state)).collect::<Result<Vec<_>, _>>()?;
            let mut query = QueryBuilder::new(
                "INSERT INTO files (namespace_id, file_id, seq, state, user_id, parent_id, file_name, file_size, file_type, file_hash, is_deleted,
                 created_at, updated_at, link_target, standing, is_displaced, search_name) ",
            );
            query.push_values(batch.iter().zip(states), |mut b, (n, state)| {
                let place = &n.state.places()[0];
                b.push_bind(namespace.id.as_bytes().to_vec())
                    .push_bind(n.id.as_bytes().to_vec())
                    .push_bind(signed(n.seq))
                    .push_bind(state)
                    .push_bind(namespace.owner.as_bytes().to_vec())
                    .push_bind(place.parent.as_bytes().to_vec())
                    .push_bind(place.name.as_bytes().to_vec())
                    .push_bind(signed(n.size_bytes))
                    .push_bind(n.file_type)
                    .push_bind(n.hash.map(|h| h.as_bytes().to_vec()))
                    .push_bind(n.is_deleted)
                    .push_bind(now_ms)
                    .push_bind(now_ms)
                    .push_bind(n.link_target.clone())
                    .push_bind(n.standing.code())
                    .push_bind(false)
                    .push_bind(fold(place.name.as_bytes()));
            });
            query.push(
                " ON CONFLICT (namespace_id, file_id) DO UPDATE SET seq = excluded.seq, state = excluded.state, parent_id = excluded.parent_id,
                 file_name = excluded.file_name, search_name = excluded.search_name,
                 file_size = CASE WHEN excluded.is_deleted THEN files.file_size ELSE excluded.file_size END,
                 file_type = CASE WHEN excluded.is_deleted THEN files.file_type ELSE excluded.file_type END,
                 file_hash = CASE WHEN excluded.is_deleted THEN files.file_hash ELSE excluded.file_hash END,
                 link_target = CASE WHEN excluded.is_deleted THEN coalesce(excluded.link_target, files.link_target) ELSE excluded.link_target END,
                 purged_at = CASE WHEN excluded.is_deleted THEN files.purged_at ELSE NULL END,
                 is_deleted = excluded.is_deleted, updated_at = excluded.updated_at, standing = excluded.standing, is_displaced = 0",
            );
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        history::add(self.conn(), namespace.id, nodes, now_ms).await?;
        sqlx::query(
            "UPDATE namespaces SET head_seq = ?2, settled_seq = ?2, folded_seq = CASE WHEN folded_seq = head_seq THEN ?2 ELSE folded_seq END,
             max_counter = max(max_counter, ?3) WHERE namespace_id = ?1",
        )
            .bind(namespace.id.as_bytes().to_vec())
            .bind(signed(head_seq))
            .bind(signed(max_counter))
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        Ok(())
    }

    async fn skip_numbers(&mut self, namespace: &NamespaceRow, to_seq: u64, run: ReplicaId) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO feed_gaps (namespace_id, from_seq, to_seq) VALUES (?1, ?2, ?3)")
            .bind(namespace.id.as_bytes().to_vec())
            .bind(signed(namespace.head_seq))
            .bind(signed(to_seq))
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        sqlx::query(
            "UPDATE namespaces SET head_seq = ?2, folded_seq = CASE WHEN folded_seq = head_seq THEN ?2 ELSE folded_seq END, run_id = ?3
             WHERE namespace_id = ?1",
        )
        .bind(namespace.id.as_bytes().to_vec())
        .bind(signed(to_seq))
        .bind(run.as_bytes().to_vec())
        .execute(self.conn())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn add_versions(&mut self, namespace: NamespaceId, versions: &[VersionWrite]) -> Result<(), StoreError> {
        let (new, next) = self.new_versions(namespace, versions).await?;
        if new.is_empty() {
            return Ok(());
        }
        self.insert_versions(namespace, &new, next).await?;
        self.insert_file_chunks(&new).await?;
        let mut refs: BTreeMap<ChunkId, u64> = BTreeMap::new();
        for chunk in new.iter().flat_map(|v| &v.chunks) {
            *refs.entry(chunk.id).or_default() += 1;
        }
        self.add_refs(namespace, &refs).await
    }

    async fn begin_rewind(&mut self, namespace: NamespaceId, row: &RewindRow) -> Result<RewindRow, StoreError> {
        history::begin_rewind(self.conn(), namespace, row).await
    }

    async fn advance_rewind(&mut self, namespace: NamespaceId, row: &RewindRow, from: Option<NodeId>) -> Result<bool, StoreError> {
        history::advance_rewind(self.conn(), namespace, row, from).await
    }

    async fn purge(&mut self, namespace: &NamespaceRow, nodes: &[(NodeId, u64)], now_ms: i64) -> Result<Purged, StoreError> {
        purge::purge(self.conn(), namespace, nodes, now_ms).await
    }

    async fn commit_records(
        &mut self,
        namespace: NamespaceId,
        user: UserId,
        ids: &[CommitId],
    ) -> Result<BTreeMap<CommitId, CommitRecord>, StoreError> {
        nodes::commit_records(self.conn(), namespace, user, ids).await
    }

    async fn add_commit_records(
        &mut self,
        namespace: NamespaceId,
        records: &[(UserId, CommitId, CommitRecord)],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        for batch in records.chunks(BATCH) {
            let mut query =
                QueryBuilder::new("INSERT INTO commits (namespace_id, user_id, commit_id, digest, head_seq, gapless, created_at) ");
            query.push_values(batch, |mut b, (user, id, record)| {
                b.push_bind(namespace.as_bytes().to_vec())
                    .push_bind(user.as_bytes().to_vec())
                    .push_bind(id.as_bytes().to_vec())
                    .push_bind(record.digest.to_vec())
                    .push_bind(signed(record.head_seq))
                    .push_bind(record.gapless)
                    .push_bind(now_ms);
            });
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        Ok(())
    }

    async fn held(&mut self, namespace: NamespaceId, ids: &[ChunkId]) -> Result<BTreeMap<ChunkId, HeldChunk>, StoreError> {
        chunks::held(self.conn(), namespace, ids).await
    }

    async fn stored(&mut self, ids: &[ChunkId]) -> Result<BTreeSet<ChunkId>, StoreError> {
        chunks::stored(self.conn(), ids).await
    }

    async fn add_pack(&mut self, pack: PackRow, locations: &[ChunkLocation]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO packs (pack_id, length, created_at) VALUES (?1, ?2, ?3)")
            .bind(pack.id.0.to_vec())
            .bind(signed(pack.length_bytes))
            .bind(pack.created_at_ms)
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        for batch in locations.chunks(BATCH) {
            let mut query = QueryBuilder::new("INSERT INTO chunks (chunk_hash, length, pack_id, offset, created_at) ");
            query.push_values(batch, |mut b, l| {
                b.push_bind(l.id.as_bytes().to_vec())
                    .push_bind(i64::from(l.len))
                    .push_bind(l.pack.0.to_vec())
                    .push_bind(signed(l.offset))
                    .push_bind(pack.created_at_ms);
            });
            // A damaged chunk is healed by good bytes: it moves to the new pack.
            query.push(
                " ON CONFLICT (chunk_hash) DO UPDATE SET pack_id = excluded.pack_id, offset = excluded.offset, damaged_at = NULL
                 WHERE damaged_at IS NOT NULL",
            );
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        Ok(())
    }

    async fn lease_chunks(&mut self, namespace: NamespaceId, list: &[(ChunkId, u32)], lease_until_ms: i64) -> Result<u64, StoreError> {
        let ids: Vec<ChunkId> = list.iter().map(|(id, _)| *id).collect();
        let held = chunks::held(self.conn(), namespace, &ids).await?;
        let mut seen = BTreeSet::new();
        let new: u64 = list.iter().filter(|(id, _)| !held.contains_key(id) && seen.insert(*id)).map(|(_, len)| u64::from(*len)).sum();
        for batch in ids.chunks(BATCH) {
            let mut query = QueryBuilder::new("INSERT INTO namespace_chunks (namespace_id, chunk_hash, refs, lease_until) ");
            query.push_values(batch, |mut b, id| {
                b.push_bind(namespace.as_bytes().to_vec()).push_bind(id.as_bytes().to_vec()).push_bind(0i64).push_bind(lease_until_ms);
            });
            query.push(" ON CONFLICT (namespace_id, chunk_hash) DO UPDATE SET lease_until = max(lease_until, excluded.lease_until)");
            query.build().execute(self.conn()).await.map_err(store_error)?;
            let mut query = QueryBuilder::new("UPDATE chunks SET orphaned_at = NULL WHERE orphaned_at IS NOT NULL AND chunk_hash");
            chunks::push_ids(&mut query, batch);
            query.build().execute(self.conn()).await.map_err(store_error)?;
        }
        Ok(new)
    }

    async fn quota(&mut self, user: UserId) -> Result<Quota, StoreError> {
        chunks::quota(self.conn(), user).await
    }

    async fn add_usage(&mut self, user: UserId, bytes: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE users SET storage_used = storage_used + ?2 WHERE user_id = ?1")
            .bind(user.as_bytes().to_vec())
            .bind(signed(bytes))
            .execute(self.conn())
            .await
            .map_err(store_error)?;
        Ok(())
    }

    async fn put_upload(&mut self, upload: &UploadRow) -> Result<(), StoreError> {
        uploads::put(self.conn(), upload).await
    }

    async fn upload(&mut self, version_id: [u8; 16]) -> Result<Option<UploadRow>, StoreError> {
        uploads::get(self.conn(), version_id).await
    }

    async fn prolong_upload(&mut self, version_id: [u8; 16], until_ms: i64) -> Result<(), StoreError> {
        uploads::prolong(self.conn(), version_id, until_ms).await
    }

    async fn put_upload_chunk(&mut self, version_id: [u8; 16], index: u64, chunk: ChunkRef) -> Result<(), StoreError> {
        uploads::put_chunk(self.conn(), version_id, index, chunk).await
    }

    async fn complete_upload(&mut self, version_id: [u8; 16], node: NodeId, hash: ContentHash, now_ms: i64) -> Result<(), StoreError> {
        uploads::complete(self.conn(), version_id, node, hash, now_ms).await
    }

    async fn delete_upload(&mut self, version_id: [u8; 16]) -> Result<(), StoreError> {
        uploads::delete(self.conn(), version_id).await
    }

    async fn recount(&mut self) -> Result<(u64, u64), StoreError> {
        repair::recount(self.conn()).await
    }

    async fn mark_sound(&mut self, chunks: &[ChunkLocation]) -> Result<u64, StoreError> {
        repair::mark_sound(self.conn(), chunks).await
    }

    async fn mark_damaged(&mut self, list: &[(ChunkLocation, &'static str)], now_ms: i64) -> Result<(), StoreError> {
        sweep::mark_damaged(self.conn(), list, now_ms).await
    }

    async fn drop_leases(&mut self, now_ms: i64, limit: usize) -> Result<u64, StoreError> {
        sweep::drop_leases(self.conn(), now_ms, limit).await
    }

    async fn drop_expired(&mut self, uploads_before_ms: i64, commits_before_ms: i64) -> Result<(), StoreError> {
        sweep::drop_expired(self.conn(), uploads_before_ms, commits_before_ms).await
    }

    async fn mark_orphans(&mut self, now_ms: i64) -> Result<u64, StoreError> {
        sweep::mark_orphans(self.conn(), now_ms).await
    }

    async fn delete_orphans(&mut self, before_ms: i64, limit: usize) -> Result<(u64, u64), StoreError> {
        sweep::delete_orphans(self.conn(), before_ms, limit).await
    }

    async fn sparse_packs(&mut self, before_ms: i64, live_percent: u64, limit: usize) -> Result<Vec<(PackRow, u64)>, StoreError> {
        sweep::sparse_packs(self.conn(), before_ms, live_percent, limit).await
    }

    async fn small_packs(&mut self, before_ms: i64, below_bytes: u64, limit: usize) -> Result<Vec<PackRow>, StoreError> {
        sweep::small_packs(self.conn(), before_ms, below_bytes, limit).await
    }

    async fn copies(&mut self, packs: &[PackId]) -> Result<BTreeMap<PackId, BTreeSet<String>>, StoreError> {
        regions::copies(self.conn(), packs).await
    }

    async fn set_copies(&mut self, pack: PackId, to: &BTreeSet<String>) -> Result<(), StoreError> {
        regions::set_copies(self.conn(), pack, to).await
    }

    async fn set_home_region(&mut self, user: UserId, region: Option<&str>) -> Result<bool, StoreError> {
        regions::set_home_region(self.conn(), user, region).await
    }

    async fn move_chunks(&mut self, pack: PackRow, chunks: &[(ChunkLocation, PackId)], now_ms: i64) -> Result<(), StoreError> {
        sweep::move_chunks(self.conn(), pack, chunks, now_ms).await
    }

    async fn delete_empty_packs(&mut self, before_ms: i64, limit: usize) -> Result<Vec<PackRow>, StoreError> {
        sweep::delete_empty_packs(self.conn(), before_ms, limit).await
    }
}
