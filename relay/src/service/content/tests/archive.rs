//! Archives, as another program unpacks them.

use crate::service::content::testing::{World, manifest};
use crate::service::content::zip::Zip;
use crate::service::content::*;
use crate::service::{Caller, Kind, Scopes, TokenFolder, TokenLimits};
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::{CommitReply, NodeUpdate};
use ferry_protocol::{ContentHash, FileContent, NodeId, node};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Reads an archive with Python's `zipfile`, which checks every checksum: names with the SHA-256 of their content, or null for a directory.
fn unpacked(path: &Path) -> BTreeMap<String, Option<String>> {
    const SCRIPT: &str = "
import hashlib, json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z:
    assert z.testzip() is None
    names = [i.filename for i in z.infolist()]
    assert len(names) == len(set(names)), names
    print(json.dumps({i.filename: None if i.is_dir() else hashlib.sha256(z.read(i)).hexdigest() for i in z.infolist()}))
";
    let done = Command::new("python3").args(["-c", SCRIPT]).arg(path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let read: BTreeMap<String, Value> = serde_json::from_slice(&done.stdout).unwrap();
    read.into_iter().map(|(name, hash)| (name, hash.as_str().map(str::to_owned))).collect()
}

async fn written(world: &World, archive: Archive) -> Result<Vec<u8>, Vec<u8>> {
    let mut bytes = Vec::new();
    let Ok(mut stream) = world.content.read_archive(archive).await else { return Err(bytes) };
    while let Some(piece) = stream.recv().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(_) => return Err(bytes),
        }
    }
    Ok(bytes)
}

async fn unpack(world: &World, archive: Archive) -> BTreeMap<String, Option<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    std::fs::write(&path, written(world, archive).await.unwrap()).unwrap();
    unpacked(&path)
}

fn file(bytes: &[u8]) -> node::Content {
    let parts: Vec<&[u8]> = bytes.chunks(100_000).collect();
    node::Content::File(FileContent::new(manifest(&parts), 1_795_343_400_000_000_000))
}

async fn commit(world: &World, entry: &Entry, nodes: Vec<NodeUpdate>, contents: &[Vec<u8>]) {
    let chunks: Vec<&[u8]> = contents.iter().flat_map(|c| c.chunks(100_000)).collect();
    if !chunks.is_empty() {
        world.content.put_chunks(entry, super::super::testing::frames(&chunks)).await.unwrap();
    }
    let reply = world.content.commit(entry, world.request(nodes, &[], u64::MAX)).await.unwrap();
    assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
}

/// A generated entry: in which of the directories before it, under which name, and what it is.
type Made = (prop::sample::Index, String, Option<Vec<u8>>);

fn trees() -> impl Strategy<Value = Vec<Made>> {
    let name = prop_oneof!["[a-c]", "[a-c]{1,3}\\.(txt|tar\\.gz)", "[äöüéß日本語 ()'&;#%]{1,8}x", "\\.[a-c]{1,2}", "x{200}"];
    let content = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..2000),
        (1usize..300_000).prop_map(|n| (0..n).map(|i| (i / 7 % 251) as u8).collect()),
        (1usize..300_000).prop_map(|n| (0..n).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), name, prop::option::weighted(0.7, content)), 0..25)
}

on_each_store!(what_is_packed_is_what_is_there);

async fn what_is_packed_is_what_is_there(kind: Db) {
    let world = World::on(kind).await;
    let caller = world.user(None).await;
    let entry = world.home(&caller).await;
    let mut writer = world.writer(&caller);
    let mut runner = TestRunner::deterministic();
    for n in 0..12 {
        let made = trees().new_tree(&mut runner).unwrap().current();
        let top = NodeId::from_bytes(world.id());
        let top_name = format!("top {n}");
        let mut nodes = vec![writer.node(top, &top_name, node::Content::Dir)];
        let mut directories = vec![(top, top_name.clone())];
        let mut expected = BTreeMap::from([(format!("{top_name}/"), None)]);
        let mut contents = Vec::new();
        for (inside, name, content) in made {
            let (parent, path) = inside.get(&directories).clone();
            let path = format!("{path}/{name}");
            if expected.contains_key(&path) || expected.contains_key(&format!("{path}/")) {
                continue;
            }
            let id = NodeId::from_bytes(world.id());
            match content {
                None => {
                    nodes.push(writer.node_in(parent, id, &name, node::Content::Dir));
                    expected.insert(format!("{path}/"), None);
                    directories.push((id, path));
                }
                Some(bytes) => {
                    nodes.push(writer.node_in(parent, id, &name, file(&bytes)));
                    expected.insert(path, Some(ContentHash::of(&bytes).to_string()));
                    contents.push(bytes);
                }
            }
        }
        commit(&world, &entry, nodes, &contents).await;
        let archive = world.content.plan_archive(&entry, &[top]).await.unwrap();
        assert_eq!((archive.name.clone(), archive.len()), (top_name, expected.len()));
        assert_eq!(unpack(&world, archive).await, expected, "tree {n}");
    }
    let all = world.content.plan_archive(&entry, &[NodeId::ROOT]).await.unwrap();
    let names: Vec<String> = unpack(&world, all).await.into_keys().collect();
    assert!((0..12).all(|n| names.contains(&format!("top {n}/"))), "{names:?}");
}

on_each_store!(odd_names_become_plain_ones_and_links_are_named);

async fn odd_names_become_plain_ones_and_links_are_named(kind: Db) {
    let world = World::on(kind).await;
    let caller = world.user(None).await;
    let entry = world.home(&caller).await;
    let mut writer = world.writer(&caller);
    let ids: Vec<NodeId> = (0..12).map(|_| NodeId::from_bytes(world.id())).collect();
    let text = |t: &str| file(t.as_bytes());
    let nodes = vec![
        writer.node(ids[0], "top", node::Content::Dir),
        writer.node_in(ids[0], ids[1], "a\\b", node::Content::Dir),
        writer.node_in(ids[0], ids[2], "a_b", node::Content::Dir),
        writer.node_in(ids[1], ids[3], "one.txt", text("one")),
        writer.node_in(ids[2], ids[4], "two.txt", text("two")),
        writer.node_in(ids[0], ids[5], "C:evil", text("drive")),
        writer.node_in(ids[0], ids[6], ".. ", text("dots")),
        writer.node_in(ids[0], ids[7], "..\\..\\up", text("up")),
        writer.node_in(ids[0], ids[8], "link", node::Content::Symlink(b"/etc/passwd".to_vec().into())),
        writer.node_in(ids[0], ids[9], "x\ny.txt", text("line")),
        writer.node_in(ids[0], ids[10], "x_y.txt", text("other line")),
    ];
    let contents = ["one", "two", "drive", "dots", "up", "line", "other line"].map(|t| t.as_bytes().to_vec());
    commit(&world, &entry, nodes, &contents).await;
    let archive = world.content.plan_archive(&entry, &[ids[0]]).await.unwrap();
    let found = unpack(&world, archive).await;
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    for name in &names {
        assert!(
            !name.starts_with('/')
                && !name.contains('\\')
                && name.split('/').all(|part| !part.trim_end_matches([' ', '.']).is_empty() || part.is_empty()),
            "{name:?}"
        );
    }
    let hash = |t: &str| Some(ContentHash::of(t.as_bytes()).to_string());
    // Which of two comes first is the order of their names on disk.
    let pairs = [("top/a_b", "top/a_b (2)"), ("top/x_y.txt", "top/x_y (2).txt")];
    assert!(
        pairs
            .iter()
            .all(|(a, b)| names.iter().any(|n| n.trim_end_matches('/') == *a) && names.iter().any(|n| n.trim_end_matches('/') == *b)),
        "{names:?}"
    );
    let of = |name: &str| found.iter().find(|(n, _)| n.ends_with(name)).unwrap_or_else(|| panic!("{name} in {names:?}")).1.clone();
    assert_eq!((of("one.txt"), of("two.txt")), (hash("one"), hash("two")));
    assert_eq!((of("C_evil"), of("___"), of(".._.._up")), (hash("drive"), hash("dots"), hash("up")));
    let expected = "These are symbolic links, which an archive does not hold:\ntop/link\n";
    assert_eq!(found["Left out.txt"], hash(expected));
    assert!(!names.contains(&"top/link"));
}

on_each_store!(a_choice_is_packed_once_and_only_what_may_be_read);

async fn a_choice_is_packed_once_and_only_what_may_be_read(kind: Db) {
    let world = World::on(kind).await;
    let caller = world.user(None).await;
    let entry = world.home(&caller).await;
    let mut writer = world.writer(&caller);
    let [d, f, g] = [(); 3].map(|()| NodeId::from_bytes(world.id()));
    let nodes = vec![writer.node(d, "d", node::Content::Dir), writer.node_in(d, f, "f", file(b"f")), writer.node(g, "g", file(b"g"))];
    commit(&world, &entry, nodes, &[b"f".to_vec(), b"g".to_vec()]).await;
    let names = async |chosen: &[NodeId]| {
        let archive = world.content.plan_archive(&entry, chosen).await.unwrap();
        unpack(&world, archive).await.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(names(&[f, d, g, d]).await, ["d/", "d/f", "g"]);
    assert_eq!(names(&[f]).await, ["f"]);
    assert_eq!(names(&[f, NodeId::ROOT]).await, ["d/", "d/f", "g"]);
    let gone = world.content.plan_archive(&entry, &[f, NodeId::from_bytes([1; 16])]).await;
    assert_eq!(gone.unwrap_err().kind(), Kind::NotFound);
    // An app password of one folder packs nothing else.
    let folder = Some(TokenFolder { namespace: entry.namespace(), directory: d });
    let limits = TokenLimits { scopes: Scopes::from_bits(1).unwrap(), folder };
    let narrow = Caller { token: Some(limits), ..caller };
    let inside = world.content.enter_to_list(&narrow, None).await.unwrap();
    assert_eq!(world.content.plan_archive(&inside, &[d]).await.unwrap().len(), 2);
    for outside in [g, NodeId::ROOT] {
        assert_eq!(world.content.plan_archive(&inside, &[outside]).await.unwrap_err().kind(), Kind::NotFound);
    }
}

#[tokio::test]
async fn what_cannot_be_read_breaks_the_archive_off() {
    let world = World::new().await;
    let caller = world.user(None).await;
    let entry = world.home(&caller).await;
    let mut writer = world.writer(&caller);
    let ids: Vec<NodeId> = (0..3).map(|_| NodeId::from_bytes(world.id())).collect();
    let contents: Vec<Vec<u8>> = ["one", "two", "three"].iter().map(|t| t.repeat(1000).into_bytes()).collect();
    for (n, (id, content)) in ids.iter().zip(&contents).enumerate() {
        commit(&world, &entry, vec![writer.node(*id, &format!("f{n}"), file(content))], std::slice::from_ref(content)).await;
    }
    let before = world.content.plan_archive(&entry, &ids).await.unwrap();
    assert_eq!(unpack(&world, before).await.len(), 3);
    // The bytes of the second file rot.
    let packs = world.db.packs().await.unwrap();
    let mut rotten = 0;
    for pack in packs {
        world.blobs.damage(pack.id, |bytes| {
            if bytes.windows(6).any(|w| w == b"twotwo") {
                *bytes.last_mut().unwrap() ^= 1;
                rotten += 1;
            }
        });
    }
    assert_eq!(rotten, 1);
    let archive = world.content.plan_archive(&entry, &ids).await.unwrap();
    let broken = written(&world, archive).await.expect_err("it ends with an error");
    assert!(!broken.windows(4).any(|w| w == b"PK\x05\x06"), "nobody takes it for a whole one");
}

/// Bytes that no packing makes smaller.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn end_membership(world: &World, entry: &Entry, of: &Caller) {
    let mut tx = world.db.begin(crate::store::content::Scope::Namespace(entry.namespace())).await.unwrap();
    assert!(tx.remove_member(entry.namespace(), of.user_id).await.unwrap());
    tx.commit().await.unwrap();
}

on_each_store!(a_right_that_ends_ends_what_is_sent);

/// R21, R44: an archive breaks off before the entry that follows, a file a minute later at most.
async fn a_right_that_ends_ends_what_is_sent(kind: Db) {
    const FILES: usize = 8;
    const FILE_BYTES: usize = 1_500_000;
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let entry = world.home(&alice).await;
    let mut writer = world.writer(&alice);
    let ids: Vec<NodeId> = (0..FILES).map(|_| NodeId::from_bytes(world.id())).collect();
    for (n, id) in ids.iter().enumerate() {
        let content = noise(n as u32 * 2, FILE_BYTES);
        commit(&world, &entry, vec![writer.node(*id, &format!("f{n}"), file(&content))], &[content]).await;
    }
    let join = async || {
        let mut tx = world.db.begin(crate::store::content::Scope::Namespace(entry.namespace())).await.unwrap();
        tx.set_member(entry.namespace(), bob.user_id, ferry_protocol::wire::Role::Viewer, 0).await.unwrap();
        tx.commit().await.unwrap();
        world.content.enter(&bob, entry.namespace(), ferry_protocol::wire::Role::Viewer).await.unwrap()
    };
    let rest = async |mut stream: ChunkStream| {
        let mut bytes = 0;
        while let Some(piece) = stream.recv().await {
            match piece {
                Ok(piece) => bytes += piece.len(),
                Err(error) => return (bytes, Some(error.kind())),
            }
        }
        (bytes, None)
    };
    // While the right stands nothing breaks off.
    let guest = join().await;
    let plan = async |guest: &Entry| world.content.plan_archive(guest, &ids).await.unwrap().watched(world.content.still_reads(guest));
    let whole = rest(world.content.read_archive(plan(&guest).await).await.unwrap()).await;
    assert!(whole.0 > FILES * FILE_BYTES && whole.1.is_none(), "{whole:?}");
    let stream = world.content.read_archive(plan(&guest).await).await.unwrap();
    end_membership(&world, &entry, &bob).await;
    let (bytes, broken) = rest(stream).await;
    assert_eq!(broken, Some(Kind::NotFound));
    assert!(bytes < 3 * FILE_BYTES, "what was on its way, not the rest: {bytes}");

    let guest = join().await;
    let download = world.content.download(&guest, ids[0], None).await.unwrap().watched(world.content.still_reads(&guest));
    let stream = world.content.read_file(&download, 0..download.size_bytes).await.unwrap();
    world.clock.advance_ms(60_000);
    assert_eq!(rest(stream).await, (FILE_BYTES, None));
    let stream = world.content.read_file(&download, 0..download.size_bytes).await.unwrap();
    end_membership(&world, &entry, &bob).await;
    world.clock.advance_ms(60_000);
    let (bytes, broken) = rest(stream).await;
    assert!(bytes < FILE_BYTES && broken == Some(Kind::NotFound), "{bytes} {broken:?}");
}

/// More entries than the old format counts: read by Python and by Info-ZIP.
#[test]
fn many_entries_are_counted_in_64_bits() {
    const MANY: usize = 70_000;
    let mut zip = Zip::default();
    let mut bytes = Vec::new();
    for n in 0..MANY {
        bytes.extend(zip.directory(&format!("d{n}"), 1_795_343_400));
    }
    bytes.extend(zip.begin("last", 1_795_343_400, 4, true));
    bytes.extend(zip.write(b"last").unwrap());
    bytes.extend(zip.end().unwrap());
    bytes.extend(zip.finish());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.zip");
    std::fs::write(&path, bytes).unwrap();
    let found = unpacked(&path);
    assert_eq!((found.len(), found["last"].clone()), (MANY + 1, Some(ContentHash::of(b"last").to_string())));
    let count = Command::new("unzip").args(["-Z", "-h"]).arg(&path).output().unwrap();
    let header = String::from_utf8_lossy(&count.stdout).into_owned();
    assert!(header.contains(&(MANY + 1).to_string()), "{header}");
}
