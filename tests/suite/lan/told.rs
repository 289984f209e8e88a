//! What a person is told of the devices nearby and may say to them: `ferry peer show`, `ping` and `forget`, `limit.lan`.

use crate::e2e::rows::*;
use ferry_tests::net::lab::Lab;
use ferry_tests::poll::until;
use serde_json::Value as Json;
use std::time::Duration;

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_device_is_shown_pinged_and_looked_for_anew() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    let shown = json(&lab.device(0).ok(&["peer", "show", "B", "--json"]));
    assert_eq!((&shown["type"], &shown["state"], &shown["name"]), (&"peer".into(), &"connected".into(), &"B".into()), "{shown}");
    assert!(shown["rtt_ms"].is_f64() && !shown["addresses"].as_array().unwrap().is_empty(), "{shown}");
    assert_eq!(shown["folders"].as_array().map(Vec::len), Some(1), "{shown}");
    let id = shown["id"].as_str().unwrap();
    let pinged = json(&lab.device(0).ok(&["peer", "ping", id, "--count", "3", "--json"]));
    assert_eq!((&pinged["sent"], &pinged["received"]), (&3.into(), &3.into()), "{pinged}");
    assert!(pinged["probes"].as_array().unwrap().iter().all(|p| p["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0)), "{pinged}");
    assert_eq!(lab.device(0).run(&["peer", "show", "nobody"]).code, 7);

    let forgotten = json(&lab.device(0).ok(&["peer", "forget", "B", "--json"]));
    assert_eq!(forgotten["was_connected"], true, "{forgotten}");
    lab.until_all_connected();
    lab.cut_wan();
    put(&lab.dir(1, "d"), "after that", 1);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "after that", 1));
    // Who is not there is not pinged, and the command says why.
    lab.device_mut(1).stop();
    until("it is gone", Duration::from_secs(60), || is("connected", lab.peers(0)?.iter().all(|p| p["state"] != "connected")));
    let gone = lab.device(0).run(&["peer", "ping", "B", "--count", "1"]);
    assert_eq!(gone.code, 5, "{gone:?}");
    lab.device_mut(1).start();
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// With a limit a large file has come in part when without one it would be there; without it, the rest comes.
#[test]
fn the_lan_is_limited_and_then_is_not() {
    const SIZE: usize = 64 << 20;
    for limited in [0, 1] {
        let mut lab = Lab::new(2);
        lab.until_all_connected();
        lab.cut_wan();
        lab.device(limited).ok(&["limit", "set", "--lan", "64kB/s"]);
        let a = lab.dir(0, "d");
        put_bytes(&a, "big", &sized(&a, 1, SIZE));
        let came = |lab: &Lab| lab.device(1).try_status().map(|s| s["transfer"]["lan_in_bytes"].as_u64().unwrap_or(0));
        let enough = 512 << 10;
        until("a part has come", Duration::from_secs(120), || is("little so far", came(&lab)? > enough));
        let so_far = came(&lab).expect("a status");
        assert!(so_far < SIZE as u64 / 4, "device {limited} is limited, and {so_far} bytes have come");
        put(&a, "small", 2);
        lab.device(limited).ok(&["limit", "set", "--lan", "none"]);
        lab.until_same(&[0, 1], |root| {
            holds(&root.join("d"), "small", 2)?;
            holds_bytes(&root.join("d"), "big", &sized(&a, 1, SIZE))
        });
        lab.heal_wan();
        lab.cluster.settle();
        lab.finish();
    }
}
