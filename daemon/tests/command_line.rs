//! The command line as programs see it: JSON everywhere, exit codes, settings, the socket.

mod support;

use clap::CommandFactory;
use ferry_daemon::cli::args::Cli;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use support::{Device, Ran, next_record, stop, until};

/// One harmless way to run each command of the tree. `{root}` is a synced folder.
const EVERY_COMMAND: &[&str] = &[
    "join",
    "login --relay http://127.0.0.1:1 --email a@example.org --password-stdin",
    "logout",
    "whoami",
    "status",
    "wait --timeout 0",
    "why {root}/file",
    "activity",
    "search plan --type document",
    "transfers",
    "pause",
    "resume",
    "folder list",
    "folder add {root}/inner",
    "folder show Docs",
    "folder remove Nothing",
    "folder approve Docs",
    "folder dismiss Docs",
    "folder rewind Docs --to 2h --dry-run",
    "folder scan",
    "folder set Docs paused=maybe",
    "folder ignore list Docs",
    "folder ignore add Docs *.o",
    "folder ignore remove Docs *.x",
    "folder ignore check {root}/file",
    "ignore list Docs",
    "ignore add Docs *.o",
    "ignore remove Docs *.x",
    "ignore check {root}/file",
    "history {root}/file",
    "diff {root}/file",
    "restore {root}/file --version 1",
    "retention show",
    "retention set --max-versions 3",
    "retention clear",
    "retention preview",
    "conflict list",
    "conflict show 1",
    "conflict resolve 1 --keep-both",
    "conflict resolve 1 --keep-copy",
    "trash list",
    "trash restore 1",
    "trash purge --all",
    "limit show",
    "limit set --up 1MB/s",
    "config path",
    "config list",
    "config get lan.enabled",
    "config set lan.enabled false",
    "config unset lan.enabled",
    "config edit",
    "config validate",
    "doctor",
    "service install",
    "service uninstall",
    "service start",
    "service stop",
    "service restart",
    "service status",
    "service logs",
    "completion bash",
    "peer list",
    "peer show nobody",
    "peer ping nobody",
    "peer forget nobody",
    "share invite nowhere ana@example.org",
    "share members nowhere",
    "share remove nowhere ana@example.org",
    "share leave nowhere",
    "share pending",
    "share accept nothing",
    "share decline nothing",
    "share link create nowhere",
    "share link list",
    "share link show nothing",
    "share link edit nothing --max-downloads 2",
    "share link revoke nothing",
    "version",
];
/// These run until they are stopped, or write files only, and have tests of their own.
const LONG: &[&str] = &["daemon", "man", "tui", "up"];

fn leaves(command: &clap::Command, path: &str, out: &mut BTreeSet<String>) {
    let inner: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
    if inner.is_empty() {
        out.insert(path.trim().to_owned());
    }
    for sub in inner {
        leaves(sub, &format!("{path} {}", sub.get_name()), out);
    }
}

fn check_json(line: &str, ran: &Ran) {
    if ran.out.is_empty() {
        assert_ne!(ran.code, 0, "{line}: success without a document");
        let error = ran.error();
        assert_eq!((&error["type"], error["exit_code"].as_i64()), (&Value::from("error"), Some(ran.code.into())), "{line}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty() && !error["code"].as_str().unwrap().is_empty(), "{line}");
    } else {
        assert!(ran.document()["type"].is_string(), "{line}: {}", ran.out);
    }
    assert!(!ran.out.contains('\x1b') && !ran.err.contains('\x1b'), "{line}: an escape byte");
}

#[test]
fn every_command_speaks_json_on_success_and_failure() {
    let mut tree = BTreeSet::new();
    leaves(&Cli::command(), "", &mut tree);
    for leaf in &tree {
        let covered = LONG.contains(&leaf.as_str()) || EVERY_COMMAND.iter().any(|c| *c == leaf || c.starts_with(&format!("{leaf} ")));
        assert!(covered, "'ferry {leaf}' is missing in EVERY_COMMAND");
    }
    let mut device = Device::new();
    let root = device.path("docs");
    let each = |device: &Device| {
        for line in EVERY_COMMAND {
            let line = line.replace("{root}", root.to_str().unwrap());
            let arguments: Vec<&str> = line.split(' ').chain(["--json"]).collect();
            check_json(&line, &device.run_with_input(&arguments, "a password\n"));
        }
    };
    each(&device);
    device.start_daemon();
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let added = device.run(&["folder", "add", root.to_str().unwrap(), "--name", "Docs", "--json"]);
    assert_eq!(added.document()["name"], "Docs", "{}", added.err);
    each(&device);
    for wrong in [&["stauts", "--json"][..], &["pause", "--for", "never", "--json"], &["--json", "folder"]] {
        let ran = device.run(wrong);
        assert_eq!(ran.code, 2, "{wrong:?}");
        assert_eq!(ran.error()["code"], "usage", "{wrong:?}");
    }
}

#[test]
fn without_a_daemon_the_exit_code_is_three() {
    let device = Device::new();
    for arguments in [&["status"][..], &["pause"], &["folder", "list"], &["wait"]] {
        let ran = device.run(arguments);
        assert_eq!(ran.code, 3, "{arguments:?}: {}", ran.err);
        assert!(ran.err.starts_with("error: the ferry daemon is not running\n  start it with:"), "{}", ran.err);
    }
}

#[test]
fn the_status_has_the_fixed_shape() {
    let mut device = Device::new();
    device.start_daemon();
    let root = device.path("docs");
    assert_eq!(device.run(&["folder", "add", root.to_str().unwrap(), "--name", "Docs"]).code, 0);
    let status = device.run(&["status", "--json"]).document();
    assert!(status["state"].is_string());
    assert!(status["device"]["id"].is_string() && status["device"]["name"].is_string());
    assert_eq!((&status["relay"]["state"], &status["relay"]["url"]), (&Value::from("none"), &Value::Null));
    assert_eq!(status["peers"], serde_json::json!([]));
    for counter in ["lan_in_bytes", "lan_out_bytes", "relay_in_bytes", "relay_out_bytes"] {
        assert!(status["transfer"][counter].is_u64(), "{counter}");
    }
    let folder = &status["folders"][0];
    assert_eq!((&folder["name"], &folder["path"]), (&Value::from("Docs"), &Value::from(root.to_str().unwrap())));
    assert!(folder["files"].is_u64() && folder["bytes"].is_u64() && folder["issues"].is_array());
    for direction in ["upload", "download", "delete"] {
        assert!(folder["pending"][direction].is_u64(), "{direction}");
    }
    let states = ["up_to_date", "scanning", "syncing", "paused", "held", "error"];
    assert!(states.contains(&folder["state"].as_str().unwrap()), "{}", folder["state"]);
}

#[test]
fn the_socket_is_private_and_there_is_one_daemon() {
    let mut device = Device::new();
    device.start_daemon();
    let mode = |path: &str| std::fs::metadata(device.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("home/run"), mode("home/run/control.sock"), mode("home/state")), (0o700, 0o600, 0o700));
    let second = device.run(&["daemon", "--json"]);
    assert_eq!((second.code, second.error()["code"].as_str()), (8, Some("already_running")));
    assert!(second.error()["message"].as_str().unwrap().contains(&device.daemon_pid().to_string()));
    assert_eq!(device.run(&["status"]).code, 0, "the first goes on");
    assert_eq!(device.stop_daemon(), 0);
    assert!(!device.path("home/run/control.sock").exists());
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let mut device = Device::new();
    std::fs::create_dir_all(device.path("home/run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(device.path("home/run/control.sock")).unwrap());
    assert_eq!(device.run(&["status"]).code, 3);
    device.start_daemon();
}

#[test]
fn settings_are_taken_up_without_a_restart_and_wrong_ones_are_not() {
    let mut device = Device::new();
    assert_eq!(device.run(&["config", "set", "limit.up", "2MB/s"]).code, 0);
    device.start_daemon();
    assert_eq!(device.run(&["limit", "show", "--json"]).document()["up_bytes_per_s"], 2_000_000);
    assert_eq!(device.run(&["config", "set", "lan.enabled", "false"]).code, 0);
    assert_eq!(device.run(&["status", "--json"]).document()["lan"]["enabled"], false);
    assert_eq!(device.run(&["config", "get", "lan.enabled"]).out, "false\n");
    let unknown = device.run(&["config", "set", "lan.enabeld", "false", "--json"]);
    assert_eq!((unknown.code, unknown.error()["code"].as_str()), (7, Some("unknown_setting")));
    let wrong = device.run(&["config", "set", "limit.up", "fast", "--json"]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (2, Some("config_invalid")));
    std::fs::write(device.path("home/ferry.toml"), "[lan]\nenabled = perhaps\n").unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(device.daemon_pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    let invalid = device.run(&["config", "validate", "--json"]);
    assert_eq!(invalid.code, 1);
    assert!(invalid.error()["message"].as_str().unwrap().contains("ferry.toml:2:"), "{}", invalid.err);
    assert_eq!(device.run(&["status", "--json"]).document()["lan"]["enabled"], false, "the old settings stay");
}

#[test]
fn folders_are_remembered_and_none_lies_in_another() {
    let mut device = Device::new();
    device.start_daemon();
    let root = device.path("docs");
    let path = root.to_str().unwrap();
    let id = device.run(&["folder", "add", path, "--name", "Docs", "--json"]).document()["id"].clone();
    let add = |path: &str, name: &str| {
        let ran = device.run(&["folder", "add", path, "--name", name, "--json"]);
        (ran.code, ran.error()["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(add(path, "Other"), (8, "folder_exists".into()));
    assert_eq!(add(&format!("{path}/inner"), "Other"), (8, "folder_nested".into()));
    assert_eq!(add(device.path("").to_str().unwrap(), "Other"), (8, "folder_holds_state".into()));
    assert_eq!(add(device.path("more").to_str().unwrap(), "Docs"), (8, "folder_name_taken".into()));
    assert_eq!(add("/proc/version", "Other"), (2, "not_a_directory".into()));
    assert_eq!(device.run(&["folder", "add", path, "--remote", "Docs"]).code, 4, "not logged in");
    assert_eq!(device.run(&["pause", "Docs"]).code, 0);
    until("the folder is paused", || device.run(&["status", "--check"]).code == 11);
    assert_eq!(device.stop_daemon(), 0);
    device.start_daemon();
    let folders = device.run(&["folder", "list", "--json"]).document();
    assert_eq!((&folders["folders"][0]["id"], &folders["folders"][0]["paused"]), (&id, &Value::Bool(true)));
    assert_eq!(device.run(&["resume"]).code, 0);
    assert_eq!(device.run(&["folder", "set", "Docs", "name=Papers"]).code, 0);
    assert_eq!(device.run(&["folder", "show", path, "--json"]).document()["name"], "Papers");
    std::fs::write(root.join("file"), "x").unwrap();
    assert_eq!(device.run(&["folder", "remove", "Papers"]).code, 0);
    assert_eq!(std::fs::read(root.join("file")).unwrap(), b"x", "its files stay");
    assert_eq!(device.run(&["folder", "show", "Papers"]).code, 7);
}

#[test]
fn events_are_followed_as_they_come() {
    let mut device = Device::new();
    device.start_daemon();
    let (follower, mut out) = device.spawn(&["activity", "--follow", "--json"]);
    assert_eq!(next_record(&mut out)["type"], "daemon_started");
    let root = device.path("docs");
    assert_eq!(device.run(&["folder", "add", root.to_str().unwrap()]).code, 0);
    let added = std::iter::repeat_with(|| next_record(&mut out)).find(|e| e["type"] == "folder_added").unwrap();
    assert_eq!(added["folder"], "docs");
    assert_eq!(stop(follower, Signal::INT), 130);
}
