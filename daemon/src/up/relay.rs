//! The relay that `ferry up` runs in its own process: one account, one port for devices (TLS, pinned by the join code), one for the browser of
//! this machine. Ports and account are remembered, so that running it again resumes.

use crate::config;
use crate::durable;
use crate::paths::Paths;
use crate::problem::{Outcome, Problem};
use crate::relay::{JoinCode, Pin};
use ferry_protocol::{NamespaceId, UserId};
use ferry_relay::StartError;
use ferry_relay::embedded::{self, EmbeddedConfig, Listener, Running};
use ferry_relay::service::accounts::NewUser;
use ferry_relay::service::{Kind, ServiceError, UserRole};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

/// The port for devices that is tried first.
const PORT: u16 = 8484;
/// How many ports after it are tried.
const PORTS_TRIED: u16 = 50;
/// How long requests may take to finish at the end: this relay's devices try again by themselves.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What is remembered between two runs. The password is in it, so the file is for its owner only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    device_port: u16,
    web_port: u16,
    email: String,
    password: String,
}

/// The relay while it runs.
pub struct HostedRelay {
    running: Running,
    remembered: Remembered,
    user: UserId,
    /// The user's home folder.
    pub home: NamespaceId,
    /// Whether the account was made just now.
    pub is_new: bool,
}

impl HostedRelay {
    /// Starts it; makes the account at the first time.
    pub async fn start(paths: &Paths, port: Option<u16>) -> Outcome<Self> {
        let file = paths.up_file();
        let known: Option<Remembered> = durable::read_json(&file)?;
        let remembered = match known {
            Some(known) => Remembered { device_port: port.unwrap_or(known.device_port), ..known },
            None => first_time(port)?,
        };
        let config = EmbeddedConfig {
            data_dir: paths.relay_dir(),
            listeners: vec![
                Listener { addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, remembered.device_port)), tls_self_signed: true },
                Listener { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, remembered.web_port)), tls_self_signed: false },
            ],
            public_url: Some(format!("http://127.0.0.1:{}", remembered.web_port)),
        };
        // Before the account: a password that was used must be known.
        durable::private_dir(&paths.state_dir)?;
        durable::replace_json(&file, &remembered)?;
        // Boxed: a relay's start is made of many futures in each other, more than the compiler follows as one.
        let running = Box::pin(embedded::start(config)).await.map_err(cannot_start)?;
        match account(&running, &remembered).await {
            Ok((user, home, is_new)) => Ok(Self { running, remembered, user, home, is_new }),
            Err(e) => {
                running.shutdown().await;
                Err(Problem::failed("relay_account", format!("the relay of this machine has no usable account: {e}")))
            }
        }
    }

    /// Ends it: requests under way finish, WebSockets are closed.
    pub async fn stop(self) {
        if tokio::time::timeout(STOP_MAX, self.running.shutdown()).await.is_err() {
            tracing::debug!("some connections were cut off; their devices try again");
        }
    }

    /// The user's id on it.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// The address for the browser of this machine.
    pub fn web_url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.remembered.web_port)
    }

    /// The address that this machine's own daemon uses.
    pub fn device_address(&self) -> String {
        format!("127.0.0.1:{}", self.remembered.device_port)
    }

    /// The account's address and password, for the browser.
    pub fn account(&self) -> (&str, &str) {
        (&self.remembered.email, &self.remembered.password)
    }

    /// A code for a device: with this machine's own addresses, or for this machine alone.
    pub async fn join_code(&self, for_others: bool) -> Outcome<String> {
        let made = self.running.app.accounts.create_join_code(self.user).await;
        let secret = made.map_err(|e| Problem::failed("join_code", e.detail().to_owned()))?.secret;
        let addresses =
            if for_others { super::addresses_of("127.0.0.1", self.remembered.device_port) } else { vec![self.device_address()] };
        let pin = self.running.certificate_sha256.map(Pin);
        JoinCode { addresses, pin, tls: true, secret }.to_text().map_err(|e| Problem::failed("join_code", e.to_string()))
    }
}

/// Chooses ports and an account.
fn first_time(port: Option<u16>) -> Outcome<Remembered> {
    let device_port = match port {
        Some(port) => port,
        None => free_port(Ipv4Addr::UNSPECIFIED.into(), PORT)?,
    };
    let web_port = free_port(Ipv4Addr::LOCALHOST.into(), device_port.checked_add(1).unwrap_or(PORT))?;
    let plain = |text: String, other: &str| {
        let text: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        if text.is_empty() { other.to_owned() } else { text.to_ascii_lowercase() }
    };
    let user = plain(std::env::var("USER").unwrap_or_default(), "me");
    let host = plain(config::host_name(), "here");
    let mut random = [0; 15];
    getrandom::fill(&mut random).map_err(|e| Problem::failed("no_randomness", e.to_string()))?;
    Ok(Remembered { device_port, web_port, email: format!("{user}@{host}.local"), password: readable(&random) })
}

/// Bytes as groups of letters and digits without look-alikes: eight bits a letter pair would be shorter, but this is typed by hand.
fn readable(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let letters: Vec<u8> = bytes.iter().map(|b| LETTERS[usize::from(b & 31)]).collect();
    let groups: Vec<_> = letters.chunks(5).map(String::from_utf8_lossy).collect();
    groups.join("-")
}

fn free_port(ip: IpAddr, first: u16) -> Outcome<u16> {
    let last = first.saturating_add(PORTS_TRIED);
    (first..=last).find(|port| TcpListener::bind((ip, *port)).is_ok()).ok_or_else(|| {
        Problem::failed("no_free_port", format!("no port from {first} to {last} is free")).hint("choose one with --port PORT")
    })
}

async fn account(running: &Running, remembered: &Remembered) -> Result<(UserId, NamespaceId, bool), ServiceError> {
    let accounts = &running.app.accounts;
    let (user, is_new) = match accounts.user_by_email(&remembered.email).await {
        Ok(user) => (user, false),
        Err(e) if e.kind() == Kind::NotFound => {
            let new = NewUser { email: &remembered.email, name: None, password: &remembered.password };
            (accounts.add_user(new, UserRole::Admin).await?, true)
        }
        Err(e) => return Err(e),
    };
    let home = running.app.content.ensure_home(user.user_id).await?;
    Ok((user.user_id, home, is_new))
}

fn cannot_start(error: StartError) -> Problem {
    let text = error.to_string().replace("--listen", "--port");
    match error {
        StartError::Listen(_) => Problem::conflict("port_taken", format!("the relay cannot start: {text}"))
            .hint("on another port, other devices must join again"),
        StartError::Busy(_) => Problem::conflict("already_running", "`ferry up` is already running here").hint("see: ferry status"),
        _ => Problem::failed("relay_failed", format!("the relay cannot start: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_port_is_taken() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port(Ipv4Addr::LOCALHOST.into(), port).unwrap() > port);
    }

    #[test]
    fn a_password_can_be_read_aloud() {
        let password = readable(&[0, 1, 31, 32, 255, 7]);
        assert_eq!(password, "ab9a9-h");
        assert!(!readable(&(0..=255).collect::<Vec<u8>>()).contains(['l', 'o', 'i', '1']));
    }
}
