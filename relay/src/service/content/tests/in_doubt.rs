//! A connection to PostgreSQL that breaks while it commits: nobody knows whether that was done, so no blob goes that the rows may name (I2, I7).

use crate::service::ServiceResult;
use crate::service::content::testing::{World, collect, frames};
use crate::service::content::{NewUpload, UploadBegun};
use crate::store::blob::BlobStore;
use crate::store::postgres::Postgres;
use crate::store::testing::{cluster, settings};
use ferry_protocol::wire::{CommitReply, CommitRequest};
use ferry_protocol::{ChunkId, ContentHash, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOUND: u8 = 0;
/// The next COMMIT is passed on and done; its answer is lost.
const LOSES_ANSWER: u8 = 1;
/// The next COMMIT never arrives.
const LOSES_COMMIT: u8 = 2;

/// Stands between the relay and the server.
struct Line {
    port: u16,
    fault: Arc<AtomicU8>,
}

impl Line {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self { port: listener.local_addr().unwrap().port(), fault: Arc::default() };
        let fault = line.fault.clone();
        tokio::spawn(async move {
            while let Ok((relay, _)) = listener.accept().await {
                let fault = fault.clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    // Whatever ends it, both sides see a connection that is gone.
                    let _ = pass_on(relay, server, &fault).await;
                });
            }
        });
        line
    }

    fn breaks(&self, fault: u8) {
        self.fault.store(fault, Ordering::SeqCst);
    }
}

async fn pass_on(mut relay: TcpStream, mut server: TcpStream, fault: &AtomicU8) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut answer_is_lost = false;
    loop {
        tokio::select! {
            read = relay.read(&mut asked) => {
                let bytes = &asked[..read?];
                if bytes.windows(6).any(|w| w == b"COMMIT") {
                    match fault.swap(SOUND, Ordering::SeqCst) {
                        LOSES_COMMIT => return Ok(()),
                        broken => answer_is_lost = broken == LOSES_ANSWER,
                    }
                }
                if bytes.is_empty() {
                    return Ok(());
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut answered) => {
                let bytes = &answered[..read?];
                if bytes.is_empty() || answer_is_lost {
                    return Ok(());
                }
                relay.write_all(bytes).await?;
            }
        }
    }
}

async fn world() -> (World, Line) {
    let url = cluster().database();
    let line = Line::to(cluster().port()).await;
    let url = url.replace(&format!(":{}/", cluster().port()), &format!(":{}/", line.port));
    let mut world = World::new().await;
    world.db = Arc::new(Postgres::open(&url, &[], &[], &settings()).await.unwrap());
    world.content = world.second(world.db.clone()).await;
    (world, line)
}

/// Was it answered that nobody knows?
fn is_in_doubt<T: std::fmt::Debug>(answer: ServiceResult<T>) -> bool {
    answer.unwrap_err().is_in_doubt()
}

fn commit_of(world: &World, writer: &mut crate::service::content::testing::Writer, bytes: &[u8]) -> CommitRequest {
    let update = writer.file(NodeId::from_bytes(world.id()), &String::from_utf8_lossy(bytes), &[bytes]);
    world.request(vec![update], &[bytes], u64::MAX)
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_keeps_its_bytes() {
    let (world, line) = world().await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let mut writer = world.writer(&alice);

    let request = commit_of(&world, &mut writer, b"committed");
    line.breaks(LOSES_ANSWER);
    assert!(is_in_doubt(world.content.commit(&home, request.clone()).await));
    assert!(matches!(world.content.commit(&home, request).await.unwrap(), CommitReply::Accepted { head_seq: 1, .. }), "twice is once");
    line.breaks(LOSES_ANSWER);
    assert!(is_in_doubt(world.content.put_chunks(&home, frames(&[b"sent"])).await));
    let new = NewUpload {
        file_name: "uploaded".into(),
        directory: String::new(),
        namespace: None,
        size_bytes: 8,
        hash: Some(ContentHash::of(b"uploaded")),
        mtime_ns: None,
    };
    let UploadBegun::Begun(upload) = world.content.begin_upload(&alice, &new).await.unwrap() else { panic!("nobody has it") };
    line.breaks(LOSES_ANSWER);
    assert!(is_in_doubt(world.content.put_upload_chunk(&alice, upload.version_id, 0, b"uploaded"[..].into(), None).await));
    world.content.complete_upload(&alice, upload.version_id, None).await.unwrap();

    // Every row names a blob that is there.
    assert!(world.content.verify(true).await.unwrap().is_sound());
    let got = collect(world.content.get_chunks(&home, vec![ChunkId::of(b"committed"), ChunkId::of(b"uploaded")]).await.unwrap()).await;
    assert_eq!(got, [Some(b"committed".to_vec()), Some(b"uploaded".to_vec())]);
    assert!(world.content.missing_chunks(&home, &[ChunkId::of(b"sent")]).await.unwrap().is_empty());
}

/// What was not committed after all is in nobody's way: the same again succeeds, and the sweep removes what is left.
#[tokio::test]
async fn a_commit_that_never_arrived_leaves_its_bytes_to_the_sweep() {
    let (world, line) = world().await;
    let alice = world.user(None).await;
    let home = world.home(&alice).await;
    let request = commit_of(&world, &mut world.writer(&alice), b"lost on the way");
    line.breaks(LOSES_COMMIT);
    assert!(is_in_doubt(world.content.commit(&home, request.clone()).await));
    assert_eq!(world.blobs.list().await.unwrap().len(), 1);
    assert!(matches!(world.content.commit(&home, request).await.unwrap(), CommitReply::Accepted { head_seq: 1, .. }));
    assert_eq!(world.blobs.list().await.unwrap().len(), 2);
    world.clock.advance_ms(crate::service::content::ContentConfig::default().grace_ms + 1);
    assert_eq!(world.content.sweep(false).await.unwrap().stray_blobs_deleted, 1);
    assert!(world.content.verify(true).await.unwrap().is_sound());
    assert_eq!(world.blobs.list().await.unwrap().len(), 1);
}
