//! Where metadata is kept: a file of SQLite, or a PostgreSQL database that several processes share.

use super::{ConfigError, without_password};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most shards: each costs every process a pool of connections.
const SHARDS_MAX: usize = 256;

/// Where metadata is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `sqlite://PATH`, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; not set: `relay.db` in the data directory.
    pub url: String,
    /// PostgreSQL: the databases in which the content of new users stands, in an order that never changes: shard N is the Nth. Not set: in the database
    /// of `url`, which is shard 0.
    pub shards: Vec<String>,
    /// PostgreSQL: streaming replicas of the database of `url`. What may be some seconds old is read there: lists of users, the audit log; and pages of
    /// feeds, from one that has them already.
    pub replicas: Vec<String>,
    /// PostgreSQL: streaming replicas of shards, each `SHARD=postgres://...` with the number of the shard; pages of feeds are read there as well.
    pub shard_replicas: Vec<String>,
    /// PostgreSQL: connections of this process to each database, 2 to 1000.
    pub pool_size: u32,
    /// PostgreSQL: how long a request waits for a connection before it is told to come back, in seconds.
    pub acquire_timeout_s: u32,
    /// PostgreSQL: how long one statement of a request may take, in seconds.
    pub statement_timeout_s: u32,
    /// PostgreSQL: how long one statement may wait for what another transaction holds, in seconds.
    pub lock_timeout_s: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: String::new(),
            shards: Vec::new(),
            replicas: Vec::new(),
            shard_replicas: Vec::new(),
            pool_size: 16,
            acquire_timeout_s: 10,
            statement_timeout_s: 30,
            lock_timeout_s: 10,
        }
    }
}

/// Which metadata database `database.url` names.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The file of an SQLite database.
    Sqlite(PathBuf),
    /// The address of a PostgreSQL database, perhaps with a password in it.
    Postgres(String),
}

// A password must not reach a log by way of a debug print.
impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "Sqlite({})", path.display()),
            Self::Postgres(url) => write!(f, "Postgres({})", without_password(url)),
        }
    }
}

impl DatabaseUrl {
    /// Whether several processes may use the database at once.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

impl Database {
    /// The database that is named; `data` is the data directory.
    pub(super) fn place(&self, data: &Path) -> Result<DatabaseUrl, ConfigError> {
        let url = &self.url;
        if url.is_empty() {
            return Ok(DatabaseUrl::Sqlite(data.join("relay.db")));
        }
        if is_postgres(url) {
            return Ok(DatabaseUrl::Postgres(url.clone()));
        }
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match path.map(|p| p.split('?').next().unwrap_or(p)) {
            Some(path) if !path.is_empty() => Ok(DatabaseUrl::Sqlite(path.into())),
            _ => Err(ConfigError(format!(
                "database.url is '{}': expected sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE",
                without_password(url)
            ))),
        }
    }

    /// Whether the values can be used.
    pub(super) fn check(&self, data: &Path) -> Result<(), ConfigError> {
        let is_shared = self.place(data)?.is_shared();
        for (name, list) in [("shards", &self.shards), ("replicas", &self.replicas)] {
            if !list.is_empty() && !is_shared {
                return Err(ConfigError(format!("database.{name} needs a database.url of PostgreSQL")));
            }
            if let Some(other) = list.iter().find(|url| !is_postgres(url)) {
                let other = without_password(other);
                return Err(ConfigError(format!("database.{name} has '{other}': expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")));
            }
        }
        if !self.shard_replicas.is_empty() && !is_shared {
            return Err(ConfigError("database.shard_replicas needs a database.url of PostgreSQL".into()));
        }
        self.replicas_by_shard()?;
        if self.shards.len() > SHARDS_MAX {
            return Err(ConfigError(format!("database.shards has more than {SHARDS_MAX} databases")));
        }
        if !(2..=1000).contains(&self.pool_size) {
            return Err(ConfigError("database.pool_size must be between 2 and 1000 connections".into()));
        }
        for (name, value) in [
            ("acquire_timeout_s", self.acquire_timeout_s),
            ("statement_timeout_s", self.statement_timeout_s),
            ("lock_timeout_s", self.lock_timeout_s),
        ] {
            if !(1..=3600).contains(&value) {
                return Err(ConfigError(format!("database.{name} must be between 1 and 3600 seconds")));
            }
        }
        Ok(())
    }

    /// The replicas of each shard; those of the database of `url` are of shard 0.
    pub(crate) fn replicas_by_shard(&self) -> Result<BTreeMap<u16, Vec<String>>, ConfigError> {
        let mut all = BTreeMap::from([(0, self.replicas.clone())]);
        for text in &self.shard_replicas {
            let parts = text.split_once('=').and_then(|(shard, url)| Some((shard.trim().parse::<u16>().ok()?, url.trim())));
            match parts.filter(|(shard, url)| (1..=self.shards.len()).contains(&usize::from(*shard)) && is_postgres(url)) {
                Some((shard, url)) => all.entry(shard).or_default().push(url.to_owned()),
                None => {
                    return Err(ConfigError(format!(
                        "database.shard_replicas has '{}': expected SHARD=postgres://USER:PASSWORD@HOST:PORT/DATABASE with a shard from 1 to {}",
                        without_password(text),
                        self.shards.len()
                    )));
                }
            }
        }
        Ok(all)
    }

    /// The same for the store.
    #[cfg(feature = "cluster")]
    pub(crate) fn settings(&self) -> crate::store::postgres::Settings {
        let seconds = |s: u32| std::time::Duration::from_secs(u64::from(s));
        crate::store::postgres::Settings {
            pool_size: self.pool_size,
            acquire_timeout: seconds(self.acquire_timeout_s),
            statement_timeout: seconds(self.statement_timeout_s),
            lock_timeout: seconds(self.lock_timeout_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_belong_to_shards_that_there_are() {
        let url = |host: &str| format!("postgres://ferry:secret@{host}/ferry");
        let with = |shard_replicas: Vec<String>| Database {
            url: url("db"),
            shards: vec![url("one"), url("two")],
            replicas: vec![url("copy")],
            shard_replicas,
            ..Database::default()
        };
        let good = with(vec![format!("2={}", url("a")), format!("2 = {}", url("b"))]);
        assert_eq!(good.replicas_by_shard().unwrap(), BTreeMap::from([(0, vec![url("copy")]), (2, vec![url("a"), url("b")])]));
        for wrong in [url("a"), format!("0={}", url("a")), format!("3={}", url("a")), "1=sqlite://x".into(), "x".into()] {
            let ConfigError(text) = with(vec![wrong]).check(Path::new("/d")).unwrap_err();
            assert!(text.contains("from 1 to 2") && !text.contains("secret"), "{text}");
        }
        assert!(Database { shard_replicas: vec!["1=x".into()], ..Database::default() }.check(Path::new("/d")).is_err());
    }
}
