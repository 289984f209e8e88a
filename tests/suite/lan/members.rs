//! A device of ours in wrong hands: it is a member, its key is good, and what it says is not. L05, L06, L11 to L18, L22, L26, X01.

use super::strangers::{now, stage, unharmed};
use crate::e2e::rows::*;
use ferry_protocol::lan::frame;
use ferry_protocol::lan::{ChunkAnswer, ChunkAsk, Message};
use ferry_protocol::limits::CHUNK_MAX_BYTES;
use ferry_protocol::node::{Attributes, Author, Content, Dot, FileContent, NodeState, Place, Stamp, Value};
use ferry_protocol::wire::{ChunkFrame, NodeUpdate};
use ferry_protocol::{ChunkId, DeviceId, Manifest, Name, NamespaceId, NodeId, ReplicaId};
use ferry_tests::attacker::Member;
use ferry_tests::poll::until;
use ferry_tests::tree;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

/// A node with these places, newest first: (counter, parent, name), in the name of a device that nobody knows.
fn node(replica: ReplicaId, n: u8, places: &[(u64, u8, &[u8])], content: Content) -> NodeUpdate {
    node_by(DeviceId::from_bytes([0xf0; 16]), replica, n, places, content)
}

fn node_by(device: DeviceId, replica: ReplicaId, n: u8, places: &[(u64, u8, &[u8])], content: Content) -> NodeUpdate {
    let stamp = |counter| Stamp { counter, replica };
    let parent = |p: u8| if p == 0 { NodeId::ROOT } else { id(p) };
    let place = |(counter, p, name): &(u64, u8, &[u8])| Place {
        stamp: stamp(*counter),
        parent: parent(*p),
        name: Name::new(name).expect("a name"),
    };
    let author = Author { device, name: "somebody".into() };
    let value = Value { dot: Dot { replica, counter: 1 }, stamp: stamp(places[0].0), content, author, wall_ms: i64::MAX };
    let places = places.iter().map(place).collect();
    let state = NodeState::from_parts(places, vec![value], vec![(replica, 1)], Attributes::default()).expect("a state");
    NodeUpdate { id: id(n), state }
}

fn empty_file() -> Content {
    Content::File(FileContent::new(Manifest::empty(), i64::MIN))
}

/// L05, L06, L26: a hash is no capability, and questions are answered a few at a time.
#[test]
fn l05_l06_l26_a_hash_gets_nothing() {
    let (mut cluster, attacker, address) = stage(0);
    let a = cluster.devices[0].path("d");
    put_bytes(&a, "shared", b"what both may read");
    let other = cluster.folder().join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    std::fs::write(other.join("private"), "what is in the other folder").expect("a file");
    cluster.settle();
    let before = now(&cluster.devices[0]);
    attacker.run(async {
        let member = attacker.join(address).await;
        let (shared, foreign, random) =
            (ChunkId::of(b"what both may read"), ChunkId::of(b"what is in the other folder"), ChunkId::of(b"nothing at all"));
        let given = member.ask(member.namespace, vec![shared]).await.expect("an answer");
        let bytes = b"what both may read".as_slice();
        assert_eq!(ChunkAnswer::parse(&given).expect("a frame"), Some((ChunkAnswer::Plain(shared, bytes), given.len())));
        let absent = |ids: &[ChunkId]| ids.iter().flat_map(|id| ChunkFrame::absent(*id)).collect::<Vec<u8>>();
        assert_eq!(member.ask(member.namespace, vec![foreign, random]).await.expect("an answer"), absent(&[foreign, random]));
        let nowhere = NamespaceId::from_bytes([9; 16]);
        assert_eq!(member.ask(nowhere, vec![shared, foreign, random]).await.expect("an answer"), absent(&[shared, foreign, random]));
        // What it says of a namespace that is not there is passed over.
        member.send(&Message::Subscribe { namespace: nowhere, cursor: None }).await.expect("sent");
        let mut questions = tokio::task::JoinSet::new();
        let member = std::sync::Arc::new(member);
        for number in 0..200u32 {
            let member = member.clone();
            questions.spawn(async move {
                let ids: Vec<ChunkId> = (0..500u32).map(|n| ChunkId::of(&(number * 1000 + n).to_le_bytes())).collect();
                member.ask(member.namespace, ids).await.map(|answer| answer.len())
            });
        }
        while let Some(answer) = questions.join_next().await {
            assert_eq!(answer.expect("no panic").expect("an answer"), 500 * 37);
        }
        // A subscription a thousand times over is one feed at the end; more are too many.
        for _ in 0..1000 {
            member.send(&Message::Subscribe { namespace: member.namespace, cursor: None }).await.expect("sent");
        }
        let most = member.ask(member.namespace, vec![random]).await.expect("it still answers");
        assert_eq!(most, absent(&[random]));
        unharmed(&cluster.devices[0], (before.0, before.1 + 64));
        drop(member);
        let member = attacker.join(address).await;
        assert!(member.ask(member.namespace, vec![random; 65_537]).await.is_err(), "more than may be asked for at once");
        assert_eq!(member.end().await, Some(3));
        let member = attacker.join(address).await;
        for _ in 0..20_000 {
            let _ = member.send(&Message::Subscribe { namespace: member.namespace, cursor: None }).await;
        }
        assert_eq!(member.end().await, Some(3));
    });
    unharmed(&cluster.devices[0], before);
    cluster.finish();
}

/// L12, L14, L15, L16, L17, L18: bytes that are no page, no message, no frame end the connection and touch nothing.
#[test]
fn l12_l14_to_l18_lies_end_the_connection() {
    let (mut cluster, attacker, address) = stage(0);
    put(&cluster.devices[0].path("d"), "kept", 1);
    cluster.settle();
    let (before, files) = (now(&cluster.devices[0]), tree::read(cluster.devices[0].root()));
    attacker.run(async {
        for lie in 0..13 {
            let member = attacker.join(address).await;
            let sent = tell(&member, lie).await;
            assert_eq!(member.end().await, Some(3), "lie {lie}: {:?}", sent.err());
        }
    });
    assert!(tree::differences(&files, &tree::read(cluster.devices[0].root())).is_empty(), "nothing was made or changed");
    unharmed(&cluster.devices[0], before);
    cluster.finish();
}

/// L17, L18, L19: pages that are announced large, and come for ever on many streams: the connection ends before they fill the memory.
#[test]
fn l17_l18_bodies_that_never_end() {
    let (cluster, attacker, address) = stage(0);
    let before = now(&cluster.devices[0]);
    attacker.run(async {
        let member = attacker.join(address).await;
        let mut streams = tokio::task::JoinSet::new();
        let member = std::sync::Arc::new(member);
        for _ in 0..24 {
            let member = member.clone();
            streams.spawn(async move {
                let mut stream = member.feed(&60_000_000u32.to_le_bytes()).await.ok()?;
                for _ in 0..50 {
                    stream.write_all(&[1; 1 << 20]).await.ok()?;
                }
                Some(stream)
            });
        }
        assert_eq!(member.end().await, Some(3));
    });
    unharmed(&cluster.devices[0], before);
    cluster.finish();
}

/// One lie.
async fn tell(member: &Member, lie: usize) -> Result<(), String> {
    let honest = |name: &[u8]| {
        let page = member.page(1, vec![node(member.replica, 7, &[(1, 0, name)], empty_file())]);
        ferry_protocol::wire::encode(&page)
    };
    // The name in the bytes of a page becomes another of the same length.
    let renamed = |name: &[u8]| {
        let placeholder = vec![b'@'; name.len()];
        let mut bytes = honest(&placeholder);
        let at = bytes.windows(name.len()).position(|w| w == placeholder).expect("it is there");
        bytes[at..at + name.len()].copy_from_slice(name);
        bytes
    };
    match lie {
        0 => drop(member.feed_body(&renamed(b"..")).await?),
        1 => drop(member.feed_body(&renamed(b"../../x")).await?),
        2 => drop(member.feed_body(&renamed(b"a\0b")).await?),
        3 => drop(member.feed_body(&renamed(b".ferry")).await?),
        4 => {
            // The variant of the content becomes one that there is not: a device, a pipe, a socket.
            let mut bytes =
                ferry_protocol::wire::encode(&member.page(1, vec![node(member.replica, 7, &[(1, 0, b"@")], Content::Tombstone)]));
            let at = bytes.windows(14).position(|w| w == [&[3][..], &[0xf0; 13]].concat()).expect("a tombstone of nobody");
            bytes[at] = 4;
            member.feed_body(&bytes).await.map(drop)?;
        }
        5 => {
            let mut bytes = honest(b"@");
            bytes.push(0);
            member.feed_body(&bytes).await.map(drop)?;
        }
        6 => drop(member.feed(&u32::MAX.to_le_bytes()).await?),
        7 => drop(member.feed(&0x8000_0000u32.to_le_bytes()).await?),
        8 => drop(member.feed(&vec![0; 4_000_000]).await?),
        9 => member.send_bytes(&u32::MAX.to_le_bytes()).await?,
        10 => {
            // A list that states more entries than any page may have.
            let mut page = ferry_protocol::wire::encode(&member.page(1, Vec::new()));
            page.pop();
            page.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
            page.extend(vec![0; 1_000_000]);
            member.feed_body(&page).await.map(drop)?;
        }
        11 => member.send(&Message::Hello { min: 1, max: 1 }).await?,
        _ => {
            let mut stream = member.connection.open_uni().await.map_err(|e| e.to_string())?;
            stream.write_all(&[9, 9, 9]).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// L12, L13, L15, L22, L24: pages that are well formed and mean harm. Nothing outside the folder is touched, and everybody shows the same tree.
#[test]
fn l13_l15_l22_l24_pages_that_mean_harm() {
    let (mut cluster, attacker, address) = stage(1);
    let a = cluster.devices[0].root().to_owned();
    put(&a.join("d"), "kept", 1);
    cluster.settle();
    let (before, canary) = (now(&cluster.devices[0]), cluster.canary());
    let link = |target: &std::path::Path| Content::Symlink(target.as_os_str().as_encoded_bytes().into());
    attacker.run(async {
        let member = attacker.join(address).await;
        let replica = member.replica;
        let by_us = |n, places: &[(u64, u8, &[u8])], content| node_by(attacker.own(), replica, n, places, content);
        let file = |n, parent, name: &[u8]| by_us(n, &[(u64::from(n), parent, name)], empty_file());
        let dir = |n, places: &[(u64, u8, &[u8])]| by_us(n, places, Content::Dir);
        let mut nodes = vec![
            // A link and a folder of one name, with a file in it; a file whose parent is the link itself.
            by_us(20, &[(20, 0, b"way")], link(&canary)),
            dir(21, &[(21, 0, b"way")]),
            file(22, 21, b"planted"),
            file(23, 20, b"through"),
            by_us(24, &[(24, 0, b"up")], Content::Symlink(b"../canary".as_slice().into())),
            file(25, 24, b"through"),
            // Two folders in each other; a parent that nobody knows; a file that has moved eight times.
            dir(30, &[(31, 31, b"x")]),
            dir(31, &[(30, 30, b"y")]),
            file(32, 31, b"in a ring"),
            file(33, 99, b"of nobody"),
            // Names of ours, by a way round.
            dir(40, &[(41, 41, b".ferry")]),
            dir(41, &[(40, 40, b".ferry")]),
            file(42, 40, b"trash"),
            file(43, 98, b".ferry"),
            // What confuses people and other systems.
            file(50, 0, b"\x1b[2J\r\n"),
            file(51, 0, b"a\\b"),
            file(52, 0, b"C:"),
            file(53, 0, b"CON"),
            file(54, 0, &[b'n'; 255]),
            file(55, 0, b"kept.part"),
            // By a device that nobody knows: the relay will have none of it, and must not refuse the rest with it.
            node(replica, 56, &[(56, 0, b"unsigned")], Content::Dir),
            file(57, 56, b"in it"),
        ];
        // Deeper than any path may be.
        for n in 100..=255 {
            nodes.push(dir(n, &[(u64::from(n), if n == 100 { 0 } else { n - 1 }, &[b'd'; 100])]));
        }
        let harm = frame::frame(&member.page(1, nodes));
        let feed = member.feed(&harm).await.expect("sent");
        member.until_heard(1).await.expect("it is a page like any other");
        drop(feed);
        // Counters that would use the numbers up.
        let leap = node(replica, 60, &[(u64::MAX, 0, b"from the future")], empty_file());
        drop(member.feed(&frame::frame(&member.page(2, vec![leap]))).await);
        // As if A had written more than it knows of.
        let forged = node(member.their_replica, 61, &[(1, 0, b"forged")], empty_file());
        drop(member.feed(&frame::frame(&member.page(3, vec![forged]))).await);
    });
    put(&cluster.devices[2].path("d"), "from C", 2);
    until("A hears C", Duration::from_secs(90), || holds(&a.join("d"), "from C", 2));
    put(&a.join("d"), "from A", 3);
    until("C hears A", Duration::from_secs(90), || holds(&cluster.devices[2].path("d"), "from A", 3));
    assert!(!cluster.devices[2].path("unsigned").exists(), "what no member wrote goes no further");
    assert!(!a.join("from the future").exists(), "a leap of the counters is refused");
    for inside in
        ["way", "up"].iter().flat_map(|name| [a.join(name).join("through"), canary.join("planted"), canary.join("through")].into_iter())
    {
        assert!(!canary.join(inside.file_name().expect("a name")).exists(), "{}: nothing is written through a link", inside.display());
    }
    assert!(a.join(".ferry").is_dir() && !a.join(".ferry/y").exists(), "our own folder is ours");
    unharmed(&cluster.devices[0], before);
    cluster.finish();
}

/// L11, L16, X01: wrong bytes for every chunk that is asked for. None is believed, the peer is soon asked no more, and the file comes from the relay.
#[test]
fn l11_x01_wrong_bytes_are_thrown_away() {
    let (mut cluster, attacker, address) = stage(1);
    let before = now(&cluster.devices[0]);
    let c = cluster.devices[2].path("d");
    for (round, lie) in [wrong, bomb, unasked].into_iter().enumerate() {
        let member = attacker.run(async {
            let member = attacker.join(address).await;
            member.answer(move |ask| Some(lie(ask)));
            // Else A waits a while for what it has to tell.
            drop(member.feed(&frame::frame(&member.page(0, Vec::new()))).await.expect("sent"));
            member
        });
        for file in 0..12 {
            let k = (round * 100 + file) as u32;
            put_bytes(&c, &format!("{round}/{file}"), &sized(&c, k, 400_000));
        }
        cluster.settle();
        let asked = member.asked.load(Ordering::Relaxed);
        let big = sized(&c, 7 + round as u32, 3_000_000);
        put_bytes(&c, &format!("{round}/big"), &big);
        cluster.settle();
        assert!(asked > 0, "round {round}: the peer was asked");
        // Who answers one question with several lies is known at once; otherwise it takes as many questions.
        let again = member.asked.load(Ordering::Relaxed) - asked;
        assert!(again == 0 || (round == 2 && again <= 4), "round {round}: and then no more, but {again}");
        assert!(std::fs::read(cluster.devices[0].path("d").join(format!("{round}/big"))).is_ok_and(|now| now == big));
    }
    // Each thread's allocator may keep what the largest chunk took.
    unharmed(&cluster.devices[0], (before.0 + (200 << 20), before.1));
    cluster.finish();
}

/// Other bytes of the right length.
fn wrong(ask: &ChunkAsk) -> Vec<u8> {
    ask.ids.iter().flat_map(|id| [&ChunkFrame::header(*id, 5)[..], b"wrong"].concat()).collect()
}

/// 16 MiB of zeros in a few bytes: a zstd frame of blocks that repeat one byte.
fn bomb(ask: &ChunkAsk) -> Vec<u8> {
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for block in 0..1024u32 {
        // RLE blocks of 128 KiB, far more than a chunk may have.
        let header = 131_072 << 3 | 1 << 1 | u32::from(block == 1023);
        packed.extend_from_slice(&header.to_le_bytes()[..3]);
        packed.push(0);
    }
    ask.ids.iter().flat_map(|id| [&ChunkAnswer::packed_header(*id, CHUNK_MAX_BYTES, packed.len())[..], &packed].concat()).collect()
}

/// A good chunk that nobody asked for.
fn unasked(_: &ChunkAsk) -> Vec<u8> {
    [&ChunkFrame::header(ChunkId::of(b"good"), 4)[..], b"good"].concat()
}
