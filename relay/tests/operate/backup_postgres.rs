//! The same for a relay whose database is PostgreSQL: its own tools make the copy and bring it back.
#![cfg(feature = "cluster")]

#[path = "../../../tests/src/postgres.rs"]
pub mod server;

use super::process::*;
use std::path::Path;

#[test]
fn a_relay_on_postgresql_is_backed_up_and_restored() {
    let cluster = server::Cluster::start();
    let (first, second) = (cluster.database(), cluster.database());
    let dir = tempfile::tempdir().unwrap();
    let (data, other, backup) = (dir.path().join("data"), dir.path().join("other"), dir.path().join("backup"));
    let (old, new) = ([("FERRY_RELAY__DATABASE__URL", first.as_str())], [("FERRY_RELAY__DATABASE__URL", second.as_str())]);
    let to = backup.to_str().unwrap();
    let relay = Relay::start(&data, &old);
    let token = relay.login();
    let files: Vec<(Vec<u8>, String)> = (0..5)
        .map(|n| {
            let content = format!("content number {n}").into_bytes();
            let id = relay.upload(&token, &format!("file {n}"), &content);
            (content, id)
        })
        .collect();
    // The same metrics and the same audit log as on SQLite.
    let metrics = get(relay.admin, "/metrics").unwrap().text();
    assert!(metrics.contains("ferry_relay_db_pool_max_connections{") && metrics.contains("ferry_relay_storage_chunks "), "{metrics}");
    let made = json_with(&data, &old, &["backup", "create", "-o", to, "--json"]);
    assert!(made["packs"].as_u64() >= Some(1) && made["database_bytes"].as_u64() > Some(1000), "{made}");
    assert!(stdout(&run(dir.path(), &["backup", "verify", to])).contains("the backup is whole"));
    let events = json_with(&data, &old, &["audit", "list", "--json"]);
    let created = events["entries"].as_array().unwrap().iter().find(|e| e["event"] == "backup.created").expect("an entry");
    assert_eq!(created["via"], "cli");
    drop(relay);
    let name = first.rsplit('/').next().unwrap();
    super::backup::repaired(&data, &old, || {
        cluster.sql(name, "UPDATE namespace_chunks SET refs = refs + 3; UPDATE owners SET storage_used = 7");
    });

    // Nothing is overwritten, and a dump does not go into SQLite.
    for env in [&old[..], &[]] {
        let refused = run_with(&other, env, &["backup", "restore", to]);
        assert_eq!(refused.status.code(), Some(8), "{}", String::from_utf8_lossy(&refused.stderr));
        assert!(!other.join("jwt.key").exists() && !other.join("blobs").exists(), "nothing is begun that cannot be ended");
    }
    let restored = json_with(&other, &new, &["backup", "restore", to, "--json"]);
    assert_eq!(restored["packs"], made["packs"]);
    let verified = json_with(&other, &new, &["storage", "verify", "--read-data", "--json"]);
    assert_eq!(verified["damaged"], 0, "{verified}");
    let relay = Relay::start(&other, &new);
    for (content, id) in &files {
        let answer = relay.call("GET", &format!("/download/{id}"), &token, None);
        assert_eq!((answer.status, &answer.body), (200, content));
    }
    let spaces = relay.call("GET", "/sync/v1/namespaces", &token, None).json();
    assert_eq!(spaces[0]["epoch"], restored["epoch"], "a new life: devices send again what is missing");
    // A dump that is none is found.
    let dump = std::fs::read_dir(backup.join("database")).unwrap().next().unwrap().unwrap().path().join("relay.dump");
    std::fs::write(&dump, "not a dump").unwrap();
    assert_eq!(run(dir.path(), &["backup", "verify", to]).status.code(), Some(6));
}

/// Restores, killed before each database comes and after the last one, and then to the end; says what the last run said.
fn broken_off_and_restored(dir: &Path, data: &Path, env: &[(&str, &str)], backup: &Path) -> serde_json::Value {
    let tools = dir.join("tools");
    std::fs::create_dir(&tools).unwrap();
    let (count, script) = (tools.join("calls"), tools.join("pg_restore"));
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let (to, env) = (backup.to_str().unwrap(), [env, &[("PATH", path.as_str())]].concat());
    for (calls, is_done) in [(1, false), (2, false), (1, true), (1, false), (1, true)] {
        // Kills the relay's process, which is the parent, at its call of this number: before the real program runs, or after.
        let real = "PATH=${PATH#*:} pg_restore \"$@\" || exit $?";
        let (before, after) = if is_done { ("", "kill -9 $PPID") } else { ("kill -9 $PPID; exit 1", "") };
        let text = format!(
            "#!/bin/sh\necho >> {count}\nis_it() {{ [ $(wc -l < {count}) -eq {calls} ]; }}\nif is_it; then :; {before}\nfi\n{real}\nif is_it; then :; {after}\nfi\n",
            count = count.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let _ = std::fs::remove_file(&count);
        let killed = run_with(data, &env, &["backup", "restore", to]);
        assert_eq!(killed.status.code(), None, "it was killed: {killed:?}");
    }
    // Another backup does not go on where this one was broken off.
    let (other, manifest) = (dir.join("another"), backup.join("manifest.json"));
    assert!(std::process::Command::new("cp").arg("-a").arg(backup).arg(&other).status().unwrap().success());
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(other.join("manifest.json"), text + " ").unwrap();
    let refused = run_with(data, &env[..env.len() - 1], &["backup", "restore", other.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(8) && said.contains("restore of another backup was broken off"), "{said}");
    json_with(data, &env[..env.len() - 1], &["backup", "restore", to, "--json"])
}

/// A directory and two shards: users of all of them, one of whom has moved, come back from one backup.
#[test]
fn a_relay_with_shards_is_backed_up_and_restored_as_one() {
    let cluster = server::Cluster::start();
    let urls = [(); 6].map(|()| cluster.database());
    let (old_shards, new_shards) = (urls[1..3].join(","), urls[4..6].join(","));
    let settings = |url, shards| [("FERRY_RELAY__DATABASE__URL", url), ("FERRY_RELAY__DATABASE__SHARDS", shards)];
    let (old, new) = (settings(urls[0].as_str(), old_shards.as_str()), settings(urls[3].as_str(), new_shards.as_str()));
    let dir = tempfile::tempdir().unwrap();
    let (data, other, backup) = (dir.path().join("data"), dir.path().join("other"), dir.path().join("backup"));
    let relay = Relay::start(&data, &old);
    let users: Vec<String> = (0..6).map(|n| format!("user{n}@example.org")).collect();
    let mut files = Vec::new();
    for email in &users {
        add_user_with(&data, &old, email);
        let token = relay.login_as(email);
        let content = format!("content of {email}").into_bytes();
        let id = relay.upload(&token, "file", &content);
        files.push((token, content, id));
    }
    let list = json_with(&data, &old, &["shard", "list", "--json"]);
    let users_of = |list: &serde_json::Value, n: usize| list["shards"][n]["users"].as_u64().unwrap();
    assert_eq!((users_of(&list, 0), users_of(&list, 1) + users_of(&list, 2)), (0, 7), "{list}");
    // Everybody out of one shard: some into the other one, while the relay serves.
    let (from, to) = if users_of(&list, 1) > 0 { (1, 2) } else { (2, 1) };
    let shard = from.to_string();
    let dry = json_with(&data, &old, &["shard", "drain", &shard, "--dry-run", "--json"]);
    assert_eq!(dry["moved"].as_array().unwrap().len() as u64, users_of(&list, from), "{dry}");
    assert_eq!(json_with(&data, &old, &["shard", "list", "--json"])["shards"][from]["takes_new_users"], true, "nothing was changed");
    let first = dry["moved"][0]["user_id"].as_str().unwrap();
    let said = run_with(&data, &old, &["shard", "move", first, "--to", "0", "--settle", "0"]);
    assert!(stdout(&said).contains("has moved from shard"), "{said:?}");
    let list = json_with(&data, &old, &["shard", "list", "--json"]);
    assert_eq!((users_of(&list, 0), list["unfinished"].as_array().unwrap().len()), (1, 0), "{list}");
    assert!(users_of(&list, to) > 0 || users_of(&list, from) > 0);
    for (token, content, id) in &files {
        assert_eq!(&relay.call("GET", &format!("/download/{id}"), token, None).body, content, "the relay serves on");
    }
    let unknown = run_with(&data, &old, &["shard", "move", first, "--to", "7"]);
    assert_eq!(unknown.status.code(), Some(8), "{}", String::from_utf8_lossy(&unknown.stderr));

    // Drained: nobody is there, and nobody comes, until it is opened again.
    let drained = json_with(&data, &old, &["shard", "drain", &shard, "--settle", "0", "--json"]);
    assert_eq!(drained["moved"].as_array().unwrap().len() as u64, users_of(&list, from), "{drained}");
    (0..8).for_each(|n| add_user_with(&data, &old, &format!("late{n}@example.org")));
    let list = json_with(&data, &old, &["shard", "list", "--json"]);
    assert_eq!((users_of(&list, from), &list["shards"][from]["takes_new_users"]), (0, &false.into()), "{list}");
    let back = run_with(&data, &old, &["shard", "drain", &to.to_string(), "--to", &shard]);
    assert_eq!(back.status.code(), Some(8), "{back:?}");
    json_with(&data, &old, &["shard", "open", &shard, "--json"]);
    (0..8).for_each(|n| add_user_with(&data, &old, &format!("later{n}@example.org")));
    assert!(users_of(&json_with(&data, &old, &["shard", "list", "--json"]), from) > 0);

    let path = backup.to_str().unwrap();
    let made = json_with(&data, &old, &["backup", "create", "-o", path, "--json"]);
    assert!(stdout(&run(dir.path(), &["backup", "verify", path])).contains("the backup is whole"));
    drop(relay);
    let restored = broken_off_and_restored(dir.path(), &other, &new, &backup);
    assert_eq!((&restored["packs"], &restored["packs_there"]), (&made["packs"], &made["packs"]));
    for url in &urls[3..] {
        let left = cluster.sql(url.rsplit('/').next().unwrap(), "SELECT count(*) FROM pg_namespace WHERE nspname = 'ferry_restore'");
        assert_eq!(left.trim(), "0", "no mark is left in {url}");
    }
    let again = run_with(&other, &new, &["backup", "restore", path]);
    assert_eq!(again.status.code(), Some(8), "a restore that has ended is not begun again: {again:?}");
    let verified = json_with(&other, &new, &["storage", "verify", "--read-data", "--json"]);
    assert_eq!(verified["damaged"], 0, "{verified}");
    let relay = Relay::start(&other, &new);
    for (token, content, id) in &files {
        let answer = relay.call("GET", &format!("/download/{id}"), token, None);
        assert_eq!((answer.status, &answer.body), (200, content), "{}", answer.text());
        relay.upload(token, "after", b"written after the restore");
    }
    // A pack that a shard names and the backup lacks is found, whichever shard it is.
    let packs = backup.join("packs");
    let folder = std::fs::read_dir(&packs).unwrap().next().unwrap().unwrap().path();
    let pack = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(pack).unwrap();
    assert_eq!(run(dir.path(), &["backup", "verify", path]).status.code(), Some(6));
}

#[test]
fn without_the_tools_of_postgresql_it_says_what_is_missing() {
    let cluster = server::Cluster::start();
    let database = cluster.database();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let env = [("FERRY_RELAY__DATABASE__URL", database.as_str()), ("PATH", "/nowhere")];
    let output = run_with(&data, &env, &["backup", "create", "-o", dir.path().join("b").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("pg_dump") && said.contains("postgresql-client"), "{said}");
}
