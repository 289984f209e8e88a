//! Group E: how programs save. After every pattern both devices hold the last save, under the old name, without leftovers or conflicts.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use std::fs;
use std::path::Path;

type Pattern = (&'static str, fn(&Path, u32));

const PATTERNS: &[Pattern] = &[
    ("E01 vim: backup, new file, remove backup", |d, k| {
        put(d, "4913", 1000 + k);
        rm(d, "4913");
        mv(d, "doc.txt", "doc.txt~");
        put(d, "doc.txt", k);
        rm(d, "doc.txt~");
    }),
    ("E02 nano: cut and write in place", |d, k| {
        use std::io::Write;
        let mut file = fs::File::options().write(true).truncate(true).open(d.join("doc.txt")).expect("the file");
        for part in bytes(d, k).chunks(7) {
            file.write_all(part).expect("room");
        }
    }),
    ("E03 write, sync, rename over", |d, k| save(d, "doc.txt", k)),
    ("E05 office: lock, temporary, delete, rename", |d, k| {
        put(d, ".~lock.doc.txt#", 2000 + k);
        put(d, "lu1234.tmp", k);
        rm(d, "doc.txt");
        mv(d, "lu1234.tmp", "doc.txt");
        rm(d, ".~lock.doc.txt#");
    }),
    ("E09 echo over the file", |d, k| put(d, "doc.txt", k)),
    ("E11 in place without cutting", |d, k| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(d.join("doc.txt")).expect("the file");
        let bytes = bytes(d, k);
        file.write_all_at(&bytes, 0).expect("room");
        file.set_len(bytes.len() as u64).expect("a cut");
    }),
];

#[test]
fn programs_save_in_their_ways() {
    let mut cluster = Cluster::new(2);
    let a = &cluster.devices[0];
    for (id, _) in PATTERNS {
        put(&a.path(id), "doc.txt", 0);
    }
    cluster.settle();
    let rounds = 12;
    for k in 1..=rounds {
        for (id, save) in PATTERNS {
            save(&cluster.devices[0].path(id), k);
        }
        ferry_tests::poll::pause(std::time::Duration::from_millis(80));
    }
    cluster.settle();
    for device in &cluster.devices {
        for (id, _) in PATTERNS {
            let dir = device.path(id);
            only(&dir, &["doc.txt"]).and(holds(&dir, "doc.txt", rounds)).unwrap_or_else(|what| panic!("{}: {id}: {what}", device.name()));
        }
    }
    cluster.finish();
}

/// E03, E06: saves by rename on two sides are edits of one file, not a delete and a new file.
#[test]
fn e03_saves_on_both_sides_conflict_once() {
    let mut cluster = Cluster::new(2);
    put(&cluster.devices[0].path("d"), "doc.txt", 1);
    cluster.settle();
    cluster.devices[1].stop();
    save(&cluster.devices[0].path("d"), "doc.txt", 2);
    save(&cluster.devices[1].path("d"), "doc.txt", 3);
    cluster.devices[1].start();
    cluster.settle();
    for device in &cluster.devices {
        kept_beside(&device.path("d"), "doc.txt", &[2, 3]).unwrap_or_else(|what| panic!("{}: {what}", device.name()));
    }
    cluster.finish();
}

/// E08: a git repository worked in on one side is clean on the other.
#[test]
fn e08_a_git_repository() {
    let mut cluster = Cluster::new(2);
    let git = |dir: &Path, words: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args([
            "-c",
            "user.name=Anna",
            "-c",
            "user.email=anna@example.org",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "safe.directory=*",
            "-C",
        ]);
        let output = command.arg(dir).args(words).env("HOME", dir).output().expect("git is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {words:?}: {text}");
        text
    };
    let repository = cluster.devices[0].path("repository");
    fs::create_dir_all(&repository).expect("a folder");
    git(&repository, &["init", "-q"]);
    for round in 0..3 {
        (0..60).for_each(|k| put(&repository, &format!("{}/{k}", k % 7), k + 100 * round));
        git(&repository, &["add", "-A"]);
        git(&repository, &["commit", "-q", "-m", "round"]);
    }
    git(&repository, &["checkout", "-q", "-b", "old", "HEAD~2"]);
    git(&repository, &["checkout", "-q", "main"]);
    cluster.settle();
    let other = cluster.devices[1].path("repository");
    git(&other, &["fsck", "--strict"]);
    put(&other, "from-b", 7);
    git(&other, &["add", "-A"]);
    git(&other, &["commit", "-q", "-m", "from the other side"]);
    cluster.settle();
    git(&repository, &["fsck", "--strict"]);
    assert_eq!(git(&repository, &["status", "--porcelain"]), "", "nothing is changed on the first side");
    assert!(git(&repository, &["log", "--oneline", "-1"]).contains("from the other side"));
    cluster.finish();
}
