//! Rows of the catalogue between devices of one LAN, on simulated disks: chains, a peer ahead of the relay, a clone, a hostile member.

use ferry_engine::HearError;
use ferry_protocol::{Name, NodeId, NodeState, Place, ReplicaId, Stamp};
use ferry_tests::sim::calm::Tree;
use ferry_tests::sim::{Calm, path};

fn shown(tree: &Tree) -> Vec<&str> {
    tree.values().map(String::as_str).collect()
}

/// The relay knows all that the devices know, and they know the same.
fn one_history(world: &Calm) {
    let relay = world.relay.states();
    for device in &world.devices {
        assert_eq!(device.engine.trees().states(), relay, "{}", device.name);
    }
}

/// P06: a chain of three; neither end sees the other, and the first does not see the relay either.
#[test]
fn an_edit_goes_along_a_chain() {
    let mut world = Calm::new(3);
    world.write(0, "f", "version 1");
    world.mkdir(0, "d");
    world.converge();
    world.relay_on = false;
    world.lan.connect(0, 1);
    world.lan.connect(1, 2);
    world.write(0, "f", "version 2, written at the end of the chain");
    world.write(0, "d/new", "and something new");
    let got = world.converge();
    assert_eq!((got["f"].as_str(), got["d/new"].as_str()), ("version 2, written at the end of the chain", "and something new"));
    assert_eq!(world.devices[2].engine.trees().states(), world.devices[0].engine.trees().states(), "author, stamps and all");
    // The others bring it to the relay for the one who cannot.
    world.relay_on = true;
    world.no_relay.insert(0);
    world.settle_all();
    one_history(&world);
}

/// P30: a peer has what the relay has not, and somebody else changes the same file at the relay.
#[test]
fn a_peer_ahead_of_the_relay_makes_no_second_history() {
    let mut world = Calm::new(3);
    world.write(0, "f", "version 1");
    world.converge();
    world.no_relay.extend([0, 1]);
    world.lan.connect(0, 1);
    world.write(0, "f", "version 2, known on the LAN only");
    world.settle_all();
    assert_eq!(world.tree(1)["f"], "version 2, known on the LAN only");
    world.write(2, "f", "version 2, known to the relay only");
    world.settle_all();
    assert_eq!(world.tree(1)["f"], "version 2, known on the LAN only", "nobody told");
    world.no_relay.clear();
    let got = world.converge();
    let mut contents = shown(&got);
    contents.sort_unstable();
    assert_eq!(
        contents,
        ["version 2, known on the LAN only", "version 2, known to the relay only"],
        "one keeps the name, one is beside it"
    );
    assert_eq!(world.relay.states().len(), 1, "one node");
    one_history(&world);
}

/// P03: everything is down, both edit; whatever comes back first, the end is the same.
#[test]
fn it_does_not_matter_what_comes_back_first() {
    let run = |heal: fn(&mut Calm)| {
        let mut world = Calm::new(2);
        world.write(0, "both", "version 1");
        world.write(0, "gone", "deleted on one side");
        world.converge();
        world.relay_on = false;
        world.write(0, "both", "version 2 of the first");
        world.write(1, "both", "version 2 of the second");
        world.remove(1, "gone");
        world.write(0, "new", "made without anybody");
        world.settle_all();
        heal(&mut world);
        world.settle_all();
        world.relay_on = true;
        let got = world.converge();
        one_history(&world);
        got
    };
    let relay_first = run(|world| world.relay_on = true);
    let lan_first = run(|world| world.lan.connect(0, 1));
    let both = run(|world| {
        world.relay_on = true;
        world.lan.connect(0, 1);
    });
    assert_eq!(relay_first.len(), 3, "{relay_first:?}");
    assert_eq!((&lan_first, &both), (&relay_first, &relay_first));
}

/// L22: a member sends a stamp from the far future. It is refused whole, and he can be heard again when he is honest; what is within the bound
/// does not keep others from writing over it.
#[test]
fn a_stamp_from_the_future_is_refused() {
    let mut world = Calm::new(2);
    world.write(0, "f", "version 1");
    world.converge();
    world.write(0, "f", "version 2");
    world.relay_on = false;
    world.lan.connect(0, 1);
    world.settle(0);
    let sent = world.ask_peer(0, 1, 100).expect("connected");
    let before = world.devices[1].engine.trees().states();
    for counter in [u64::MAX, u64::MAX - 1, 1 << 50] {
        let mut page = sent.page.page.clone();
        let stamp = Stamp { counter, replica: ReplicaId::from_bytes([0xBD; 16]) };
        let place = Place { stamp, parent: NodeId::ROOT, name: Name::new("for ever").expect("a name") };
        page.nodes[0].state.move_to(place.clone());
        page.nodes.push(ferry_protocol::wire::NodeUpdate { id: NodeId::from_bytes([0xBD; 16]), state: NodeState::new(place) });
        let heard = world.devices[1].engine.handle_peer_page(&page, sent.page.since, false, true);
        assert_eq!(heard, Err(HearError::ClockJump), "{counter}");
    }
    assert_eq!(world.devices[1].engine.trees().states(), before, "nothing of it");
    let mut page = sent.page.page.clone();
    let stamp = Stamp { counter: 1 << 39, replica: ReplicaId::from_bytes([0xBD; 16]) };
    page.nodes[0].state.move_to(Place { stamp, parent: NodeId::ROOT, name: Name::new("g").expect("a name") });
    world.devices[1].engine.handle_peer_page(&page, sent.page.since, false, true).expect("within the bound");
    world.converge();
    world.rename(0, "g", "f");
    assert_eq!(world.converge().into_iter().collect::<Vec<_>>(), [("f".to_owned(), "version 2".to_owned())]);
}

/// P20: one index on two machines. Whoever hears the other first goes on as somebody else; no number stands for two things.
#[test]
fn a_cloned_device_goes_on_as_a_new_replica() {
    let mut world = Calm::new(3);
    world.write(0, "f", "version 1");
    world.converge();
    let (disk, trees) = (world.devices[1].disk.clone(), world.devices[1].engine.trees().clone());
    world.devices[2].restore(disk, trees);
    world.relay_on = false;
    world.write(1, "one", "written by the first of them");
    world.write(2, "two", "written by the second of them");
    world.write(1, "f", "version 2 of the first");
    world.write(2, "f", "version 2 of the second");
    world.settle_all();
    world.lan.connect_all(3);
    let got = world.converge();
    for content in ["written by the first of them", "written by the second of them", "version 2 of the first", "version 2 of the second"] {
        assert!(shown(&got).contains(&content), "{content} is gone: {got:?}");
    }
    let replicas: Vec<ReplicaId> = world.devices.iter().map(|d| d.engine.meta().replica).collect();
    assert_ne!(replicas[1], replicas[2]);
    world.relay_on = true;
    world.write(1, "one", "and both go on");
    assert!(world.devices[2].disk.write(&path("two"), b"both of them"));
    world.devices[2].hints.push(path("two"));
    let got = world.converge();
    assert!(shown(&got).contains(&"and both go on") && shown(&got).contains(&"both of them"), "{got:?}");
    one_history(&world);
}
