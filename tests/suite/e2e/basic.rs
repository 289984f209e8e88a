//! Group B, the basic matrix: every row is played from each device to the other, all rows of one direction at once in folders of their own.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

struct Row {
    id: &'static str,
    /// What both devices have before.
    before: fn(&Path),
    /// What the person then does on one device.
    act: fn(&Path),
    /// What must then stand on both.
    expect: fn(&Path) -> Verdict,
}

fn nothing(_: &Path) {}

const ROWS: &[Row] = &[
    Row {
        id: "B01 a file of one byte and one of none",
        before: nothing,
        act: |d| {
            put_bytes(d, "one", b"1");
            put_bytes(d, "none", b"");
        },
        expect: |d| holds_bytes(d, "one", b"1").and(holds_bytes(d, "none", b"")),
    },
    Row {
        id: "B02 sizes around the chunk limits",
        before: nothing,
        act: |d| SIZES.iter().for_each(|n| put_bytes(d, &n.to_string(), &sized(d, *n as u32, *n)[..*n])),
        expect: |d| SIZES.iter().try_for_each(|n| holds_bytes(d, &n.to_string(), &sized(d, *n as u32, *n)[..*n])),
    },
    Row {
        id: "B06 cut to nothing, then grown again",
        before: |d| put_bytes(d, "f", &sized(d, 1, 1 << 20)),
        act: |d| {
            put_bytes(d, "f", b"");
            put_bytes(d, "f", &sized(d, 2, 4097));
        },
        expect: |d| holds_bytes(d, "f", &sized(d, 2, 4097)),
    },
    Row {
        id: "B07 delete",
        before: |d| (1..4).for_each(|k| put(d, &format!("f{k}"), k)),
        act: |d| rm(d, "f2"),
        expect: |d| only(d, &["f1", "f3"]),
    },
    Row {
        id: "B08 rename in place, then move",
        before: |d| {
            put_bytes(d, "big", &sized(d, 1, 3 << 20));
            mkdir(d, "to");
        },
        act: |d| {
            mv(d, "big", "large");
            mv(d, "large", "to/large");
        },
        expect: |d| only(d, &["to"]).and(holds_bytes(d, "to/large", &sized(d, 1, 3 << 20))),
    },
    Row {
        id: "B10 swap",
        before: |d| (1..3).for_each(|k| put(d, &format!("f{k}"), k)),
        act: |d| {
            mv(d, "f1", "t");
            mv(d, "f2", "f1");
            mv(d, "t", "f2");
        },
        expect: |d| only(d, &["f1", "f2"]).and(holds(d, "f1", 2)).and(holds(d, "f2", 1)),
    },
    Row {
        id: "B11 rotate files and folders",
        before: |d| (1..4).for_each(|k| [format!("f{k}"), format!("d{k}/in")].iter().for_each(|n| put(d, n, k))),
        act: |d| {
            for kind in ["f", "d"] {
                mv(d, &format!("{kind}1"), "t");
                mv(d, &format!("{kind}2"), &format!("{kind}1"));
                mv(d, &format!("{kind}3"), &format!("{kind}2"));
                mv(d, "t", &format!("{kind}3"));
            }
        },
        expect: |d| {
            only(d, &["d1", "d2", "d3", "f1", "f2", "f3"])?;
            [(1, 2), (2, 3), (3, 1)].iter().try_for_each(|(at, k)| holds(d, &format!("f{at}"), *k).and(holds(d, &format!("d{at}/in"), *k)))
        },
    },
    Row {
        id: "B12 a file becomes a folder",
        before: |d| put(d, "f", 1),
        act: |d| {
            rm(d, "f");
            put(d, "f/g", 2);
        },
        expect: |d| only(d, &["f"]).and(holds(d, "f/g", 2)),
    },
    Row {
        id: "B13 a folder becomes a file",
        before: |d| (0..50).for_each(|k| put(d, &format!("x/{k}"), k)),
        act: |d| {
            rm(d, "x");
            put(d, "x", 99);
        },
        expect: |d| holds(d, "x", 99),
    },
    Row {
        id: "B14 a file becomes a link and a file again",
        before: |d| {
            put(d, "f", 1);
            put(d, "g", 2);
            put(d, "target", 3);
        },
        act: |d| {
            rm(d, "f");
            symlink("target", d.join("f")).expect("a link");
            rm(d, "g");
            symlink("target", d.join("g")).expect("a link");
            rm(d, "g");
            put(d, "g", 4);
        },
        expect: |d| {
            is("f is a link", fs::read_link(d.join("f")).is_ok_and(|t| t == Path::new("target")))?;
            holds(d, "g", 4).and(holds(d, "target", 3))
        },
    },
    Row {
        id: "B15 overwrite by rename",
        before: |d| (1..3).for_each(|k| put(d, &format!("f{k}"), k)),
        act: |d| mv(d, "f1", "f2"),
        expect: |d| only(d, &["f2"]).and(holds(d, "f2", 1)),
    },
    Row {
        id: "B16 move a folder and edit inside",
        before: |d| {
            put(d, "d1/x", 1);
            mkdir(d, "d2");
        },
        act: |d| {
            mv(d, "d1", "d2/d1");
            put(d, "d2/d1/x", 2);
        },
        expect: |d| only(d, &["d2"]).and(holds(d, "d2/d1/x", 2)),
    },
    Row {
        id: "B17 there and back again",
        before: |d| put(d, "a", 1),
        act: |d| {
            mv(d, "a", "b");
            mv(d, "b", "c");
            mv(d, "c", "b");
        },
        expect: |d| only(d, &["b"]).and(holds(d, "b", 1)),
    },
    Row {
        id: "B18 move away and write anew",
        before: |d| put(d, "a", 1),
        act: |d| {
            mv(d, "a", "b");
            put(d, "a", 2);
        },
        expect: |d| only(d, &["a", "b"]).and(holds(d, "a", 2)).and(holds(d, "b", 1)),
    },
    Row {
        id: "B19 change of case",
        before: |d| {
            put(d, "Foo", 1);
            put(d, "Dir/in", 2);
        },
        act: |d| {
            mv(d, "Foo", "foo");
            mv(d, "Dir", "dir");
        },
        expect: |d| only(d, &["dir", "foo"]).and(holds(d, "foo", 1)).and(holds(d, "dir/in", 2)),
    },
    Row {
        id: "B22 the exec bit",
        before: |d| {
            put(d, "on", 1);
            put(d, "off", 2);
            chmod(d, "off", 0o755);
            put(d, "read-only", 3);
            chmod(d, "read-only", 0o444);
        },
        act: |d| {
            chmod(d, "on", 0o755);
            chmod(d, "off", 0o644);
        },
        expect: |d| {
            let mode = |n: &str| fs::metadata(d.join(n)).map_or(0, |m| m.mode() & 0o777);
            is(&format!("modes {:o} {:o}", mode("on"), mode("off")), mode("on") == 0o755 && mode("off") == 0o644)?;
            is(&format!("mode {:o}", mode("read-only")), mode("read-only") == 0o444)
        },
    },
    Row {
        id: "B24 touch",
        before: |d| put(d, "f", 1),
        act: |d| {
            let file = fs::File::options().append(true).open(d.join("f")).expect("the file");
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789)).expect("touch");
        },
        expect: |d| {
            let meta = fs::metadata(d.join("f")).map_err(|e| e.to_string())?;
            is(
                &format!("mtime {}.{}", meta.mtime(), meta.mtime_nsec()),
                (meta.mtime(), meta.mtime_nsec()) == (1_000_000_000, 123_456_789),
            )?;
            holds(d, "f", 1)
        },
    },
    Row {
        id: "B25 same size, same mtime, other bytes",
        before: |d| put(d, "f", 1),
        act: |d| {
            let mtime = fs::metadata(d.join("f")).expect("the file").modified().expect("a time");
            put(d, "f", 2);
            fs::File::options().append(true).open(d.join("f")).expect("the file").set_modified(mtime).expect("touch -r");
        },
        expect: |d| holds(d, "f", 2),
    },
    Row {
        id: "B27 empty folders, deep ones, made and removed",
        before: |d| {
            mkdir(d, &vec!["n"; 100].join("/"));
            mkdir(d, "empty");
        },
        act: |d| {
            rm(d, "n");
            mkdir(d, &vec!["m"; 100].join("/"));
        },
        expect: |d| only(d, &["empty", "m"]).and(is("the deepest is there", d.join(vec!["m"; 100].join("/")).is_dir())),
    },
    Row {
        id: "B29 links of all kinds",
        before: nothing,
        act: |d| LINKS.iter().for_each(|(name, to)| symlink(to, d.join(name)).expect("a link")),
        expect: |d| LINKS.iter().try_for_each(|(name, to)| is(name, fs::read_link(d.join(name)).is_ok_and(|t| t == Path::new(to)))),
    },
    Row {
        id: "B35 zeros",
        before: nothing,
        act: |d| ZEROS.iter().for_each(|n| put_bytes(d, &n.to_string(), &vec![0; *n])),
        expect: |d| ZEROS.iter().try_for_each(|n| holds_bytes(d, &n.to_string(), &vec![0; *n])),
    },
    Row {
        id: "B38 the longest names",
        before: nothing,
        act: |d| long_names().iter().zip(1..).for_each(|(n, k)| put(d, n, k)),
        expect: |d| long_names().iter().zip(1..).try_for_each(|(n, k)| holds(d, n, k)),
    },
    Row {
        id: "B39 names that are not UTF-8",
        before: nothing,
        act: |d| RAW_NAMES.iter().for_each(|n| fs::write(d.join(std::ffi::OsStr::from_bytes(n)), n).expect("a file")),
        expect: |d| {
            let read = |n: &&[u8]| fs::read(d.join(std::ffi::OsStr::from_bytes(n)));
            RAW_NAMES.iter().try_for_each(|n| is(&format!("{n:?}"), read(n).is_ok_and(|got| got == *n)))
        },
    },
    Row {
        id: "B40 names with every odd character",
        before: nothing,
        act: |d| ODD_NAMES.iter().zip(1..).for_each(|(n, k)| put(d, n, k)),
        expect: |d| ODD_NAMES.iter().zip(1..).try_for_each(|(n, k)| holds(d, n, k)),
    },
    Row {
        id: "B41 two forms of é",
        before: nothing,
        act: |d| {
            put(d, "\u{e9}", 1);
            put(d, "e\u{301}", 2);
        },
        expect: |d| holds(d, "\u{e9}", 1).and(holds(d, "e\u{301}", 2)),
    },
    Row {
        id: "B43 names like ours",
        before: nothing,
        act: |d| OUR_NAMES.iter().zip(1..).for_each(|(n, k)| put(d, n, k)),
        expect: |d| OUR_NAMES.iter().zip(1..).try_for_each(|(n, k)| holds(d, n, k)),
    },
    Row {
        id: "B49 a move into a renamed folder",
        before: |d| {
            mkdir(d, "foo");
            put(d, "pic", 1);
        },
        act: |d| {
            mv(d, "foo", "bar");
            mv(d, "pic", "bar/pic");
        },
        expect: |d| only(d, &["bar"]).and(holds(d, "bar/pic", 1)),
    },
    Row {
        id: "B50 a folder deleted and another made at once",
        before: |d| (0..20).for_each(|k| put(d, &format!("pics/{k}"), k)),
        act: |d| {
            rm(d, "pics");
            mkdir(d, "pics2");
        },
        expect: |d| only(d, &["pics2"]).and(only(&d.join("pics2"), &[])),
    },
    Row {
        id: "B55 modification times from all ages",
        before: nothing,
        act: |d| {
            for (k, (name, at)) in TIMES.iter().enumerate() {
                put(d, name, k as u32);
                let times = rustix::fs::Timestamps { last_access: *at, last_modification: *at };
                let file = fs::File::open(d.join(name)).expect("the file");
                rustix::fs::futimens(&file, &times).expect("a time");
            }
        },
        expect: |d| TIMES.iter().enumerate().try_for_each(|(k, (name, _))| holds(d, name, k as u32)),
    },
];

const SIZES: &[usize] = &[(256 << 10) - 1, 256 << 10, (256 << 10) + 1, 512 << 10, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 8 << 20];
const ZEROS: &[usize] = &[4 << 10, 512 << 10, 4 << 20, 8 << 20, (8 << 20) + 1];
const LINKS: &[(&str, &str)] = &[
    ("relative", "../somewhere"),
    ("absolute", "/etc/hostname"),
    ("dangling", "no such thing"),
    ("parent", ".."),
    ("itself", "itself"),
    ("folder", "."),
];
const RAW_NAMES: &[&[u8]] = &[b"\xff", b"a\xffb", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe9"];
const ODD_NAMES: &[&str] = &[
    "new\nline",
    "tab\there",
    "quo\"te'",
    "back\\slash",
    "*?<>:|",
    "-leading",
    " leading space",
    "trailing space ",
    "emoji 🦀",
    "right\u{202e}to-left",
    "bell\u{7}",
    "a.",
    "CON",
    "%2e%2e",
    "...",
    "~",
];
const OUR_NAMES: &[&str] =
    &[".ferry", "x.part", "report (conflicted copy, LAPTOP, 2026-11-22 10-30).txt", ".ferryignored", ".ferry-tmp-1", "4913", "backup~"];
const TIMES: &[(&str, rustix::fs::Timespec)] = &[
    ("before", rustix::fs::Timespec { tv_sec: -1, tv_nsec: 0 }),
    ("zero", rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 }),
    ("one", rustix::fs::Timespec { tv_sec: 1, tv_nsec: 1 }),
    ("y2038", rustix::fs::Timespec { tv_sec: 1 << 31, tv_nsec: 999_999_999 }),
    ("y2262", rustix::fs::Timespec { tv_sec: 9_223_372_000, tv_nsec: 5 }),
];

fn long_names() -> [String; 3] {
    ["n".repeat(255), "語".repeat(85), format!("{}.tar.gz", "m".repeat(248))]
}

fn folder_of(row: &Row, actor: &str) -> String {
    format!("{} from {actor}", row.id)
}

#[test]
fn the_matrix_from_each_device_to_the_other() {
    let mut cluster = Cluster::new(2);
    let each = |cluster: &Cluster, act: &dyn Fn(&Row, &Path)| {
        for device in &cluster.devices {
            for row in ROWS {
                act(row, &device.path(folder_of(row, device.name())));
            }
        }
    };
    each(&cluster, &|row, dir| {
        fs::create_dir_all(dir).expect("the row's folder");
        (row.before)(dir);
    });
    cluster.settle();
    each(&cluster, &|row, dir| (row.act)(dir));
    cluster.settle();
    let mut broken = Vec::new();
    for device in &cluster.devices {
        for (row, actor) in ROWS.iter().flat_map(|r| [(r, "A"), (r, "B")]) {
            let folder = folder_of(row, actor);
            if let Err(what) = (row.expect)(&device.path(&folder)) {
                broken.push(format!("{folder}, on {}: {what}", device.name()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    cluster.finish();
}

/// B05: a log file that grows is followed without half lines ever counting as an end.
#[test]
fn b05_a_growing_log() {
    let mut cluster = Cluster::new(2);
    let path = cluster.devices[0].path("log");
    let mut whole = Vec::new();
    for n in 0..60 {
        let line = format!("{n} {}\n", "x".repeat(90));
        whole.extend_from_slice(line.as_bytes());
        let mut file = fs::File::options().create(true).append(true).open(&path).expect("the log");
        std::io::Write::write_all(&mut file, line.as_bytes()).expect("room");
        ferry_tests::poll::pause(std::time::Duration::from_millis(50));
    }
    cluster.settle();
    assert_eq!(fs::read(cluster.devices[1].path("log")).expect("it arrived"), whole);
    cluster.finish();
}

/// B03, B04, B08: what crosses the wire for a small change of a big file.
#[test]
fn small_changes_of_big_files_send_little() {
    let mut cluster = Cluster::new(2);
    let dir = cluster.devices[0].path("big");
    fs::create_dir_all(&dir).expect("a folder");
    let mut data = sized(&dir, 1, 20 << 20);
    put_bytes(&dir, "f", &data);
    cluster.settle();
    let sent = |cluster: &Cluster, act: &dyn Fn()| {
        let before = cluster.links[0].passed().0;
        act();
        before
    };
    let before = sent(&cluster, &|| {
        let file = fs::File::options().write(true).open(dir.join("f")).expect("the file");
        std::os::unix::fs::FileExt::write_all_at(&file, b"!", 5 << 20).expect("room");
    });
    cluster.settle();
    let one_byte = cluster.links[0].passed().0 - before;
    data[5 << 20] = b'!';
    data.insert(0, b'?');
    let before = sent(&cluster, &|| put_bytes(&dir, "f", &data));
    cluster.settle();
    let at_head = cluster.links[0].passed().0 - before;
    let before = sent(&cluster, &|| mv(&dir, "f", "g"));
    cluster.settle();
    let renamed = cluster.links[0].passed().0 - before;
    assert_eq!(fs::read(cluster.devices[1].path("big/g")).expect("it arrived"), data);
    // Two chunks of at most 4 MiB each and what goes around them; in the mean far less.
    assert!(one_byte < 9 << 20, "B03: {one_byte} bytes");
    assert!(at_head < 9 << 20, "B04: {at_head} bytes");
    assert!(renamed < 64 << 10, "B08: {renamed} bytes");
    cluster.finish();
}

/// B09, B46, B51, B52: thousands of files arrive, move and leave as one.
#[test]
fn many_files_move_as_one() {
    let mut cluster = Cluster::new(2);
    let outside = cluster.folder().join("outside");
    for k in 0..2000 {
        put(&outside, &format!("in/{}/{k}", k % 40), k);
    }
    let a = cluster.devices[0].path("arrived");
    fs::rename(&outside, &a).expect("a move from outside");
    cluster.settle();
    assert_eq!(names(&cluster.devices[1].path("arrived/in")).len(), 40, "B51");
    let before = cluster.links[0].passed().0;
    fs::rename(&a, cluster.devices[0].path("renamed")).expect("a rename");
    cluster.settle();
    assert!(cluster.links[0].passed().0 - before < 64 << 10, "B09: a rename is one change");
    assert!(cluster.devices[1].path("renamed/in/7").is_dir() && !cluster.devices[1].path("arrived").exists(), "B09");
    put(&cluster.devices[0].path("stays"), "f", 1);
    cluster.settle();
    let before: Vec<String> = names(&cluster.devices[1].path("renamed/in/7"));
    fs::rename(cluster.devices[0].path("renamed/in/7"), cluster.folder().join("left")).expect("a move to outside");
    cluster.settle();
    assert!(!cluster.devices[1].path("renamed/in/7").exists() && before.len() == 50, "B52");
    cluster.finish();
}

/// B56 and I4: a reader keeps the old file; a new reader sees the new one; nobody sees a half.
#[test]
fn b56_readers_never_see_a_half_file() {
    let mut cluster = Cluster::new(2);
    let whole = |size| ferry_tests::content::unique("b56", size);
    fs::write(cluster.devices[0].path("f"), whole(300_000)).expect("room");
    cluster.settle();
    let mut held = fs::File::open(cluster.devices[1].path("f")).expect("it arrived");
    let old = fs::read(cluster.devices[1].path("f")).expect("it arrived");
    let sampler = ferry_tests::content::Sampler::start(cluster.devices[1].root());
    for n in 0..15 {
        // Written aside: a half that is on A for a moment, in the middle of its writer's call, may rightly be seen on B for a moment.
        let aside = cluster.folder().join("aside");
        for (name, size) in [("f".to_owned(), 100_000 + n * 40_000), (format!("g{n}"), 60_000)] {
            fs::write(&aside, whole(size)).expect("room");
            fs::rename(&aside, cluster.devices[0].path(name)).expect("a rename");
        }
        ferry_tests::poll::pause(std::time::Duration::from_millis(100));
    }
    cluster.settle();
    assert!(sampler.finish() > 0);
    let mut still = Vec::new();
    std::io::Read::read_to_end(&mut held, &mut still).expect("the old file");
    assert_eq!(still, old, "the open file is the old one");
    cluster.finish();
}
