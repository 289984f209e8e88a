//! Who takes part: strangers get nothing, a revoked device gets nothing more, damaged and repeated packets do nothing; L01, L04, L09, L10, L31.

use super::finding::PORT;
use crate::e2e::rows::*;
use ferry_tests::cluster::NAMESPACE;
use ferry_tests::device::Device;
use ferry_tests::net::lab::{Lab, peers};
use ferry_tests::net::udp::{Trouble, UdpProxy};
use ferry_tests::poll::{pause, until};
use ferry_tests::relay::{EMAIL, PASSWORD};
use serde_json::{Value as Json, json};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Asks the relay as a browser would, from the relay's own host.
fn ask(lab: &Lab, method: &str, path: &str, token: Option<&str>, body: Option<Json>) -> Json {
    let mut command = lab.relay_host.command("curl");
    command.args(["-sS", "--fail-with-body", "-X", method]).arg(format!("{}{path}", lab.cluster.relay.url()));
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let output = command.output().expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{method} {path}: {text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or(Json::Null)
}

fn id_of(device: &Device) -> String {
    device.status()["device"]["id"].as_str().expect("an id").to_string()
}

/// Revokes a device as its owner does with a browser.
fn revoke(lab: &Lab, id: &str) {
    let tokens = ask(lab, "POST", "/auth/login", None, Some(json!({ "email": EMAIL, "password": PASSWORD })));
    let token = tokens["access_token"].as_str().expect("a token").to_string();
    ask(lab, "DELETE", &format!("/api/v1/devices/{id}"), Some(&token), None);
}

fn is_connected(device: &Device, name: &str) -> Result<bool, String> {
    Ok(peers(device)?.iter().any(|p| p["state"] == "connected" && p["name"] == name))
}

/// L01: devices of other people on the same LAN, at the same relay: nothing is exchanged, nothing is said about folders.
#[test]
fn l01_a_stranger_on_the_lan() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    lab.cluster.relay.add_user("otto@example.org", "another long password");
    let (lan, url) = (lab.lan(), lab.cluster.relay.url());
    let host = lab.net.host("stranger", lan);
    let mut stranger = Device::new(lab.cluster.folder(), "S").on_host(&host);
    stranger.start();
    stranger.login_as(&url, "otto@example.org", "another long password");
    stranger.add_new(NAMESPACE);
    put(&lab.dir(0, "d"), "private", 1);
    std::fs::write(stranger.path("of the stranger"), "his").expect("room");
    lab.cluster.settle();
    pause(Duration::from_secs(5));
    assert_eq!(names(stranger.root()), ["of the stranger"]);
    for number in 0..2 {
        assert!(gone(lab.device(number).root(), "of the stranger").is_ok());
        assert!(lab.peers(number).expect("a list").iter().all(|p| p["name"] != "S" || p["state"] != "connected"));
    }
    let heard = std::fs::read_to_string(stranger.log()).unwrap_or_default();
    assert!(!heard.contains("private"));
    stranger.stop();
    lab.finish();
}

/// L04, L31: a revoked device is dropped by those who are online and by those who hear of it only from them, and gets nothing any more, not even
/// with the grant that it still holds.
#[test]
fn l04_a_revoked_device() {
    let mut lab = Lab::new(3);
    lab.until_all_connected();
    put(&lab.dir(0, "d"), "before", 1);
    lab.cluster.settle();
    // B and C do not hear of it from the relay: C would go on for ever, B learns it from A.
    let (lan, relay) = (lab.lan(), lab.relay_host.clone());
    let cut_off: Vec<_> = [1, 2].iter().map(|number| lab.device(*number).host().block_from(lan, &relay)).collect();
    revoke(&lab, &id_of(lab.device(2)));
    for number in 0..2 {
        until("it is dropped", Duration::from_secs(60), || is("still connected", !is_connected(lab.device(number), "C")?));
    }
    put(&lab.dir(0, "d"), "secret of A", 2);
    put(&lab.dir(1, "d"), "secret of B", 3);
    put(&lab.dir(2, "d"), "of the thief", 4);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "secret of A", 2).and(holds(&root.join("d"), "secret of B", 3)));
    lab.restart(2);
    pause(Duration::from_secs(10));
    assert_eq!(names(&lab.dir(2, "d")), ["before", "of the thief"]);
    for number in 0..2 {
        gone(&lab.dir(number, "d"), "of the thief").expect("its edits are not taken");
        assert!(!is_connected(lab.device(number), "C").expect("a list"));
    }
    drop(cut_off);
    put(&lab.dir(0, "d"), "later", 5);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "later", 5));
    pause(Duration::from_secs(5));
    assert_eq!(names(&lab.dir(2, "d")), ["before", "of the thief"]);
    lab.device_mut(2).stop();
    (0..2).for_each(|number| gone(&lab.dir(number, "d"), "of the thief").expect("its edits are not taken"));
}

/// P27: a device is taken out while it is away with edits that nobody has: it keeps them, says why it waits, and nothing of them gets out, by the relay
/// or by the LAN.
#[test]
fn p27_taken_out_while_away() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    put(&lab.dir(0, "d"), "before", 1);
    lab.cluster.settle();
    let id = id_of(lab.device(1));
    lab.device_mut(1).stop();
    put(&lab.dir(1, "d"), "before", 2);
    put(&lab.dir(1, "d"), "only here", 3);
    revoke(&lab, &id);
    lab.device_mut(1).start();
    until("it says why it waits", Duration::from_secs(60), || {
        let told = lab.device(1).run(&["status"]).out;
        is(&told, told.contains("log in") || told.contains("login"))
    });
    put(&lab.dir(0, "d"), "later", 4);
    lab.device(0).run(&["wait", "--timeout", "60"]);
    pause(Duration::from_secs(5));
    assert_eq!(names(&lab.dir(1, "d")), ["before", "only here"]);
    holds(&lab.dir(1, "d"), "before", 2).and(holds(&lab.dir(1, "d"), "only here", 3)).expect("its edits stay");
    assert_eq!(names(&lab.dir(0, "d")), ["before", "later"]);
    holds(&lab.dir(0, "d"), "before", 1).expect("nothing of it got out");
    assert!(!is_connected(lab.device(0), "B").expect("a list"));
    lab.device_mut(1).stop();
    lab.device_mut(0).stop();
}

/// L04: devices that cannot reach the relay go on together until their grant ends, and no longer; the relay's next grant lets them go on.
#[test]
fn l04_an_old_grant() {
    let mut lab = Lab::lay(&[2], &[("FERRY_RELAY__AUTH__GRANT_TTL_S", "40")]);
    lab.begin();
    lab.until_all_connected();
    lab.cut_wan();
    put(&lab.dir(0, "d"), "in time", 1);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "in time", 1));
    for number in 0..2 {
        until("the connection ends with the grant", Duration::from_secs(120), || {
            is("still connected", lab.peers(number)?.iter().all(|p| p["state"] != "connected"))
        });
    }
    put(&lab.dir(0, "d"), "too late", 2);
    pause(Duration::from_secs(5));
    gone(&lab.dir(1, "d"), "too late").expect("nothing is told without a grant");
    lab.heal_wan();
    lab.cluster.settle();
    lab.until_all_connected();
    lab.finish();
}

/// A device that joins later is known to those that are off the relay, because the newer grant travels with it.
#[test]
fn a_device_that_was_linked_while_others_were_away() {
    let mut lab = Lab::lay(&[3], &[]);
    let url = lab.cluster.relay.url();
    (0..2).for_each(|number| lab.cluster.begin(number, &url));
    until("they are connected", Duration::from_secs(60), || is("not yet", is_connected(lab.device(0), "B")?));
    put(&lab.dir(0, "d"), "f", 1);
    lab.cluster.settle();
    let (lan, relay) = (lab.lan(), lab.relay_host.clone());
    let cut_off: Vec<_> = [0, 1].iter().map(|number| lab.device(*number).host().block_from(lan, &relay)).collect();
    lab.cluster.begin(2, &url);
    lab.until_same(&[0, 1, 2], |root| holds(&root.join("d"), "f", 1));
    lab.until_connected(2, 2);
    lab.cut_wan();
    put(&lab.dir(2, "d"), "of C", 2);
    put(&lab.dir(1, "d"), "of B", 3);
    lab.until_same(&[0, 1, 2], |root| holds(&root.join("d"), "of C", 2).and(holds(&root.join("d"), "of B", 3)));
    drop(cut_off);
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// Two networks with one line between them, which an attacker holds: he damages what passes, records it and plays it again.
#[test]
fn l09_l10_a_line_in_foreign_hands() {
    let mut lab = Lab::lay(&[1, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    let (first, second) = (lab.lans[0], lab.lans[1]);
    let middle = lab.net.host("middle", first);
    lab.net.join(&middle, second);
    let server = SocketAddr::from((lab.device(0).host().address(), PORT));
    let proxy = UdpProxy::on(&middle, "0.0.0.0".parse().expect("an address"), server, 12);
    lab.set_all("lan.listen", &format!("0.0.0.0:{PORT}"));
    let by_proxy = SocketAddr::from((middle.address_in(second), proxy.address().port()));
    lab.device(1).ok(&["config", "set", "lan.peers", &by_proxy.to_string()]);
    lab.begin();
    lab.until_all_connected();
    lab.cut_wan();
    let a = lab.dir(0, "d");
    put(&a, "f", 1);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "f", 1));
    let recorded = proxy.kept();
    assert!(recorded.len() > 5);
    assert!(!recorded.iter().any(|d| d.windows(NAMESPACE.len()).any(|w| w == NAMESPACE.as_bytes())), "nothing is in clear");
    proxy.set(Trouble { damage: 1000, ..Trouble::default() });
    put(&a, "f", 2);
    pause(Duration::from_secs(5));
    holds(&lab.dir(1, "d"), "f", 1).expect("nothing came through");
    let socket = middle.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    (0..3).for_each(|_| recorded.iter().for_each(|datagram| drop(socket.send_to(datagram, server))));
    pause(Duration::from_secs(2));
    proxy.set(Trouble::default());
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "f", 2).and(only(&root.join("d"), &["f"])));
    drop(walls);
    lab.heal_wan();
    lab.cluster.settle();
    drop(proxy);
    lab.finish();
}
