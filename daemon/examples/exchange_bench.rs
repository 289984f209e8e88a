//! How fast chunks travel between two devices, beside what QUIC alone carries between the same two: `cargo run --release -p ferry-daemon --example
//! exchange_bench [MiB]`. As root the two are hosts of their own, joined by a virtual link (network namespaces, removed at the end); otherwise both
//! are on loopback.
//!
//! `quic` writes bytes from memory into one stream and drops them at the other end; `chunks` reads chunks of a file, hashes them, sends them, and
//! hashes them again at the other end. Both use the same certificates and settings.

use anyhow::{Context, Result, ensure};
use ferry_daemon::fs::{FolderMarker, InstanceId, Root, stat};
use ferry_daemon::identity::{GrantKey, Identity};
use ferry_daemon::lan::{self, Hub, LanSettings, LanState, PeerWake, endpoint, tls};
use ferry_engine::ChunkPlace;
use ferry_protocol::grant::{Grant, Member, SignedGrant};
use ferry_protocol::lan::session::Opened;
use ferry_protocol::wire::{self, Role};
use ferry_protocol::{Author, ChunkId, ChunkRef, Epoch, NamespaceId, RelPath, ReplicaId, UserId};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const NAMESPACE: NamespaceId = NamespaceId::from_bytes([7; 16]);
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks of one request, and requests at once: as a folder asks.
const ASK_CHUNKS: usize = 8;
const ASKS: usize = 4;
const QUIC_PORT: u16 = 4711;
const LAN_PORT: u16 = 4712;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match words.first().map(String::as_str) {
        Some("serve") => tokio::runtime::Runtime::new()?.block_on(serve(words[1].as_ref(), words[2].parse()?)),
        Some("ask") => tokio::runtime::Runtime::new()?.block_on(ask(words[1].as_ref(), words[2].parse()?)),
        size => compare(size.map_or(Ok(1024), str::parse)?),
    }
}

/// Runs both ends as processes of their own.
fn compare(mib: usize) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("ferry-exchange-bench-{}", std::process::id()));
    let names = ["a", "b"].map(|end| format!("ferry-xb-{}-{end}", std::process::id()));
    let done = (|| {
        prepare(&dir, mib)?;
        let hosts = rustix::process::geteuid().is_root() && link(&names).is_ok();
        println!("{mib} MiB between two {}", if hosts { "hosts joined by a virtual link" } else { "processes on loopback" });
        let address = if hosts { "10.99.0.1" } else { "127.0.0.1" };
        let mut server = start(hosts.then_some(&names[0]), &["serve", dir.to_str().context("a path")?, address])?;
        let asked = start(hosts.then_some(&names[1]), &["ask", dir.to_str().context("a path")?, address]).and_then(|mut c| Ok(c.wait()?));
        server.kill()?;
        server.wait()?;
        ensure!(asked?.success(), "the asking end failed");
        Ok(())
    })();
    for name in &names {
        let _ = Command::new("ip").args(["netns", "del", name]).stderr(std::process::Stdio::null()).status();
    }
    std::fs::remove_dir_all(&dir)?;
    done
}

fn start(netns: Option<&String>, words: &[&str]) -> Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = match netns {
        Some(name) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name]).arg(program);
            command
        }
        None => Command::new(program),
    };
    Ok(command.args(words).spawn()?)
}

fn link(names: &[String; 2]) -> Result<()> {
    let ip = |words: &str| -> Result<()> {
        let status = Command::new("ip").args(words.split(' ')).status()?;
        ensure!(status.success(), "ip {words}");
        Ok(())
    };
    let [a, b] = names;
    ip(&format!("netns add {a}"))?;
    ip(&format!("netns add {b}"))?;
    ip(&format!("-n {a} link add xb0 type veth peer name xb1 netns {b}"))?;
    for (name, device, address) in [(a, "xb0", "10.99.0.1/24"), (b, "xb1", "10.99.0.2/24")] {
        ip(&format!("-n {name} addr add {address} dev {device}"))?;
        ip(&format!("-n {name} link set {device} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
    }
    Ok(())
}

/// Two devices, a relay's key with the grant that lists both, and a folder with one large file of noise.
fn prepare(dir: &Path, mib: usize) -> Result<()> {
    std::fs::create_dir_all(dir.join("folder"))?;
    let mut noise = std::fs::File::open("/dev/urandom")?;
    let mut file = std::fs::File::create(dir.join("folder/noise"))?;
    std::io::copy(&mut std::io::Read::take(&mut noise, (mib << 20) as u64), &mut file)?;
    let key = libp2p_identity::ed25519::Keypair::generate();
    let member = |name: &str| -> Result<Member> {
        let device = Identity::load_or_create(&dir.join(name))?.device_id();
        Ok(Member { device, user: UserId::default(), role: Role::Owner, name: name.into() })
    };
    let mut members = vec![member("a")?, member("b")?];
    members.sort_by_key(|m| m.device);
    let body = wire::encode(&Grant { namespace: NAMESPACE, epoch: 1, issued_ms: 1, expires_ms: i64::MAX, members });
    let signature = key.sign(&SignedGrant::signed_bytes(&body));
    std::fs::write(dir.join("grant"), [&signature[..], &body].concat())?;
    Ok(std::fs::write(dir.join("key"), hex::encode(key.public().to_bytes()))?)
}

/// A hub of one of the devices, its LAN running.
async fn hub(dir: &Path, name: &str, listen: SocketAddr, peers: Vec<SocketAddr>) -> Result<Arc<Hub>> {
    let identity = Identity::load_or_create(&dir.join(name))?;
    let author = watch::channel(Author { device: identity.device_id(), name: name.into() }).1;
    let hub = Hub::new(&identity, author, Arc::default(), Arc::default(), Box::new(|_| {}));
    let grant = std::fs::read(dir.join("grant"))?;
    let key: GrantKey = std::fs::read_to_string(dir.join("key"))?.parse()?;
    hub.set_key(Some(key), &[SignedGrant { signature: grant[..64].to_vec(), body: grant[64..].to_vec() }]);
    let settings = LanSettings { enabled: true, listen, discovery: false, peers, offload: true };
    let ((keep, settings), state) = (watch::channel(settings), watch::channel(LanState::default()).0);
    let running = lan::run(hub.clone(), identity, settings, state, tokio_util::sync::CancellationToken::new());
    tokio::spawn(async move {
        running.await;
        // Whoever may change the settings lives as long as the LAN.
        drop(keep);
    });
    Ok(hub)
}

fn opened(n: u8) -> Option<Opened> {
    Some(Opened { replica: ReplicaId::from_bytes([n; 16]), run: Epoch::from_bytes([n; 16]), relays: false })
}

/// The chunks of the file, cut evenly: where they stand is what matters here, not how they were cut.
fn chunks(dir: &Path) -> Result<Vec<(u64, ChunkRef)>> {
    let bytes = std::fs::read(dir.join("folder/noise"))?;
    let cut = bytes.chunks(CHUNK_BYTES).enumerate();
    Ok(cut.map(|(i, c)| ((i * CHUNK_BYTES) as u64, ChunkRef { id: ChunkId::of(c), len: c.len() as u32 })).collect())
}

async fn serve(dir: &Path, address: std::net::IpAddr) -> Result<()> {
    let marker = FolderMarker { namespace: NAMESPACE, instance: InstanceId([1; 16]) };
    let root = Arc::new(Root::attach(&dir.join("folder"), &marker)?);
    let path = RelPath::parse(b"noise")?;
    let stat = stat(&root, &path).ok().flatten().context("the file")?;
    let places: HashMap<ChunkId, ChunkPlace> =
        chunks(dir)?.into_iter().map(|(offset, chunk)| (chunk.id, ChunkPlace { path: path.clone(), stat, offset, chunk })).collect();
    let hub = hub(dir, "a", SocketAddr::new(address, LAN_PORT), Vec::new()).await?;
    let folder = hub.folder(NAMESPACE);
    folder.attach(move |wake| {
        if let PeerWake::AskPlaces { ids, reply } = wake {
            let _ = reply.send((root.clone(), ids.iter().map(|id| places.get(id).cloned()).collect()));
        }
    });
    folder.set_opened(opened(1));
    quic_alone(dir, address).await
}

/// Answers every stream with as many bytes as the file has.
async fn quic_alone(dir: &Path, address: std::net::IpAddr) -> Result<()> {
    let size = std::fs::metadata(dir.join("folder/noise"))?.len();
    let tls = tls::Tls::new(&Identity::load_or_create(&dir.join("a"))?)?;
    let quic = endpoint::open(SocketAddr::new(address, QUIC_PORT), &tls, true)?;
    let piece = bytes::Bytes::from(vec![7; CHUNK_BYTES]);
    while let Some(incoming) = quic.accept().await {
        let connection = incoming.await?;
        while let Ok((mut send, _)) = connection.accept_bi().await {
            for _ in 0..size / CHUNK_BYTES as u64 {
                if send.write_chunk(piece.clone()).await.is_err() {
                    break;
                }
            }
            let _ = send.finish();
        }
    }
    Ok(())
}

async fn ask(dir: &Path, address: std::net::IpAddr) -> Result<()> {
    let ids: Vec<ChunkId> = chunks(dir)?.into_iter().map(|(_, chunk)| chunk.id).collect();
    let megabytes = (ids.len() * CHUNK_BYTES) as f64 / 1e6;
    let hub = hub(dir, "b", "0.0.0.0:0".parse()?, vec![SocketAddr::new(address, LAN_PORT)]).await?;
    let folder = hub.folder(NAMESPACE);
    folder.set_opened(opened(2));
    let began = Instant::now();
    let link = loop {
        if let Some(link) = folder.sources().pop() {
            break link;
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "the two did not find each other");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        let began = Instant::now();
        read_quic(dir, address).await?;
        rates[0].push(megabytes / began.elapsed().as_secs_f64());
        let began = Instant::now();
        let slots = Arc::new(tokio::sync::Semaphore::new(ASKS));
        let mut asks = tokio::task::JoinSet::new();
        for part in ids.chunks(ASK_CHUNKS) {
            let (part, folder, link, slots) = (part.to_vec(), folder.clone(), link.clone(), slots.clone());
            asks.spawn(async move {
                let _slot = slots.acquire_owned().await?;
                let mut answers = folder.ask(&link, &part).await?;
                let mut opens = tokio::task::JoinSet::new();
                while let Some(chunk) = answers.next().await? {
                    opens.spawn_blocking(move || chunk.open().is_some());
                }
                let right = opens.join_all().await;
                ensure!(right.len() == part.len() && right.iter().all(|right| *right), "chunks are missing or wrong");
                Ok(())
            });
        }
        asks.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
        rates[1].push(megabytes / began.elapsed().as_secs_f64());
    }
    for rates in &mut rates {
        rates.sort_by(f64::total_cmp);
    }
    println!("quic    {:7.0} MB/s", rates[0][1]);
    println!("chunks  {:7.0} MB/s   {:.2} of it (medians of 3)", rates[1][1], rates[1][1] / rates[0][1]);
    Ok(())
}

async fn read_quic(dir: &Path, address: std::net::IpAddr) -> Result<()> {
    let tls = tls::Tls::new(&Identity::load_or_create(&PathBuf::from(dir).join("b"))?)?;
    let endpoint = endpoint::open("0.0.0.0:0".parse()?, &tls, true)?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls.client(None)?));
    config.transport_config(endpoint::transport(true));
    let connection = endpoint.connect_with(config, SocketAddr::new(address, QUIC_PORT), "ferry")?.await?;
    connection.set_receive_window(endpoint::WINDOW_BYTES.into());
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"?").await?;
    while receive.read_chunk(usize::MAX, true).await?.is_some() {}
    Ok(())
}
