//! Rows in which something runs out (open files, the disk of a folder, of the state, of the relay), is asked too often, or ends: K10 to K12, K15, K39, Q04,
//! Q12, U15.

use super::crashes::Dice;
use super::roots::{Mount, can_mount};
use super::rows::*;
use ferry_tests::cluster::{Cluster, NAMESPACE};
use ferry_tests::device::Device;
use ferry_tests::poll::{pause, until};
use ferry_tests::relay::Kind;
use ferry_tests::tree;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Q04: with a few open files more than it has now a device is slower, and loses nothing.
#[test]
fn q04_few_open_files() {
    let mut cluster = Cluster::new(2);
    for device in &cluster.devices {
        let pid = device.pid().expect("it runs");
        let limit = Some(open_files(pid) as u64 + 12);
        let pid = Pid::from_raw(pid as i32).expect("a process");
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: limit, maximum: limit }).expect("a limit");
    }
    let d = cluster.devices[0].path("d");
    (0..1000).for_each(|k| put(&d, &format!("{}/{k}", k % 23), k));
    cluster.settle_within(Duration::from_secs(240));
    let b = cluster.devices[1].path("d");
    (0..1000).try_for_each(|k| holds(&b, &format!("{}/{k}", k % 23), k)).expect("all of them arrived");
    cluster.finish();
}

/// Q12: connections that are made and dropped again leave no open file behind.
#[test]
fn q12_connections_that_end_leave_nothing() {
    let cluster = Cluster::new(1);
    let (device, relay) = (&cluster.devices[0], cluster.relay.port());
    let socket = device.home().join("run/control.sock");
    let pids: Vec<u32> = device.pid().into_iter().chain(cluster.relay.pids()).collect();
    let open = || pids.iter().map(|pid| open_files(*pid)).collect::<Vec<_>>();
    let before = open();
    for turn in 0..10_000u32 {
        let local = UnixStream::connect(&socket);
        let remote = TcpStream::connect(("127.0.0.1", relay));
        if turn % 2 == 0 {
            // Half a request, then nothing.
            let _ = local.map(|mut s| std::io::Write::write_all(&mut s, b"GET /v1/st"));
            let _ = remote.map(|mut s| std::io::Write::write_all(&mut s, b"POST /auth/login HTTP/1.1\r\nhost: x\r\n"));
        }
    }
    until("the open files are as before", Duration::from_secs(60), || {
        let now = open();
        is(&format!("{now:?}, before {before:?}"), now.iter().zip(&before).all(|(now, before)| *now <= before + 8))
    });
    assert!(cluster.devices[0].is_quiet().is_ok());
    cluster.finish();
}

/// K10: the disk of a device's state is full: it says so and leaves its files alone; with room it goes on with the index that it had.
#[test]
fn k10_the_disk_of_the_state_is_full() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let small = Mount::tmpfs(&folder.path().join("small"), "24m");
    let root = folder.path().join("B");
    fs::create_dir_all(&root).expect("a folder");
    let devices = vec![Device::new(folder.path(), "A"), Device::new(small.path(), "B").with_root(&root)];
    let mut cluster = Cluster::with_devices(folder, devices, |_| {});
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..50).for_each(|k| put(&a, &format!("{k}"), k));
    cluster.settle();
    let filler = small.path().join("filler");
    let full = Command::new("sh").arg("-c").arg(format!("cat /dev/zero > '{}'", filler.display())).output().expect("sh");
    assert!(!full.status.success(), "the disk is full");
    let name = |k: u32| format!("{k} {}", "of a long name ".repeat(15));
    (50..4000).for_each(|k| put(&a, &name(k), k));
    until("B says that it has no room", Duration::from_secs(90), || {
        let text = cluster.devices[1].run(&["status", "--json"]).out.to_lowercase();
        if text.contains("space") { Ok(()) } else { Err(text) }
    });
    (0..50).try_for_each(|k| holds(&b, &format!("{k}"), k)).expect("what it had stays");
    for path in tree::all_files(&b) {
        let name = path.file_name().expect("a name");
        assert_eq!(fs::read(&path).expect("readable"), fs::read(a.join(name)).expect("A has it"), "{name:?} is whole");
    }
    fs::remove_file(&filler).expect("room again");
    cluster.settle_within(Duration::from_secs(180));
    assert_eq!(tree::all_files(&b).len(), 4000, "no twins");
    cluster.devices.iter_mut().for_each(Device::stop);
    cluster.check_nothing_is_lost();
    drop(cluster);
    drop(small);
}

/// Ends the tracer of a device's daemon, which goes on without it.
fn end_tracer(device: &Device) {
    let tracer = || {
        let status = fs::read_to_string(format!("/proc/{}/status", device.pid().expect("it runs"))).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).expect("the kernel says so");
        Pid::from_raw(line.trim().parse().expect("a number"))
    };
    let pid = tracer().expect("it is traced");
    // By no signal that it would hold back, or pass on.
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the tracer runs");
    until("the tracer lets go", Duration::from_secs(60), || is("untraced", tracer().is_none()));
}

/// K11: the disk says that it is full, or that the quota is used up, only when a file is given its name, all of it being written: as K09. The device says so,
/// no name holds half a file or loses what it had, the other device is not touched; and with room it goes on by itself.
#[test]
fn k11_no_room_when_a_file_gets_its_name() {
    for error in ["ENOSPC", "EDQUOT"] {
        let mut cluster = Cluster::new(2);
        let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
        (0..4).for_each(|k| put(&a, &format!("old {k}"), k));
        cluster.settle();
        let tmp = cluster.devices[1].path(".ferry/tmp").display().to_string();
        let device = &mut cluster.devices[1];
        device.stop();
        let (dir, inject, trace) = (b.display().to_string(), format!("inject=renameat2:error={error}"), "trace=renameat2");
        let trash = device.path(".ferry/trash").display().to_string();
        let mut words = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", trace, "-e", &inject];
        // Calls on these folders fail, not those on the index.
        for path in [&tmp, &dir, &trash] {
            words.extend(["-P", path]);
        }
        device.put_behind(&words);
        device.start();
        (0..2).for_each(|k| put(&a, &format!("new {k}"), 100 + k));
        put(&a, "old 0", 200);
        rm(&a, "old 1");
        mv(&a, "old 2", "moved");
        until("B says that it has no room", Duration::from_secs(90), || {
            let status = cluster.devices[1].status();
            is(&format!("{error}: {status}"), status.to_string().contains("disk_full"))
        });
        until("A is not touched by it", Duration::from_secs(60), || cluster.devices[0].is_quiet());
        for name in names(&b) {
            let bytes = fs::read(b.join(&name)).expect("readable");
            let was = name.strip_prefix("old ").and_then(|k| k.parse().ok()).is_some_and(|k: u32| bytes == self::bytes(&b, k));
            assert!(
                was || fs::read(a.join(&name)).is_ok_and(|now| now == bytes),
                "{error}: {name} is neither what it was nor what it is to be"
            );
        }
        end_tracer(&cluster.devices[1]);
        cluster.settle_within(Duration::from_secs(180));
        holds(&b, "old 0", 200).and(gone(&b, "old 1")).and(holds(&b, "moved", 2)).expect("all of it");
        (0..2).try_for_each(|k| holds(&b, &format!("new {k}"), 100 + k)).expect("all of it");
        assert_eq!(names(&b), names(&a), "{error}: no twins");
        cluster.devices[1].put_behind(&[]);
        cluster.finish();
    }
}

/// K11: a directory cannot be made durable after something in it was changed: that is not taken for done, and no look at the disk makes it so; the device
/// says so and tries again. What its user does elsewhere goes on, and the other device is not touched. Nor is it taken for done after the daemon died:
/// then everything waits for a sync. With a disk that is well again all goes on by itself.
#[test]
fn k11_a_directory_that_cannot_be_made_durable() {
    for (error, code) in [("ENOSPC", "disk_full"), ("EIO", "io_error")] {
        let mut cluster = Cluster::new(2);
        let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
        (0..4).for_each(|k| put(&a, &format!("sub/old {k}"), k));
        cluster.settle();
        let inject = format!("inject=fsync:error={error}");
        let failing = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", &inject, "-P"];
        let says = |device: &Device, what: &str| {
            until(&format!("B says that {what}"), Duration::from_secs(90), || {
                let status = device.status();
                let folder = &status["folders"][0];
                let told = folder["issues"].as_array().is_some_and(|issues| issues.iter().any(|issue| issue["code"] == code));
                is(&format!("{error}: {status}"), folder["state"] == "error" && told)
            });
        };
        let (root, sub) = (cluster.devices[1].root().display().to_string(), b.join("sub").display().to_string());
        let device = &mut cluster.devices[1];
        device.stop();
        device.put_behind(&[&failing[..], &[sub.as_str()]].concat());
        device.start();
        put(&a, "sub/old 0", 200);
        put(&a, "sub/new", 100);
        rm(&a, "sub/old 1");
        mv(&a, "sub/old 2", "sub/moved");
        until("some of it is in place at B", Duration::from_secs(90), || {
            holds(&b, "sub/new", 100).or(holds(&b, "sub/old 0", 200)).or(gone(&b, "sub/old 1")).or(holds(&b, "sub/moved", 2))
        });
        says(&cluster.devices[1], "what is in place is not durable");
        put(&b, "own", 300);
        until("what B's user does elsewhere arrives", Duration::from_secs(90), || holds(&a, "own", 300));
        says(&cluster.devices[1], "it still is not");
        until("A is not touched by it", Duration::from_secs(60), || cluster.devices[0].is_quiet());
        let device = &mut cluster.devices[1];
        device.kill();
        device.put_behind(&[&failing[..], &[root.as_str()]].concat());
        device.start();
        put(&a, "later", 400);
        says(&cluster.devices[1], "what it begins with is not durable");
        until("A is not touched by it", Duration::from_secs(60), || cluster.devices[0].is_quiet());
        assert!(gone(&b, "later").is_ok(), "{error}: nothing is changed before a sync");
        end_tracer(&cluster.devices[1]);
        cluster.settle_within(Duration::from_secs(180));
        holds(&b, "sub/old 0", 200).and(gone(&b, "sub/old 1")).and(holds(&b, "sub/moved", 2)).expect("all of it");
        holds(&b, "sub/new", 100).and(holds(&b, "later", 400)).and(holds(&b, "own", 300)).expect("all of it");
        assert_eq!((names(&b), names(&b.join("sub"))), (names(&a), names(&a.join("sub"))), "{error}: no twins");
        cluster.devices[1].put_behind(&[]);
        cluster.finish();
    }
}

/// K15: a content that could not be made durable once is not taken for clean: it is fetched again, by itself.
#[test]
fn k15_a_content_that_could_not_be_made_durable() {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    put(&a, "before", 1);
    cluster.settle();
    let staged = format!(".ferry/tmp/{}.ready", ferry_protocol::ContentHash::of(&bytes(&a, 2)));
    let device = &mut cluster.devices[1];
    device.stop();
    let staged = device.path(&staged).display().to_string();
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "-P", &staged];
    device.put_behind(&words);
    device.start();
    put(&a, "new", 2);
    until("B says that the disk failed", Duration::from_secs(90), || {
        let status = cluster.devices[1].status();
        let told = status["folders"][0]["issues"].as_array().is_some_and(|issues| !issues.is_empty());
        is(&status.to_string(), told || holds(&b, "new", 2).is_ok())
    });
    cluster.settle_within(Duration::from_secs(180));
    holds(&b, "new", 2).expect("fetched again");
    end_tracer(&cluster.devices[1]);
    cluster.devices[1].put_behind(&[]);
    cluster.finish();
}

/// K12: the relay's disk is full: it says so, keeps nothing half, and goes on serving; with room the rest arrives.
#[test]
fn k12_the_relays_disk_is_full() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    put(&a, "before", 1);
    cluster.settle();
    cluster.relay.stop();
    let (blobs, aside) = (cluster.relay.blobs_disk(), cluster.folder().join("aside"));
    fs::rename(&blobs, &aside).expect("moved aside");
    let small = Mount::tmpfs(&blobs, "6m");
    let copied = Command::new("cp").arg("-a").arg(format!("{}/.", aside.display())).arg(&blobs).status().expect("cp");
    assert!(copied.success());
    cluster.relay.resume();
    (0..4).for_each(|k| put_bytes(&a, &format!("big{k}"), &sized(&a, 10 + k, 4 << 20)));
    until("A says that the relay has no room", Duration::from_secs(90), || {
        let text = cluster.devices[0].status().to_string();
        // A store behind S3 says only that it cannot.
        let words: &[&str] = if Kind::of_this_run() == Kind::Topology { &["store does not answer"] } else { &["space", "full", "storage"] };
        if words.iter().any(|word| text.contains(word)) { Ok(()) } else { Err(text) }
    });
    let verify = cluster.relay.storage(&["verify", "--read-data"]);
    assert!(verify.status.success(), "nothing half: {}", String::from_utf8_lossy(&verify.stdout));
    mv(&b, "before", "renamed");
    until("what needs no room goes on", Duration::from_secs(60), || holds(&a, "renamed", 1));
    small.resize("64m");
    cluster.settle_within(Duration::from_secs(180));
    (0..4).try_for_each(|k| holds_bytes(&b, &format!("big{k}"), &sized(&a, 10 + k, 4 << 20))).expect("the rest arrived");
    cluster.devices.iter_mut().for_each(Device::stop);
    cluster.relay.stop();
    cluster.check_nothing_is_lost();
    drop(cluster);
    drop(small);
}

/// K39, U15: a folder is removed from a device, and the daemon is killed at any moment of it: its files stay byte for byte, and what happens to
/// them afterwards is nobody else's.
#[test]
fn k39_a_folder_is_removed_and_the_daemon_killed() {
    let mut dice = Dice::of_this_run("k39");
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    (0..200).for_each(|k| put(&a, &format!("{}/{k}", k % 9), k));
    chmod(&a, "1/1", 0o755);
    cluster.settle();
    let (there, here) = (tree::read(&a), tree::read(&b));
    for round in 0..4 {
        let device = &mut cluster.devices[1];
        let mut removal = Command::new(ferry_tests::programs::program("ferry"));
        removal.env("FERRY_HOME", device.home()).args(["folder", "remove", NAMESPACE]);
        let mut removal = removal.spawn().expect("ferry starts");
        pause(Duration::from_millis(if round == 3 { 3_000 } else { dice.below(60) }));
        device.kill();
        let _ = removal.wait();
        assert!(tree::differences(&tree::read(&b), &here).is_empty(), "round {round}: its files stay as they are");
        device.start();
        if device.status()["folders"].as_array().is_some_and(|f| !f.is_empty()) {
            continue;
        }
        fs::remove_dir_all(&b).expect("deleted after it was removed");
        put(&cluster.devices[0].path("d"), "later", 1000 + round);
        let quiet = || cluster.devices[0].is_quiet();
        until("A goes on", Duration::from_secs(60), quiet);
        rm(&a, "later");
        until("A goes on", Duration::from_secs(60), quiet);
        assert!(tree::differences(&tree::read(&a), &there).is_empty(), "round {round}: nothing is deleted elsewhere");
        cluster.devices[1].attach(NAMESPACE);
        cluster.settle();
        assert!(tree::differences(&tree::read(&b), &here).is_empty(), "round {round}: it comes back whole");
    }
    cluster.finish();
}

/// What goes out under a limit, from memory or from the file, is shown as on its way, and grows.
#[test]
fn an_upload_under_a_limit_is_shown_while_it_goes() {
    let mut cluster = Cluster::new(1);
    let device = &cluster.devices[0];
    device.ok(&["limit", "set", "--up", "1MB/s"]);
    put_bytes(device.root(), "large", &sized(device.root(), 1, 12 << 20));
    let mut before = 0;
    until("the upload is shown, and more of it is gone than before", Duration::from_secs(60), || {
        let answer: serde_json::Value = serde_json::from_str(&device.ok(&["transfers", "--json"])).map_err(|e| e.to_string())?;
        let mut all = answer["transfers"].as_array().into_iter().flatten();
        let Some(transfer) = all.find(|t| t["path"] == "large" && t["direction"] == "upload") else { return Err(answer.to_string()) };
        let done = transfer["done_bytes"].as_u64().unwrap_or(0);
        let grown = before > 0 && done > before && done < 12 << 20;
        before = done;
        is(&answer.to_string(), grown)
    });
    device.ok(&["limit", "set", "--up", "none"]);
    cluster.settle();
    cluster.finish();
}
