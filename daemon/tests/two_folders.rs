//! Two folders of two devices over an embedded relay: the shortest whole path, in one process.

use ferry_daemon::events::EventSink;
use ferry_daemon::folder::{self, Bandwidth, Counters, FolderConfig, FolderDeps, FolderHandle, FolderSettings, FolderState, RelayState};
use ferry_daemon::identity::{CredentialsFile, Identity};
use ferry_daemon::relay::{DeviceInfo, RelayClient, RelayOptions};
use ferry_protocol::{Author, NamespaceId};
use ferry_relay::embedded::{EmbeddedConfig, Listener, Running};
use ferry_relay::service::accounts::NewUser;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(30);

async fn relay(dir: &Path) -> Running {
    let listener = Listener { addr: "127.0.0.1:0".parse().unwrap(), tls_self_signed: false };
    let config = EmbeddedConfig { data_dir: dir.to_owned(), listeners: vec![listener], public_url: None };
    let running = ferry_relay::embedded::start(config).await.unwrap();
    let new = NewUser { email: "ana@example.org", name: Some("Ana"), password: "correct horse battery" };
    running.app.accounts.add_user(new, ferry_relay::service::UserRole::User).await.unwrap();
    running
}

struct Device {
    folder: FolderHandle,
    path: PathBuf,
    _keep: (watch::Sender<Option<Arc<RelayClient>>>, watch::Sender<Author>, watch::Sender<FolderSettings>),
}

async fn device(dir: &Path, name: &str, relay: &Running, namespace: Option<NamespaceId>) -> (Device, NamespaceId) {
    let state = dir.join(name).join("state");
    let path = dir.join(name).join("folder");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::create_dir_all(&path).unwrap();
    let index_dir = state.join("index");
    std::fs::create_dir_all(&index_dir).unwrap();
    let identity = Identity::load_or_create(&state).unwrap();
    let keep = Arc::new(CredentialsFile::new(&state));
    let url = format!("http://{}", relay.addrs[0]).parse().unwrap();
    let client = RelayClient::new(url, RelayOptions::default(), None, keep).unwrap();
    client.login("ana@example.org", "correct horse battery", &DeviceInfo::new(name, &identity)).await.unwrap();
    let id = match namespace {
        Some(id) => id,
        None => client.namespaces().await.unwrap()[0].id,
    };
    let config = FolderConfig {
        id,
        name: "Ferry".into(),
        path: path.clone(),
        root: None,
        paused: false,
        pause_until_ms: None,
        merge_text: false,
        created_here: false,
    };
    let author = Author { device: identity.device_id(), name: name.into() };
    let (relay_tx, relay) = watch::channel(Some(Arc::new(client)));
    let (author_tx, author) = watch::channel(author);
    let (settings_tx, settings) = watch::channel(FolderSettings::default());
    let deps = FolderDeps {
        lan: ferry_daemon::lan::LanFolder::none(id),
        relay,
        author,
        settings,
        limits: Arc::new(Bandwidth::default()),
        events: EventSink::new(1),
        counters: Arc::new(Counters::default()),
        index_dir,
        save_root: Arc::new(|_| Ok(())),
    };
    let folder = folder::spawn(config, deps);
    (Device { folder, path, _keep: (relay_tx, author_tx, settings_tx) }, id)
}

fn tree(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let at = entry.path();
            if entry.file_name() == ".ferry" {
                continue;
            }
            let is_dir = entry.file_type().unwrap().is_dir();
            out.insert(at.strip_prefix(path).unwrap().to_owned(), (!is_dir).then(|| std::fs::read(&at).unwrap_or_default()));
            if is_dir {
                open.push(at);
            }
        }
    }
    out
}

/// Waits until both show this many entries and the same trees.
async fn same(a: &Device, b: &Device, entries: usize) {
    let started = std::time::Instant::now();
    loop {
        let (left, right) = (tree(&a.path), tree(&b.path));
        let done = [a, b].iter().all(|d| {
            let status = d.folder.status();
            status.state == FolderState::UpToDate && status.relay.state == RelayState::Connected && status.pending.total() == 0
        });
        if left == right && left.len() == entries && done {
            return;
        }
        if started.elapsed() > DEADLINE {
            panic!("not equal: {:#?}\n{:#?}\n{:#?}\n{:#?}", left.keys(), right.keys(), a.folder.status(), b.folder.status());
        }
        for device in [a, b] {
            device.folder.command(folder::FolderCommand::WakeRelay { seq: None }).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_crosses_the_relay_and_edits_come_back() {
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay")).await;
    let (a, id) = device(dir.path(), "one", &relay, None).await;
    std::fs::create_dir_all(a.path.join("docs/deep")).unwrap();
    std::fs::write(a.path.join("docs/a.txt"), "alpha").unwrap();
    std::fs::write(a.path.join("docs/deep/empty"), "").unwrap();
    std::fs::write(a.path.join("big"), vec![7u8; 3_000_000]).unwrap();
    let (b, _) = device(dir.path(), "two", &relay, Some(id)).await;
    same(&a, &b, 5).await;
    std::fs::write(b.path.join("docs/a.txt"), "beta").unwrap();
    std::fs::rename(b.path.join("docs/deep"), b.path.join("moved")).unwrap();
    let started = std::time::Instant::now();
    while std::fs::read(a.path.join("docs/a.txt")).unwrap() != b"beta" || !a.path.join("moved/empty").exists() {
        assert!(started.elapsed() < DEADLINE, "{:#?} {:#?}", a.folder.status(), b.folder.status());
        a.folder.command(folder::FolderCommand::WakeRelay { seq: None }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    same(&a, &b, 5).await;
    std::fs::remove_file(a.path.join("big")).unwrap();
    let started = std::time::Instant::now();
    while b.path.join("big").exists() {
        assert!(started.elapsed() < DEADLINE, "{:#?} {:#?}", a.folder.status(), b.folder.status());
        b.folder.command(folder::FolderCommand::WakeRelay { seq: None }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    same(&a, &b, 4).await;
    a.folder.stop().await;
    b.folder.stop().await;
    relay.shutdown().await;
}
