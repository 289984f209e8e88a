//! Groups P and X: connections cut at any byte, a relay that is restored from a backup, wake-ups that do not come, damaged chunks.

use super::crashes::Dice;
use super::rows::*;
use ferry_tests::cluster::Cluster;
use ferry_tests::poll::{pause, until};
use ferry_tests::tree;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// P11: the connection is cut at random bytes, before and after the relay did what it was asked: nothing happens twice, nothing is lost.
#[test]
fn p11_connections_are_cut_anywhere() {
    let mut dice = Dice::of_this_run("p11");
    let mut cluster = Cluster::new(2);
    for round in 0..12u32 {
        let d = cluster.devices[0].path("d");
        (0..4).for_each(|k| put_bytes(&d, &format!("{round} {k}"), &sized(&d, round * 10 + k, 30_000 * (k as usize + 1))));
        cluster.links[0].cut_after(dice.below(200_000));
        cluster.links[1].cut_after(dice.below(5_000));
        pause(Duration::from_millis(dice.below(400)));
    }
    cluster.links.iter().for_each(|l| l.heal());
    cluster.settle();
    for device in &cluster.devices {
        assert_eq!(names(&device.path("d")).len(), 48, "{}: each once, no conflicts", device.name());
    }
    cluster.finish();
}

/// P03, P04: the relay is away for a while, again and again; edits go on.
#[test]
fn p04_a_link_that_comes_and_goes() {
    let mut cluster = Cluster::new(2);
    for round in 0..6u32 {
        cluster.links[(round % 2) as usize].cut();
        for device in &cluster.devices {
            let d = device.path(format!("from {}", device.name()));
            (0..5).for_each(|k| put(&d, &format!("{k}"), round * 10 + k));
        }
        pause(Duration::from_millis(150));
        cluster.links.iter().for_each(|l| l.heal());
    }
    cluster.settle();
    cluster.finish();
}

/// P18: the relay is restored from an old backup: devices send again what it lost, and delete nothing.
#[test]
fn p18_the_relay_is_restored_from_a_backup() {
    let mut cluster = Cluster::new(2);
    let d = cluster.devices[0].path("d");
    (0..30).for_each(|k| put(&d, &format!("old {k}"), k));
    put(&d, "edited", 100);
    put(&d, "deleted later", 101);
    cluster.settle();
    cluster.relay.stop();
    let backup = cluster.relay.copy_stores(&cluster.folder().join("backup"));
    cluster.relay.resume();
    (0..30).for_each(|k| put(&d, &format!("new {k}"), 200 + k));
    put(&d, "edited", 102);
    rm(&d, "deleted later");
    mv(&d, "old 0", "renamed");
    cluster.settle();
    cluster.relay.stop();
    cluster.relay.restore(&backup);
    let told = cluster.relay.storage(&["new-epoch"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    cluster.relay.resume();
    put(&cluster.devices[1].path("d"), "after", 300);
    cluster.settle();
    for device in &cluster.devices {
        let d = device.path("d");
        let checks = [
            (0..30).try_for_each(|k| holds(&d, &format!("new {k}"), 200 + k)),
            (1..30).try_for_each(|k| holds(&d, &format!("old {k}"), k)),
            holds(&d, "edited", 102).and(holds(&d, "renamed", 0)).and(holds(&d, "after", 300)),
            gone(&d, "old 0"),
            gone(&d, "deleted later"),
            is("no copies", names(&d).len() == 62),
        ];
        checks.into_iter().for_each(|c| c.unwrap_or_else(|what| panic!("{}: {what}", device.name())));
    }
    cluster.finish();
}

/// P18, when its operator forgot to say so: a cursor that the relay does not know yet starts over too, without a storm of questions.
#[test]
fn p18_a_restored_relay_that_does_not_know_it() {
    let mut cluster = Cluster::new(1);
    let d = cluster.devices[0].path("d");
    put(&d, "old", 1);
    cluster.settle();
    cluster.relay.stop();
    let backup = cluster.relay.copy_stores(&cluster.folder().join("backup"));
    cluster.relay.resume();
    (0..10).for_each(|k| put(&d, &format!("new {k}"), 10 + k));
    cluster.settle();
    cluster.relay.stop();
    cluster.relay.restore(&backup);
    cluster.relay.resume();
    put(&d, "after", 99);
    cluster.settle();
    let mut second = ferry_tests::device::Device::new(cluster.folder(), "B");
    second.start();
    second.login(&cluster.relay.url());
    second.attach(ferry_tests::cluster::NAMESPACE);
    until("a new device has it all from the relay", Duration::from_secs(60), || is("12 files", names(&second.path("d")).len() == 12));
    second.stop();
    cluster.finish();
}

/// P18, unnoticed by everybody for a while: the restored relay goes on with a device that was away, so that its feed is longer than what the
/// other device had read before it comes back. That device's place in the feed is of a life that never was, and it hears and sends everything anew.
#[test]
fn p18_a_restored_relay_that_went_on_without_a_device() {
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.devices[0].path("d"), cluster.devices[1].path("d"));
    put(&a, "old", 1);
    cluster.settle();
    cluster.devices[1].stop();
    cluster.relay.stop();
    let backup = cluster.relay.copy_stores(&cluster.folder().join("backup"));
    cluster.relay.resume();
    (0..5).for_each(|k| put(&a, &format!("lost {k}"), 10 + k));
    fs::create_dir(a.join("lost directory")).expect("a directory");
    put(&a.join("lost directory"), "in it", 20);
    cluster.settle();
    cluster.devices[0].stop();
    cluster.relay.stop();
    cluster.relay.restore(&backup);
    cluster.relay.resume();
    cluster.devices[1].start();
    (0..30).for_each(|k| put(&b, &format!("meanwhile {k}"), 100 + k));
    cluster.settle();
    cluster.devices[0].start();
    put(&a.join("lost directory"), "and after", 21);
    cluster.settle();
    for d in [&a, &b] {
        is("everything is on both", names(d).len() == 1 + 5 + 1 + 30).expect("all");
        (0..5).for_each(|k| holds(d, &format!("lost {k}"), 10 + k).expect("what the relay had lost"));
        (0..30).for_each(|k| holds(d, &format!("meanwhile {k}"), 100 + k).expect("what came meanwhile"));
        holds(&d.join("lost directory"), "in it", 20).and(holds(&d.join("lost directory"), "and after", 21)).expect("the directory");
    }
    cluster.finish();
}

/// P24: every long-lived connection is cut as soon as it stands, so that wake-ups do not come: polling finds the change.
#[test]
fn p24_wake_ups_that_do_not_come() {
    let mut cluster = Cluster::new(2);
    let done = std::sync::atomic::AtomicBool::new(false);
    let limit = Duration::from_secs(90);
    std::thread::scope(|scope| {
        let links = &cluster.links;
        let done = &done;
        scope.spawn(move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                links[1].drop_connections();
                pause(Duration::from_millis(700));
            }
        });
        put(&cluster.devices[0].path("d"), "f", 1);
        let arrived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("it arrives without a wake-up", limit, || holds(&cluster.devices[1].path("d"), "f", 1));
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(arrived.is_ok());
    });
    cluster.settle();
    cluster.finish();
}

/// P10: what answers in the relay's place with a web page is never taken for an empty folder.
#[test]
fn p10_a_captive_portal_is_not_a_relay() {
    use std::io::{Read, Write};
    let mut cluster = Cluster::new(2);
    put(&cluster.devices[0].path("d"), "f", 1);
    cluster.settle();
    cluster.relay.stop();
    let portal = std::net::TcpListener::bind(("127.0.0.1", cluster.relay.port())).expect("the relay's port");
    let page = "<html>Please pay for the network.</html>";
    let (stop, port) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), cluster.relay.port());
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut asked = 0;
        for mut stream in portal.incoming().flatten() {
            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let _ = stream.read(&mut [0; 4096]);
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
            let _ = stream.write_all(answer.as_bytes());
            asked += 1;
        }
        asked
    });
    put(&cluster.devices[0].path("d"), "g", 2);
    until("the status says that there is no relay", Duration::from_secs(60), || {
        let status = cluster.devices[0].status();
        if status["relay"]["state"] != "connected" { Ok(()) } else { Err(status.to_string()) }
    });
    pause(Duration::from_secs(2));
    cluster.devices.iter().for_each(|d| holds(&d.path("d"), "f", 1).expect("nothing is deleted"));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = std::net::TcpStream::connect(("127.0.0.1", port));
    assert!(thread.join().expect("the portal") > 0, "the devices asked");
    cluster.relay.resume();
    cluster.settle();
    holds(&cluster.devices[1].path("d"), "g", 2).expect("it goes on");
    cluster.finish();
}

/// X01, X02: bytes of the relay's store rot: never served, reported by `storage verify`, healed by a device that has the good bytes.
#[test]
fn x02_a_damaged_chunk_is_never_served() {
    let mut cluster = Cluster::new(1);
    let d = cluster.devices[0].path("d");
    put_bytes(&d, "f", &sized(&d, 1, 700_000));
    put_bytes(&d, "g", &sized(&d, 2, 100_000));
    cluster.settle();
    cluster.relay.stop();
    for path in tree::all_files(&cluster.relay.blobs()) {
        let file = fs::File::options().read(true).write(true).open(&path).expect("a blob");
        let len = file.metadata().map_or(0, |m| m.len());
        let mut byte = [0];
        for at in [len / 4, len / 2, len - len / 4] {
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 0x10], at).expect("room");
        }
    }
    let verify = cluster.relay.storage(&["verify", "--read-data"]);
    assert!(!verify.status.success(), "verify finds it: {}", String::from_utf8_lossy(&verify.stdout));
    cluster.relay.resume();
    // A second device asks for the damaged bytes: it must get good ones or none.
    let mut second = ferry_tests::device::Device::new(cluster.folder(), "B");
    second.start();
    second.login(&cluster.relay.url());
    second.attach(ferry_tests::cluster::NAMESPACE);
    let wanted: Vec<(&str, Vec<u8>)> = vec![("f", sized(&d, 1, 700_000)), ("g", sized(&d, 2, 100_000))];
    let healed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the good bytes come from the device that has them, or it is said", Duration::from_secs(40), || {
            let b = second.path("d");
            for (name, good) in &wanted {
                if let Ok(got) = fs::read(b.join(name)) {
                    assert_eq!(&got, good, "I5: wrong bytes were placed");
                }
            }
            let all_there = wanted.iter().all(|(name, good)| fs::read(b.join(name)).is_ok_and(|got| got == *good));
            let said = !second.issues().is_empty();
            if all_there || said { Ok(()) } else { Err(second.status().to_string()) }
        });
    }));
    assert!(healed.is_ok(), "neither healed nor said");
    second.stop();
    cluster.devices[0].stop();
}
