//! What a device nearby is asked for and no longer has, or says that it has not: H05.

use super::strangers::stage;
use crate::e2e::rows::*;
use ferry_protocol::ChunkId;
use ferry_protocol::lan::{ChunkAnswer, frame};
use ferry_protocol::wire::ChunkFrame;
use ferry_tests::poll::until;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A program that has changed a file through its memory. The kernel tells watchers of writes and of files that are closed, and this is neither, until
/// the program ends.
struct Mapped(Child);

impl Mapped {
    /// Replaces all bytes by others of the same length.
    fn change(path: &Path, bytes: &[u8]) -> Self {
        const SCRIPT: &str = "import mmap, sys\nbytes = sys.stdin.buffer.read(int(sys.argv[2]))\n\
            file = open(sys.argv[1], 'r+b')\nmap = mmap.mmap(file.fileno(), 0)\nmap[:] = bytes\nprint('changed', flush=True)\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(path).arg(bytes.len().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
        child.stdin.as_mut().expect("it is piped").write_all(bytes).expect("it reads");
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut said).expect("it says so");
        assert_eq!(said, "changed\n");
        Self(child)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// H05: a chunk is hashed again before it goes out. One whose file has changed since is as one that nobody has; and the device, which knows nothing of
/// the change before it is asked, looks at the file then.
#[test]
fn h05_a_chunk_whose_file_has_changed_is_not_given() {
    let (mut cluster, attacker, address) = stage(0);
    let a = cluster.devices[0].path("d");
    let (old, new, other) = (sized(&a, 1, 20_000), sized(&a, 2, 20_000), sized(&a, 3, 20_000));
    put_bytes(&a, "changes", &old);
    put_bytes(&a, "stays", &other);
    cluster.settle();
    let [old_id, new_id, other_id] = [&old, &new, &other].map(|bytes| ChunkId::of(bytes));
    let given = |id, bytes: &[u8], answer: &[u8]| {
        ChunkAnswer::parse(answer).is_ok_and(|found| matches!(found, Some((ChunkAnswer::Plain(of, got), _)) if of == id && got == bytes))
    };
    attacker.run(async {
        let member = attacker.join(address).await;
        let ask = async |ids: &[ChunkId]| member.ask(member.namespace, ids.to_vec()).await.expect("an answer");
        assert!(given(old_id, &old, &ask(&[old_id]).await), "before");
        let mapped = Mapped::change(&a.join("changes"), &new);
        assert_eq!(ask(&[new_id]).await, ChunkFrame::absent(new_id), "nobody has told the device of the change");
        let answer = ask(&[old_id, other_id]).await;
        let absent = ChunkFrame::absent(old_id);
        assert_eq!(answer[..absent.len()], absent[..], "not the old bytes, which are gone, and not the new ones");
        assert!(given(other_id, &other, &answer[absent.len()..]), "what stands beside it is given as before");
        let (mut polls, mut asked) = (tokio::time::interval(Duration::from_millis(100)), 0);
        while !given(new_id, &new, &ask(&[new_id]).await) {
            polls.tick().await;
            asked += 1;
            assert!(asked < 600, "the device looks at the file again");
        }
        drop(mapped);
    });
    cluster.settle();
    // The relay has had both: the old version while it was one, the new one since.
    let stored = cluster.relay.stored_bytes();
    for bytes in [&old, &new] {
        assert!(stored.windows(64).any(|window| window == &bytes[bytes.len() - 64..]), "a version is missing");
    }
    cluster.finish();
}

/// H05, the other side: a peer that is asked for chunks and has none of them is nobody's fault; they come from elsewhere, and it is asked for others.
#[test]
fn h05_what_a_peer_no_longer_has_comes_from_elsewhere() {
    let (mut cluster, attacker, address) = stage(1);
    let c = cluster.devices[2].path("d");
    let member = attacker.run(async {
        let member = attacker.join(address).await;
        member.answer(|ask| Some(ask.ids.iter().flat_map(|id| ChunkFrame::absent(*id)).collect()));
        drop(member.feed(&frame::frame(&member.page(0, Vec::new()))).await.expect("sent"));
        member
    });
    let mut asked = 0;
    for round in 0..3 {
        (0..6).for_each(|file| put_bytes(&c, &format!("{round}/{file}"), &sized(&c, round * 10 + file, 400_000)));
        let a = cluster.devices[0].path("d");
        until("all of it comes from the relay", Duration::from_secs(90), || {
            (0..6).try_for_each(|file| holds_bytes(&a, &format!("{round}/{file}"), &sized(&c, round * 10 + file, 400_000)))
        });
        let now = member.asked.load(Ordering::Relaxed);
        assert!(now > asked, "round {round}: the peer is asked, also after it had nothing: {now}");
        asked = now;
    }
    assert!(member.connection.close_reason().is_none(), "it has done nothing wrong");
    cluster.settle();
    cluster.finish();
}
