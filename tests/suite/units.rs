//! The systemd units: each is accepted by systemd, and shut off as far as docs/OPERATIONS.md says. No systemd needs to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Each unit, whose manager runs it, and the most that `systemd-analyze security` may find, in tenths of its score of exposure (100 is bare).
const UNITS: &[(&str, bool, &[&str], u32)] = &[
    ("ferry.service", true, &[], 65),
    ("ferry.service", true, &["sandbox.conf"], 56),
    ("ferry@.service", false, &[], 25),
    ("ferry-relay.service", false, &[], 15),
];

fn shipped(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The unit with its drop-ins in a folder of its own. Its program is one that is there: `verify` looks.
fn laid_out(folder: &Path, name: &str, drop_ins: &[&str]) -> PathBuf {
    let unit = folder.join(name);
    let text = shipped(name).replace("/usr/bin/ferry-relay", "/bin/true").replace("/usr/bin/ferry", "/bin/true");
    std::fs::write(&unit, text).unwrap();
    for drop_in in drop_ins {
        let dir = folder.join(format!("{name}.d"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(drop_in), shipped(drop_in)).unwrap();
    }
    unit
}

fn analyze(folder: &Path, user: bool, words: &[&str], unit: &Path) -> Output {
    let mut command = Command::new("systemd-analyze");
    if user {
        command.arg("--user");
    }
    // A user manager has a runtime directory; there need not be one here.
    command.env("XDG_RUNTIME_DIR", folder).args(words).arg(unit).output().expect("systemd-analyze (Debian package systemd) is there")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn units_are_accepted_by_systemd() {
    for (name, user, drop_ins, _) in UNITS {
        let folder = tempfile::tempdir().unwrap();
        let unit = laid_out(folder.path(), name, drop_ins);
        let output = analyze(folder.path(), *user, &["verify", "--man=no"], &unit);
        assert!(output.status.success() && said(&output).trim().is_empty(), "{name}: {}", said(&output));
    }
}

#[test]
fn units_are_shut_off_as_far_as_we_say() {
    for (name, user, drop_ins, most) in UNITS {
        let folder = tempfile::tempdir().unwrap();
        let unit = laid_out(folder.path(), name, drop_ins);
        let judged = |threshold: u32| {
            let threshold = format!("--threshold={threshold}");
            analyze(folder.path(), *user, &["security", "--offline=true", "--no-pager", &threshold], &unit)
        };
        let output = judged(*most);
        assert!(output.status.success(), "{name} with {drop_ins:?} is more exposed than {most}: {}", said(&output));
        // The tool really judges: nothing is as closed as this.
        assert!(!judged(1).status.success(), "{name}: systemd-analyze accepts any score");
    }
}

/// A user manager cannot drop capabilities: a unit that asks for it ends in status 218, whatever its score.
#[test]
fn the_user_unit_drops_no_capability() {
    let text = shipped("ferry.service") + &shipped("sandbox.conf");
    let drops =
        ["CapabilityBoundingSet", "AmbientCapabilities", "ProtectKernelModules", "ProtectKernelLogs", "ProtectClock", "PrivateDevices"];
    let found: Vec<&str> = text.lines().filter(|l| drops.iter().any(|d| l.starts_with(d))).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Several processes of one relay need one key; that comes from outside. A secret that is not there must not keep the unit from starting: systemd
/// refuses to start it for an absolute path that is not there.
#[test]
fn the_relays_secrets_are_optional() {
    let text = shipped("ferry-relay.service");
    let credentials: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("LoadCredential=")).collect();
    assert!(credentials.contains(&"jwt_key:ferry-relay.jwt_key"), "{credentials:?}");
    assert!(credentials.iter().all(|c| c.split(':').nth(1).is_some_and(|source| !source.contains('/'))), "{credentials:?}");
}
