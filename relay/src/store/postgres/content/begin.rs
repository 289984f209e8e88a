//! How a writing transaction begins: in the right shard, in the newest run, behind whoever writes there, and not while the content moves.

use super::write::PgTx;
use crate::store::StoreError;
use crate::store::content::{Scope, Shard};
use crate::store::postgres::database::Writing;
use crate::store::postgres::places::{self, key};
use crate::store::postgres::{Postgres, identity, store_error};
use ferry_protocol::{NamespaceId, UserId};
use sqlx::{PgConnection, Row};

/// How often a transaction begins anew because the place or the run that it found was not the newest.
const BEGINS_MAX: usize = 4;

/// Whether writers are kept out of a row: 0, there is nothing to know of a move; 1, ask the directory; 2, until a time that is still to come.
macro_rules! moving {
    ($row:literal) => {
        concat!(
            "CASE WHEN ",
            $row,
            "moving_to IS NULL THEN 0 WHEN ",
            $row,
            "moving_until > (extract(epoch FROM clock_timestamp()) * 1000)::bigint THEN 2 ELSE 1 END"
        )
    };
}

/// What the first statement of a transaction found.
struct Begun {
    found: Option<identity::Found>,
    /// As `moving!` says.
    moving: i32,
    /// The namespace is not in this shard.
    is_absent: bool,
}

impl PgTx {
    pub(in crate::store::postgres) async fn begin(store: &Postgres, scope: Scope) -> Result<Self, StoreError> {
        for _ in 0..BEGINS_MAX {
            let shard = match scope {
                Scope::Shard(shard) => shard,
                Scope::Namespace(id) => store.place(id).await?.unwrap_or_default(),
                Scope::Owner(user) => match places::of_user(&mut *store.directory().read().await?, user).await? {
                    Some(shard) => shard,
                    None => return Err(StoreError::Conflict("a user who is gone".into())),
                },
            };
            let db = store.shard(shard)?;
            let mut tx = db.begin().await?;
            let begun = match scope {
                Scope::Namespace(id) => lock_namespace(tx.conn(), shard, id).await?,
                Scope::Owner(user) => lock_owner(tx.conn(), shard, user).await?,
                Scope::Shard(_) => {
                    tx.unhurried().await?;
                    Begun { found: identity::read(tx.conn()).await?, moving: 0, is_absent: false }
                }
            };
            if store.may_have_moved(scope, &begun) && place_now(store, shard, &mut tx, scope).await? != Some(shard) {
                store.forget(scope);
                // A namespace that the directory does not know is nowhere, and a new one begins where its owner is.
                if !begun.is_absent || store.place_of(scope).await?.is_some_and(|now| now != shard) {
                    continue;
                }
            }
            if begun.moving == 2 {
                return Err(StoreError::Unavailable("the namespace is being moved to another shard; try again".into()));
            }
            let found = identity::looked_again(tx.conn(), begun.found).await?;
            if found.as_ref().is_some_and(|found| found.has_gone_back) {
                drop(tx);
                identity::renew_run(db).await?;
                continue;
            }
            let identity = found.map(|found| found.identity);
            return Ok(Self { store: store.clone(), shard, tx, directory: None, identity, nodes: 0 });
        }
        Err(StoreError::Contended("the place of a namespace, or the run of the relay, changes all the time".into()))
    }
}

impl Postgres {
    /// Whether what a row says, or that there is none, is a reason to ask the directory once more. Whoever makes a namespace asks always: the
    /// owner's row may have been made just now in a shard that the user has left.
    fn may_have_moved(&self, scope: Scope, begun: &Begun) -> bool {
        let is_reason = matches!(scope, Scope::Owner(_)) || begun.moving > 0 || begun.is_absent;
        is_reason && !matches!(scope, Scope::Shard(_)) && self.only_shard().is_none()
    }

    fn forget(&self, scope: Scope) {
        if let Scope::Namespace(id) = scope {
            self.forget_place(id);
        }
    }

    async fn place_of(&self, scope: Scope) -> Result<Option<Shard>, StoreError> {
        match scope {
            Scope::Namespace(id) => self.place(id).await,
            Scope::Owner(_) | Scope::Shard(_) => Ok(None),
        }
    }
}

/// What the directory says while the transaction holds its row: a move waits for that row before it changes the directory (MV2).
async fn place_now(store: &Postgres, shard: Shard, tx: &mut Writing, scope: Scope) -> Result<Option<Shard>, StoreError> {
    let mut apart;
    let conn = if store.is_directory(shard) {
        tx.conn()
    } else {
        apart = store.directory().read().await?;
        &mut *apart
    };
    match scope {
        Scope::Namespace(id) => places::of_namespace(conn, id).await,
        Scope::Owner(user) => places::of_user(conn, user).await,
        Scope::Shard(shard) => Ok(Some(shard)),
    }
}

async fn lock_namespace(conn: &mut PgConnection, shard: Shard, id: NamespaceId) -> Result<Begun, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        moving!("n."),
        ", r.epoch, r.replica, r.mark, current_setting('ferry.cluster') || '/' || r.tableoid::text
         FROM namespaces n, relay r WHERE n.shard_key = $1 AND n.namespace_id = $2 FOR UPDATE OF n",
    ))
    .bind(key(shard))
    .bind(id.as_bytes().to_vec())
    .fetch_optional(&mut *conn)
    .await
    .map_err(store_error)?;
    match row {
        Some(row) => Ok(Begun { moving: row.try_get(0).map_err(store_error)?, found: Some(identity::found(&row, 1)?), is_absent: false }),
        // No such namespace here, or nobody has asked for the relay's identity yet.
        None => {
            let sql = concat!("SELECT ", moving!(""), " FROM namespaces WHERE shard_key = $1 AND namespace_id = $2 FOR UPDATE");
            let locked =
                sqlx::query(sql).bind(key(shard)).bind(id.as_bytes().to_vec()).fetch_optional(&mut *conn).await.map_err(store_error)?;
            let moving = locked.as_ref().map(|row| row.try_get(0)).transpose().map_err(store_error)?.unwrap_or(0);
            Ok(Begun { found: identity::read(conn).await?, moving, is_absent: locked.is_none() })
        }
    }
}

async fn lock_owner(conn: &mut PgConnection, shard: Shard, user: UserId) -> Result<Begun, StoreError> {
    sqlx::query("INSERT INTO owners (shard_key, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(key(shard))
        .bind(user.as_bytes().to_vec())
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
    let row = sqlx::query(concat!("SELECT ", moving!(""), " FROM owners WHERE shard_key = $1 AND user_id = $2 FOR UPDATE"))
        .bind(key(shard))
        .bind(user.as_bytes().to_vec())
        .fetch_optional(&mut *conn)
        .await
        .map_err(store_error)?
        .ok_or_else(|| StoreError::Contended("a user who is being deleted".into()))?;
    Ok(Begun { moving: row.try_get(0).map_err(store_error)?, found: identity::read(conn).await?, is_absent: false })
}
