//! Devices that break the protocol, from outside and from inside: L01 to L03, L06, L17, L19, L26.

use super::finding::PORT;
use super::rogue;
use crate::e2e::rows::*;
use ferry_protocol::lan::frame::StreamKind;
use ferry_protocol::lan::{ALPN, ChunkAsk, frame};
use ferry_protocol::{ChunkId, NamespaceId};
use ferry_tests::net::lab::Lab;
use ferry_tests::poll::until;
use quinn::Connection;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Three devices on a LAN at a known port; the third is then played by a rogue with its key. Gives where the first listens.
fn with_a_rogue() -> (Lab, SocketAddr) {
    let mut lab = Lab::lay(&[3], &[]);
    lab.set_all("lan.listen", &format!("0.0.0.0:{PORT}"));
    lab.begin();
    lab.until_all_connected();
    put(&lab.dir(0, "d"), "before", 1);
    lab.cluster.settle();
    lab.device_mut(2).stop();
    let victim = SocketAddr::from((lab.device(0).host().address(), PORT));
    (lab, victim)
}

/// The others still live and talk, nothing came of it, and memory is as before.
fn still_well(mut lab: Lab, before: u64) {
    let now = lab.device(0).resident_bytes();
    assert!(now < before + (48 << 20), "memory is bounded: {now}, before {before}");
    lab.cut_wan();
    put(&lab.dir(1, "d"), "after", 9);
    lab.until_same(&[0, 1], |root| only(&root.join("d"), &["after", "before"]));
    lab.heal_wan();
    lab.device_mut(2).start();
    lab.cluster.settle();
    lab.finish();
}

/// L01, L02, L03: without a certificate, with another protocol name, with a key of nobody's: no byte of ours is said.
#[test]
fn l01_l03_strangers_hear_nothing() {
    let (lab, victim) = with_a_rogue();
    let before = lab.device(0).resident_bytes();
    let host = lab.device(2).host().clone();
    let folder = lab.cluster.folder().join("nobody");
    std::fs::create_dir_all(&folder).expect("a folder");
    let nobody = rogue::identity(&folder);
    let heard = rogue::play(&host, async || {
        let mut heard = Vec::new();
        for config in [rogue::anonymous(ALPN), rogue::anonymous(b"h3"), rogue::anonymous(b"ferry/0")] {
            // With TLS 1.3 a client learns only afterwards that its certificate was wanted.
            heard.push(match rogue::dial_with(config, victim).await {
                Ok(connection) => rogue::until_closed(&connection).await.map(|(_, bytes)| bytes),
                Err(_) => Ok(0),
            });
        }
        for greets in [false, true] {
            let connection = rogue::dial(&nobody, victim).await.expect("anybody may prove who he is");
            // It may be over before anything is said.
            let control = if greets { rogue::greet(&connection).await.ok() } else { None };
            heard.push(rogue::until_closed(&connection).await.map(|(_, bytes)| bytes));
            drop(control);
        }
        heard
    });
    assert_eq!(heard, vec![Ok(0); 5]);
    still_well(lab, before);
}

/// What a rogue writes on a new stream, and whether the victim has to end the connection for it.
struct Nonsense {
    bytes: Vec<u8>,
    ends: bool,
}

fn nonsense() -> Vec<Nonsense> {
    let broken = |kind: StreamKind, bytes: &[u8]| Nonsense { bytes: [&[kind as u8], bytes].concat(), ends: true };
    let zeros = vec![0; 100_000];
    let mut endless = vec![StreamKind::Control as u8];
    endless.extend_from_slice(&(60_000u32).to_le_bytes());
    vec![
        broken(StreamKind::Control, &u32::MAX.to_le_bytes()),
        broken(StreamKind::Control, &0x8000_0000u32.to_le_bytes()),
        broken(StreamKind::Control, &zeros),
        broken(StreamKind::Control, &[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]),
        broken(StreamKind::Chunks, &u32::MAX.to_le_bytes()),
        Nonsense { bytes: vec![77, 1, 2, 3], ends: true },
        // A body that is announced and never comes.
        Nonsense { bytes: endless, ends: false },
    ]
}

async fn write(connection: &Connection, nonsense: &Nonsense) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    let _ = stream.write_all(&nonsense.bytes).await;
    if nonsense.ends {
        let _ = stream.finish();
    } else {
        // It stays open for as long as the connection.
        std::mem::forget(stream);
    }
}

/// L17: lengths that are lies, bodies that are none, streams of unknown kinds, before and after the greeting, again and again.
#[test]
fn l17_frames_that_are_lies() {
    let (lab, victim) = with_a_rogue();
    let before = lab.device(0).resident_bytes();
    let host = lab.device(2).host().clone();
    let thief = rogue::identity(&lab.device(2).home().join("state"));
    rogue::play(&host, async || {
        for round in 0..5 {
            for nonsense in nonsense() {
                let Ok(connection) = rogue::dial(&thief, victim).await else { continue };
                let control = if round % 2 == 0 { None } else { rogue::greet(&connection).await.ok() };
                write(&connection, &nonsense).await;
                if nonsense.ends {
                    rogue::until_closed(&connection).await.unwrap_or_else(|why| panic!("{:?}: {why}", &nonsense.bytes[..5]));
                }
                drop(control);
            }
        }
    });
    still_well(lab, before);
}

/// The namespace of the victim's only folder, as its status says it.
fn namespace(lab: &Lab) -> NamespaceId {
    let id = lab.device(0).status()["folders"][0]["id"].as_str().expect("an id").to_string();
    id.parse().unwrap_or_else(|_| panic!("{id} is a namespace"))
}

async fn ask(connection: &Connection, ask: &ChunkAsk) -> Result<Vec<u8>, String> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
    let bytes = [&[StreamKind::Chunks as u8][..], &frame(ask)].concat();
    send.write_all(&bytes).await.map_err(|e| e.to_string())?;
    send.finish().map_err(|e| e.to_string())?;
    let answer = timeout(rogue::LIMIT, receive.read_to_end(1 << 24)).await.map_err(|_| "no answer".to_string())?;
    answer.map_err(|e| e.to_string())
}

/// L06: a chunk of another folder of the same device, a hash of nothing, and a folder that does not exist have one answer.
#[test]
fn l06_a_hash_is_no_capability() {
    let (lab, victim) = with_a_rogue();
    let (before, mine) = (lab.device(0).resident_bytes(), namespace(&lab));
    let other = lab.device(0).home().join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    std::fs::write(other.join("secret"), "of another folder").expect("room");
    lab.device(0).ok(&["folder", "add", &other.display().to_string(), "--name", "Other"]);
    until("the other folder is known", Duration::from_secs(60), || lab.device(0).is_quiet());
    let status = lab.device(0).status();
    let ids = status["folders"].as_array().into_iter().flatten().filter_map(|f| f["id"].as_str()).collect::<Vec<_>>();
    let foreign: NamespaceId = ids.iter().find(|id| **id != mine.to_string()).expect("two").parse().unwrap_or_else(|_| panic!("an id"));
    let host = lab.device(2).host().clone();
    let thief = rogue::identity(&lab.device(2).home().join("state"));
    let (secret, nothing) = (ChunkId::of(b"of another folder"), ChunkId::of(b"never written"));
    let known = ChunkId::of(&bytes(&lab.dir(0, "d"), 1));
    let unknown = NamespaceId::from_bytes([7; 16]);
    let answers = rogue::play(&host, async || {
        let connection = rogue::dial(&thief, victim).await.expect("it is a member");
        let control = rogue::greet(&connection).await.expect("a greeting");
        let mut answers = Vec::new();
        // The greeting is on its way: until it has arrived a question ends the connection.
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(500)).await;
        for (namespace, id) in [(mine, known), (mine, nothing), (mine, secret), (foreign, nothing), (unknown, nothing)] {
            answers.push(ask(&connection, &ChunkAsk { namespace, ids: vec![id] }).await.expect("an answer"));
        }
        drop(control);
        answers
    });
    // An answer begins with its kind, and the id that was asked for.
    let (found, absent) = answers.split_first().expect("five");
    assert!(found.ends_with(&bytes(&lab.dir(0, "d"), 1)), "what it may have it gets");
    for answer in absent {
        assert_eq!((answer.len(), &answer[33..]), (absent[0].len(), &absent[0][33..]), "one answer for all");
        assert!(answer.len() < 64);
    }
    lab.device(0).ok(&["folder", "remove", &other.display().to_string()]);
    still_well(lab, before);
}

/// L19, L26: questions without end, answers that are never read, streams that stay open: others are served as before.
#[test]
fn l19_l26_a_greedy_device() {
    let (mut lab, victim) = with_a_rogue();
    put_bytes(&lab.dir(0, "d"), "big", &sized(&lab.dir(0, "d"), 5, 3 << 20));
    let (a, mine) = (lab.dir(0, "d"), namespace(&lab));
    lab.until_same(&[0, 1], |root| holds_bytes(&root.join("d"), "big", &sized(&a, 5, 3 << 20)));
    let before = lab.device(0).resident_bytes();
    let host = lab.device(2).host().clone();
    let thief = rogue::identity(&lab.device(2).home().join("state"));
    let ids: Vec<ChunkId> = (0..1000u32).map(|n| ChunkId::of(&n.to_le_bytes())).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let rogue = scope.spawn(move || {
            rogue::play(&host, async || {
                let Ok(connection) = rogue::dial(&thief, victim).await else { return };
                let Ok(control) = rogue::greet(&connection).await else { return };
                tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(500)).await;
                let mut kept = Vec::new();
                let question = [&[StreamKind::Chunks as u8][..], &frame(&ChunkAsk { namespace: mine, ids })].concat();
                while !done.load(Ordering::Relaxed) {
                    // Half of them are never finished, and no answer is ever read.
                    match timeout(Duration::from_millis(50), connection.open_bi()).await {
                        Ok(Ok((mut send, receive))) => {
                            let half = if kept.len() % 2 == 0 { question.len() } else { question.len() / 2 };
                            let _ = timeout(Duration::from_millis(50), send.write_all(&question[..half])).await;
                            kept.push((send, receive));
                        }
                        Ok(Err(_)) => return,
                        Err(_) => {}
                    }
                }
                drop(control);
            });
        });
        lab.cut_wan();
        put(&lab.dir(0, "d"), "meanwhile A", 2);
        put(&lab.dir(1, "d"), "meanwhile B", 3);
        lab.until_same(&[0, 1], |root| holds(&root.join("d"), "meanwhile A", 2).and(holds(&root.join("d"), "meanwhile B", 3)));
        lab.heal_wan();
        done.store(true, Ordering::Relaxed);
        rogue.join().expect("the rogue does not panic");
    });
    ["meanwhile A", "meanwhile B", "big"].iter().for_each(|name| rm(&lab.dir(0, "d"), name));
    still_well(lab, before);
}
