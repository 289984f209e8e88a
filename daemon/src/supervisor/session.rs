//! The relay session: one client for all folders, wake-ups from the WebSocket, polls while it is down, registration of folders.
//!
//! * **S6** A wake-up carries no fact: every connect, every gap and every poll makes each folder ask its feed.
//! * **S7** `connected` is only said after the relay has answered an authenticated question; `connecting` ends with an answer or an error.

use super::{Account, Daemon, RelayStatus, Running};
use crate::events::EventKind;
use crate::folder::{FolderCommand, RelayState};
use crate::identity::CredentialsFile;
use crate::problem::{Outcome, Problem};
use crate::relay::{RelayClient, RelayError, RelayOptions, RelayUrl, Wakeup, Wakeups};
use ferry_protocol::NamespaceId;
use ferry_protocol::wire::NamespaceInfo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// How often feeds are asked while the WebSocket is down.
const POLL: Duration = Duration::from_secs(30);
/// How often feeds are asked while it is up: against a proxy that swallows wake-ups.
const POLL_CONNECTED: Duration = Duration::from_secs(300);
/// The first wait after a failed question; doubled up to [`POLL`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How often this device is announced to the others of its folders, and new grants are asked for: well below the 60 s in which a revocation
/// must count (I13).
const ANNOUNCE_EVERY: Duration = Duration::from_secs(25);
/// How often this device's addresses are looked at.
const ADDRESSES_EVERY: Duration = Duration::from_secs(5);
/// How long a caller waits for the session to have its client.
const CLIENT_WAIT: Duration = Duration::from_secs(10);

/// Runs until the daemon stops: a session for each login and each time the relay is turned on.
pub async fn run(daemon: Arc<Daemon>) {
    let mut account_seen = daemon.account.subscribe();
    let mut settings_seen = daemon.settings.subscribe();
    loop {
        account_seen.borrow_and_update();
        settings_seen.borrow_and_update();
        let account = daemon.account.borrow().clone();
        let enabled = daemon.settings.borrow().relay_enabled;
        let session = async {
            match account {
                Some(account) if enabled => serve(&daemon, &account).await,
                account => {
                    let url = account.map(|a| a.relay_url().to_owned());
                    daemon.set_relay(RelayStatus { url, ..RelayStatus::none() });
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            () = session => {}
            () = changed(&daemon, &mut account_seen, &mut settings_seen, enabled) => {}
            () = daemon.stop.cancelled() => return,
        }
        daemon.drop_client();
    }
}

/// Ends when the login changed or the relay was turned on or off.
async fn changed(
    daemon: &Daemon,
    account: &mut tokio::sync::watch::Receiver<Option<Arc<Account>>>,
    settings: &mut tokio::sync::watch::Receiver<Arc<crate::config::Settings>>,
    enabled: bool,
) {
    loop {
        tokio::select! {
            _ = account.changed() => return,
            _ = settings.changed() => {
                if daemon.settings.borrow().relay_enabled != enabled {
                    return;
                }
            }
        }
    }
}

/// One session. Ends only with the daemon, or when the login cannot be used at all.
async fn serve(daemon: &Arc<Daemon>, account: &Account) {
    let url = Some(account.relay_url().to_owned());
    daemon.set_relay(RelayStatus { state: RelayState::Connecting, url: url.clone(), message: None, login_needed: false });
    let client = match daemon.make_client() {
        Ok(client) => Arc::new(client),
        Err(problem) => {
            daemon.set_relay(RelayStatus { state: RelayState::Offline, url, message: Some(problem.message), login_needed: true });
            return std::future::pending().await;
        }
    };
    daemon.client.send_replace(Some(client.clone()));
    let mut session = Session { daemon, account, wakeups: client.wakeups(), client, socket_up: false, retry: RETRY_MIN, announced: None };
    session.run().await;
}

struct Session<'a> {
    daemon: &'a Arc<Daemon>,
    account: &'a Account,
    client: Arc<RelayClient>,
    wakeups: Wakeups,
    socket_up: bool,
    retry: Duration,
    /// When this device was last announced, and with which addresses.
    announced: Option<(Instant, Vec<SocketAddr>)>,
}

impl Session<'_> {
    async fn run(&mut self) {
        self.give_client();
        let mut next_poll = self.look().await;
        let mut lan = self.daemon.lan.state.subscribe();
        let mut addresses = tokio::time::interval(ADDRESSES_EVERY);
        addresses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = self.wakeups.next() => match news {
                    Some(news) => if let Some(at) = self.hear(news).await { next_poll = at },
                    None => return,
                },
                () = self.daemon.folders_changed.notified() => next_poll = self.look().await,
                Ok(()) = lan.changed() => self.announce().await,
                _ = addresses.tick() => if self.announced_long_ago() { self.announce().await },
                () = tokio::time::sleep_until(next_poll) => next_poll = self.look().await,
            }
        }
    }

    /// Takes up news of the WebSocket; answers when to poll next, if that changed.
    async fn hear(&mut self, news: Wakeup) -> Option<Instant> {
        match news {
            Wakeup::Connected => {
                self.socket_up = true;
                Some(self.look().await)
            }
            Wakeup::Disconnected(error) => {
                let was_up = std::mem::replace(&mut self.socket_up, false);
                tracing::debug!("wake-up connection down: {error}");
                // It may be the WebSocket alone that does not get through: ask before saying that the relay is gone.
                if was_up { Some(self.look().await) } else { None }
            }
            Wakeup::Changed { namespace, seq } => {
                match self.daemon.lock_folders().get(&namespace).cloned() {
                    Some(running) => wake(&running, seq),
                    None => tracing::debug!(%namespace, "a folder that is not on this device changed"),
                }
                None
            }
            Wakeup::Everything => Some(self.look().await),
            Wakeup::Peers => {
                self.announce().await;
                None
            }
        }
    }

    /// Whether this device's addresses changed since it announced them, or it is time to do so again.
    fn announced_long_ago(&self) -> bool {
        self.announced
            .as_ref()
            .is_none_or(|(at, addresses)| at.elapsed() >= ANNOUNCE_EVERY || *addresses != super::lan::addresses(self.daemon))
    }

    /// Tells the relay where this device is; takes the grants, and where the others are.
    async fn announce(&mut self) {
        self.announced = Some((Instant::now(), super::lan::addresses(self.daemon)));
        match super::lan::announce(self.daemon, &self.client, self.account).await {
            // What this user may do in a folder may be another thing now.
            Ok(true) => self.daemon.folders().iter().for_each(|running| wake(running, None)),
            Ok(false) => {}
            // Without the relay the grants that are known count until they expire.
            Err(error) => tracing::debug!(%error, "announcing this device to the relay"),
        }
    }

    /// Asks the relay for the account's namespaces, registers what it does not know, wakes all folders. Answers when to do it again.
    async fn look(&mut self) -> Instant {
        let wait = match self.client.namespaces().await {
            Ok(namespaces) => {
                self.daemon.hear_memberships(&namespaces);
                self.register(&namespaces).await;
                self.daemon.hear_invitations(&self.client).await;
                // First the client, so that no folder is called up to date before it could ask (I15).
                self.give_client();
                self.say(RelayState::Connected, None, false);
                for running in self.daemon.folders() {
                    wake(&running, None);
                }
                self.announce().await;
                self.retry = RETRY_MIN;
                if self.socket_up { POLL_CONNECTED } else { POLL }
            }
            Err(error) => {
                let login_needed = matches!(error, RelayError::LoginRequired { .. });
                self.say(RelayState::Offline, Some(error.to_string()), login_needed);
                let wait = error.retry_after().unwrap_or(self.retry);
                self.retry = (self.retry * 2).min(POLL);
                if login_needed { POLL_CONNECTED } else { wait }
            }
        };
        Instant::now() + wait
    }

    fn say(&self, state: RelayState, message: Option<String>, login_needed: bool) {
        self.daemon.set_relay(RelayStatus { state, url: Some(self.account.relay_url().to_owned()), message, login_needed });
    }

    async fn register(&self, known: &[NamespaceInfo]) {
        let key = self.account.key();
        for running in self.daemon.folders() {
            let config = &running.record.config;
            if let Some(info) = known.iter().find(|n| n.id == config.id) {
                self.registered(config.id, &key, info.owner != self.account.user_id);
                continue;
            }
            let was_member = running.record.registered_with.as_deref() == Some(&key);
            if running.record.is_anothers {
                self.daemon.refuse(config.id, super::members::not_shared(was_member, &config.name));
                continue;
            }
            // New here, or of a relay that was reset and has lost it: made under its own id, so that it stays one folder.
            match self.client.create_namespace(config.id, &config.name).await {
                Ok(_) => self.registered(config.id, &key, false),
                Err(error) if error.is_temporary() => return,
                Err(error) => {
                    tracing::warn!("the relay does not take the folder '{}': {error}", config.name);
                    self.daemon.refuse(config.id, error.to_string());
                }
            }
        }
    }

    fn registered(&self, id: NamespaceId, key: &str, is_anothers: bool) {
        self.daemon.accept(id);
        let change = |record: &mut super::Record| {
            record.registered_with = Some(key.to_owned());
            record.is_anothers = is_anothers;
        };
        if let Err(e) = self.daemon.change_record(id, change) {
            tracing::error!("cannot record that the relay knows a folder: {e}");
        }
    }

    /// Lets the folders that the relay knows use it.
    fn give_client(&self) {
        let key = self.account.key();
        for running in self.daemon.folders() {
            let usable = running.record.registered_with.as_deref() == Some(&key) && !self.daemon.is_refused(running.record.config.id);
            let has = running.relay.borrow().is_some();
            if usable != has {
                running.relay.send_replace(usable.then(|| self.client.clone()));
            }
        }
    }
}

fn wake(running: &Running, seq: Option<u64>) {
    // A full queue holds a wake-up already, or work after which the folder asks anyway.
    let _ = running.handle.try_command(FolderCommand::WakeRelay { seq });
}

impl Daemon {
    fn set_relay(&self, status: RelayStatus) {
        let changed = self.relay.send_if_modified(|old| {
            let changed = *old != status;
            old.clone_from(&status);
            changed
        });
        if changed {
            tracing::info!(state = ?status.state, message = status.message, "relay");
            self.activity.events().emit(EventKind::RelayState { state: status.state, message: status.message });
        }
    }

    /// The login or the settings have just changed: says at once what the session will find, so that nobody who asks in between is told
    /// that all is up to date (I15).
    pub(super) fn foretell_session(&self) {
        let account = self.account.borrow().clone();
        let enabled = self.settings.borrow().relay_enabled;
        let now = self.relay.borrow().state;
        match account {
            Some(account) if enabled => {
                if now == RelayState::None {
                    let url = Some(account.relay_url().to_owned());
                    self.set_relay(RelayStatus { state: RelayState::Connecting, url, message: None, login_needed: false });
                }
            }
            account => {
                let url = account.map(|a| a.relay_url().to_owned());
                self.set_relay(RelayStatus { url, ..RelayStatus::none() });
            }
        }
    }

    fn drop_client(&self) {
        self.count_traffic();
        if let Some(client) = self.client.send_replace(None) {
            let mut base = self.traffic_base.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            base.0 += client.traffic().received_bytes();
            base.1 += client.traffic().sent_bytes();
        }
        for running in self.folders() {
            running.relay.send_replace(None);
        }
    }

    /// Brings the counters up to date with the client's.
    pub fn count_traffic(&self) {
        let base = *self.traffic_base.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let client = self.client.borrow();
        let (received, sent) = client.as_ref().map_or((0, 0), |c| (c.traffic().received_bytes(), c.traffic().sent_bytes()));
        self.counters.relay_in_bytes.store(base.0 + received, Relaxed);
        self.counters.relay_out_bytes.store(base.1 + sent, Relaxed);
    }

    pub(super) fn make_client(&self) -> Outcome<RelayClient> {
        let Some((_, credentials)) = Account::load(&self.paths)? else { return Err(Problem::login_required()) };
        let url: RelayUrl = credentials.relay.parse()?;
        let options = RelayOptions { up: self.limits.up.clone(), down: self.limits.down.clone(), ..RelayOptions::default() };
        let keep = Arc::new(CredentialsFile::new(&self.paths.state_dir));
        Ok(RelayClient::new(url, options, Some(credentials), keep)?)
    }

    /// The session's client, waited for while the session is just beginning.
    pub async fn relay_client(&self) -> Outcome<Arc<RelayClient>> {
        super::account::required(self.account.borrow().clone())?;
        if !self.settings.borrow().relay_enabled {
            return Err(
                Problem::conflict("relay_off", "the relay is turned off").hint("turn it on with: ferry config set relay.enabled true")
            );
        }
        let mut client = self.client.subscribe();
        let waited = tokio::time::timeout(CLIENT_WAIT, client.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(client)) => super::account::required(client.clone()),
            _ => Err(Problem::login_required()),
        }
    }

    /// Asks the relay for the newest grants. Without an answer those that are known count.
    pub(super) async fn fetch_grants(&self) {
        let (account, client) = (self.account.borrow().clone(), self.client.borrow().clone());
        if let (Some(account), Some(client)) = (account, client)
            && let Err(error) = super::lan::announce(self, &client, &account).await
        {
            tracing::debug!(%error, "asking the relay for grants");
        }
    }

    /// The account's namespace of this id or name.
    pub async fn remote_folder(&self, wanted: &str) -> Outcome<NamespaceInfo> {
        let namespaces = self.relay_client().await?.namespaces().await?;
        if let Ok(id) = wanted.parse::<NamespaceId>()
            && let Some(found) = namespaces.iter().find(|n| n.id == id)
        {
            return Ok(found.clone());
        }
        let shown = ferry_protocol::name::display_bytes(wanted.as_bytes());
        let mut named = namespaces.into_iter().filter(|n| n.name == wanted);
        match (named.next(), named.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(Problem::conflict("ambiguous", format!("the account has several folders called '{shown}'"))
                .hint("name it by its id: ferry folder list --remote")),
            _ => Err(Problem::not_found("remote_folder_not_found", format!("the account has no folder '{shown}'"))
                .hint("list them with: ferry folder list --remote")),
        }
    }
}
