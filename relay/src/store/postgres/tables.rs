//! Every table and where it belongs: what a user's move copies, and what it may leave. A test compares the list with the schema.

/// Where a table belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// In every database, about that database.
    Each,
    /// About users, in the directory only: it has no shard key, for this reason.
    Directory(&'static str),
    /// One row for each user of a shard.
    Owners,
    /// Rows of namespaces, which each names itself.
    Namespaces,
    /// Rows of namespaces, which name a version of this table.
    VersionsOf(&'static str),
    /// Where bytes are, in a shard: whoever moves stores them anew, and rows come by that.
    Bytes,
}

const ACCOUNT: &str = "found by a secret or an address, before it is known whose it is";
const MEMBER: &str = "joins users of several shards";

/// All tables; those of namespaces in the order in which their rows may be written.
pub(super) const TABLES: &[(&str, Home)] = &[
    ("schema_migrations", Home::Each),
    ("settings", Home::Each),
    ("relay", Home::Each),
    ("users", Home::Directory("says which shard a user is in")),
    ("devices", Home::Directory(ACCOUNT)),
    ("device_addresses", Home::Directory("asked for the devices of members, who are users of several shards")),
    ("device_reports", Home::Directory("of devices, which are there")),
    ("device_requests", Home::Directory(ACCOUNT)),
    ("sessions", Home::Directory(ACCOUNT)),
    ("web_sessions", Home::Directory(ACCOUNT)),
    ("refresh_tokens", Home::Directory(ACCOUNT)),
    ("one_time_codes", Home::Directory(ACCOUNT)),
    ("mfa_challenges", Home::Directory(ACCOUNT)),
    ("totp", Home::Directory(ACCOUNT)),
    ("recovery_codes", Home::Directory(ACCOUNT)),
    ("api_tokens", Home::Directory(ACCOUNT)),
    ("identities", Home::Directory(ACCOUNT)),
    ("audit", Home::Directory("one log of the whole relay, in one order")),
    ("placements", Home::Directory("says whose a namespace is, and by that where")),
    ("members", Home::Directory(MEMBER)),
    ("memberships", Home::Directory(MEMBER)),
    ("shared_files", Home::Directory(MEMBER)),
    ("invitations", Home::Directory("asked for by the address of somebody who may be in any shard, or be no user yet")),
    ("past_writers", Home::Directory(MEMBER)),
    ("public_links", Home::Directory("found by the address alone, before anybody knows whose namespace it is")),
    ("public_link_downloads", Home::Directory("counted with the link")),
    ("shard_moves", Home::Directory("about two shards")),
    ("packs", Home::Bytes),
    ("pack_copies", Home::Bytes),
    ("chunks", Home::Bytes),
    ("damage", Home::Bytes),
    ("owners", Home::Owners),
    ("namespaces", Home::Namespaces),
    ("files", Home::Namespaces),
    ("file_versions", Home::Namespaces),
    ("file_chunks", Home::VersionsOf("file_versions")),
    ("commits", Home::Namespaces),
    ("feed_gaps", Home::Namespaces),
    ("node_history", Home::Namespaces),
    ("rewinds", Home::Namespaces),
    ("namespace_chunks", Home::Namespaces),
    ("uploads", Home::Namespaces),
    ("upload_chunks", Home::VersionsOf("uploads")),
    ("dav_locks", Home::Namespaces),
    ("dav_props", Home::Namespaces),
];

/// Which rows of a table are a namespace's: a condition on `t`. Nothing for a table that has none.
pub(super) fn rows_of(home: Home, shard: i16, namespace: &str) -> Option<String> {
    let own = |t: &str| format!("{t}.shard_key = {shard} AND {t}.namespace_id = '\\x{namespace}'::bytea");
    match home {
        Home::Namespaces => Some(own("t")),
        Home::VersionsOf(table) => {
            Some(format!("t.shard_key = {shard} AND EXISTS (SELECT 1 FROM {table} v WHERE {} AND v.version_id = t.version_id)", own("v")))
        }
        Home::Each | Home::Directory(_) | Home::Owners | Home::Bytes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::cluster;
    use std::collections::{BTreeMap, BTreeSet};

    /// The tables of a database with the columns of their primary keys, in order.
    fn schema(database: &str) -> BTreeMap<String, Vec<String>> {
        let sql = "SELECT c.relname || ' ' || coalesce((SELECT string_agg(a.attname, ',' ORDER BY k.n) FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE i.indrelid = c.oid AND i.indisprimary), '')
             FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace";
        let said = cluster().sql(database, sql);
        let lines = said.lines().filter_map(|l| l.split_once(' '));
        lines.map(|(table, keys)| (table.to_owned(), keys.split(',').map(str::to_owned).collect())).collect()
    }

    async fn migrated() -> String {
        use sqlx::Connection;
        let url = cluster().database();
        super::super::migrate::run(&mut sqlx::PgConnection::connect(&url).await.unwrap()).await.unwrap();
        url.rsplit('/').next().unwrap().to_owned()
    }

    /// A table that is not in the list would stay behind when its user moves.
    #[tokio::test]
    async fn every_table_is_in_the_list_and_those_by_shard_begin_with_its_key() {
        let schema = schema(&migrated().await);
        let listed: BTreeSet<&str> = TABLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed.len(), TABLES.len(), "each once");
        assert_eq!(schema.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
        for (table, home) in TABLES {
            let is_by_shard = !matches!(home, Home::Each | Home::Directory(_));
            assert_eq!(schema[*table].first().is_some_and(|first| first == "shard_key"), is_by_shard, "{table}: {:?}", schema[*table]);
        }
    }

    /// What an engine that distributes tables asks for: whatever must be unique, or must be there, is so within one shard key.
    #[tokio::test]
    async fn every_constraint_of_content_stays_within_a_shard_key() {
        let database = migrated().await;
        let content: Vec<String> = TABLES
            .iter()
            .filter(|(_, home)| !matches!(home, Home::Each | Home::Directory(_)))
            .map(|(name, _)| format!("'{name}'::regclass"))
            .collect();
        let content = content.join(", ");
        let unique = format!(
            "SELECT i.indexrelid::regclass FROM pg_index i WHERE i.indrelid IN ({content}) AND i.indisunique AND NOT EXISTS (
               SELECT 1 FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = 'shard_key' AND a.attnum = ANY(i.indkey))"
        );
        assert_eq!(cluster().sql(&database, &unique), "");
        let foreign = format!(
            "SELECT c.conname FROM pg_constraint c WHERE c.contype = 'f' AND c.conrelid IN ({content}) AND (c.confrelid NOT IN ({content}) OR NOT EXISTS (
               SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attname = 'shard_key' AND a.attnum = ANY(c.conkey)))"
        );
        assert_eq!(cluster().sql(&database, &foreign), "");
    }

    /// Each statement says which shard it is about: every piece of SQL in the sources that names a table of content names the key too.
    #[test]
    fn every_statement_on_content_names_the_shard_key() {
        let content: Vec<&str> =
            TABLES.iter().filter(|(_, home)| !matches!(home, Home::Each | Home::Directory(_))).map(|(name, _)| *name).collect();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres");
        let (mut folders, mut looked_at, mut without) = (vec![root], 0, Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap().replace("\\\"", "");
                for literal in text.split('"').skip(1).step_by(2).filter(|l| names_one_of(l, &content)) {
                    looked_at += 1;
                    if !literal.contains("shard_key") && !literal.starts_with("LOCK TABLE") {
                        without.push(format!("{}: {literal}", path.display()));
                    }
                }
            }
        }
        assert!(looked_at > 80, "{looked_at}");
        assert!(without.is_empty(), "{without:#?}");
    }

    /// Whether a text is a statement that reads or writes one of these tables.
    fn names_one_of(text: &str, tables: &[&str]) -> bool {
        let words: Vec<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).collect();
        words.windows(2).any(|pair| ["FROM", "JOIN", "INTO", "UPDATE", "TABLE"].contains(&pair[0]) && tables.contains(&pair[1]))
    }
}
