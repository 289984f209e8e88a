//! The plain API's rules: uploads, downloads, listing, renaming, trash, delta, signed addresses.

use crate::service::content::testing::{World, manifest};
use crate::service::content::*;
use crate::service::{Caller, Kind};
use crate::store::blob::BlobStore;
use crate::store::testing::{Db, on_each_kind};
use bytes::Bytes;
use ferry_protocol::wire::Role;
use ferry_protocol::{ChunkId, ContentHash, NodeId};
use std::ops::Range;
use std::sync::Arc;

const MIB: usize = 1024 * 1024;

fn new(name: &str, directory: &str, bytes: &[u8]) -> NewUpload {
    NewUpload {
        file_name: name.into(),
        directory: directory.into(),
        namespace: None,
        size_bytes: bytes.len() as u64,
        hash: Some(ContentHash::of(bytes)),
        mtime_ns: Some(5),
    }
}

async fn begin(world: &World, caller: &Caller, upload: &NewUpload) -> crate::store::content::UploadRow {
    match world.content.begin_upload(caller, upload).await.unwrap() {
        UploadBegun::Begun(row) => row,
        UploadBegun::Deduplicated(_) => panic!("deduplicated"),
    }
}

/// Uploads a file whole.
async fn upload(world: &World, caller: &Caller, name: &str, directory: &str, bytes: &[u8]) -> Completed {
    let row = begin(world, caller, &new(name, directory, bytes)).await;
    for (i, part) in bytes.chunks(4 * MIB).enumerate() {
        world.content.put_upload_chunk(caller, row.version_id, i as u64, Bytes::copy_from_slice(part), None).await.unwrap();
    }
    world.content.complete_upload(caller, row.version_id, None).await.unwrap()
}

async fn read(world: &World, entry: &Entry, file: NodeId, version: Option<&str>, range: Option<Range<u64>>) -> Vec<u8> {
    let download = world.content.download(entry, file, version).await.unwrap();
    let range = range.unwrap_or(0..download.size_bytes);
    let mut stream = world.content.read_file(&download, range).await.unwrap();
    let mut out = Vec::new();
    while let Some(batch) = stream.recv().await {
        out.extend_from_slice(&batch.unwrap());
    }
    out
}

fn large() -> Vec<u8> {
    (0..9 * MIB + 17).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

on_each_kind!(an_upload_in_chunks_becomes_a_file);

async fn an_upload_in_chunks_becomes_a_file(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let bytes = large();
    let row = begin(&world, &alice, &new("big.bin", "/a/b", &bytes)).await;
    assert_eq!((row.chunk_size_bytes, row.num_chunks), (4 * MIB as u64, 3));
    let put = async |i: u64| {
        let from = i as usize * 4 * MIB;
        let part = Bytes::copy_from_slice(&bytes[from..bytes.len().min(from + 4 * MIB)]);
        world.content.put_upload_chunk(&alice, row.version_id, i, part, None).await.unwrap().remaining
    };
    assert_eq!((put(2).await, put(0).await, put(0).await), (2, 1, 1));
    let early = world.content.complete_upload(&alice, row.version_id, None).await.unwrap_err();
    assert_eq!((early.kind(), early.code()), (Kind::Conflict, "chunks_missing"));
    assert_eq!(early.extra()["missing_chunks"], serde_json::json!([1]));
    assert_eq!(world.content.upload_state(&alice, row.version_id).await.unwrap().received, [0, 2]);
    put(1).await;
    let done = world.content.complete_upload(&alice, row.version_id, None).await.unwrap();
    assert_eq!(world.content.complete_upload(&alice, row.version_id, None).await.unwrap(), done);
    assert_eq!(done.version_id, row.version_id);
    let home = world.home(&alice).await;
    let info = world.content.file_info(&home, done.node).await.unwrap();
    assert_eq!(info.path.to_bytes(), b"a/b/big.bin");
    assert_eq!(info.mtime_ns, Some(5));
    assert!(read(&world, &home, done.node, None, None).await == bytes);
    for range in [0..1, 4 * MIB as u64 - 1..4 * MIB as u64 + 1, bytes.len() as u64 - 3..bytes.len() as u64, 5..9 * MIB as u64] {
        let got = read(&world, &home, done.node, None, Some(range.clone())).await;
        assert!(got == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(world.content.usage(&alice).await.unwrap().used_bytes, bytes.len() as u64);
    assert!(world.content.verify(true).await.unwrap().is_sound());
}

on_each_kind!(an_upload_that_many_complete_at_once_is_complete_once);

/// R4: whoever completes it second, at whatever moment, gets the answer of the first; the file is there once, with one version.
async fn an_upload_that_many_complete_at_once_is_complete_once(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut versions = 0;
    // A new file, then a new version of it.
    for bytes in [&b"one"[..], b"another"] {
        let row = begin(&world, &alice, &new("a", "", bytes)).await;
        world.content.put_upload_chunk(&alice, row.version_id, 0, Bytes::copy_from_slice(bytes), None).await.unwrap();
        let id = row.version_id;
        let ask = |content: Arc<Content>| tokio::spawn(async move { content.complete_upload(&alice, id, None).await });
        let asked: Vec<_> = (0..6).map(|_| ask(world.content.clone())).collect();
        let mut answers = Vec::new();
        for one in asked {
            answers.push(one.await.unwrap().unwrap());
        }
        answers.dedup();
        let [done] = answers.as_slice() else { panic!("{answers:?}") };
        versions += 1;
        assert_eq!(world.content.meta.versions(home.namespace(), done.node).await.unwrap().len(), versions);
        assert_eq!(world.content.list_files(&home, &ListQuery { limit: 10, ..ListQuery::default() }).await.unwrap().files.len(), 1);
        assert_eq!(read(&world, &home, done.node, None, None).await, bytes);
    }
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

on_each_kind!(deduplication_sees_only_what_the_caller_may_read);

async fn deduplication_sees_only_what_the_caller_may_read(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(None).await, world.user(None).await);
    let first = upload(&world, &alice, "a.txt", "", b"the same bytes").await;
    assert!(matches!(world.content.begin_upload(&mal, &new("x", "", b"the same bytes")).await.unwrap(), UploadBegun::Begun(_)));
    let UploadBegun::Deduplicated(copy) = world.content.begin_upload(&alice, &new("copy.txt", "", b"the same bytes")).await.unwrap() else {
        panic!("not deduplicated")
    };
    assert_ne!(copy.node, first.node);
    let home = world.home(&alice).await;
    assert_eq!(read(&world, &home, copy.node, None, None).await, b"the same bytes");
    // What is shared with someone counts as theirs to read, and takes room in their own namespace.
    world.share(&home, &mal, Role::Viewer).await;
    let UploadBegun::Deduplicated(theirs) = world.content.begin_upload(&mal, &new("y", "", b"the same bytes")).await.unwrap() else {
        panic!("not deduplicated")
    };
    assert_eq!(read(&world, &world.home(&mal).await, theirs.node, None, None).await, b"the same bytes");
    assert_eq!(world.content.usage(&mal).await.unwrap().used_bytes, 14);
    assert_eq!(world.content.meta.check_rows().await.unwrap(), Default::default());
}

on_each_kind!(the_hash_of_the_whole_may_be_told_late_or_never);

async fn the_hash_of_the_whole_may_be_told_late_or_never(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(None).await, world.user(None).await);
    let content = &world.content;
    let (bytes, other) = (large(), Some(ContentHash::of(b"other")));
    let whole = Some(ContentHash::of(&bytes));
    let begun =
        async |caller: &Caller, name: &str, bytes: &[u8]| begin(&world, caller, &NewUpload { hash: None, ..new(name, "", bytes) }).await;
    let sent = async |name: &str, bytes: &[u8]| {
        let row = begun(&alice, name, bytes).await;
        for (i, part) in bytes.chunks(4 * MIB).enumerate() {
            content.put_upload_chunk(&alice, row.version_id, i as u64, Bytes::copy_from_slice(part), None).await.unwrap();
        }
        row.version_id
    };
    for small in [&b""[..], b"one chunk"] {
        let id = sent("small", small).await;
        assert_eq!(content.complete_upload(&alice, id, other).await.unwrap_err().code(), "file_hash_mismatch");
        assert_eq!(content.complete_upload(&alice, id, None).await.unwrap().hash, ContentHash::of(small));
    }
    let never = sent("never", &bytes).await;
    assert_eq!(content.upload_state(&alice, never).await.unwrap().row.hash, None);
    let done = content.complete_upload(&alice, never, None).await.unwrap();
    assert_eq!(Some(done.hash), whole);
    assert_eq!(content.complete_upload(&alice, never, whole).await.unwrap(), done);
    assert_eq!(content.complete_upload(&alice, never, other).await.unwrap_err().code(), "file_hash_mismatch");
    assert_eq!(content.upload_state(&alice, never).await.unwrap().row.hash, whole);
    let late = sent("late", &bytes).await;
    assert_eq!(content.complete_upload(&alice, late, other).await.unwrap_err().code(), "file_hash_mismatch");
    content.complete_upload(&alice, late, whole).await.unwrap();
    // Told while chunks are missing: to who could read such a file it is there, to nobody else.
    for (caller, is_there) in [(&alice, true), (&mal, false)] {
        let row = begun(caller, "again", &bytes).await;
        let part = Bytes::copy_from_slice(&bytes[..4 * MIB]);
        content.put_upload_chunk(caller, row.version_id, 0, part, None).await.unwrap();
        assert_eq!(content.complete_upload(caller, row.version_id, None).await.unwrap_err().code(), "chunks_missing");
        let told = content.complete_upload(caller, row.version_id, whole).await;
        if is_there {
            let done = told.unwrap();
            assert_eq!(done.version_id, row.version_id);
            assert_eq!(content.complete_upload(caller, row.version_id, None).await.unwrap(), done);
            assert!(read(&world, &world.home(caller).await, done.node, None, None).await == bytes);
        } else {
            assert_eq!(told.unwrap_err().code(), "chunks_missing");
        }
    }
    assert!(content.verify(true).await.unwrap().is_sound());
    assert_eq!(content.meta.check_rows().await.unwrap(), Default::default());
    // What was damaged since it came is not taken for the file.
    let row = begun(&alice, "damaged", &[vec![7; 4 * MIB], vec![8]].concat()).await;
    content.put_upload_chunk(&alice, row.version_id, 0, vec![7; 4 * MIB].into(), None).await.unwrap();
    let packs: std::collections::BTreeSet<_> = world.blobs.list().await.unwrap().iter().map(|pack| pack.id).collect();
    content.put_upload_chunk(&alice, row.version_id, 1, vec![8].into(), None).await.unwrap();
    let fresh = world.blobs.list().await.unwrap().into_iter().find(|pack| !packs.contains(&pack.id)).unwrap();
    assert!(world.blobs.damage(fresh.id, |bytes| *bytes.last_mut().unwrap() ^= 1));
    assert_eq!(content.complete_upload(&alice, row.version_id, None).await.unwrap_err().code(), "chunks_missing");
    content.put_upload_chunk(&alice, row.version_id, 1, vec![8].into(), None).await.unwrap();
    content.complete_upload(&alice, row.version_id, None).await.unwrap();
}

on_each_kind!(what_is_wrong_with_an_upload_is_said_and_nothing_is_stored);

async fn what_is_wrong_with_an_upload_is_said_and_nothing_is_stored(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(Some(100)).await;
    let mal = world.user(None).await;
    let content = &world.content;
    for (name, directory, code) in [
        ("..", "", "invalid_name"),
        ("a/b", "", "invalid_name"),
        ("", "", "invalid_name"),
        ("x", "a/../b", "invalid_path"),
        ("x", ".ferry", "reserved_name"),
    ] {
        assert_eq!(content.begin_upload(&alice, &new(name, directory, b"x")).await.unwrap_err().code(), code, "{name} {directory}");
    }
    assert_eq!(content.begin_upload(&alice, &new("x", "", &[0; 101])).await.unwrap_err().code(), "quota_exceeded");
    let row = begin(&world, &alice, &new("x", "", b"hello")).await;
    let put = async |index, bytes: &'static [u8], claimed| {
        content.put_upload_chunk(&alice, row.version_id, index, Bytes::from_static(bytes), claimed).await
    };
    assert_eq!(put(1, b"hello", None).await.unwrap_err().code(), "chunk_index");
    assert_eq!(put(0, b"hell", None).await.unwrap_err().code(), "chunk_size");
    assert_eq!(put(0, b"hello", Some(ChunkId::of(b"other"))).await.unwrap_err().code(), "chunk_hash_mismatch");
    assert_eq!(content.storage_totals().await.unwrap().chunks, 0);
    let stolen = content.put_upload_chunk(&mal, row.version_id, 0, Bytes::from_static(b"hello"), None).await.unwrap_err();
    assert_eq!(stolen.kind(), Kind::NotFound);
    put(0, b"jello", None).await.unwrap();
    assert_eq!(content.complete_upload(&alice, row.version_id, None).await.unwrap_err().code(), "file_hash_mismatch");
    put(0, b"hello", None).await.unwrap();
    content.complete_upload(&alice, row.version_id, None).await.unwrap();
    assert_eq!(put(0, b"hello", None).await.unwrap_err().code(), "upload_completed");
    assert_eq!(content.abort_upload(&alice, row.version_id).await.unwrap_err().code(), "upload_completed");
    let given_up = begin(&world, &alice, &new("y", "", b"other")).await;
    content.abort_upload(&alice, given_up.version_id).await.unwrap();
    assert_eq!(content.upload_state(&alice, given_up.version_id).await.unwrap_err().kind(), Kind::NotFound);
}

on_each_kind!(a_file_uploaded_again_is_a_new_version);

async fn a_file_uploaded_again_is_a_new_version(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let first = upload(&world, &alice, "a.txt", "", b"one").await;
    let second = upload(&world, &alice, "a.txt", "", b"two").await;
    assert_eq!(first.node, second.node);
    let versions = world.content.file_versions(&home, first.node).await.unwrap();
    assert_eq!(versions.iter().map(|v| (v.row.number, v.is_current)).collect::<Vec<_>>(), [(2, true), (1, false)]);
    assert_eq!(read(&world, &home, first.node, None, None).await, b"two");
    assert_eq!(read(&world, &home, first.node, Some("1"), None).await, b"one");
    assert_eq!(read(&world, &home, first.node, Some(&hex::encode(first.version_id)), None).await, b"one");
    let absent = world.content.download(&home, first.node, Some("3")).await.unwrap_err();
    assert_eq!(absent.kind(), Kind::NotFound);
    let empty = upload(&world, &alice, "empty", "", b"").await;
    assert_eq!(read(&world, &home, empty.node, None, None).await, b"");
}

on_each_kind!(a_list_shows_what_is_there_in_pages);

async fn a_list_shows_what_is_there_in_pages(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    for (name, directory, bytes) in [("b.txt", "", &b"22"[..]), ("a.txt", "", b"333"), ("deep", "x/y", b"1")] {
        upload(&world, &alice, name, directory, bytes).await;
    }
    let list = async |directory: Option<&str>, sort, after, limit| {
        let query = ListQuery { directory: directory.map(|d| parse_path(d).unwrap()), sort, descending: false, after, limit };
        let page = world.content.list_files(&home, &query).await.unwrap();
        let names: Vec<String> = page.files.iter().map(|f| f.path.to_string()).collect();
        (names, page.next)
    };
    assert_eq!(list(None, Sort::Name, None, 100).await.0, ["a.txt", "b.txt", "x", "x/y", "x/y/deep"]);
    let (first, next) = list(Some("/"), Sort::Name, None, 2).await;
    assert_eq!(first, ["a.txt", "b.txt"]);
    // What is made before the cursor moves nothing after it.
    upload(&world, &alice, "a", "", b"4").await;
    assert_eq!(list(Some("/"), Sort::Name, next, 2).await, (vec!["x".into()], None));
    assert_eq!(list(Some("x"), Sort::Name, None, 9).await.0, ["x/y"]);
    assert_eq!(list(None, Sort::Size, None, 100).await.0, ["x", "x/y", "a", "x/y/deep", "b.txt", "a.txt"]);
    let query = ListQuery { directory: Some(parse_path("nowhere").unwrap()), limit: 1, ..ListQuery::default() };
    assert_eq!(world.content.list_files(&home, &query).await.unwrap_err().kind(), Kind::NotFound);
}

on_each_kind!(renaming_moving_deleting_and_bringing_back);

async fn renaming_moving_deleting_and_bringing_back(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let file = upload(&world, &alice, "a.txt", "dir", b"one").await;
    upload(&world, &alice, "taken", "", b"two").await;
    let content = &world.content;
    let rename = async |name: &str, directory: Option<&str>, if_seq| {
        let update = FileUpdate { name: Some(name.into()), directory: directory.map(|d| parse_path(d).unwrap()), if_seq };
        content.update_file(&home, file.node, &update).await
    };
    let seq = content.file_info(&home, file.node).await.unwrap().seq;
    assert_eq!(rename("taken", Some(""), None).await.unwrap_err().code(), "name_taken");
    assert_eq!(rename("b", None, Some(seq + 1)).await.unwrap_err().kind(), Kind::PreconditionFailed);
    assert_eq!(rename("b", Some("nowhere"), None).await.unwrap_err().kind(), Kind::NotFound);
    let moved = rename("b.txt", Some(""), Some(seq)).await.unwrap();
    assert_eq!(moved.path.to_bytes(), b"b.txt");
    let directory = content.list_files(&home, &ListQuery { limit: 10, ..ListQuery::default() }).await.unwrap().files;
    let directory = directory.iter().find(|f| f.path.to_bytes() == b"dir").unwrap().node;
    let into_itself = FileUpdate { directory: Some(parse_path("dir").unwrap()), ..FileUpdate::default() };
    assert_eq!(content.update_file(&home, directory, &into_itself).await.unwrap_err().code(), "move_into_itself");
    rename("a.txt", Some("dir"), None).await.unwrap();
    // A directory goes with what is in it.
    assert_eq!(content.delete_file(&home, directory, None).await.unwrap(), 2);
    assert_eq!(content.file_info(&home, file.node).await.unwrap_err().kind(), Kind::NotFound);
    let (items, _) = content.trash(&home, None, 10).await.unwrap();
    let trashed = items.iter().find(|i| i.id == file.node).unwrap();
    assert_eq!((trashed.size_bytes, trashed.hash), (3, Some(manifest(&[b"one"]).hash())));
    content.restore(&home, file.node).await.unwrap();
    assert_eq!(content.file_info(&home, file.node).await.unwrap().path.to_bytes(), b"dir/a.txt");
    assert_eq!(read(&world, &home, file.node, None, None).await, b"one");
    assert_eq!(content.restore(&home, file.node).await.unwrap_err().code(), "not_deleted");
    assert!(content.verify(true).await.unwrap().is_sound());
}

on_each_kind!(the_delta_goes_by_time_and_by_cursor);

async fn the_delta_goes_by_time_and_by_cursor(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(None).await;
    upload(&world, &alice, "old", "", b"old").await;
    world.clock.advance_ms(10_000);
    let then = crate::clock::Clock::now_ms(&world.clock);
    let file = upload(&world, &alice, "new", "d", b"new").await;
    let page = world.content.changes(&alice, Since::TimeMs(then), 100).await.unwrap();
    let paths: Vec<_> = page.changes.iter().map(|c| c.path.as_ref().unwrap().to_string()).collect();
    assert_eq!(paths, ["d", "d/new"]);
    assert!(!page.has_more);
    let rest = world.content.changes(&alice, Since::Cursor(page.cursor.clone()), 100).await.unwrap();
    assert!(rest.changes.is_empty());
    world.content.delete_file(&world.home(&alice).await, file.node, None).await.unwrap();
    let rest = world.content.changes(&alice, Since::Cursor(page.cursor.clone()), 100).await.unwrap();
    assert_eq!(rest.changes.iter().map(|c| (c.node, c.path.clone())).collect::<Vec<_>>(), [(file.node, None)]);
    // In steps of one, each change comes once.
    let (mut since, mut seen) = (Since::TimeMs(0), 0);
    loop {
        let page = world.content.changes(&alice, since, 1).await.unwrap();
        seen += page.changes.len();
        if !page.has_more {
            break;
        }
        since = Since::Cursor(page.cursor);
    }
    assert_eq!(seen, 3);
    assert_eq!(world.content.changes(&alice, Since::Cursor("cxyz".into()), 1).await.unwrap_err().kind(), Kind::Malformed);
    world.content.renew_identity().await.unwrap();
    assert_eq!(world.content.changes(&alice, Since::Cursor(page.cursor), 1).await.unwrap_err().kind(), Kind::Gone);
    let (mal, _) = (world.user(None).await, ());
    assert!(world.content.changes(&mal, Since::TimeMs(0), 100).await.unwrap().changes.is_empty());
}

on_each_kind!(a_signed_address_is_short_lived_and_dies_with_the_membership);

async fn a_signed_address_is_short_lived_and_dies_with_the_membership(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let file = upload(&world, &alice, "a", "", b"one").await;
    let home = world.home(&alice).await;
    let (token, _) = world.content.sign_link(&home, file.node, None, Some(60)).unwrap();
    let (entry, node, version) = world.content.open_link(&token).await.unwrap();
    assert_eq!((entry.namespace(), node, version), (home.namespace(), file.node, None));
    for forged in [token.replace('.', ""), format!("{token}A"), format!("A{token}"), String::new(), ".".into()] {
        assert_eq!(world.content.open_link(&forged).await.unwrap_err().kind(), Kind::NotFound, "{forged}");
    }
    world.clock.advance_ms(60_000);
    assert_eq!(world.content.open_link(&token).await.unwrap_err().kind(), Kind::Gone);
    assert_eq!(world.content.sign_link(&home, file.node, None, Some(1 << 40)).unwrap_err().kind(), Kind::Invalid);
    // Bob's address works while he is a member; a stranger's would never open.
    let shared = world.share(&home, &bob, Role::Viewer).await;
    let (token, _) = world.content.sign_link(&shared, file.node, None, None).unwrap();
    assert!(world.content.open_link(&token).await.is_ok());
    assert!(world.db.end_membership(home.namespace(), bob.user_id).await.unwrap());
    assert_eq!(world.content.open_link(&token).await.unwrap_err().kind(), Kind::NotFound);
}
