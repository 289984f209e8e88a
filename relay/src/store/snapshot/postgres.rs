//! `pg_dump`, `pg_restore` and `psql`, called so that no password stands where others can read it.

use crate::backup::BackupError;
use crate::store::content::PackId;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// An address without its password, and the password.
fn split_password(url: &str) -> (String, Option<String>) {
    let whole = || (url.to_owned(), None);
    let Some((scheme, rest)) = url.split_once("://") else { return whole() };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let Some((login, host)) = rest[..authority_end].rsplit_once('@') else { return whole() };
    let Some((user, password)) = login.split_once(':') else { return whole() };
    (format!("{scheme}://{user}@{host}{}", &rest[authority_end..]), Some(decoded(password)))
}

/// Percent signs resolved; what is no escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escape.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn run(program: &str, url: Option<&str>, words: &[&std::ffi::OsStr]) -> Result<String, BackupError> {
    let mut command = Command::new(program);
    if let Some(url) = url {
        let (url, password) = split_password(url);
        command.arg("--dbname").arg(url);
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
    }
    let output = command.args(words).stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|e| {
        BackupError::Program(format!(
            "cannot run {program}: {e}. Backups of PostgreSQL need its client programs in the PATH (Debian: postgresql-client)"
        ))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().take(5).collect();
    Err(BackupError::Program(format!("{program} failed: {}", said.join("; "))))
}

/// Writes a dump of the database to `file`; consistent, whatever is written meanwhile.
pub(super) async fn dump(url: &str, file: &Path) -> Result<(), BackupError> {
    // The schema of the mark (below) is no part of a relay.
    let words = ["--format=custom", "--no-owner", "--no-privileges", "--no-password", "--exclude-schema=ferry_restore", "--file"];
    run("pg_dump", Some(url), &[&words.map(std::ffi::OsStr::new)[..], &[file.as_os_str()]].concat()).await.map(drop)
}

/// What `psql` says to statements, which make one transaction.
async fn ask(url: &str, sql: &str) -> Result<String, BackupError> {
    let words = ["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--command", sql].map(std::ffi::OsStr::new);
    Ok(run("psql", Some(url), &words).await?.trim().to_owned())
}

/// How many tables the database holds.
pub(super) async fn tables(url: &str) -> Result<u64, BackupError> {
    let query = "SELECT count(*) FROM information_schema.tables
                 WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'ferry_restore')";
    let said = ask(url, query).await?;
    said.parse().map_err(|_| BackupError::Program(format!("psql said '{said}' for a number")))
}

/// Which backup is being restored there.
pub(super) async fn mark(url: &str) -> Result<Option<String>, BackupError> {
    if ask(url, "SELECT to_regclass('ferry_restore.mark') IS NULL").await? == "t" {
        return Ok(None);
    }
    Ok(Some(ask(url, "SELECT backup FROM ferry_restore.mark").await?))
}

/// Says so. The hash is hexadecimal.
pub(super) async fn set_mark(url: &str, backup: &str) -> Result<(), BackupError> {
    let sql = format!(
        "SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS ferry_restore;
         CREATE TABLE IF NOT EXISTS ferry_restore.mark (backup text NOT NULL);
         DELETE FROM ferry_restore.mark; INSERT INTO ferry_restore.mark VALUES ('{backup}')"
    );
    ask(url, &sql).await.map(drop)
}

/// Says it no more.
pub(super) async fn remove_mark(url: &str) -> Result<(), BackupError> {
    ask(url, "SET client_min_messages = warning; DROP SCHEMA IF EXISTS ferry_restore CASCADE").await.map(drop)
}

/// Brings a dump back, in one transaction.
pub(super) async fn restore(url: &str, file: &Path) -> Result<(), BackupError> {
    let words = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", "--no-password"].map(std::ffi::OsStr::new);
    run("pg_restore", Some(url), &[&words[..], &[file.as_os_str()]].concat()).await.map(drop)
}

/// The packs that a dump names, with their lengths in bytes.
pub(super) async fn packs(file: &Path) -> Result<Vec<(PackId, u64)>, BackupError> {
    let words = ["--data-only", "--table=packs", "--file=-"].map(std::ffi::OsStr::new);
    let text = run("pg_restore", None, &[&words[..], &[file.as_os_str()]].concat()).await?;
    packs_of(&text).ok_or_else(|| BackupError::Damaged(format!("{} has no list of packs that can be read", file.display())))
}

/// The rows of a `COPY packs (...) FROM stdin;`.
fn packs_of(text: &str) -> Option<Vec<(PackId, u64)>> {
    let mut lines = text.lines();
    let head = lines.find(|line| line.starts_with("COPY ") && line.ends_with(" FROM stdin;"))?;
    let columns: Vec<&str> = head.split_once('(')?.1.split_once(')')?.0.split(", ").collect();
    let (id, length) = (columns.iter().position(|c| *c == "pack_id")?, columns.iter().position(|c| *c == "length")?);
    let row = |line: &str| {
        let values: Vec<&str> = line.split('\t').collect();
        let mut bytes = [0; 16];
        hex::decode_to_slice(values.get(id)?.strip_prefix(r"\\x")?, &mut bytes).ok()?;
        Some((PackId(bytes), values.get(length)?.parse().ok()?))
    };
    let mut packs = Vec::new();
    for line in lines {
        if line == r"\." {
            return Some(packs);
        }
        packs.push(row(line)?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packs_of_a_dump_are_read_and_a_part_of_them_is_no_list() {
        let text = "--\nCOPY public.packs (shard_key, pack_id, length, created_at, retired_at) FROM stdin;\n\
                    1\t\\\\x000102030405060708090a0b0c0d0e0f\t120\t5\t\\N\n\\.\n\n--\n";
        let id = PackId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(packs_of(text), Some(vec![(id, 120)]));
        assert_eq!(packs_of(&text.replace("\\.", "")), None);
        assert_eq!(packs_of(&text.replace("0e0f", "0e")), None);
        assert_eq!(packs_of("nothing"), None);
    }

    #[test]
    fn passwords_leave_the_address() {
        let split = |url| split_password(url);
        assert_eq!(split("postgres://u:p%40ss%25w@h:1/d?x=y"), ("postgres://u@h:1/d?x=y".into(), Some("p@ss%w".into())));
        assert_eq!(split("postgres://u@h/d"), ("postgres://u@h/d".into(), None));
        assert_eq!(split("postgres:///d?host=/run"), ("postgres:///d?host=/run".into(), None));
        assert_eq!(decoded("100%"), "100%");
    }
}
