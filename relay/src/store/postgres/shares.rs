//! Sharing on PostgreSQL, all in the directory database.

use super::content::PgTx;
use super::{Postgres, store_error};
use crate::store::StoreError;
use crate::store::columns::{damaged, permission, permission_text, role, role_text};
use crate::store::content::{ContentTx, Scope};
use crate::store::shares::{Invitation, InviteBounds, Invited, MemberRow, Of, ShareId, ShareStore, SharedFile};
use async_trait::async_trait;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

const INVITATION: &str =
    "SELECT i.share_id, i.namespace_id, i.file_id, i.email, i.email_key, i.role, i.invited_by, i.created_at FROM invitations i";
const SHARED_FILE: &str =
    "SELECT s.share_id, s.namespace_id, s.file_id, s.owner_id, s.shared_with_user_id, u.email, u.name, s.permission, s.created_at
     FROM shared_files s JOIN users u ON u.user_id = s.shared_with_user_id";
/// Rows of `{}` in a namespace (`$1`), or in all of an owner (`$2`).
const OF: &str = "WHERE ($1 IS NULL OR {}.namespace_id = $1)
     AND ($2 IS NULL OR EXISTS (SELECT 1 FROM members o WHERE o.namespace_id = {}.namespace_id AND o.user_id = $2 AND o.role = 'owner'))";

fn of(table: &str) -> String {
    OF.replace("{}", table)
}

fn bytes<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N], StoreError> {
    row.try_get::<&[u8], _>(column).map_err(store_error)?.try_into().map_err(|_| damaged("of an id"))
}

fn text(row: &PgRow, column: usize) -> Result<String, StoreError> {
    row.try_get(column).map_err(store_error)
}

fn invitation_of(row: &PgRow) -> Result<Invitation, StoreError> {
    let is_file = !row.try_get::<&[u8], _>(2).map_err(store_error)?.is_empty();
    Ok(Invitation {
        share_id: bytes(row, 0)?,
        namespace: NamespaceId::from_bytes(bytes(row, 1)?),
        file: if is_file { Some(NodeId::from_bytes(bytes(row, 2)?)) } else { None },
        email: text(row, 3)?,
        email_key: text(row, 4)?,
        role: role(&text(row, 5)?)?,
        invited_by: UserId::from_bytes(bytes(row, 6)?),
        created_at_ms: row.try_get(7).map_err(store_error)?,
    })
}

fn shared_file_of(row: &PgRow) -> Result<SharedFile, StoreError> {
    Ok(SharedFile {
        share_id: bytes(row, 0)?,
        namespace: NamespaceId::from_bytes(bytes(row, 1)?),
        file: NodeId::from_bytes(bytes(row, 2)?),
        owner: UserId::from_bytes(bytes(row, 3)?),
        with: UserId::from_bytes(bytes(row, 4)?),
        email: text(row, 5)?,
        name: text(row, 6)?,
        role: permission(&text(row, 7)?)?,
        created_at_ms: row.try_get(8).map_err(store_error)?,
    })
}

fn file_key(file: Option<NodeId>) -> Vec<u8> {
    file.map(|f| f.as_bytes().to_vec()).unwrap_or_default()
}

/// Whether one more invitation is within the bounds.
async fn room(conn: &mut PgConnection, invitation: &Invitation, bounds: InviteBounds) -> Result<Option<Invited>, StoreError> {
    // Of a file those count with whom it is shared, of a namespace its members.
    let people = match invitation.file {
        Some(_) => "SELECT count(*) FROM shared_files WHERE namespace_id = $1 AND file_id = $2",
        None => "SELECT count(*) FROM members WHERE namespace_id = $1 AND length($2) = 0",
    };
    let counted = format!(
        "SELECT ({people}) + (SELECT count(*) FROM invitations WHERE namespace_id = $1 AND file_id = $2),
         (SELECT count(*) FROM invitations WHERE invited_by = $3)"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(counted))
        .bind(invitation.namespace.as_bytes().to_vec())
        .bind(file_key(invitation.file))
        .bind(invitation.invited_by.as_bytes().to_vec())
        .fetch_one(conn)
        .await
        .map_err(store_error)?;
    let count = |column| row.try_get::<i64, _>(column).map_err(store_error).map(|n| u64::try_from(n).unwrap_or(u64::MAX));
    Ok(if count(0)? >= bounds.here {
        Some(Invited::FullHere)
    } else if count(1)? >= bounds.open {
        Some(Invited::FullForUser)
    } else {
        None
    })
}

async fn take(conn: &mut PgConnection, taken: &Invitation, user: UserId, now_ms: i64) -> Result<(), StoreError> {
    let query = match taken.file {
        None => sqlx::query(
            "INSERT INTO members (namespace_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (namespace_id, user_id) DO UPDATE SET role = excluded.role WHERE members.role = 'viewer'",
        )
        .bind(taken.namespace.as_bytes().to_vec())
        .bind(user.as_bytes().to_vec())
        .bind(role_text(taken.role))
        .bind(now_ms),
        Some(file) => sqlx::query(
            "INSERT INTO shared_files (share_id, namespace_id, file_id, owner_id, shared_with_user_id, permission, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (namespace_id, file_id, shared_with_user_id) DO UPDATE SET permission = excluded.permission
             WHERE shared_files.permission = 'read'",
        )
        .bind(taken.share_id.to_vec())
        .bind(taken.namespace.as_bytes().to_vec())
        .bind(file.as_bytes().to_vec())
        .bind(taken.invited_by.as_bytes().to_vec())
        .bind(user.as_bytes().to_vec())
        .bind(permission_text(taken.role))
        .bind(now_ms),
    };
    query.execute(&mut *conn).await.map_err(store_error)?;
    match taken.file {
        Some(_) if taken.role >= Role::Editor => note_writer(conn, taken.namespace, user).await,
        _ => Ok(()),
    }
}

/// Remembers that the namespace may hold what this user wrote.
async fn note_writer(conn: &mut PgConnection, namespace: NamespaceId, user: UserId) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO past_writers (namespace_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(namespace.as_bytes().to_vec())
        .bind(user.as_bytes().to_vec())
        .execute(conn)
        .await
        .map(drop)
        .map_err(store_error)
}

#[async_trait]
impl ShareStore for Postgres {
    async fn invite(&self, invitation: &Invitation, bounds: InviteBounds) -> Result<Invited, StoreError> {
        let mut tx = self.directory().begin().await?;
        let again =
            sqlx::query("UPDATE invitations SET role = $4 WHERE namespace_id = $1 AND file_id = $2 AND email_key = $3 RETURNING share_id")
                .bind(invitation.namespace.as_bytes().to_vec())
                .bind(file_key(invitation.file))
                .bind(&invitation.email_key)
                .bind(role_text(invitation.role))
                .fetch_optional(tx.conn())
                .await
                .map_err(store_error)?;
        if let Some(row) = again {
            let share_id = bytes(&row, 0)?;
            tx.commit().await?;
            return Ok(Invited::Stored(share_id));
        }
        // Invitations to one namespace are one after another: else two that are counted at once would both fit.
        sqlx::query("SELECT 1 FROM placements WHERE namespace_id = $1 FOR UPDATE")
            .bind(invitation.namespace.as_bytes().to_vec())
            .fetch_optional(tx.conn())
            .await
            .map_err(store_error)?;
        if let Some(full) = room(tx.conn(), invitation, bounds).await? {
            return Ok(full);
        }
        sqlx::query(
            "INSERT INTO invitations (share_id, namespace_id, file_id, email, email_key, role, invited_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(invitation.share_id.to_vec())
        .bind(invitation.namespace.as_bytes().to_vec())
        .bind(file_key(invitation.file))
        .bind(&invitation.email)
        .bind(&invitation.email_key)
        .bind(role_text(invitation.role))
        .bind(invitation.invited_by.as_bytes().to_vec())
        .bind(invitation.created_at_ms)
        .execute(tx.conn())
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        Ok(Invited::Stored(invitation.share_id))
    }

    async fn invitation(&self, share_id: ShareId) -> Result<Option<Invitation>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{INVITATION} WHERE i.share_id = $1")))
            .bind(share_id.to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.as_ref().map(invitation_of).transpose()
    }

    async fn invitations_to(&self, email_key: &str, limit: u32) -> Result<Vec<Invitation>, StoreError> {
        let sql = format!("{INVITATION} WHERE i.email_key = $1 ORDER BY i.created_at, i.share_id LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(email_key)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(invitation_of).collect()
    }

    async fn invitations_of(&self, wanted: Of, limit: u32) -> Result<Vec<Invitation>, StoreError> {
        let (namespace, owner) = wanted.parts();
        let sql = format!("{INVITATION} {} ORDER BY i.created_at, i.share_id LIMIT $3", of("i"));
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(namespace)
            .bind(owner)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(invitation_of).collect()
    }

    async fn set_invitation_role(&self, share_id: ShareId, role: Role) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE invitations SET role = $2 WHERE share_id = $1")
            .bind(share_id.to_vec())
            .bind(role_text(role))
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn drop_invitation(&self, share_id: ShareId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM invitations WHERE share_id = $1")
            .bind(share_id.to_vec())
            .execute(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        Ok(done.rows_affected() == 1)
    }

    async fn take_invitation(&self, share_id: ShareId, user: UserId, now_ms: i64) -> Result<Option<Invitation>, StoreError> {
        let mut tx = self.directory().begin().await?;
        let row = sqlx::query(
            "DELETE FROM invitations WHERE share_id = $1
             RETURNING share_id, namespace_id, file_id, email, email_key, role, invited_by, created_at",
        )
        .bind(share_id.to_vec())
        .fetch_optional(tx.conn())
        .await
        .map_err(store_error)?;
        let Some(taken) = row.as_ref().map(invitation_of).transpose()? else { return Ok(None) };
        take(tx.conn(), &taken, user, now_ms).await?;
        tx.commit().await?;
        Ok(Some(taken))
    }

    async fn members_of(&self, wanted: Of, limit: u32) -> Result<Vec<MemberRow>, StoreError> {
        let (namespace, owner) = wanted.parts();
        let sql = format!(
            "SELECT m.namespace_id, m.user_id, u.email, u.name, m.role, m.created_at FROM members m JOIN users u ON u.user_id = m.user_id {}
             ORDER BY m.namespace_id, m.created_at, m.user_id LIMIT $3",
            of("m")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(namespace)
            .bind(owner)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter()
            .map(|row| {
                Ok(MemberRow {
                    namespace: NamespaceId::from_bytes(bytes(row, 0)?),
                    user: UserId::from_bytes(bytes(row, 1)?),
                    email: text(row, 2)?,
                    name: text(row, 3)?,
                    role: role(&text(row, 4)?)?,
                    created_at_ms: row.try_get(5).map_err(store_error)?,
                })
            })
            .collect()
    }

    /// Behind every commit that is under way: a commit that comes after the answer goes by the new role (docs/adr/0007-sharding-by-user.md).
    async fn change_member(&self, namespace: NamespaceId, user: UserId, role: Role) -> Result<bool, StoreError> {
        let mut tx = Box::new(PgTx::begin(self, Scope::Namespace(namespace)).await?);
        let done = sqlx::query("UPDATE members SET role = $3 WHERE namespace_id = $1 AND user_id = $2 AND role <> 'owner'")
            .bind(namespace.as_bytes().to_vec())
            .bind(user.as_bytes().to_vec())
            .bind(role_text(role))
            .execute(tx.dir().await?)
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Behind every commit that is under way, too.
    async fn end_membership(&self, namespace: NamespaceId, user: UserId) -> Result<bool, StoreError> {
        let mut tx = Box::new(PgTx::begin(self, Scope::Namespace(namespace)).await?);
        let done = sqlx::query("DELETE FROM members WHERE namespace_id = $1 AND user_id = $2 AND role <> 'owner'")
            .bind(namespace.as_bytes().to_vec())
            .bind(user.as_bytes().to_vec())
            .execute(tx.dir().await?)
            .await
            .map_err(store_error)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        note_writer(tx.dir().await?, namespace, user).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn shared_file(&self, share_id: ShareId) -> Result<Option<SharedFile>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SHARED_FILE} WHERE s.share_id = $1")))
            .bind(share_id.to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.as_ref().map(shared_file_of).transpose()
    }

    async fn files_shared_with(&self, user: UserId, limit: u32) -> Result<Vec<SharedFile>, StoreError> {
        let sql = format!("{SHARED_FILE} WHERE s.shared_with_user_id = $1 ORDER BY s.created_at, s.share_id LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(user.as_bytes().to_vec())
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(shared_file_of).collect()
    }

    async fn files_shared_of(&self, wanted: Of, limit: u32) -> Result<Vec<SharedFile>, StoreError> {
        let (namespace, owner) = wanted.parts();
        let sql = format!("{SHARED_FILE} {} ORDER BY s.created_at, s.share_id LIMIT $3", of("s"));
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(namespace)
            .bind(owner)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        rows.iter().map(shared_file_of).collect()
    }

    /// Behind every commit that is under way, as for a member.
    async fn set_shared_file_role(&self, share_id: ShareId, role: Role) -> Result<bool, StoreError> {
        let Some(namespace) = self.namespace_of_share(share_id).await? else { return Ok(false) };
        let mut tx = Box::new(PgTx::begin(self, Scope::Namespace(namespace)).await?);
        let row = sqlx::query("UPDATE shared_files SET permission = $2 WHERE share_id = $1 RETURNING shared_with_user_id")
            .bind(share_id.to_vec())
            .bind(permission_text(role))
            .fetch_optional(tx.dir().await?)
            .await
            .map_err(store_error)?;
        let Some(row) = row else { return Ok(false) };
        if role >= Role::Editor {
            note_writer(tx.dir().await?, namespace, UserId::from_bytes(bytes(&row, 0)?)).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Behind every commit that is under way, too.
    async fn drop_shared_file(&self, share_id: ShareId) -> Result<bool, StoreError> {
        let Some(namespace) = self.namespace_of_share(share_id).await? else { return Ok(false) };
        let mut tx = Box::new(PgTx::begin(self, Scope::Namespace(namespace)).await?);
        let done = sqlx::query("DELETE FROM shared_files WHERE share_id = $1")
            .bind(share_id.to_vec())
            .execute(tx.dir().await?)
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

impl Postgres {
    /// The namespace of a shared file; it stays the same for as long as the share is there.
    async fn namespace_of_share(&self, share_id: ShareId) -> Result<Option<NamespaceId>, StoreError> {
        let row = sqlx::query("SELECT namespace_id FROM shared_files WHERE share_id = $1")
            .bind(share_id.to_vec())
            .fetch_optional(&mut *self.directory().read().await?)
            .await
            .map_err(store_error)?;
        row.map(|row| Ok(NamespaceId::from_bytes(bytes(&row, 0)?))).transpose()
    }
}
