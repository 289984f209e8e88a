//! The daemon as a whole: settings, folders, the relay session, and the loop that keeps it all going.
//!
//! * **S4** The socket is bound and every recorded folder is started before the service manager hears that we are ready.
//! * **S5** A stop ends within [`STOP_MAX`], whatever a folder is doing: what is unfinished is found again at the next start (I4, K34).

mod account;
mod activity;
mod folders;
mod lan;
mod lock;
mod login;
mod members;
mod readiness;
mod session;
mod status;

pub use account::Account;
pub use activity::Activity;
pub use folders::{AddFolder, Record, Running, random_id};
pub use lan::LanService;
pub use lock::InstanceLock;
pub use login::{BeginLogin, Enter, begin_login, enter_without_daemon, logout_without_daemon, whoami};
pub use members::Invitation;
pub use status::RelayStatus;

use crate::config::{self, Settings};
use crate::events::EventKind;
use crate::folder::{Bandwidth, Counters, FolderSettings};
use crate::identity::Identity;
use crate::paths::Paths;
use crate::problem::{Outcome, Problem};
use crate::relay::RelayClient;
use crate::{control, durable};
use ferry_protocol::wire::Role;
use ferry_protocol::{Author, NamespaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long folders may take to stop.
pub const STOP_MAX: Duration = Duration::from_secs(8);
/// How often the main loop goes round when nothing happens.
const ROUND: Duration = Duration::from_secs(5);

pub(crate) type Folders = BTreeMap<NamespaceId, Running>;

/// The running daemon, shared by its tasks.
pub struct Daemon {
    /// Where things are kept.
    pub paths: Paths,
    /// Settings in force.
    pub settings: watch::Sender<Arc<Settings>>,
    flags: Vec<(&'static str, String)>,
    /// What happened.
    pub activity: Activity,
    /// Bytes on the wire.
    pub counters: Arc<Counters>,
    /// Limits of bandwidth.
    pub limits: Arc<Bandwidth>,
    /// This device under its present name.
    pub author: watch::Sender<Author>,
    /// This device's keys.
    pub identity: Identity,
    /// The login.
    pub account: watch::Sender<Option<Arc<Account>>>,
    /// The relay, as the session sees it.
    pub relay: watch::Sender<RelayStatus>,
    /// The session's client.
    pub client: watch::Sender<Option<Arc<RelayClient>>>,
    folders: Mutex<Folders>,
    /// Held while the set of folders changes, so that two additions cannot both find a place free.
    changing_folders: tokio::sync::Mutex<()>,
    /// Held while the login changes.
    changing_login: tokio::sync::Mutex<()>,
    /// Folders that the relay does not take, and why.
    refused: Mutex<BTreeMap<NamespaceId, String>>,
    /// What this user may do in which folder, as the relay said last.
    roles: Mutex<BTreeMap<NamespaceId, Role>>,
    /// Folders to which this user is invited and has not answered, as the relay said last.
    invitations: Mutex<Vec<Invitation>>,
    /// Bytes received from and sent to the relay in sessions that are over.
    traffic_base: Mutex<(u64, u64)>,
    /// A folder was added or registered: the session looks again.
    pub folders_changed: Notify,
    folder_settings: watch::Sender<FolderSettings>,
    /// The LAN.
    pub lan: LanService,
    /// Ends everything.
    pub stop: CancellationToken,
    /// When the daemon started, in milliseconds since 1970.
    pub started_ms: i64,
}

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where things are kept.
    pub paths: Paths,
    /// Settings from the command line.
    pub flags: Vec<(&'static str, String)>,
}

/// A daemon that is ready.
pub struct Started {
    /// The daemon.
    pub daemon: Arc<Daemon>,
    control: tokio::task::JoinHandle<()>,
    _lock: InstanceLock,
}

/// Starts a daemon: when this returns, its socket answers and its folders run.
pub async fn start(options: Options) -> Outcome<Started> {
    let Options { paths, flags } = options;
    durable::private_dir(&paths.state_dir)
        .map_err(|e| Problem::from(std::io::Error::new(e.kind(), format!("cannot use {}: {e}", paths.state_dir.display()))))?;
    let lock = InstanceLock::take(&paths.lock_file())?;
    let settings = config::load(&paths.config_file, config::process_env, &flags)?;
    let identity = Identity::load_or_create(&paths.state_dir)?;
    let account = Account::load(&paths)?.map(|(account, _)| Arc::new(account));
    let author = Author { device: identity.device_id(), name: settings.device_name().into() };
    let author = watch::channel(author).0;
    let counters: Arc<Counters> = Arc::default();
    let limits: Arc<Bandwidth> = Arc::default();
    let keep = lan::grant_keeper(paths.clone());
    let lan = LanService {
        hub: crate::lan::Hub::new(&identity, author.subscribe(), counters.clone(), limits.clone(), keep),
        settings: watch::channel(settings.lan()).0,
        state: watch::channel(crate::lan::LanState::default()).0,
    };
    let daemon = Arc::new(Daemon {
        lan,
        activity: Activity::open(paths.activity_file()),
        counters,
        limits,
        author,
        identity,
        account: watch::channel(account).0,
        relay: watch::channel(RelayStatus::none()).0,
        client: watch::channel(None).0,
        folders: Mutex::default(),
        changing_folders: tokio::sync::Mutex::default(),
        changing_login: tokio::sync::Mutex::default(),
        refused: Mutex::default(),
        roles: Mutex::default(),
        invitations: Mutex::default(),
        traffic_base: Mutex::default(),
        folders_changed: Notify::new(),
        folder_settings: watch::channel(settings.folder.clone()).0,
        settings: watch::channel(Arc::new(settings)).0,
        stop: CancellationToken::new(),
        started_ms: now_ms(),
        paths,
        flags,
    });
    let listener = control::bind(&daemon.paths)?;
    daemon.start_recorded_folders()?;
    daemon.apply_limits();
    daemon.foretell_session();
    let control = tokio::spawn(control::serve(daemon.clone(), listener));
    tokio::spawn(session::run(daemon.clone()));
    tokio::spawn(lan::run(daemon.clone()));
    daemon.activity.events().emit(EventKind::DaemonStarted { version: env!("CARGO_PKG_VERSION") });
    Ok(Started { daemon, control, _lock: lock })
}

impl Started {
    /// Runs until SIGTERM, SIGINT or [`Daemon::stop`]; then stops in order (S5).
    pub async fn run(self) -> Outcome<()> {
        let daemon = self.daemon.clone();
        let mut notifier = readiness::Notifier::new();
        notifier.ready(&daemon.status_line());
        tracing::info!(socket = %daemon.paths.socket.display(), "ferry is ready");
        let (mut terminate, mut interrupt, mut hangup) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
        let mut round = tokio::time::interval(notifier.alive_every().map_or(ROUND, |d| d.min(ROUND)));
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = daemon.stop.cancelled() => break,
                _ = hangup.recv() => {
                    notifier.reloading();
                    if let Err(e) = daemon.reload() {
                        tracing::error!("the settings stay as they were: {e}");
                    }
                    notifier.ready(&daemon.status_line());
                }
                _ = round.tick() => {
                    daemon.end_pauses(now_ms()).await;
                    if let Err(e) = daemon.activity.flush() {
                        tracing::warn!("cannot write the activity log: {e}");
                    }
                    notifier.alive(&daemon.status_line());
                }
            }
        }
        notifier.stopping();
        self.stop().await;
        Ok(())
    }

    /// Stops in order: no new work, folders, socket (S5).
    pub async fn stop(self) {
        let daemon = self.daemon;
        daemon.stop.cancel();
        let stops: Vec<_> = daemon.folders().into_iter().map(|r| tokio::spawn(async move { r.handle.stop().await })).collect();
        let all = async {
            for stop in stops {
                // A folder's task that panicked has already reported.
                let _ = stop.await;
            }
        };
        if tokio::time::timeout(STOP_MAX, all).await.is_err() {
            tracing::warn!("a folder did not stop in time; what is unfinished is taken up at the next start");
        }
        self.control.abort();
        if let Err(e) = std::fs::remove_file(&daemon.paths.socket) {
            tracing::debug!("cannot remove the control socket: {e}");
        }
        if let Err(e) = daemon.activity.flush() {
            tracing::warn!("cannot write the activity log: {e}");
        }
        tracing::info!("ferry has stopped");
    }
}

impl Daemon {
    /// Reads the settings again; on an error the old ones stay (G1). Answers what is now in force.
    pub fn reload(&self) -> Outcome<Arc<Settings>> {
        let settings = Arc::new(config::load(&self.paths.config_file, config::process_env, &self.flags)?);
        self.folder_settings.send_if_modified(|old| {
            let changed = *old != settings.folder;
            old.clone_from(&settings.folder);
            changed
        });
        self.lan.settings.send_if_modified(|old| {
            let new = settings.lan();
            let changed = *old != new;
            *old = new;
            changed
        });
        let name: Arc<str> = settings.device_name().into();
        self.author.send_if_modified(|author| {
            let changed = author.name != name;
            author.name = name;
            changed
        });
        self.settings.send_if_modified(|old| {
            let changed = **old != *settings;
            *old = settings.clone();
            changed
        });
        self.apply_limits();
        self.foretell_session();
        Ok(settings)
    }

    fn apply_limits(&self) {
        let settings = self.settings.borrow().clone();
        self.limits.up.set_rate(settings.limit_up.0);
        self.limits.down.set_rate(settings.limit_down.0);
        self.limits.lan_in.set_rate(settings.limit_lan.0);
        self.limits.lan_out.set_rate(settings.limit_lan.0);
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeMap<NamespaceId, String>> {
        // Only whole entries are put in and taken out.
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn refuse(&self, id: NamespaceId, reason: String) {
        let before = self.refused().insert(id, reason.clone());
        if before.as_ref() != Some(&reason) {
            self.tell_of_folder(id, EventKind::NotShared { reason });
        }
    }

    /// Why the relay does not take a folder, if it does not.
    pub fn refusal(&self, id: NamespaceId) -> Option<String> {
        self.refused().get(&id).cloned()
    }

    fn accept(&self, id: NamespaceId) {
        self.refused().remove(&id);
    }

    fn is_refused(&self, id: NamespaceId) -> bool {
        self.refused().contains_key(&id)
    }
}

/// The wall clock, in milliseconds since 1970: for people, never for decisions.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
