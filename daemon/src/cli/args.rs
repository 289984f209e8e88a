//! The command tree.

use crate::quantity::{Rate, Span};
use crate::ui::Color;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Keep folders the same on all your devices.
#[derive(Debug, Parser)]
#[command(name = "ferry", version, propagate_version = true, infer_subcommands = false, arg_required_else_help = true)]
#[command(after_long_help = "Examples:
  ferry up ~/Ferry                     start here: a relay, an account and a folder on this machine
  ferry join CODE ~/Ferry              the same folder on a second machine
  ferry status --watch                 what is going on
  ferry why ~/Ferry/report.odt         why one file is as it is
  ferry wait --timeout 10m             block until everything is up to date

Exit codes:
  0 success   1 failure   2 wrong usage   3 daemon not running   4 login required or forbidden   5 relay unreachable
  6 some items failed   7 not found   8 conflict or confirmation needed   75 temporary, try again   130 interrupted")]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print one JSON document (or one line per event); errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// Print tables as tab-separated lines
    #[arg(long, global = true)]
    pub plain: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Print nothing but errors and what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more (repeat for still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Never ask; fail instead
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Confirm everything beforehand
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Keep everything of this device under one directory [env: FERRY_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The control socket of the daemon
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The configuration file
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start here: make it work, and go on working when run again
    #[command(
        after_long_help = "Examples:\n  ferry up                             a relay on this machine, and ~/Ferry\n  ferry up ~/Documents --name laptop\n  ferry up --relay https://files.example.org --email ana@example.org"
    )]
    Up(UpArgs),
    /// Join the devices that show this code; without a code, show one for another device
    #[command(
        after_long_help = "Examples:\n  ferry join ferry-0G1H2-... ~/Ferry     come in with a code\n  ferry join                             show a code for another device"
    )]
    Join(JoinArgs),
    /// Link this device to an account on a relay
    #[command(
        after_long_help = "Examples:\n  ferry login --relay https://files.example.org     shows an address and a code; approve it on any device\n  ferry login --relay https://files.example.org --email ana@example.org --password-stdin < password"
    )]
    Login(LoginArgs),
    /// Unlink this device from its account; the files stay
    Logout,
    /// Who this device is logged in as
    Whoami,
    /// What is going on; with paths, one line for each
    #[command(
        after_long_help = "Examples:\n  ferry status\n  ferry status --watch\n  ferry status --check && echo all is synced\n  ferry status --json | jq .state\n\nExit codes of --check: 0 up to date, 10 syncing, 11 paused, 12 problems"
    )]
    Status(StatusArgs),
    /// Block until everything is up to date
    #[command(after_long_help = "Exit codes: 0 up to date, 6 a problem stands in the way, 75 timeout")]
    Wait(WaitArgs),
    /// Explain why one path is as it is
    Why {
        /// A path in a synced folder
        path: PathBuf,
    },
    /// What happened
    Activity(ActivityArgs),
    /// Find files by name, on the relay and here
    #[command(after_long_help = "Exit codes: 0 found, 7 nothing found")]
    Search(super::search::SearchArgs),
    /// What is on its way
    Transfers {
        /// Keep showing
        #[arg(short, long)]
        watch: bool,
    },
    /// All of it on one screen, live, with keys to act: state, transfers, folders, issues, activity
    #[command(
        after_long_help = "Keys: 1 to 5 and Tab change the page, ? shows all keys, q ends it. It is a view of the daemon: ending it ends nothing.\nColours follow the terminal; NO_COLOR=1 or --color never turns them off."
    )]
    Tui,
    /// Stop syncing for a while
    Pause(PauseArgs),
    /// Go on syncing
    Resume {
        /// Only this folder
        folder: Option<String>,
    },
    /// Synced folders
    #[command(subcommand)]
    Folder(FolderCommand),
    /// Sharing with people, and public links
    #[command(subcommand)]
    Share(ShareCommand),
    /// Ignore rules
    #[command(subcommand)]
    Ignore(IgnoreCommand),
    /// Conflicted copies
    #[command(subcommand)]
    Conflict(ConflictCommand),
    /// The versions of a file: who made them, when, on which device, and what each costs on the relay
    #[command(
        disable_version_flag = true,
        after_long_help = "Examples:\n  ferry history ~/Ferry/plan.odt\n  ferry history ~/Ferry/plan.odt --json | jq '.versions[].version_number'\n  ferry history ~/Ferry/plan.odt --version 3 --label \"as sent\"\n\nCOST is what would be free on the relay without this version alone: the parts of it that nothing else in the folder shares.\nA version with a label is kept, whatever the folder's rule says."
    )]
    History(super::history::HistoryArgs),
    /// What is different between two versions of a text file, or a version and the file here
    #[command(
        after_long_help = "Examples:\n  ferry diff ~/Ferry/notes.md              what changed last\n  ferry diff ~/Ferry/notes.md 3            since version 3\n  ferry diff ~/Ferry/notes.md 3 5          from version 3 to version 5\n\nFor text (UTF-8) of at most 2 MiB. The exit code is 0 whether something is different or not."
    )]
    Diff(super::history::DiffArgs),
    /// Bring a version of a file back, as a new version on all devices; or what was deleted
    #[command(
        disable_version_flag = true,
        after_long_help = "Examples:\n  ferry restore ~/Ferry/plan.odt --version 3\n  ferry restore ~/Ferry/plan.odt --at \"2026-11-22 10:30\"\n  ferry restore ~/Ferry/plan.odt                     it was deleted: out of the trash\n  ferry restore ~/Ferry/plan.odt --version 3 --to old-plan.odt\n\nNothing is lost by it: what the file was stays among the versions. A whole folder goes back with: ferry folder rewind"
    )]
    Restore(super::history::RestoreArgs),
    /// Displaced and deleted versions that rest on this device
    #[command(subcommand)]
    Trash(TrashCommand),
    /// How long the relay keeps old versions and the trash
    #[command(subcommand)]
    Retention(super::retention::RetentionCommand),
    /// Devices nearby
    #[command(subcommand)]
    Peer(super::peer::PeerCommand),
    /// Limits of bandwidth
    #[command(subcommand)]
    Limit(LimitCommand),
    /// Settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look for what could be wrong on this device
    Doctor,
    /// The background service (systemd)
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages: one for the program, one for each command
    Man {
        /// The directory for the pages
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Run the daemon in the foreground: what systemd starts
    Daemon(DaemonArgs),
    /// Versions of this program and of the running daemon
    Version,
}

/// `ferry up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// The folder to sync [default: ~/Ferry]
    pub folder: Option<PathBuf>,
    /// Use this relay instead of one on this machine
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// The account on that relay
    #[arg(long, value_name = "EMAIL", requires = "relay")]
    pub email: Option<String>,
    /// How the password is given
    #[command(flatten)]
    pub password: PasswordArgs,
    /// A name for this device
    #[arg(long, value_name = "DEVICE")]
    pub name: Option<String>,
    /// Where the relay on this machine listens for other devices [default: port 8484 or the next free]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// `ferry join`
#[derive(Debug, Clone, Args)]
pub struct JoinArgs {
    /// The code that the other device shows; without one, shows a code for another device
    pub code: Option<String>,
    /// The folder to sync [default: ~/Ferry]
    pub folder: Option<PathBuf>,
    /// A name for this device
    #[arg(long, value_name = "DEVICE")]
    pub name: Option<String>,
}

/// How a password is given: never on the command line, where others can see it.
#[derive(Debug, Clone, Default, Args)]
pub struct PasswordArgs {
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Read the password from this file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
}

/// `ferry login`
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// The relay's address
    #[arg(long, value_name = "URL")]
    pub relay: Option<String>,
    /// Log in with the password of this account here, instead of approving this device on the relay's page
    #[arg(long, value_name = "EMAIL")]
    pub email: Option<String>,
    /// How the password is given
    #[command(flatten)]
    pub password: PasswordArgs,
    /// The code of the account's second factor, or a recovery code; asked for on a terminal
    #[arg(long, value_name = "CODE", requires = "email")]
    pub code: Option<String>,
    /// Do not open a browser
    #[arg(long)]
    pub no_browser: bool,
    /// A name for this device [default: the host's name]
    #[arg(long, value_name = "DEVICE")]
    pub name: Option<String>,
}

/// `ferry status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Explain these paths instead
    pub paths: Vec<PathBuf>,
    /// Keep showing
    #[arg(short, long, conflicts_with = "paths")]
    pub watch: bool,
    /// Say it by the exit code
    #[arg(long, conflicts_with_all = ["paths", "watch"])]
    pub check: bool,
    /// List what needs attention
    #[arg(long, conflicts_with_all = ["paths", "watch"])]
    pub issues: bool,
}

/// `ferry wait`
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Only these folders
    pub folders: Vec<String>,
    /// Give up after this time (a bare number is seconds)
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// `ferry activity`
#[derive(Debug, Clone, Args)]
pub struct ActivityArgs {
    /// Keep showing
    #[arg(short, long)]
    pub follow: bool,
    /// Only what happened in this last time, for example 1d
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
    /// Only this folder
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub limit: u32,
}

/// `ferry pause`
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    /// Only this folder
    pub folder: Option<String>,
    /// For so long, for example 2h
    #[arg(long = "for", value_name = "TIME")]
    pub duration: Option<Span>,
    /// Until this time of day, for example 18:00
    #[arg(long, value_name = "HH:MM", conflicts_with = "duration")]
    pub until: Option<String>,
}

/// `ferry folder`
#[derive(Debug, Subcommand)]
pub enum FolderCommand {
    /// List the folders of this device
    List {
        /// List the account's folders on the relay instead
        #[arg(long)]
        remote: bool,
    },
    /// Sync a directory
    #[command(
        after_long_help = "Examples:\n  ferry folder add ~/Photos                     a new synced folder\n  ferry folder add ~/Photos --remote Photos     attach to one that exists"
    )]
    Add {
        /// The directory; made if it does not exist
        path: PathBuf,
        /// Name of the folder [default: the directory's name]
        #[arg(long)]
        name: Option<String>,
        /// Attach to this folder of the account: its name or id
        #[arg(long, value_name = "FOLDER")]
        remote: Option<String>,
    },
    /// Show one folder
    Show {
        /// Name, id or path
        folder: String,
    },
    /// Stop syncing a folder on this device; its files stay
    Remove {
        /// Name, id or path
        folder: String,
    },
    /// Let many deletes that were held go through
    Approve {
        /// Name, id or path
        folder: String,
        /// Bring the files back instead
        #[arg(long)]
        reject: bool,
    },
    /// Take note of many changes by another device: its notice in the status goes
    Dismiss {
        /// Name, id or path
        folder: String,
    },
    /// Take a folder back to a time, or undo what one device or user did since then
    #[command(
        after_long_help = "Examples:\n  ferry folder rewind Photos --to 2h --dry-run\n  ferry folder rewind Photos --to \"2026-11-22 10:30\" --only-by LAPTOP\n\nEvery version stays in the history; a rewind can be taken back by another one."
    )]
    Rewind(RewindArgs),
    /// Scan the whole folder now
    Scan {
        /// Name, id or path; all without
        folder: Option<String>,
    },
    /// Change a folder: name=NAME, paused=true|false, merge-text=true|false
    Set {
        /// Name, id or path
        folder: String,
        /// KEY=VALUE
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Ignore rules
    #[command(subcommand)]
    Ignore(IgnoreCommand),
}

/// `ferry share`
#[derive(Debug, Subcommand)]
pub enum ShareCommand {
    /// Invite somebody to a synced folder, or share one file of it
    #[command(
        after_long_help = "Examples:\n  ferry share invite ~/Plans ana@example.org --role editor\n  ferry share invite ~/Plans/budget.ods ana@example.org\n\nA directory in a folder is not shared by itself: sync it as a folder of its own, or share the whole folder.\nWho has it already gets the role."
    )]
    Invite {
        /// A synced folder (name, id or path), or a file in one
        path: PathBuf,
        /// The e-mail address of the person
        user: String,
        /// What they may do
        #[arg(long, value_enum, default_value_t = ShareRole::Viewer)]
        role: ShareRole,
    },
    /// List with whom a folder or file is shared
    Members {
        /// A synced folder (name, id or path), or a file in one
        path: PathBuf,
    },
    /// Remove somebody, or withdraw an invitation
    Remove {
        /// A synced folder (name, id or path), or a file in one
        path: PathBuf,
        /// The e-mail address of the person
        user: String,
    },
    /// Leave a folder that somebody shares with you; the files here stay
    Leave {
        /// Name, id or path
        path: PathBuf,
    },
    /// List the invitations that wait for you
    Pending,
    /// Accept an invitation, and sync the folder here if you say where
    #[command(after_long_help = "Examples:\n  ferry share accept 4be81c2a ~/Plans\n  ferry share accept Plans")]
    Accept {
        /// Its id, the beginning of it, or the folder's name
        id: String,
        /// The directory; made if it does not exist
        folder: Option<PathBuf>,
        /// Name of the folder on this device [default: its own]
        #[arg(long, requires = "folder")]
        name: Option<String>,
    },
    /// Decline an invitation
    Decline {
        /// Its id, the beginning of it, or the folder's name
        id: String,
    },
    /// Public links: one file or folder for whoever has the address
    #[command(subcommand)]
    Link(super::share_link::LinkCommand),
}

/// What somebody may do with what is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ShareRole {
    /// Read
    Viewer,
    /// Read and change
    Editor,
}

impl ShareRole {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
        }
    }
}

/// `ferry folder rewind`
#[derive(Debug, Clone, Args)]
pub struct RewindArgs {
    /// Name, id or path
    pub folder: String,
    /// The time: RFC 3339, a local date and time, or so long ago (2h)
    #[arg(long, value_name = "TIME")]
    pub to: String,
    /// Only say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Only what this device changed: its name or id
    #[arg(long, value_name = "DEVICE")]
    pub only_by: Option<String>,
    /// Only what this user changed: e-mail address
    #[arg(long, value_name = "EMAIL", conflicts_with = "only_by")]
    pub only_by_user: Option<String>,
    /// Go on with a rewind that was interrupted: the id that it printed; the time and the choice are to be the same
    #[arg(long, value_name = "ID", conflicts_with = "dry_run")]
    pub id: Option<String>,
}

/// `ferry ignore` and `ferry folder ignore`
#[derive(Debug, Subcommand)]
pub enum IgnoreCommand {
    /// List the rules of a folder
    List {
        /// Name, id or path
        folder: String,
    },
    /// Add rules to a folder's .ferryignore
    Add {
        /// Name, id or path
        folder: String,
        /// Patterns, as in .gitignore
        #[arg(required = true)]
        patterns: Vec<String>,
    },
    /// Remove rules from a folder's .ferryignore
    Remove {
        /// Name, id or path
        folder: String,
        /// Patterns, as written there
        #[arg(required = true)]
        patterns: Vec<String>,
    },
    /// Say for each path whether it is ignored, and by which rule
    Check {
        /// Paths in synced folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// `ferry conflict`
#[derive(Debug, Subcommand)]
pub enum ConflictCommand {
    /// List conflicted copies
    List,
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// Settle one
    Resolve {
        /// Its id
        id: String,
        /// What to keep
        #[command(flatten)]
        keep: KeepArgs,
    },
}

/// What to keep of a conflict.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct KeepArgs {
    /// Keep this device's version
    #[arg(long)]
    pub keep_local: bool,
    /// Keep the other version
    #[arg(long)]
    pub keep_remote: bool,
    /// Keep the file that has the name, whoever wrote it
    #[arg(long)]
    pub keep_current: bool,
    /// Keep the conflicted copy, whoever wrote it
    #[arg(long)]
    pub keep_copy: bool,
    /// Keep both, as two files
    #[arg(long)]
    pub keep_both: bool,
}

/// `ferry trash`
#[derive(Debug, Subcommand)]
pub enum TrashCommand {
    /// List it
    List {
        /// Only this folder
        #[arg(long)]
        folder: Option<String>,
        /// The relay's trash instead: what was deleted on any device
        #[arg(long, requires = "folder")]
        relay: bool,
    },
    /// Put items back
    Restore {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// The folder, where an id is not enough
        #[arg(long)]
        folder: Option<String>,
        /// From the relay's trash, with what was deleted with them, on all devices
        #[arg(long, requires = "folder")]
        relay: bool,
    },
    /// Remove items for good
    Purge {
        /// Their ids
        ids: Vec<String>,
        /// Everything
        #[arg(long, conflicts_with_all = ["ids", "older_than"])]
        all: bool,
        /// What has been there for longer than this
        #[arg(long, value_name = "TIME", conflicts_with = "ids")]
        older_than: Option<Span>,
        /// Only this folder
        #[arg(long)]
        folder: Option<String>,
        /// From the relay's trash; only an owner of the folder may
        #[arg(long, requires = "folder")]
        relay: bool,
    },
}

/// `ferry limit`
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Show the limits
    Show,
    /// Set limits, for example --up 2MB/s --down none
    Set {
        /// Sending to the relay
        #[arg(long, value_name = "RATE", required_unless_present_any = ["down", "lan"])]
        up: Option<Rate>,
        /// Receiving from the relay
        #[arg(long, value_name = "RATE")]
        down: Option<Rate>,
        /// Devices nearby, in each direction
        #[arg(long, value_name = "RATE")]
        lan: Option<Rate>,
    },
}

/// `ferry config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print where the file is
    Path,
    /// List all settings, their values and where these come from
    List,
    /// Print one value
    Get {
        /// Its key
        key: String,
    },
    /// Set one value; a running daemon takes it up at once
    #[command(after_long_help = "Example:\n  ferry config set lan.enabled false")]
    Set {
        /// Its key
        key: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Go back to the default
    Unset {
        /// Its key
        key: String,
    },
    /// Edit the file in $VISUAL or $EDITOR
    Edit,
    /// Check the file
    Validate,
}

/// `ferry service`
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Install the unit, enable it and start it
    Install {
        /// Shut it off further: it sees a read-only system around the home directory
        #[arg(long)]
        sandbox: bool,
    },
    /// Stop it and remove the unit
    Uninstall,
    /// Start it
    Start,
    /// Stop it
    Stop,
    /// Restart it
    Restart,
    /// What systemd says of it
    Status,
    /// Its log
    Logs {
        /// Keep showing
        #[arg(short, long)]
        follow: bool,
    },
}

/// `ferry daemon`
#[derive(Debug, Clone, Args)]
pub struct DaemonArgs {
    /// Address for other devices on the LAN [default: [::]:0]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}
