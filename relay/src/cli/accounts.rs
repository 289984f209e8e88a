//! Commands for accounts. They work on the database itself, whether the relay runs or not; a running relay notices within seconds.

use super::{Failure, Global, Outcome, show};
use crate::App;
use crate::http::time_text;
use crate::service::accounts::NewUser;
use crate::service::{SessionId, UserRole};
use crate::store::accounts::{User, UserChange};
use clap::Subcommand;
use ferry_protocol::DeviceId;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// All users
    List,
    /// Add a user
    Add {
        /// The e-mail address
        email: String,
        /// The user may manage users and the relay
        #[arg(long)]
        admin: bool,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// One user
    Show {
        /// The e-mail address
        email: String,
    },
    /// Change a user: quota=50GB, quota=none, role=admin, role=user, name=...
    Set {
        /// The e-mail address
        email: String,
        /// KEY=VALUE
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
    },
    /// Where a user's new chunks are stored from now on: a region of the configuration; without a name, the relay's home region
    SetRegion {
        /// The e-mail address
        email: String,
        /// The region
        region: Option<String>,
    },
    /// A code with which the user sets a new password; or, with a password given, set it
    ResetPassword {
        /// The e-mail address
        email: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Take the second factor of a user away who lost it
    ResetTotp {
        /// The e-mail address
        email: String,
    },
    /// Lock a user out; nothing is deleted
    Disable {
        /// The e-mail address
        email: String,
    },
    /// Let a user in again
    Enable {
        /// The e-mail address
        email: String,
    },
    /// Delete a user and what only they have
    Delete {
        /// The e-mail address
        email: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where a password comes from; never the command line itself, which others can see.
#[derive(clap::Args, Default)]
pub(super) struct PasswordSource {
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum DeviceCommand {
    /// Devices of a user, or of all
    List {
        /// The e-mail address
        email: Option<String>,
    },
    /// Revoke a device: its tokens are worth nothing from then on
    Revoke {
        /// The device's id
        device_id: DeviceId,
    },
}

#[derive(Subcommand)]
pub(super) enum SessionCommand {
    /// Logins of a user
    List {
        /// The e-mail address
        email: String,
    },
    /// End a login
    Revoke {
        /// The login's id
        session_id: String,
        /// Whose it is; without it all users are searched
        #[arg(long)]
        user: Option<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum InviteCommand {
    /// A code with which one person may register
    Create,
}

pub(super) async fn open(global: &Global) -> Result<App, Failure> {
    let config = global.load_beside()?;
    if let Ok(meta) = std::fs::metadata(&config.data) {
        use std::os::unix::fs::MetadataExt;
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me {
            // Files that root makes would lock the relay's own user out.
            let message = format!("{} belongs to user {}, you are {me}", config.data.display(), meta.uid());
            return Err(
                Failure::new(4, "wrong_user", message).hint(format!("run it as that user: sudo -u '#{}' ferry-relay ...", meta.uid()))
            );
        }
    }
    Ok(App::open(&config).await?)
}

impl PasswordSource {
    fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some()
    }

    fn read(&self) -> Result<String, Failure> {
        let failed = |e: std::io::Error| Failure::new(1, "password", format!("cannot read the password: {e}"));
        let text = if let Some(file) = &self.password_file {
            std::fs::read_to_string(file).map_err(failed)?
        } else if self.password_stdin {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
            line
        } else if std::io::stdin().is_terminal() {
            let first = rpassword::prompt_password("Password: ").map_err(failed)?;
            let again = rpassword::prompt_password("Once more: ").map_err(failed)?;
            if first != again {
                return Err(Failure::new(2, "password", "the two passwords differ"));
            }
            first
        } else {
            return Err(Failure::new(2, "password", "no password is given").hint("give it with --password-stdin or --password-file"));
        };
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

pub(super) async fn user(global: &Global, command: UserCommand) -> Outcome {
    match command {
        UserCommand::List => list_users(global).await,
        UserCommand::Add { email, admin, name, password } => {
            let password = password.read()?;
            let app = open(global).await?;
            let role = if admin { UserRole::Admin } else { UserRole::User };
            let user = app.accounts.add_user(NewUser { email: &email, name: name.as_deref(), password: &password }, role).await?;
            done(global, &app, format!("{} added", user.email), user_json(&user)).await
        }
        UserCommand::Show { email } => {
            let app = open(global).await?;
            let user = app.accounts.user_by_email(&email).await?;
            done(global, &app, user_text(&user), user_json(&user)).await
        }
        UserCommand::Set { email, changes } => {
            let change = parse_changes(&changes)?;
            change_user(global, &email, &change, "changed").await
        }
        UserCommand::SetRegion { email, region } => {
            let app = open(global).await?;
            let user = app.accounts.user_by_email(&email).await?;
            app.content.set_home_region(user.user_id, region.as_deref()).await?;
            let where_to = region.as_deref().map_or("the relay's home region".to_owned(), |name| format!("the region '{name}'"));
            let human = format!("what {} stores from now on goes to {where_to}; what is stored stays where it is", user.email);
            done(global, &app, human, json!({"email": user.email, "region": region})).await
        }
        UserCommand::ResetPassword { email, password } => reset_password(global, &email, &password).await,
        UserCommand::ResetTotp { email } => {
            let app = open(global).await?;
            let user = app.accounts.user_by_email(&email).await?;
            if !app.accounts.reset_totp(user.user_id).await? {
                return Err(Failure::new(7, "no_totp", format!("{} has no second factor", user.email)));
            }
            done(global, &app, format!("{} logs in without a second factor now", user.email), user_json(&user)).await
        }
        UserCommand::Disable { email } => {
            change_user(global, &email, &UserChange { disabled: Some(true), ..UserChange::default() }, "locked out").await
        }
        UserCommand::Enable { email } => {
            change_user(global, &email, &UserChange { disabled: Some(false), ..UserChange::default() }, "let in again").await
        }
        UserCommand::Delete { email, yes, dry_run } => {
            let app = open(global).await?;
            let user = app.accounts.user_by_email(&email).await?;
            if dry_run {
                let devices = app.accounts.devices(user.user_id).await?.len();
                let human = format!("would delete {}, {devices} devices and {} bytes", user.email, user.storage_used_bytes);
                return done(global, &app, human, json!({"user": user_json(&user), "devices": devices, "deleted": false})).await;
            }
            if !yes {
                confirm(&user.email)?;
            }
            app.accounts.delete_user(user.user_id).await?;
            done(global, &app, format!("{} deleted", user.email), user_json(&user)).await
        }
    }
}

/// Prints the result and closes the database.
pub(super) async fn done(global: &Global, app: &App, human: String, machine: Value) -> Outcome {
    show(global, human, &machine);
    app.close().await;
    Ok(())
}

async fn list_users(global: &Global) -> Outcome {
    let app = open(global).await?;
    let users = all_users(&app).await?;
    let lines: Vec<String> = users.iter().map(user_text).collect();
    let machine = json!({"users": users.iter().map(user_json).collect::<Vec<_>>()});
    done(
        global,
        &app,
        if lines.is_empty() { "no users yet; add one with: ferry-relay user add EMAIL --admin".into() } else { lines.join("\n") },
        machine,
    )
    .await
}

pub(super) async fn all_users(app: &App) -> Result<Vec<User>, Failure> {
    let mut users: Vec<User> = Vec::new();
    loop {
        let after = users.last().map(|u| u.email_key.clone()).unwrap_or_default();
        let page = app.accounts.users(&after, 1000).await?;
        if page.is_empty() {
            return Ok(users);
        }
        users.extend(page);
    }
}

async fn change_user(global: &Global, email: &str, change: &UserChange, what: &str) -> Outcome {
    let app = open(global).await?;
    let user = app.accounts.user_by_email(email).await?;
    let user = app.accounts.update_user(user.user_id, change).await?;
    done(global, &app, format!("{} {what}\n{}", user.email, user_text(&user)), user_json(&user)).await
}

async fn reset_password(global: &Global, email: &str, password: &PasswordSource) -> Outcome {
    let password = if password.is_given() { Some(password.read()?) } else { None };
    let app = open(global).await?;
    let user = app.accounts.user_by_email(email).await?;
    if let Some(password) = password {
        app.accounts.set_password(user.user_id, &password).await?;
        return done(global, &app, format!("the password of {} is set; all logins ended", user.email), user_json(&user)).await;
    }
    let code = app.accounts.create_reset_code(user.user_id).await?;
    let human = format!("{}\n  good for 24 hours, once: POST {}/auth/password/reset {{\"code\", \"password\"}}", code.secret, app.base_url);
    done(global, &app, human, json!({"code": code.secret, "expires_at": time_text(code.expires_at_ms)})).await
}

fn confirm(name: &str) -> Outcome {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(8, "confirmation", format!("deleting {name} needs a confirmation")).hint("repeat it with --yes"));
    }
    print!("This deletes {name} and what only they have. Type the address to go on: ");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == name { Ok(()) } else { Err(Failure::new(8, "confirmation", "not confirmed; nothing was deleted")) }
}

fn parse_changes(changes: &[String]) -> Result<UserChange, Failure> {
    let mut change = UserChange::default();
    for text in changes {
        let wrong = || {
            Failure::new(2, "usage", format!("'{text}' is not a change"))
                .hint("changes are: quota=50GB, quota=none, role=admin, role=user, name=...")
        };
        match text.split_once('=').ok_or_else(wrong)? {
            ("quota", "none") => change.storage_limit_bytes = Some(None),
            ("quota", size) => change.storage_limit_bytes = Some(Some(parse_size(size).ok_or_else(wrong)?)),
            ("role", "admin") => change.role = Some(UserRole::Admin),
            ("role", "user") => change.role = Some(UserRole::User),
            ("name", name) if !name.is_empty() => change.name = Some(name.to_owned()),
            _ => return Err(wrong()),
        }
    }
    Ok(change)
}

/// `50GB`, `1.5 TiB`, `1000`: bytes.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1_000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    let bytes = number * factor as f64;
    (number >= 0.0 && bytes < 9e18).then_some(bytes as u64)
}

fn user_text(user: &User) -> String {
    let limit = user.storage_limit_bytes.map_or("no limit".to_owned(), |n| format!("of {n}"));
    let role = if user.role == UserRole::Admin { "admin" } else { "user" };
    let state = if user.disabled { "  locked out" } else { "" };
    format!(
        "{}\t{}\t{role}\t{} bytes {limit}\tsince {}{state}",
        user.email,
        user.name,
        user.storage_used_bytes,
        time_text(user.created_at_ms)
    )
}

fn user_json(user: &User) -> Value {
    json!({
        "user_id": user.user_id, "email": user.email, "name": user.name, "role": user.role, "storage_used": user.storage_used_bytes,
        "storage_limit": user.storage_limit_bytes, "disabled": user.disabled, "created_at": time_text(user.created_at_ms),
    })
}

pub(super) async fn device(global: &Global, command: DeviceCommand) -> Outcome {
    let app = open(global).await?;
    match command {
        DeviceCommand::List { email } => {
            let users = match email {
                Some(email) => vec![app.accounts.user_by_email(&email).await?],
                None => all_users(&app).await?,
            };
            let (mut lines, mut rows) = (Vec::new(), Vec::new());
            for user in users {
                for device in app.accounts.devices(user.user_id).await? {
                    let seen = time_text(device.last_seen_at_ms);
                    let state = if device.revoked_at_ms.is_some() { "  revoked" } else { "" };
                    lines.push(format!("{}\t{}\t{}\tseen {seen}{state}", device.device_id, user.email, device.name));
                    rows.push(json!({"device_id": device.device_id, "email": user.email, "name": device.name, "last_seen_at": seen,
                        "revoked_at": device.revoked_at_ms.map(time_text)}));
                }
            }
            done(global, &app, lines.join("\n"), json!({"devices": rows})).await
        }
        DeviceCommand::Revoke { device_id } => {
            let device = app.accounts.device(device_id).await?;
            app.accounts.revoke_device(device.user_id, device_id).await?;
            done(global, &app, format!("{} revoked", device.name), json!({"device_id": device_id, "revoked": true})).await
        }
    }
}

pub(super) async fn session(global: &Global, command: SessionCommand) -> Outcome {
    let app = open(global).await?;
    match command {
        SessionCommand::List { email } => {
            let user = app.accounts.user_by_email(&email).await?;
            let sessions = app.accounts.sessions(user.user_id).await?;
            let line = |s: &crate::store::accounts::Session| {
                let device = s.device_id.map_or("no device".to_owned(), |d| d.to_string());
                format!("{}\t{device}\tused {}\tuntil {}", s.session_id, time_text(s.last_used_at_ms), time_text(s.expires_at_ms))
            };
            let rows: Vec<Value> = sessions
                .iter()
                .map(|s| json!({"session_id": s.session_id.to_string(), "device_id": s.device_id, "last_used_at": time_text(s.last_used_at_ms)}))
                .collect();
            done(global, &app, sessions.iter().map(line).collect::<Vec<_>>().join("\n"), json!({"sessions": rows})).await
        }
        SessionCommand::Revoke { session_id, user } => {
            let missing = || Failure::new(7, "not_found", "there is no such login");
            let id: SessionId = session_id.parse().map_err(|_| missing())?;
            let users = match user {
                Some(email) => vec![app.accounts.user_by_email(&email).await?],
                None => all_users(&app).await?,
            };
            for user in users {
                if app.accounts.sessions(user.user_id).await?.iter().any(|s| s.session_id == id) {
                    app.accounts.revoke_session(user.user_id, id).await?;
                    return done(global, &app, "login ended".into(), json!({"session_id": session_id, "revoked": true})).await;
                }
            }
            Err(missing())
        }
    }
}

pub(super) async fn invite(global: &Global, command: InviteCommand) -> Outcome {
    let InviteCommand::Create = command;
    let app = open(global).await?;
    let code = app.accounts.create_invite().await?;
    done(global, &app, code.secret.clone(), json!({"code": code.secret, "expires_at": time_text(code.expires_at_ms)})).await
}

pub(super) async fn setup_url(global: &Global) -> Outcome {
    let app = open(global).await?;
    let Some(code) = app.accounts.create_setup_code().await? else {
        return Err(Failure::new(8, "already_set_up", "this relay has an administrator already")
            .hint("for another one run: ferry-relay user add EMAIL --admin"));
    };
    let url = format!("{}/setup#k={}", app.base_url, code.secret);
    done(global, &app, url.clone(), json!({"url": url, "expires_at": time_text(code.expires_at_ms)})).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("50GB"), Some(50_000_000_000));
        assert_eq!(parse_size("1.5 GiB"), Some(3 << 29));
        assert_eq!(parse_size("0"), Some(0));
        for wrong in ["", "GB", "-1", "5 XB", "nan", "1e30TB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn changes_are_read_or_refused() {
        let change = parse_changes(&["quota=none".into(), "role=admin".into()]).ok().unwrap();
        assert_eq!((change.storage_limit_bytes, change.role), (Some(None), Some(UserRole::Admin)));
        for wrong in ["quota", "quota=", "role=king", "colour=red", "name="] {
            assert!(parse_changes(&[wrong.into()]).is_err(), "{wrong}");
        }
    }
}
