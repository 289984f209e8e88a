//! Linking this device to an account and unlinking it, with a running daemon and without one.

use super::{Account, Daemon, InstanceLock};
use crate::config;
use crate::durable;
use crate::identity::{CredentialsFile, Identity};
use crate::paths::Paths;
use crate::problem::{Outcome, Problem, exit};
use crate::relay::{DeviceInfo, JoinCode, RelayClient, RelayError, RelayOptions, RelayUrl};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long one address of a join code is tried.
const ADDRESS_MAX: Duration = Duration::from_secs(5);

/// How a device comes in. `Debug` would show secrets, so there is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enter {
    /// The relay's address.
    #[serde(default)]
    relay: Option<String>,
    /// The account.
    #[serde(default)]
    email: Option<String>,
    /// Its password.
    #[serde(default)]
    password: Option<String>,
    /// The code of the second factor, where the account has one.
    #[serde(default)]
    mfa_code: Option<String>,
    /// A join code, instead of all these.
    #[serde(default)]
    code: Option<String>,
    /// The code with which this device asked to be let in, instead of an account.
    #[serde(default)]
    device_code: Option<String>,
    /// A name for this device.
    #[serde(default)]
    name: Option<String>,
}

/// Links this device: the credentials are on the disk when this returns.
async fn enter(paths: &Paths, request: Enter) -> Outcome<(Account, Value)> {
    let name = device_name(paths, request.name.as_deref())?;
    let identity = Identity::load_or_create(&paths.state_dir)?;
    let device = DeviceInfo::new(&*name, &identity);
    let (client, credentials, email) = match (&request.code, &request.relay, &request.email, &request.password, &request.device_code) {
        (Some(code), None, None, None, None) => {
            let code: JoinCode = code
                .parse()
                .map_err(|e: crate::relay::join_code::JoinCodeError| Problem::usage(e.to_string()).code("join_code_invalid"))?;
            let client = first_that_answers(paths, &code).await?;
            let credentials = client.join(&code.secret, &device).await.map_err(not_accepted)?;
            // Only for people: without it the device is linked all the same.
            let email = client.email().await.unwrap_or_default();
            (client, credentials, email)
        }
        (None, Some(relay), Some(email), Some(password), None) => {
            let client = client(paths, relay.parse()?)?;
            let login = match &request.mfa_code {
                Some(code) => client.login_with_code(email, password, code, &device).await,
                None => client.login(email, password, &device).await,
            };
            let credentials = login.map_err(not_accepted)?;
            (client, credentials, email.clone())
        }
        (None, Some(relay), None, None, Some(device_code)) => {
            let client = client(paths, relay.parse()?)?;
            // Its words are those of OAuth: whoever waits tells "not yet" from "no" by them.
            let credentials = client.redeem(device_code).await?;
            let email = client.email().await.unwrap_or_default();
            (client, credentials, email)
        }
        _ => {
            return Err(
                Problem::usage("a login needs relay, email and password, or relay and device code, or a join code").code("invalid_request")
            );
        }
    };
    let account = Account { relay: credentials.relay.clone(), user_id: credentials.user_id, email };
    account.save(paths)?;
    let answer = json!({
        "type": "login", "user": account.user_name(), "user_id": account.user_id, "relay": account.relay_url(),
        "device": name, "device_id": credentials.device_id, "warning": client.url().warning(),
    });
    Ok((account, answer))
}

fn client(paths: &Paths, url: RelayUrl) -> Outcome<RelayClient> {
    let keep = Arc::new(CredentialsFile::new(&paths.state_dir));
    Ok(RelayClient::new(url, RelayOptions::default(), None, keep)?)
}

/// Asks a relay to let this device in; changes nothing here but the device's name, if one is given.
pub async fn begin_login(paths: &Paths, request: BeginLogin) -> Outcome<Value> {
    let name = device_name(paths, request.name.as_deref())?;
    durable::private_dir(&paths.state_dir)?;
    let identity = Identity::load_or_create(&paths.state_dir)?;
    let client = client(paths, request.relay.parse()?)?;
    let codes = match client.ask_for_login(&DeviceInfo::new(&*name, &identity), &system()).await {
        Err(RelayError::NotFound(_)) => {
            return Err(Problem::failed("version_mismatch", "this relay is too old for a login by its page")
                .hint("upgrade the relay, or log in with: ferry login --relay URL --email EMAIL"));
        }
        codes => codes?,
    };
    let mut answer = serde_json::to_value(&codes).map_err(|e| Problem::failed("login", e.to_string()))?;
    answer["type"] = "login_code".into();
    answer["device"] = name.into();
    answer["warning"] = client.url().warning().into();
    Ok(answer)
}

/// What [`begin_login`] needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginLogin {
    /// The relay's address.
    pub relay: String,
    /// A name for this device.
    #[serde(default)]
    pub name: Option<String>,
}

/// What this device runs on, for the person who lets it in.
fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"').to_owned());
    format!("{} ({})", name.filter(|n| !n.is_empty()).unwrap_or_else(|| std::env::consts::OS.to_owned()), std::env::consts::ARCH)
}

/// A refused login is not mended by logging in again: say what it was.
fn not_accepted(error: RelayError) -> Problem {
    match &error {
        RelayError::Forbidden(problem) if problem.mfa_token.is_some() => Problem::login_failed(problem.detail.clone())
            .code("mfa_required")
            .hint("give the code with --code, or log in without a password here: ferry login --relay URL"),
        RelayError::Forbidden(_) | RelayError::LoginRequired { .. } => {
            let mut problem = Problem::from(error);
            problem.exit_code = exit::LOGIN;
            problem.code = "login_failed".into();
            problem.hint("check the address and the password, or the code, and try again")
        }
        RelayError::Blocked(_) => {
            Problem::from(error).hint("a new code is shown by running `ferry join` without a code on the other device")
        }
        _ => error.into(),
    }
}

async fn first_that_answers(paths: &Paths, code: &JoinCode) -> Outcome<RelayClient> {
    let mut last = Problem::unreachable("no address of the join code can be reached");
    for url in code.urls()? {
        let candidate = client(paths, url)?;
        match tokio::time::timeout(ADDRESS_MAX, candidate.server_info()).await {
            Ok(Ok(_)) => return Ok(candidate),
            Ok(Err(e)) => last = e.into(),
            Err(_) => last = Problem::unreachable(format!("{}:{} did not answer in time", candidate.url().host(), candidate.url().port())),
        }
    }
    Err(last.hint("is `ferry up` still running on the other device, and is this device in the same network?"))
}

/// The name of this device; a given one is kept in `ferry.toml`.
fn device_name(paths: &Paths, given: Option<&str>) -> Outcome<String> {
    if let Some(name) = given {
        let clean = config::clean_device_name(name).filter(|c| c == name);
        let name = clean
            .ok_or_else(|| Problem::usage("a device name has 1 to 64 bytes, no control characters and no '/'").code("name_invalid"))?;
        config::set(&paths.config_file, "device.name", &name)?;
    }
    Ok(config::load(&paths.config_file, config::process_env, &[])?.device_name())
}

/// Links this device while no daemon runs.
pub async fn enter_without_daemon(paths: &Paths, request: Value) -> Outcome<Value> {
    let request = serde_json::from_value(request).map_err(|e| Problem::usage(e.to_string()))?;
    durable::private_dir(&paths.state_dir)?;
    let _lock = InstanceLock::take(&paths.lock_file())?;
    Ok(enter(paths, request).await?.1)
}

/// Unlinks this device while no daemon runs.
pub async fn logout_without_daemon(paths: &Paths) -> Outcome<Value> {
    let Some((account, credentials)) = Account::load(paths)? else { return Err(Problem::login_required()) };
    let _lock = InstanceLock::take(&paths.lock_file())?;
    let keep = Arc::new(CredentialsFile::new(&paths.state_dir));
    let client = RelayClient::new(credentials.relay.parse()?, RelayOptions::default(), Some(credentials), keep)?;
    let told = client.logout().await;
    Ok(logged_out(&account, told))
}

fn logged_out(account: &Account, told: Result<(), RelayError>) -> Value {
    let warning = told.err().map(|e| format!("the relay was not told ({e}); end this device's session there too"));
    json!({"type": "logout", "relay": account.relay_url(), "user": account.user_name(), "warning": warning})
}

/// Who this device is logged in as.
pub fn whoami(paths: &Paths) -> Outcome<Value> {
    let Some((account, credentials)) = Account::load(paths)? else { return Err(Problem::login_required()) };
    let name = config::load(&paths.config_file, config::process_env, &[])?.device_name();
    Ok(json!({
        "type": "whoami", "user": account.user_name(), "user_id": account.user_id, "relay": account.relay_url(),
        "device": name, "device_id": credentials.device_id,
    }))
}

impl Daemon {
    /// Links this device; the session begins at once.
    pub async fn enter(&self, request: Enter) -> Outcome<Value> {
        let _one_at_a_time = self.changing_login.lock().await;
        let (account, answer) = enter(&self.paths, request).await?;
        // The name may be new.
        self.reload()?;
        self.account.send_replace(Some(Arc::new(account)));
        self.foretell_session();
        Ok(answer)
    }

    /// Unlinks this device; its folders and files stay.
    pub async fn logout(&self) -> Outcome<Value> {
        let _one_at_a_time = self.changing_login.lock().await;
        let account = super::account::required(self.account.borrow().clone())?;
        let client = self.client.borrow().clone();
        let told = match client {
            Some(client) => client.logout().await,
            // The relay is turned off here; its session should end all the same.
            None => self.make_client()?.logout().await,
        };
        self.account.send_replace(None);
        self.foretell_session();
        Ok(logged_out(&account, told))
    }

    /// A code with which another device joins this account, and how long it is good.
    pub async fn join_code(&self) -> Outcome<Value> {
        let client = self.relay_client().await?;
        let secret = client.create_join_secret().await?;
        let url = client.url();
        let addresses = crate::up::addresses_of(url.host(), url.port());
        let code = JoinCode { addresses, pin: url.pin(), tls: url.is_tls(), secret: secret.secret };
        let text = code.to_text().map_err(|e| Problem::failed("join_code", e.to_string()))?;
        Ok(json!({"type": "join_code", "code": text, "expires_at": secret.expires_at}))
    }
}
