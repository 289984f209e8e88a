//! A folder shared with another person, on one LAN: roles and the end of a membership count without the relay too.

use crate::e2e::rows::*;
use ferry_tests::cluster::NAMESPACE;
use ferry_tests::net::lab::{Lab, peers};
use ferry_tests::poll::{pause, until};
use std::time::Duration;

const BOB: &str = "bob@example.org";
const PASSWORD: &str = "another long password";

/// A member's devices meet the owner's and exchange files while the relay is away; a reader's changes are refused by the owner's device; who was removed
/// gets nothing from devices nearby, although both stand on one LAN and the relay is away again.
#[test]
fn a_member_on_the_lan_until_removed() {
    let mut lab = Lab::lay(&[2], &[]);
    let url = lab.cluster.relay.url();
    lab.cluster.relay.add_user(BOB, PASSWORD);
    lab.cluster.begin(0, &url);
    lab.device_mut(1).start();
    lab.device(1).login_as(&url, BOB, PASSWORD);
    lab.device(0).ok(&["share", "invite", NAMESPACE, BOB]);
    let root = lab.device(1).root().display().to_string();
    until("the invitation comes", Duration::from_secs(60), || {
        let answer = lab.device(1).run(&["share", "accept", NAMESPACE, &root]);
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    });
    lab.until_all_connected();
    lab.cut_wan();
    let (a, b) = (lab.dir(0, "d"), lab.dir(1, "d"));
    put(&a, "over the LAN", 1);
    until("it comes without the relay", Duration::from_secs(60), || holds(&b, "over the LAN", 1));
    put(&b, "of a reader", 2);
    assert_eq!(lab.device(1).until_issue("of a reader"), "viewer_only");
    pause(Duration::from_secs(3));
    gone(&a, "of a reader").expect("a reader gives nothing");
    lab.heal_wan();
    lab.device(0).ok(&["share", "invite", NAMESPACE, BOB, "--role", "editor"]);
    until("a writer gives", Duration::from_secs(60), || holds(&a, "of a reader", 2));

    lab.device(0).ok(&["share", "remove", NAMESPACE, BOB]);
    lab.device(1).until_state("error");
    until("they are apart", Duration::from_secs(60), || {
        let connected = peers(lab.device(0))?.iter().any(|p| p["state"] == "connected");
        is("still connected", !connected)
    });
    lab.cut_wan();
    put(&a, "secret", 3);
    put(&b, "no more", 4);
    pause(Duration::from_secs(8));
    gone(&b, "secret").and(gone(&a, "no more")).expect("nothing passes");
    // Nor after a restart, with what it still has on its disk.
    lab.restart(1);
    pause(Duration::from_secs(8));
    gone(&b, "secret").and(gone(&a, "no more")).expect("nothing passes");
    holds(&b, "over the LAN", 1).expect("what is there stays");
    lab.heal_wan();
    (0..2).for_each(|number| lab.device_mut(number).stop());
}
