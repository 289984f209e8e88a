//! The command line of `ferry-relay`: arguments, dispatch, exit codes.
//!
//! Exit codes: 0 done, 1 other failure, 2 wrong use or configuration, 4 forbidden, 5 the relay does not answer, 6 finished with findings, 7 not found,
//! 8 conflict or confirmation needed, 75 try again.

mod accounts;
mod audit;
mod backup;
mod doctor;
mod letters;
mod operate;
mod retention;
mod serve;
mod shard;
mod share;
mod storage;

use crate::StartError;
use crate::config::{Config, ConfigError, Loaded};
use crate::lock::DataLock;
use crate::service::origin::{self, Origin, Via};
use crate::service::{Kind, ServiceError};
use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Read when no other file is named.
const CONFIG_FILE: &str = "/etc/ferry-relay/relay.toml";

const EXAMPLES: &str = "Examples:
  ferry-relay serve                                   serve on port 8000, data in the default place
  ferry-relay serve --data /srv/ferry --listen 127.0.0.1:9000
  ferry-relay user add ana@example.org --admin        asks for the password
  echo \"$PASSWORD\" | ferry-relay user add bob@example.org --password-stdin
  ferry-relay config print --defaults                 everything that can be set";

#[derive(Parser)]
#[command(name = "ferry-relay", version, about = "The relay of Ferry: accounts, sharing, versions and storage.", after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes; wins over file and environment.
#[derive(clap::Args)]
struct Global {
    /// The configuration file (TOML); default: /etc/ferry-relay/relay.toml, if it is there
    #[arg(long, global = true, value_name = "FILE", env = "FERRY_RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// The directory of the database, the chunks and the keys
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Metadata: sqlite://PATH or postgres://USER@HOST:PORT/DATABASE (a password belongs in the configuration or the environment)
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// Chunks: file:///PATH or s3://BUCKET/PREFIX?endpoint=URL&region=NAME
    #[arg(long, global = true, value_name = "URL")]
    blobs: Option<String>,
    /// What several processes share: redis://HOST[:PORT]; a password belongs into FERRY_RELAY__REDIS__URL_FILE
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    fn load(&self) -> Result<Config, ConfigError> {
        Ok(self.load_with_sources()?.config)
    }

    /// The configuration, with where each setting came from.
    fn load_with_sources(&self) -> Result<Loaded, ConfigError> {
        // Variables that are not UTF-8 cannot be ours.
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let standard = Path::new(CONFIG_FILE);
        let file = self.config.as_deref().or_else(|| standard.exists().then_some(standard));
        let mut loaded = Loaded::read(file, env)?;
        if let Some(data) = &self.data {
            loaded.config.data.clone_from(data);
            loaded.option("data", "--data");
        }
        if let Some(url) = &self.database {
            loaded.config.database.url.clone_from(url);
            loaded.option("database.url", "--database");
        }
        if let Some(url) = &self.blobs {
            loaded.config.blobs.url.clone_from(url);
            loaded.option("blobs.url", "--blobs");
        }
        if let Some(url) = &self.redis {
            loaded.config.redis.url.clone_from(url);
            loaded.option("redis.url", "--redis");
        }
        loaded.check()?;
        Ok(loaded)
    }

    /// The same for a command beside a relay that may be running: links and questions go to where it really listens.
    fn load_beside(&self) -> Result<Config, ConfigError> {
        let mut config = self.load()?;
        if let Some(listen) = DataLock::announced(&config.data) {
            config.listen = listen;
        }
        Ok(config)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serve until told to stop
    Serve(serve::ServeArgs),
    /// Users: list, add, show, change, delete
    #[command(subcommand)]
    User(accounts::UserCommand),
    /// Devices: list, revoke
    #[command(subcommand)]
    Device(accounts::DeviceCommand),
    /// Logins: list, end
    #[command(subcommand)]
    Session(accounts::SessionCommand),
    /// Invitations: create, list, revoke
    #[command(subcommand)]
    Invite(letters::InviteCommand),
    /// App passwords, for programs that cannot log in: create, list, revoke
    #[command(subcommand)]
    Token(letters::TokenCommand),
    /// What is shared between users: list, revoke
    #[command(subcommand)]
    Share(share::ShareCommand),
    /// What is stored: totals, verification, sweep
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// How long old versions and trashes are kept: show, set, carry out
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Shards: list, move users between them, drain, open
    #[command(subcommand)]
    Shard(shard::ShardCommand),
    /// Backups: create, verify, restore
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// The audit log: list, export
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// A new link that makes the first administrator
    SetupUrl,
    /// The configuration: print, validate
    #[command(subcommand)]
    Config(operate::ConfigCommand),
    /// Whether the configuration can be used; the same as: config validate
    CheckConfig,
    /// Whether the running relay can serve; for containers
    Healthcheck(operate::HealthArgs),
    /// Looks for what commonly goes wrong, and says how to mend it
    Doctor,
    /// A key for the processes of one relay to share (auth.jwt_key, auth.grant_key)
    Keygen(operate::KeygenArgs),
    /// Manual pages
    Man(operate::ManArgs),
    /// The OpenAPI document
    Openapi(operate::OpenapiArgs),
    /// Completions for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A failure with its exit code.
pub(crate) struct Failure {
    exit: u8,
    code: String,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(2, "config", error.0)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => error.into(),
            StartError::Service(error) => error.into(),
            StartError::Busy(_) => Self::new(8, "busy", error.to_string()),
            StartError::Data(_) => Self::new(1, "data", error.to_string()),
            StartError::Listen(_) => Self::new(1, "listen", error.to_string()),
            StartError::Store(_) => Self::new(1, "store", error.to_string()),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let exit = match error.kind() {
            Kind::NotFound | Kind::Gone => 7,
            Kind::Conflict | Kind::PreconditionFailed => 8,
            Kind::Forbidden | Kind::Unauthenticated => 4,
            Kind::Unavailable | Kind::TooMany => 75,
            _ => 1,
        };
        // The operator may know what the callers of the HTTP interface may not.
        Self { exit, code: error.code().into(), message: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

type Outcome = Result<(), Failure>;

/// The command line as clap has it: for pages and completions.
pub fn program() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    // Database, chunks and keys are for the relay's own user, whatever the directory around them allows.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = Cli::parse();
    let json = cli.global.json;
    let failure = match run(cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    if json {
        let object =
            json!({"type": "error", "code": failure.code, "message": failure.message, "hint": failure.hint, "exit_code": failure.exit});
        eprintln!("{object}");
    } else {
        eprintln!("error: {}", failure.message);
        if let Some(hint) = failure.hint {
            eprintln!("  {hint}");
        }
    }
    ExitCode::from(failure.exit)
}

fn run(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    if let Command::Completion { shell } = command {
        clap_complete::generate(shell, &mut program(), "ferry-relay", &mut std::io::stdout());
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure::new(1, "runtime", format!("cannot start: {e}")))?;
    let operator = Origin { actor: None, ip: None, via: Via::Cli };
    runtime.block_on(origin::within(operator, async {
        match command {
            Command::Serve(args) => serve::serve(&global, args).await,
            Command::User(command) => accounts::user(&global, command).await,
            Command::Device(command) => accounts::device(&global, command).await,
            Command::Session(command) => accounts::session(&global, command).await,
            Command::Invite(command) => letters::invite(&global, command).await,
            Command::Token(command) => letters::token(&global, command).await,
            Command::Share(command) => share::share(&global, command).await,
            Command::Storage(command) => storage::storage(&global, command).await,
            Command::Retention(command) => retention::retention(&global, command).await,
            Command::Shard(command) => shard::shard(&global, command).await,
            Command::Backup(command) => backup::backup(&global, command).await,
            Command::Audit(command) => audit::audit(&global, command).await,
            Command::SetupUrl => accounts::setup_url(&global).await,
            Command::Config(command) => operate::config(&global, command),
            Command::CheckConfig => operate::check_config(&global),
            Command::Healthcheck(args) => operate::healthcheck(&global, args).await,
            Command::Doctor => doctor::doctor(&global).await,
            Command::Keygen(args) => operate::keygen(&global, &args),
            Command::Man(args) => operate::man(&global, &args),
            Command::Openapi(args) => operate::openapi(args).await,
            Command::Completion { .. } => Ok(()),
        }
    }))
}

/// Prints `human`, or `machine` when JSON was asked for.
fn show(global: &Global, human: impl std::fmt::Display, machine: &serde_json::Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // A reader that went away (`| head`) is no failure of ours.
    let _ = if global.json { writeln!(out, "{machine}") } else { writeln!(out, "{human}") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_invocations_parse() {
        for line in [
            "ferry-relay serve --data /d --listen 127.0.0.1:0 --role auth,sync --database sqlite:///x --blobs file:///y --redis redis://h/1 --tls-cert c --tls-key k",
            "ferry-relay user add a@b --password-stdin --admin --data /d",
            "ferry-relay --data /d user set a@b quota=50GB role=admin",
            "ferry-relay user reset-password a@b",
            "ferry-relay retention set a@b --all-days 30 --daily-days 365 --trash-days 90",
            "ferry-relay retention run --dry-run",
            "ferry-relay user set-region a@b eu",
            "ferry-relay user set-region a@b",
            "ferry-relay storage migrate --from default --to eu --dry-run",
            "ferry-relay storage migrate --from default --to eu --keep",
            "ferry-relay user reset-totp a@b",
            "ferry-relay device list a@b",
            "ferry-relay session revoke 00",
            "ferry-relay invite create --expires 3d",
            "ferry-relay invite list --json",
            "ferry-relay invite revoke 0011223344556677",
            "ferry-relay token create a@b --name backup --scope files:read --scope dav --expires 90d",
            "ferry-relay token list",
            "ferry-relay token list a@b --json",
            "ferry-relay token revoke 00 --user a@b",
            "ferry-relay share list a@b --json",
            "ferry-relay share revoke 00",
            "ferry-relay config print --defaults",
            "ferry-relay config validate --json",
            "ferry-relay storage verify --read-data --data /d",
            "ferry-relay storage gc --dry-run",
            "ferry-relay storage new-epoch",
            "ferry-relay storage repair --dry-run",
            "ferry-relay shard list --json",
            "ferry-relay shard move a@b --to 2 --dry-run",
            "ferry-relay shard move 000102030405060708090a0b0c0d0e0f --to 2 --pause 5 --json",
            "ferry-relay shard drain 1 --to 2 --settle 0",
            "ferry-relay shard open 1 --json",
            "ferry-relay backup create -o /b --json",
            "ferry-relay backup verify /b",
            "ferry-relay backup restore /b --data /d",
            "ferry-relay check-config",
            "ferry-relay healthcheck --url http://127.0.0.1:1",
            "ferry-relay audit list --user a@b --limit 5 --since 1d --json",
            "ferry-relay audit export --since 2026-11-01T00:00:00Z --format csv -o x",
            "ferry-relay openapi -o x",
            "ferry-relay completion bash",
            "ferry-relay keygen -o k",
            "ferry-relay man -o d",
            "ferry-relay user delete a@b --dry-run",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }
}
