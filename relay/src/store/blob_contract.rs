//! What every blob store must do (R6): one suite, run against each implementation.

use super::blob::BlobStore;
use super::blob_dir::DirBlobs;
use super::blob_memory::MemoryBlobs;
use super::content::PackId;
use crate::clock::ManualClock;
use bytes::Bytes;
use std::sync::Arc;

fn part(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn blobs_keep_what_they_were_given(store: &dyn BlobStore) {
    let (one, two) = (PackId([1; 16]), PackId([2; 16]));
    assert!(store.list().await.unwrap().is_empty());
    assert_eq!(store.read(one, 0, 1).await.unwrap(), None);
    store.put(one, vec![part("hello "), part("world")]).await.unwrap();
    store.put(two, vec![]).await.unwrap();
    assert_eq!(store.read(one, 0, 11).await.unwrap().unwrap(), part("hello world"));
    assert_eq!(store.read(one, 6, 5).await.unwrap().unwrap(), part("world"));
    assert_eq!(store.read(one, 11, 0).await.unwrap().unwrap(), part(""));
    // Beyond the end there is nothing, not a part of something; absurd numbers allocate nothing.
    for (offset, len) in [(6, 6), (12, 0), (u64::MAX, 1), (0, usize::MAX >> 1)] {
        assert_eq!(store.read(one, offset, len).await.unwrap(), None, "{offset} {len}");
    }
    let mut rows = store.list().await.unwrap();
    rows.sort_by_key(|r| r.id);
    assert_eq!(rows.iter().map(|r| (r.id, r.length_bytes)).collect::<Vec<_>>(), [(one, 11), (two, 0)]);
    assert!(rows[0].written_at_ms > 0);
    store.delete(one).await.unwrap();
    store.delete(one).await.unwrap();
    assert_eq!(store.read(one, 0, 1).await.unwrap(), None);
    store.ping().await.unwrap();
}

#[tokio::test]
async fn blobs_in_memory() {
    blobs_keep_what_they_were_given(&MemoryBlobs::new(Arc::new(ManualClock::at(1)))).await;
}

#[tokio::test]
async fn blobs_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    blobs_keep_what_they_were_given(&DirBlobs::open(dir.path()).unwrap()).await;
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn blobs_on_s3() {
    let server = super::blob_s3::testing::S3Server::start().await;
    blobs_keep_what_they_were_given(&server.open("").await).await;
    blobs_keep_what_they_were_given(&server.open("a/prefix/").await).await;
}

/// The contract, and a pack that goes in parts, on a server that was written by others: with `FERRY_TEST_GARAGE=FILE` (a program `garage`) only.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn blobs_on_garage() {
    use super::blob_s3::{S3Blobs, S3Tuning};
    use std::io::BufRead;
    if std::env::var_os("FERRY_TEST_GARAGE").is_none() {
        return eprintln!("NOT RUN: FERRY_TEST_GARAGE names no program garage");
    }
    let (dir, secret) = (tempfile::tempdir().unwrap(), "0123456789abcdef".repeat(4));
    let key = crate::config::S3Key { access: "GK0123456789abcdef01234567".into(), secret: secret.clone(), token: None };
    let mut server = std::process::Command::new(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/garage_server"))
        .args(["--bucket", "chunks", "--access-key", &key.access, "--secret-key", &secret, "--dir"])
        .arg(dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    std::io::BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "it does not start; see what it said");
    let open = async |prefix: &str, key: &crate::config::S3Key| {
        let endpoint = Some(url.trim().to_owned());
        let place = crate::config::S3Place { bucket: "chunks".into(), prefix: prefix.into(), endpoint, region: "us-east-1".into() };
        S3Blobs::open(place, key, S3Tuning { page_objects: 7, ..S3Tuning::default() }).await
    };
    for prefix in ["", "a/prefix/"] {
        blobs_keep_what_they_were_given(&open(prefix, &key).await.unwrap()).await;
    }
    let store = open("", &key).await.unwrap();
    let large: Bytes = (0..18u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect::<Vec<u8>>().into();
    store.put(PackId([9; 16]), vec![large.clone()]).await.unwrap();
    let (at, len) = (8 * 1024 * 1024 - 3, 7);
    assert_eq!(store.read(PackId([9; 16]), at, len).await.unwrap().unwrap(), large.slice(at as usize..at as usize + len));
    for n in 0..20 {
        store.put(PackId([100 + n; 16]), vec![part("one of many")]).await.unwrap();
    }
    let many = store.list().await.unwrap().iter().filter(|row| row.length_bytes == 11).count();
    assert_eq!(many, 20, "a listing of several pages is whole");
    let wrong = crate::config::S3Key { secret: "f".repeat(64), ..key };
    open("", &wrong).await.unwrap_err();
    drop(server.stdin.take());
    server.wait().unwrap();
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_not_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let id = PackId([3; 16]);
    drop(DirBlobs::open(dir.path()).unwrap());
    let leftover = dir.path().join("tmp").join(id.to_string());
    std::fs::write(&leftover, b"half").unwrap();
    // A young one may be what another process writes at this moment.
    let store = DirBlobs::open(dir.path()).unwrap();
    assert!(store.list().await.unwrap().is_empty() && leftover.exists());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    std::fs::File::options().write(true).open(&leftover).unwrap().set_modified(old).unwrap();
    let store = DirBlobs::open(dir.path()).unwrap();
    assert!(store.list().await.unwrap().is_empty() && !leftover.exists());
    store.put(id, vec![part("whole")]).await.unwrap();
    let store = DirBlobs::open(dir.path()).unwrap();
    assert_eq!(store.read(id, 0, 5).await.unwrap().unwrap(), part("whole"));
}

/// A migration that was killed and is begun again, or two at once, write the same blob: what one has half written stands in nobody's way.
#[tokio::test]
async fn one_blob_may_be_written_by_several_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = (DirBlobs::open(dir.path()).unwrap(), PackId([4; 16]));
    std::fs::write(dir.path().join("tmp").join(id.to_string()), b"ha").unwrap();
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let writes = (0..8).map(|_| store.put(id, vec![bytes.clone()]));
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(store.read(id, 0, bytes.len()).await.unwrap().unwrap(), bytes);
    assert_eq!(store.list().await.unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1, "nothing is left but what was left before");
}
