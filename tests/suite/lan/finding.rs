//! How devices find each other, and that an address is only a hint: P09, P26.

use crate::e2e::rows::*;
use ferry_tests::cluster::NAMESPACE;
use ferry_tests::device::Device;
use ferry_tests::net::lab::Lab;
use ferry_tests::poll::{pause, until};
use std::time::Duration;

/// The port that these tests make daemons listen on.
pub const PORT: u16 = 4717;

/// By which ways the first connected peer of a device was found.
fn found(lab: &Lab, number: usize) -> Vec<String> {
    let mut connected = None;
    // One that was connected to a process that has ended is not for a moment.
    until("somebody is connected", Duration::from_secs(60), || {
        let peers = lab.peers(number)?;
        connected = peers.iter().find(|p| p["state"] == "connected").cloned();
        is(&format!("connected: {peers:?}"), connected.is_some())
    });
    connected.unwrap_or_default()["found"].as_array().into_iter().flatten().filter_map(|f| f.as_str()).map(String::from).collect()
}

/// A change on each of two devices arrives at the other.
fn change_both(lab: &mut Lab) {
    put(&lab.dir(0, "d"), "from A", 1);
    put(&lab.dir(1, "d"), "from B", 2);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "from A", 1).and(holds(&root.join("d"), "from B", 2)));
}

/// Daemons that start on a LAN without a relay find each other by mDNS.
#[test]
fn by_mdns() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    lab.cut_wan();
    (0..2).for_each(|number| lab.restart(number));
    lab.until_all_connected();
    until("one of them was found so", Duration::from_secs(60), || {
        is("by mDNS", (0..2).any(|n| found(&lab, n).contains(&"mdns".to_string())))
    });
    change_both(&mut lab);
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// P09: multicast does not pass from one LAN to another; the relay tells the addresses, and the bytes go directly.
#[test]
fn p09_by_the_relay_across_two_lans() {
    let mut lab = Lab::lay(&[1, 1], &[]);
    lab.begin();
    lab.until_all_connected();
    let by_relay = || (0..2).all(|n| found(&lab, n) == ["relay"]);
    until("both were found so", Duration::from_secs(60), || is("by the relay", by_relay()));
    lab.cut_wan();
    change_both(&mut lab);
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// P09: one LAN on which multicast does not arrive, and daemons that were told not to use it.
#[test]
fn p09_without_multicast() {
    for by_setting in [false, true] {
        let mut lab = Lab::lay(&[2], &[]);
        let deaf: Vec<_> = lab.cluster.devices.iter().map(|d| d.host().block_multicast(lab.lan())).collect();
        if by_setting {
            lab.set_all("lan.discovery", "false");
        }
        lab.begin();
        lab.until_all_connected();
        assert!((0..2).all(|number| !found(&lab, number).contains(&"mdns".to_string())));
        if by_setting {
            // Other programs' reports of multicast groups are multicast too; the group of mDNS alone is meant, and it is silent.
            pause(Duration::from_secs(2));
            assert!((0..2).all(|number| !found(&lab, number).contains(&"mdns".to_string())));
        }
        lab.cut_wan();
        change_both(&mut lab);
        drop(deaf);
        lab.heal_wan();
        lab.cluster.settle();
        lab.finish();
    }
}

/// P09: an address that a person wrote down, with no relay and no multicast to find it by.
#[test]
fn p09_by_a_static_address() {
    let mut lab = Lab::lay(&[2], &[]);
    lab.set_all("lan.discovery", "false");
    lab.set_all("lan.listen", &format!("0.0.0.0:{PORT}"));
    lab.begin();
    lab.cut_wan();
    lab.device_mut(0).stop();
    lab.device_mut(1).stop();
    let address = format!("{}:{PORT}", lab.device(0).host().address());
    lab.device(1).ok(&["config", "set", "lan.peers", &address]);
    (0..2).for_each(|number| lab.device_mut(number).start());
    lab.until_all_connected();
    until("it was found so", Duration::from_secs(60), || is("by its address", found(&lab, 1).contains(&"static".to_string())));
    change_both(&mut lab);
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// The setting is taken up while the daemon runs: off ends the connections, on makes them again.
#[test]
fn turned_off_and_on_while_running() {
    let mut lab = Lab::new(2);
    lab.until_all_connected();
    lab.device(0).ok(&["config", "set", "lan.enabled", "false"]);
    until("the connection ends on both sides", Duration::from_secs(60), || {
        let connected = lab.peers(1)?.iter().any(|p| p["state"] == "connected");
        is("not connected", !connected)
    });
    change_both(&mut lab);
    lab.device(0).ok(&["config", "set", "lan.enabled", "true"]);
    lab.until_all_connected();
    lab.cut_wan();
    put(&lab.dir(0, "d"), "again", 3);
    lab.until_same(&[0, 1], |root| holds(&root.join("d"), "again", 3));
    lab.heal_wan();
    lab.cluster.settle();
    lab.finish();
}

/// P26: at the address that was written down there is a stranger: he gets nothing, and is not asked again and again.
#[test]
fn p26_another_host_at_a_known_address() {
    let mut lab = Lab::lay(&[1, 1], &[]);
    lab.set_all("lan.listen", &format!("0.0.0.0:{PORT}"));
    lab.cluster.relay.add_user("otto@example.org", "another long password");
    let (lan, url) = (lab.lan(), lab.cluster.relay.url());
    let host = lab.net.host("stranger", lan);
    let mut stranger = Device::new(lab.cluster.folder(), "S").on_host(&host);
    stranger.ok(&["config", "set", "lan.listen", &format!("0.0.0.0:{PORT}")]);
    stranger.start();
    stranger.login_as(&url, "otto@example.org", "another long password");
    stranger.add_new(NAMESPACE);
    lab.device(0).ok(&["config", "set", "lan.peers", &format!("{}:{PORT}", host.address())]);
    lab.begin();
    put(&lab.dir(0, "d"), "private", 1);
    lab.cluster.settle();
    let before = host.traffic(lan);
    pause(Duration::from_secs(15));
    let asked = host.traffic(lan).since(before);
    assert!(asked.in_frames < 1500, "he is not asked in a loop: {asked:?}");
    assert_eq!(names(stranger.root()), Vec::<String>::new());
    let known = lab.peers(0).expect("a list");
    assert!(known.iter().all(|p| p["state"] != "connected" || p["name"] == "B"), "{known:?}");
    stranger.stop();
    lab.finish();
}
