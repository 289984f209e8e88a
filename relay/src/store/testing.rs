//! Empty metadata databases for tests, of each kind: what every store must do is asked of all of them.

use super::MetaStore;
use super::sqlite::Sqlite;
use crate::config::Database;
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "cluster")]
#[path = "../../../tests/src/postgres.rs"]
pub(crate) mod server;

/// A kind of metadata database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Db {
    Sqlite,
    #[cfg(feature = "cluster")]
    Postgres,
    /// PostgreSQL with two shards beside the directory. Its address is three, with spaces between them.
    #[cfg(feature = "cluster")]
    Shards,
}

/// The one server of this test process.
#[cfg(feature = "cluster")]
pub(crate) fn cluster() -> &'static server::Cluster {
    static CLUSTER: std::sync::OnceLock<server::Cluster> = std::sync::OnceLock::new();
    CLUSTER.get_or_init(server::Cluster::start)
}

/// What tests set: few connections, so that waiting for them is part of every test.
#[cfg(feature = "cluster")]
pub(crate) fn settings() -> super::postgres::Settings {
    database(String::new()).settings()
}

fn database(url: String) -> Database {
    Database { url, pool_size: 4, acquire_timeout_s: 60, statement_timeout_s: 60, lock_timeout_s: 60, ..Database::default() }
}

impl Db {
    /// The address of a new, empty database; `dir` must live as long.
    pub(crate) fn url(self, dir: &Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite://{}", dir.join("relay.db").display()),
            #[cfg(feature = "cluster")]
            Self::Postgres => cluster().database(),
            #[cfg(feature = "cluster")]
            Self::Shards => [(); 3].map(|()| cluster().database()).join(" "),
        }
    }

    /// The configuration of a relay on a new, empty database.
    pub(crate) fn config(self, dir: &Path) -> Database {
        database(self.url(dir))
    }

    /// Opens the database of an address.
    pub(crate) async fn open(self, url: &str) -> Arc<dyn MetaStore> {
        match self {
            Self::Sqlite => Arc::new(Sqlite::open(Path::new(url.trim_start_matches("sqlite://"))).await.unwrap()),
            #[cfg(feature = "cluster")]
            Self::Postgres | Self::Shards => {
                let mut urls = url.split(' ').map(str::to_owned);
                let (url, shards) = (urls.next().unwrap(), urls.collect::<Vec<_>>());
                Arc::new(super::postgres::Postgres::open(&url, &shards, &[], &settings()).await.unwrap())
            }
        }
    }

    /// Statements straight to the database of an address: what no release of ours would write.
    pub(crate) async fn sql(self, url: &str, sql: &'static str) {
        match self {
            Self::Sqlite => super::sqlite::run_sql(url, sql).await,
            #[cfg(feature = "cluster")]
            Self::Postgres | Self::Shards => {
                for url in url.split(' ') {
                    super::postgres::run_sql(url, sql).await;
                }
            }
        }
    }

    /// A new, empty store; `dir` must live as long.
    pub(crate) async fn store(self, dir: &tempfile::TempDir) -> Arc<dyn MetaStore> {
        self.store_in(dir.path()).await
    }

    /// The same in a directory that holds no other.
    pub(crate) async fn store_in(self, dir: &Path) -> Arc<dyn MetaStore> {
        self.open(&self.url(dir)).await
    }
}

/// Makes of an `async fn NAME(kind: Db)` one test for each kind of store.
macro_rules! on_each_store {
    ($name:ident $(, $($how:tt)+)?) => {
        mod $name {
            #[tokio::test$(($($how)+))?]
            async fn on_sqlite() {
                super::$name($crate::store::testing::Db::Sqlite).await;
            }

            #[cfg(feature = "cluster")]
            #[tokio::test$(($($how)+))?]
            async fn on_postgres() {
                super::$name($crate::store::testing::Db::Postgres).await;
            }
        }
    };
}
pub(crate) use on_each_store;

/// The same, and one more for a relay with shards.
macro_rules! on_each_kind {
    ($name:ident $(, $($how:tt)+)?) => {
        mod $name {
            #[tokio::test$(($($how)+))?]
            async fn on_sqlite() {
                super::$name($crate::store::testing::Db::Sqlite).await;
            }

            #[cfg(feature = "cluster")]
            #[tokio::test$(($($how)+))?]
            async fn on_postgres() {
                super::$name($crate::store::testing::Db::Postgres).await;
            }

            #[cfg(feature = "cluster")]
            #[tokio::test$(($($how)+))?]
            async fn on_shards() {
                super::$name($crate::store::testing::Db::Shards).await;
            }
        }
    };
}
pub(crate) use on_each_kind;
