//! Grants and addresses on PostgreSQL, all in the directory database.

use super::rows::{bytes, count, device, namespace as namespace_id, user};
use super::{Postgres, store_error};
use crate::store::StoreError;
use crate::store::columns::{damaged, role, signed};
use crate::store::peers::{Decide, DeviceNow, Issued, KeptReport, Peer, PeerStore, Report, Whereabouts};
use async_trait::async_trait;
use ferry_protocol::grant::Member;
use ferry_protocol::{DeviceId, NamespaceId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::net::SocketAddr;

/// Devices that count at `$2`, for a query with `d` and `u`.
const COUNTS: &str = "d.revoked_at IS NULL AND NOT u.disabled
     AND EXISTS (SELECT 1 FROM sessions s WHERE s.device_id = d.device_id AND s.revoked_at IS NULL AND s.expires_at > $2)";

async fn members(conn: &mut PgConnection, namespace: NamespaceId, now_ms: i64, limit: u32) -> Result<Vec<Member>, StoreError> {
    let sql = format!(
        "SELECT d.device_id, d.user_id, m.role, d.name FROM members m JOIN users u ON u.user_id = m.user_id JOIN devices d ON d.user_id = m.user_id
         WHERE m.namespace_id = $1 AND {COUNTS} ORDER BY d.device_id LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(namespace.as_bytes().to_vec())
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await
        .map_err(store_error)?;
    let read = |row: &PgRow| {
        Ok(Member {
            device: device(row, 0)?,
            user: user(row, 1)?,
            role: role(row.try_get(2).map_err(store_error)?)?,
            name: row.try_get(3).map_err(store_error)?,
        })
    };
    rows.iter().map(read).collect()
}

async fn issued(conn: &mut PgConnection, namespace: NamespaceId) -> Result<Option<Issued>, StoreError> {
    let row = sqlx::query("SELECT epoch, digest, issued_at FROM memberships WHERE namespace_id = $1")
        .bind(namespace.as_bytes().to_vec())
        .fetch_optional(conn)
        .await
        .map_err(store_error)?;
    row.map(|row| Ok(Issued { epoch: count(&row, 0)?, digest: bytes(&row, 1)?, issued_at_ms: row.try_get(2).map_err(store_error)? }))
        .transpose()
}

async fn remember(conn: &mut PgConnection, namespace: NamespaceId, now: &Issued) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO memberships (namespace_id, epoch, digest, issued_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (namespace_id) DO UPDATE SET epoch = excluded.epoch, digest = excluded.digest, issued_at = excluded.issued_at",
    )
    .bind(namespace.as_bytes().to_vec())
    .bind(signed(now.epoch))
    .bind(now.digest.to_vec())
    .bind(now.issued_at_ms)
    .execute(conn)
    .await
    .map(drop)
    .map_err(store_error)
}

fn whereabouts_of(row: &PgRow, column: usize) -> Result<Whereabouts, StoreError> {
    let text: &str = row.try_get(column).map_err(store_error)?;
    let addresses = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| damaged("addresses"))?;
    Ok(Whereabouts { addresses, announced_at_ms: row.try_get(column + 1).map_err(store_error)? })
}

const REPORT: &str = "r.run_at, r.lan_bytes, r.relay_bytes, r.system, r.version, r.earlier_lan, r.earlier_relay, r.reported_at";

/// From eight columns.
fn report_of(row: &PgRow, first: usize) -> Result<KeptReport, StoreError> {
    let report = Report {
        run_at_ms: row.try_get(first).map_err(store_error)?,
        lan_bytes: count(row, first + 1)?,
        relay_bytes: count(row, first + 2)?,
        system: row.try_get(first + 3).map_err(store_error)?,
        version: row.try_get(first + 4).map_err(store_error)?,
    };
    Ok(KeptReport {
        report,
        earlier_lan_bytes: count(row, first + 5)?,
        earlier_relay_bytes: count(row, first + 6)?,
        reported_at_ms: row.try_get(first + 7).map_err(store_error)?,
    })
}

#[async_trait]
impl PeerStore for Postgres {
    async fn member_namespaces(&self, user_id: UserId, limit: u32) -> Result<Vec<NamespaceId>, StoreError> {
        let rows = sqlx::query("SELECT namespace_id FROM members WHERE user_id = $1 ORDER BY namespace_id LIMIT $2")
            .bind(user_id.as_bytes().to_vec())
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(|row| namespace_id(row, 0)).collect()
    }

    async fn issue(
        &self,
        namespace: NamespaceId,
        now_ms: i64,
        limit: u32,
        decide: Decide<'_>,
    ) -> Result<Option<(Issued, Vec<Member>)>, StoreError> {
        // Nearly always nothing has changed: then nobody waits for a lock.
        let mut snapshot = self.directory().snapshot().await?;
        let (before, list) = (issued(&mut snapshot, namespace).await?, members(&mut snapshot, namespace, now_ms, limit).await?);
        drop(snapshot);
        if list.is_empty() {
            return Ok(None);
        }
        let now = decide(before.as_ref(), &list);
        if before.as_ref() == Some(&now) {
            return Ok(Some((now, list)));
        }
        let mut tx = self.directory().begin().await?;
        sqlx::query("SELECT 1 FROM placements WHERE namespace_id = $1 FOR UPDATE")
            .bind(namespace.as_bytes().to_vec())
            .fetch_optional(tx.conn())
            .await
            .map_err(store_error)?;
        let (before, list) = (issued(tx.conn(), namespace).await?, members(tx.conn(), namespace, now_ms, limit).await?);
        if list.is_empty() {
            return Ok(None);
        }
        let now = decide(before.as_ref(), &list);
        if before.as_ref() != Some(&now) {
            remember(tx.conn(), namespace, &now).await?;
            tx.commit().await?;
        }
        Ok(Some((now, list)))
    }

    async fn whereabouts(&self, device_id: DeviceId) -> Result<Option<Whereabouts>, StoreError> {
        let row = sqlx::query("SELECT addresses, announced_at FROM device_addresses WHERE device_id = $1")
            .bind(device_id.as_bytes().to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.map(|row| whereabouts_of(&row, 0)).transpose()
    }

    async fn put_whereabouts(&self, device_id: DeviceId, at: &Whereabouts) -> Result<(), StoreError> {
        let query = if at.addresses.is_empty() {
            sqlx::query("DELETE FROM device_addresses WHERE device_id = $1").bind(device_id.as_bytes().to_vec())
        } else {
            let text = at.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
            sqlx::query(
                "INSERT INTO device_addresses (device_id, addresses, announced_at) VALUES ($1, $2, $3)
                 ON CONFLICT (device_id) DO UPDATE SET addresses = excluded.addresses, announced_at = excluded.announced_at",
            )
            .bind(device_id.as_bytes().to_vec())
            .bind(text)
            .bind(at.announced_at_ms)
        };
        query.execute(&mut *self.directory().read().await?).await.map(drop).map_err(store_error)
    }

    async fn report(&self, device_id: DeviceId) -> Result<Option<KeptReport>, StoreError> {
        let sql = format!("SELECT {REPORT} FROM device_reports r WHERE device_id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(device_id.as_bytes().to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.map(|row| report_of(&row, 0)).transpose()
    }

    async fn put_report(&self, device_id: DeviceId, kept: &KeptReport) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO device_reports (device_id, system, version, run_at, lan_bytes, relay_bytes, earlier_lan, earlier_relay, reported_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (device_id) DO UPDATE SET system = excluded.system, version = excluded.version, run_at = excluded.run_at,
             lan_bytes = excluded.lan_bytes, relay_bytes = excluded.relay_bytes, earlier_lan = excluded.earlier_lan,
             earlier_relay = excluded.earlier_relay, reported_at = excluded.reported_at",
        )
        .bind(device_id.as_bytes().to_vec())
        .bind(kept.report.system.clone())
        .bind(kept.report.version.clone())
        .bind(kept.report.run_at_ms)
        .bind(signed(kept.report.lan_bytes))
        .bind(signed(kept.report.relay_bytes))
        .bind(signed(kept.earlier_lan_bytes))
        .bind(signed(kept.earlier_relay_bytes))
        .bind(kept.reported_at_ms)
        .execute(&mut *self.directory().read().await?)
        .await
        .map(drop)
        .map_err(store_error)
    }

    async fn reports(&self, user_id: UserId) -> Result<Vec<DeviceNow>, StoreError> {
        let sql = format!(
            "SELECT d.device_id, a.addresses, a.announced_at, {REPORT} FROM devices d LEFT JOIN device_addresses a ON a.device_id = d.device_id
             LEFT JOIN device_reports r ON r.device_id = d.device_id WHERE d.user_id = $1 AND d.revoked_at IS NULL ORDER BY d.device_id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(user_id.as_bytes().to_vec())
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        let is_there =
            |row: &PgRow, column: usize| Ok::<_, StoreError>(row.try_get::<Option<i64>, _>(column).map_err(store_error)?.is_some());
        let read = |row: &PgRow| {
            Ok(DeviceNow {
                device_id: device(row, 0)?,
                at: if is_there(row, 2)? { Some(whereabouts_of(row, 1)?) } else { None },
                report: if is_there(row, 3)? { Some(report_of(row, 3)?) } else { None },
            })
        };
        rows.iter().map(read).collect()
    }

    async fn peers(
        &self,
        user_id: UserId,
        except: Option<DeviceId>,
        now_ms: i64,
        after_ms: i64,
        limit: u32,
    ) -> Result<Vec<Peer>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT d.device_id, d.name, a.addresses, a.announced_at
             FROM members mine JOIN members m ON m.namespace_id = mine.namespace_id JOIN users u ON u.user_id = m.user_id
             JOIN devices d ON d.user_id = m.user_id JOIN device_addresses a ON a.device_id = d.device_id
             WHERE mine.user_id = $1 AND {COUNTS} AND a.announced_at > $3 AND d.device_id IS DISTINCT FROM $4
             ORDER BY a.announced_at DESC, d.device_id LIMIT $5"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(user_id.as_bytes().to_vec())
            .bind(now_ms)
            .bind(after_ms)
            .bind(except.map(|d| d.as_bytes().to_vec()))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        let read = |row: &PgRow| {
            let name = row.try_get(1).map_err(store_error)?;
            Ok(Peer { device_id: device(row, 0)?, name, at: whereabouts_of(row, 2)? })
        };
        rows.iter().map(read).collect()
    }
}
