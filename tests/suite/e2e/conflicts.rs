//! Group C: edits on devices that do not know of each other. All rows at once, each in a folder of its own; then the devices meet, in both
//! orders, and once with daemons that ran all the time behind a cut link.

use super::rows::*;
use ferry_tests::api::Api;
use ferry_tests::cluster::{Cluster, NAMESPACE};
use std::fs;
use std::path::Path;

struct Row {
    id: &'static str,
    before: fn(&Path),
    /// What happens on A, B and C.
    acts: [fn(&Path); 3],
    expect: fn(&Path) -> Verdict,
}

fn nothing(_: &Path) {}

fn f(d: &Path) {
    put(d, "f.txt", 1);
}

fn tree(d: &Path) {
    put(d, "d/x", 1);
    put(d, "d/z", 2);
    put(d, "y", 3);
}

const ROWS: &[Row] = &[
    Row {
        id: "C01 two edits",
        before: f,
        acts: [|d| put(d, "f.txt", 2), |d| put(d, "f.txt", 3), nothing],
        expect: |d| kept_beside(d, "f.txt", &[2, 3]),
    },
    Row {
        id: "C02 the same edit twice",
        before: f,
        acts: [|d| put(d, "f.txt", 2), |d| put(d, "f.txt", 2), nothing],
        expect: |d| only(d, &["f.txt"]).and(holds(d, "f.txt", 2)),
    },
    Row {
        id: "C03 three edits",
        before: f,
        acts: [|d| put(d, "f.txt", 2), |d| put(d, "f.txt", 3), |d| put(d, "f.txt", 4)],
        expect: |d| kept_beside(d, "f.txt", &[2, 3, 4]),
    },
    Row {
        id: "C04 edit and delete",
        before: f,
        acts: [|d| put(d, "f.txt", 2), |d| rm(d, "f.txt"), nothing],
        expect: |d| only(d, &["f.txt"]).and(holds(d, "f.txt", 2)),
    },
    Row {
        id: "C05 edit, delete and rename",
        before: f,
        acts: [|d| put(d, "f.txt", 2), |d| rm(d, "f.txt"), |d| mv(d, "f.txt", "g.txt")],
        expect: |d| only(d, &["g.txt"]).and(holds(d, "g.txt", 2)),
    },
    Row { id: "C06 both delete", before: f, acts: [|d| rm(d, "f.txt"), |d| rm(d, "f.txt"), nothing], expect: |d| only(d, &[]) },
    Row {
        id: "C07 both create, different",
        before: nothing,
        acts: [|d| put(d, "f.txt", 1), |d| put(d, "f.txt", 2), nothing],
        expect: |d| kept_beside(d, "f.txt", &[1, 2]),
    },
    Row {
        id: "C07 both create, equal",
        before: nothing,
        acts: [|d| put(d, "f.txt", 1), |d| put(d, "f.txt", 1), nothing],
        expect: |d| only(d, &["f.txt"]).and(holds(d, "f.txt", 1)),
    },
    Row {
        id: "C08 both make a folder",
        before: nothing,
        acts: [|d| put(d, "d/a", 1), |d| put(d, "d/b", 2), |d| mkdir(d, "d")],
        expect: |d| only(d, &["d"]).and(only(&d.join("d"), &["a", "b"])).and(holds(d, "d/a", 1)).and(holds(d, "d/b", 2)),
    },
    Row {
        id: "C09 a file and a folder of one name",
        before: nothing,
        acts: [|d| put(d, "d", 1), |d| put(d, "d/x", 2), nothing],
        expect: |d| {
            holds(d, "d/x", 2)?;
            let copies: Vec<String> = names(d).into_iter().filter(|n| n.contains("conflicted copy")).collect();
            is(&format!("one copy: {copies:?}"), copies.len() == 1 && names(d).len() == 2)?;
            holds(d, &copies[0], 1)
        },
    },
    Row {
        id: "C10 two renames",
        before: f,
        acts: [|d| mv(d, "f.txt", "g.txt"), |d| mv(d, "f.txt", "h.txt"), nothing],
        expect: |d| {
            is(&format!("one of two: {:?}", names(d)), names(d) == ["g.txt"] || names(d) == ["h.txt"])?;
            holds(d, &names(d)[0], 1)
        },
    },
    Row {
        id: "C11 rename onto a new file",
        before: f,
        acts: [|d| mv(d, "f.txt", "g.txt"), |d| put(d, "g.txt", 2), nothing],
        expect: |d| gone(d, "f.txt").and(kept_beside(d, "g.txt", &[1, 2])),
    },
    Row {
        id: "C12 move and edit",
        before: |d| {
            f(d);
            mkdir(d, "d");
        },
        acts: [|d| mv(d, "f.txt", "d/f.txt"), |d| put(d, "f.txt", 2), nothing],
        expect: |d| only(d, &["d"]).and(holds(d, "d/f.txt", 2)),
    },
    Row {
        id: "C13 move and delete",
        before: f,
        acts: [|d| mv(d, "f.txt", "g.txt"), |d| rm(d, "f.txt"), nothing],
        expect: |d| only(d, &["g.txt"]).and(holds(d, "g.txt", 1)),
    },
    Row {
        id: "C14 a folder renamed, and work inside",
        before: tree,
        acts: [
            |d| mv(d, "d", "e"),
            |d| {
                put(d, "d/x", 4);
                put(d, "d/new", 5);
            },
            nothing,
        ],
        expect: |d| {
            only(d, &["e", "y"]).and(only(&d.join("e"), &["new", "x", "z"]))?;
            holds(d, "e/x", 4).and(holds(d, "e/new", 5)).and(holds(d, "e/z", 2))
        },
    },
    Row {
        id: "C15 a folder deleted, a file made inside",
        before: tree,
        acts: [|d| rm(d, "d"), |d| put(d, "d/new", 5), nothing],
        expect: |d| only(&d.join("d"), &["new"]).and(holds(d, "d/new", 5)),
    },
    Row {
        id: "C16 a folder deleted, a file edited inside",
        before: tree,
        acts: [|d| rm(d, "d"), |d| put(d, "d/x", 5), nothing],
        expect: |d| only(&d.join("d"), &["x"]).and(holds(d, "d/x", 5)),
    },
    Row {
        id: "C18 a folder deleted, a file moved in",
        before: tree,
        acts: [|d| rm(d, "d"), |d| mv(d, "y", "d/y"), nothing],
        expect: |d| only(d, &["d"]).and(only(&d.join("d"), &["y"])).and(holds(d, "d/y", 3)),
    },
    Row {
        id: "C19 two folders into each other",
        before: |d| {
            put(d, "a/in-a", 1);
            put(d, "b/in-b", 2);
        },
        acts: [|d| mv(d, "a", "b/a"), |d| mv(d, "b", "a/b"), nothing],
        expect: |d| found_once(d, &["in-a", "in-b"]),
    },
    Row {
        id: "C20 three folders in a ring",
        before: |d| {
            put(d, "a/in-a", 1);
            put(d, "b/in-b", 2);
            put(d, "c/in-c", 3);
        },
        acts: [|d| mv(d, "a", "b/a"), |d| mv(d, "b", "c/b"), |d| mv(d, "c", "a/c")],
        expect: |d| found_once(d, &["in-a", "in-b", "in-c"]),
    },
    Row {
        id: "C21 one folder into two others",
        before: |d| {
            put(d, "m/in-m", 1);
            mkdir(d, "p");
            mkdir(d, "q");
        },
        acts: [|d| mv(d, "m", "p/m"), |d| mv(d, "m", "q/m"), nothing],
        expect: |d| found_once(d, &["in-m"]),
    },
    Row {
        id: "C22 swap and edit",
        before: |d| {
            put(d, "x", 1);
            put(d, "y", 2);
        },
        acts: [
            |d| {
                mv(d, "x", "t");
                mv(d, "y", "x");
                mv(d, "t", "y");
            },
            |d| put(d, "x", 3),
            nothing,
        ],
        expect: |d| only(d, &["x", "y"]).and(holds(d, "y", 3)).and(holds(d, "x", 2)),
    },
    Row {
        id: "C26 exec bit and bytes",
        before: f,
        acts: [|d| chmod(d, "f.txt", 0o755), |d| put(d, "f.txt", 2), nothing],
        expect: |d| {
            let mode = fs::metadata(d.join("f.txt")).map_or(0, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777);
            only(d, &["f.txt"]).and(holds(d, "f.txt", 2)).and(is(&format!("mode {mode:o}"), mode == 0o755))
        },
    },
    Row {
        id: "C27 two targets of a link",
        before: |d| std::os::unix::fs::symlink("one", d.join("l")).expect("a link"),
        acts: [|d| relink(d, "two"), |d| relink(d, "three"), nothing],
        expect: |d| is(&format!("a link and a copy: {:?}", names(d)), names(d).len() == 2 && names(d).contains(&"l".to_string())),
    },
    Row {
        id: "C29 several edits on each side",
        before: f,
        acts: [|d| (2..5).for_each(|k| put(d, "f.txt", k)), |d| (5..7).for_each(|k| put(d, "f.txt", k)), nothing],
        expect: |d| kept_beside(d, "f.txt", &[4, 6]),
    },
    Row {
        id: "B38 conflict of the longest names",
        before: nothing,
        acts: [|d| put(d, &"n".repeat(255), 1), |d| put(d, &"n".repeat(255), 2), |d| put(d, &"n".repeat(255), 3)],
        expect: |d| {
            let bytes_of: std::collections::BTreeSet<Vec<u8>> = names(d).iter().map(|n| fs::read(d.join(n)).unwrap_or_default()).collect();
            is(&format!("three files: {:?}", names(d)), bytes_of.len() == 3 && names(d).len() == 3)
        },
    },
];

fn relink(d: &Path, to: &str) {
    rm(d, "l");
    std::os::unix::fs::symlink(to, d.join("l")).expect("a link");
}

/// Each of these files stands at exactly one place below the row's folder.
fn found_once(d: &Path, wanted: &[&str]) -> Verdict {
    let files = ferry_tests::tree::all_files(d);
    wanted.iter().try_for_each(|name| {
        let at: Vec<_> = files.iter().filter(|p| p.file_name().is_some_and(|n| n == *name)).collect();
        is(&format!("{name} once: {at:?}"), at.len() == 1)
    })?;
    is(&format!("nothing else: {files:?}"), files.len() == wanted.len())
}

fn each(cluster: &Cluster, act: impl Fn(&Row, usize, &Path)) {
    for (i, device) in cluster.devices.iter().enumerate() {
        ROWS.iter().for_each(|row| act(row, i, &device.path(row.id)));
    }
}

fn prepared() -> Cluster {
    let mut cluster = Cluster::new(3);
    each(&cluster, |row, i, dir| {
        if i == 0 {
            fs::create_dir_all(dir).expect("the row's folder");
            (row.before)(dir);
        }
    });
    cluster.settle();
    cluster
}

fn check(mut cluster: Cluster) {
    cluster.settle();
    let mut broken = Vec::new();
    for device in &cluster.devices {
        let wrong = ROWS.iter().filter_map(|row| (row.expect)(&device.path(row.id)).err().map(|what| format!("{}: {what}", row.id)));
        broken.extend(wrong.map(|w| format!("{}: {w}", device.name())));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    cluster.finish();
}

fn met_in_order(order: [usize; 3]) {
    let mut cluster = prepared();
    cluster.devices.iter_mut().for_each(|d| d.stop());
    each(&cluster, |row, i, dir| (row.acts[i])(dir));
    // Each comes back alone and tells the relay; the last ones hear of it when they come.
    for i in order {
        cluster.devices[i].start();
        let answer = cluster.devices[i].run(&["wait", "--timeout", "100"]);
        assert_eq!(answer.code, 0, "{}", answer.err);
    }
    check(cluster);
}

#[test]
fn devices_meet_in_order() {
    met_in_order([0, 1, 2]);
}

#[test]
fn devices_meet_in_the_other_order() {
    met_in_order([2, 1, 0]);
}

#[test]
fn devices_worked_on_behind_a_cut_link() {
    let cluster = prepared();
    cluster.links.iter().for_each(|l| l.cut());
    each(&cluster, |row, i, dir| (row.acts[i])(dir));
    for device in &cluster.devices {
        device.ok(&["folder", "scan", NAMESPACE]);
    }
    cluster.links.iter().for_each(|l| l.heal());
    check(cluster);
}

/// C23, C25: conflicted copies are files like any: edited, renamed over the original, deleted.
#[test]
fn copies_are_files_like_any() {
    let mut cluster = Cluster::new(2);
    let rows = ["edited", "renamed", "deleted"];
    for row in rows {
        put(&cluster.devices[0].path(row), "f.txt", 1);
    }
    cluster.settle();
    cluster.devices.iter_mut().for_each(|d| d.stop());
    for (device, k) in cluster.devices.iter().zip(2..) {
        rows.iter().for_each(|row| put(&device.path(row), "f.txt", k));
    }
    cluster.devices.iter_mut().for_each(|d| d.start());
    cluster.settle();
    let copy = |device: usize, row: &str| {
        let all = names(&cluster.devices[device].path(row));
        all.into_iter().find(|n| n.contains("conflicted copy")).unwrap_or_else(|| panic!("{row}: a conflicted copy"))
    };
    let (edited, renamed, deleted) = (copy(0, "edited"), copy(0, "renamed"), copy(0, "deleted"));
    assert_eq!(edited, copy(1, "edited"), "the copy has one name everywhere");
    put(&cluster.devices[0].path("edited"), &edited, 7);
    mv(&cluster.devices[1].path("renamed"), &renamed, "f.txt");
    rm(&cluster.devices[1].path("deleted"), &deleted);
    cluster.settle();
    for device in &cluster.devices {
        let checks = [
            holds(&device.path("edited"), &edited, 7).and(is("two files", names(&device.path("edited")).len() == 2)),
            only(&device.path("renamed"), &["f.txt"]),
            only(&device.path("deleted"), &["f.txt"]),
        ];
        checks.into_iter().for_each(|c| c.unwrap_or_else(|what| panic!("{}: {what}", device.name())));
    }
    cluster.finish();
}

/// C37: an edit in the web client meets one of a device that was away: one keeps the name, the other is beside it under "web".
#[test]
fn c37_the_web_and_a_device_edit_the_same_file() {
    let mut cluster = Cluster::new(2);
    let dir = cluster.devices[0].path("d");
    put(&dir, "f.txt", 1);
    put(&dir, "g.txt", 2);
    cluster.settle();
    cluster.links[0].cut();
    // The device edits more often, so its edit is the later one in the order of stamps.
    for k in [3, 4, 5] {
        put(&dir, "f.txt", k);
        cluster.devices[0].ok(&["folder", "scan", NAMESPACE]);
    }
    let api = Api::login(&cluster.relay);
    let space = api.space(NAMESPACE);
    api.upload(&space, "/d", "f.txt", &bytes(&dir, 10));
    api.upload(&space, "/d", "g.txt", &bytes(&dir, 11));
    cluster.links[0].heal();
    cluster.settle();
    for device in &cluster.devices {
        let dir = device.path("d");
        let checks = [
            kept_beside(&dir, "f.txt", &[5, 10]),
            is("the copy is the web's", names(&dir).iter().any(|n| n.starts_with("f (conflicted copy, web, "))),
            holds(&dir, "f.txt", 5),
            holds(&dir, "g.txt", 11),
            is("three files", names(&dir).len() == 3),
        ];
        checks.into_iter().for_each(|c| c.unwrap_or_else(|what| panic!("{}: {what}", device.name())));
    }
    cluster.finish();
}
