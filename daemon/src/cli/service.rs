//! `ferry service`: the systemd user unit.

use super::Context;
use super::args::ServiceCommand;
use crate::problem::{Outcome, Problem, exit};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The unit as it is shipped; only the program's path is put in at installation.
pub const UNIT: &str = include_str!("../../../systemd/ferry.service");
/// The drop-in that shuts the unit off further.
const SANDBOX: &str = include_str!("../../../systemd/sandbox.conf");
const NAME: &str = "ferry.service";
/// How often the unit is asked whether it runs, and how long between two questions, after the drop-in was put in.
const ACTIVE_TRIES: u32 = 20;
const ACTIVE_EVERY: Duration = Duration::from_millis(250);

/// Runs a service command.
pub fn run(context: &Context, command: &ServiceCommand) -> Outcome<u8> {
    if let Some(home) = &context.paths.home {
        return Err(Problem::conflict(
            "service_has_no_home",
            format!("the service runs the device of this user, not the one in {}", home.display()),
        )
        .hint("run this device with: ferry daemon, or leave FERRY_HOME out"));
    }
    let done = match command {
        ServiceCommand::Install { sandbox } => {
            let path = install()?;
            context.ui.message(&format!("installed {}", path.display()));
            if *sandbox {
                install_sandbox(&path)?;
                "installed, enabled and started in its sandbox"
            } else {
                "installed, enabled and started"
            }
        }
        ServiceCommand::Uninstall => {
            // It may not run, or not be enabled; what counts is that it is gone afterwards.
            let _ = systemctl(&["disable", "--now", NAME]);
            let path = unit_path()?;
            remove(&sandbox_path(&path))?;
            remove(&path)?;
            systemctl(&["daemon-reload"])?;
            "removed"
        }
        ServiceCommand::Start => verb("start", "started")?,
        ServiceCommand::Stop => verb("stop", "stopped")?,
        ServiceCommand::Restart => verb("restart", "restarted")?,
        ServiceCommand::Status => return status(context),
        ServiceCommand::Logs { follow } => return logs(context, *follow),
    };
    if context.ui.json {
        context.ui.document(&json!({"type": "service", "unit": NAME, "done": done}));
    } else {
        context.ui.done(&format!("{NAME} is {done}"));
    }
    Ok(exit::OK)
}

fn verb(verb: &str, done: &'static str) -> Outcome<&'static str> {
    systemctl(&[verb, NAME])?;
    Ok(done)
}

fn unit_path() -> Outcome<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let base = base.ok_or_else(|| Problem::failed("no_home", "HOME is not set"))?;
    Ok(base.join("systemd/user").join(NAME))
}

/// The unit for this program.
fn unit_for(program: &Path) -> Outcome<String> {
    let program = program
        .to_str()
        .filter(|p| !p.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '%' | '"' | '\\' | '$')))
        .ok_or_else(|| {
            Problem::failed("program_path", format!("the path of this program ({}) cannot stand in a unit", program.display()))
                .hint("move it, for example to ~/.local/bin/ferry")
        })?;
    Ok(UNIT.replace("/usr/bin/ferry", program))
}

fn install() -> Outcome<PathBuf> {
    let path = unit_path()?;
    let unit = unit_for(&std::env::current_exe()?)?;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&path, unit)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", NAME])?;
    Ok(path)
}

/// Where the drop-in of a unit stands.
fn sandbox_path(unit: &Path) -> PathBuf {
    unit.with_file_name(format!("{NAME}.d")).join("sandbox.conf")
}

fn remove(path: &Path) -> Outcome<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Puts the drop-in in, starts the unit with it and looks whether it runs; if not, everything is as before.
fn install_sandbox(unit: &Path) -> Outcome<()> {
    let path = sandbox_path(unit);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&path, SANDBOX)?;
    let started = systemctl(&["daemon-reload"]).and_then(|()| systemctl(&["restart", NAME]));
    if started.is_ok() && is_active() {
        return Ok(());
    }
    remove(&path)?;
    systemctl(&["daemon-reload"])?;
    // What failed may be held back by the limit on starts.
    systemctl(&["reset-failed", NAME])?;
    systemctl(&["restart", NAME])?;
    Err(Problem::failed("no_sandbox", "the daemon does not start in the sandbox; it runs without it, as before").hint(
        "the sandbox needs unprivileged user namespaces: see sysctl kernel.unprivileged_userns_clone and the log: ferry service logs",
    ))
}

/// Whether the unit runs, and still does a little later.
fn is_active() -> bool {
    let asked = || systemctl(&["is-active", "--quiet", NAME]).is_ok();
    (0..ACTIVE_TRIES).all(|_| {
        std::thread::sleep(ACTIVE_EVERY);
        asked()
    })
}

fn systemctl(arguments: &[&str]) -> Outcome<()> {
    let output =
        Command::new("systemctl").arg("--user").args(arguments).stdin(Stdio::null()).output().map_err(|e| no_systemd(&e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().to_owned();
    if said.contains("connect to bus") || said.contains("not been booted") || said.contains("No medium found") {
        return Err(no_systemd(&said));
    }
    Err(Problem::failed("service_failed", format!("systemctl --user {} failed: {said}", arguments.join(" ")))
        .hint("see: ferry service logs"))
}

fn no_systemd(why: &str) -> Problem {
    Problem::failed("no_systemd", format!("there is no systemd user session here ({why})")).hint("run the daemon yourself: ferry daemon")
}

fn status(context: &Context) -> Outcome<u8> {
    let property = |name: &str| -> Outcome<String> {
        let output = Command::new("systemctl").args(["--user", "show", NAME, "--value", "--property", name]).stdin(Stdio::null()).output();
        let output = output.map_err(|e| no_systemd(&e.to_string()))?;
        if !output.status.success() {
            return Err(no_systemd(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (active, enabled, text) = (property("ActiveState")?, property("UnitFileState")?, property("StatusText")?);
    if context.ui.json {
        context.ui.document(&json!({"type": "service", "unit": NAME, "active": active, "enabled": enabled, "status": text}));
    } else {
        let enabled = if enabled.is_empty() { "not installed" } else { &enabled };
        context.ui.line(&format!("{NAME}: {active}, {enabled}{}", if text.is_empty() { String::new() } else { format!("   {text}") }));
    }
    Ok(exit::OK)
}

fn logs(context: &Context, follow: bool) -> Outcome<u8> {
    let mut command = Command::new("journalctl");
    command.args(["--user", "--unit", NAME, "--lines", "100", "--no-pager"]);
    if follow {
        command.arg("--follow");
    }
    if context.ui.json {
        command.args(["--output", "json"]);
    }
    let status = command.stdin(Stdio::null()).status().map_err(|e| no_systemd(&e.to_string()))?;
    if status.success() { Ok(exit::OK) } else { Err(no_systemd("journalctl failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a user unit whatever drops a capability ends in status 218, and directory directives mean different places in different versions.
    #[test]
    fn the_user_unit_starts_everywhere() {
        let unit = UNIT.to_owned() + SANDBOX;
        for directive in [
            "CapabilityBoundingSet",
            "AmbientCapabilities",
            "ProtectKernelModules",
            "ProtectKernelLogs",
            "ProtectClock",
            "PrivateDevices",
            "StateDirectory",
            "ConfigurationDirectory",
            "User=",
            "notify-reload",
        ] {
            assert!(!unit.lines().any(|line| line.starts_with(directive) || line.contains(&format!("={directive}"))), "{directive}");
        }
        for line in
            ["Type=notify", "WatchdogSec=60", "NoNewPrivileges=yes", "UMask=0077", "WantedBy=default.target", "RuntimeDirectoryMode=0700"]
        {
            assert!(UNIT.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn the_system_unit_is_closed() {
        let unit = include_str!("../../../systemd/ferry@.service");
        for line in ["User=%i", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "Type=notify"] {
            assert!(unit.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn the_unit_runs_this_program() {
        let unit = unit_for(Path::new("/home/ana/.local/bin/ferry")).unwrap();
        assert!(unit.contains("ExecStart=/home/ana/.local/bin/ferry daemon\n"));
        assert!(unit_for(Path::new("/a b/ferry")).is_err());
    }
}
