//! `ferry tui` in a real terminal with a real daemon: it shows, keys act, and the terminal is given back whichever way it ends.

use ferry_tests::cluster::Cluster;
use ferry_tests::device::Device;
use ferry_tests::poll::until;
use ferry_tests::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// `ferry tui` between two looks at the terminal's settings, its process id before and its exit code behind it.
fn open(device: &Device) -> Terminal {
    device.terminal("echo before=$(stty -g); sh -c 'echo pid=$$.; exec \"$FERRY\" tui'; echo code=$?.; echo after=$(stty -g)")
}

/// The text behind a word, up to the end of its line or a full stop.
fn said(raw: &str, word: &str) -> Option<String> {
    let rest = raw.split_once(word)?.1;
    rest.find(['.', '\r', '\n']).map(|end| rest[..end].to_owned())
}

/// The terminal is as it was: its settings, its other screen put away, its cursor shown.
fn check_given_back(raw: &str) {
    assert_eq!(said(raw, "before="), said(raw, "after="), "the settings are as before");
    let (left, shown) = (raw.rfind("\x1b[?1049l"), raw.rfind("\x1b[?25h"));
    assert!(left.is_some() && left > raw.rfind("\x1b[?1049h"), "the page is put away");
    assert!(shown > raw.rfind("\x1b[?25l"), "the cursor is shown again");
}

fn state_of(device: &Device) -> String {
    device.folder_state()
}

#[test]
fn the_page_follows_the_daemon_and_keys_act() {
    let mut cluster = Cluster::new(1);
    std::fs::write(cluster.devices[0].path("evil\x1b[2J\u{202e}name"), "bytes").expect("a file");
    cluster.settle();
    let device = &mut cluster.devices[0];
    let mut terminal = open(device);
    let page = terminal.until_shown("Up to date");
    assert!(page.contains("relay ok") && page.contains("Shared"), "{page}");
    terminal.press("\x0c5");
    terminal.until_shown("evil\\u{1b}[2J\\u{202e}name");
    terminal.press("3p");
    until("the folder is paused", Duration::from_secs(60), || match state_of(device).as_str() {
        "paused" => Ok(()),
        other => Err(other.to_owned()),
    });
    terminal.until_shown("Paused");
    terminal.press("r");
    until("the folder goes on", Duration::from_secs(60), || match state_of(device).as_str() {
        "up_to_date" => Ok(()),
        other => Err(other.to_owned()),
    });
    terminal.until_shown("Up to date");
    device.stop();
    terminal.until_shown("the ferry daemon is not running");
    device.start();
    let page = terminal.until_shown("● Up to date");
    assert!(!page.contains("not running"), "{page}");
    terminal.press("q");
    let raw = terminal.ended();
    assert_eq!(said(&raw, "code=").as_deref(), Some("0"));
    check_given_back(&raw);
    cluster.finish();
}

#[test]
fn the_terminal_is_given_back_after_a_signal_and_an_interrupt() {
    let cluster = Cluster::new(1);
    let device = &cluster.devices[0];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let terminal = open(device);
        terminal.until_shown("Up to date");
        let pid = said(&terminal.raw(), "pid=").and_then(|n| n.parse().ok()).and_then(Pid::from_raw).expect("its process id");
        kill_process(pid, signal).expect("it runs");
        let raw = terminal.ended();
        assert_eq!(said(&raw, "code=").as_deref(), Some("130"), "{signal:?}");
        check_given_back(&raw);
    }
    let mut terminal = open(device);
    terminal.until_shown("Up to date");
    terminal.press("\x03");
    let raw = terminal.ended();
    assert_eq!(said(&raw, "code=").as_deref(), Some("130"));
    check_given_back(&raw);
    let answer = device.run(&["tui"]);
    assert_eq!(answer.code, 2, "without a terminal");
    assert!(answer.err.contains("ferry status"), "{}", answer.err);
    cluster.finish();
}

#[test]
fn without_a_daemon_it_does_not_begin() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = Device::new(folder.path(), "A");
    let raw = open(&device).ended();
    assert_eq!(said(&raw, "code=").as_deref(), Some("3"), "{raw}");
    assert!(!raw.contains("\x1b[?1049h"), "the terminal was not touched");
}
