//! Folders and files shared with people: two users, their own devices, one relay. R18, R21 as daemons and the command line see them.

use super::rows::*;
use ferry_tests::cluster::{NAMESPACE, PATIENCE};
use ferry_tests::device::Device;
use ferry_tests::poll::{pause, until};
use ferry_tests::relay::Relay;
use serde_json::Value as Json;
use std::time::Duration;

const BOB: &str = "bob@example.org";
const PASSWORD: &str = "another long password";

/// Anna's device with a folder, and Bob's without one, on one relay.
struct Two {
    _folder: tempfile::TempDir,
    relay: Relay,
    anna: Device,
    bob: Device,
}

impl Two {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
        let relay = Relay::start(folder.path());
        relay.add_user(BOB, PASSWORD);
        let (mut anna, mut bob) = (Device::new(folder.path(), "A"), Device::new(folder.path(), "B"));
        anna.start();
        bob.start();
        anna.login(&relay.url());
        bob.login_as(&relay.url(), BOB, PASSWORD);
        anna.add_new(NAMESPACE);
        Self { _folder: folder, relay, anna, bob }
    }

    /// Anna invites, Bob accepts and puts the folder at its root.
    fn share(&self, role: &str) {
        self.anna.ok(&["share", "invite", NAMESPACE, BOB, "--role", role]);
        until("the notice", PATIENCE, || {
            let text = self.bob.run(&["status"]).out;
            is(&text, text.contains("1 invitation: ferry share pending"))
        });
        self.bob.ok(&["share", "accept", NAMESPACE, &self.bob.root().display().to_string()]);
    }

    /// Ends well.
    fn finish(mut self) {
        self.anna.stop();
        self.bob.stop();
        self.relay.verify();
        self.relay.stop();
    }
}

fn json(device: &Device, words: &[&str]) -> Json {
    serde_json::from_str(&device.ok(words)).expect("a document")
}

/// The way through all of it: invited, accepted, a reader, a writer, removed, invited again.
#[test]
fn a_folder_is_shared_with_a_person() {
    let two = Two::new();
    let (a, b) = (two.anna.path("d"), two.bob.path("d"));
    put(&a, "before", 1);
    two.anna.ok(&["wait", "--timeout", "60"]);
    two.anna.ok(&["share", "invite", NAMESPACE, BOB]);
    until("the invitation is in the status", PATIENCE, || {
        let status = two.bob.try_status()?;
        is(&status.to_string(), status["invitations"][0]["name"] == NAMESPACE && status["invitations"][0]["role"] == "viewer")
    });
    let activity = two.bob.ok(&["activity"]);
    assert!(activity.contains("invites you to \"Shared\" as viewer"), "{activity}");
    let waiting = json(&two.bob, &["share", "pending", "--json"]);
    let id = waiting["shares"][0]["share_id"].as_str().expect("an id").to_owned();
    let members = json(&two.anna, &["share", "members", NAMESPACE, "--json"]);
    assert_eq!(members["members"].as_array().map(Vec::len), Some(2), "{members}");
    // By the beginning of its id, mounted where Bob likes.
    let accepted = json(&two.bob, &["share", "accept", &id[..8], &two.bob.root().display().to_string(), "--json"]);
    assert_eq!((&accepted["role"], &accepted["folder"]), (&Json::from("viewer"), &Json::from(NAMESPACE)));
    until("the file appears", PATIENCE, || holds(&b, "before", 1));
    assert_eq!(two.bob.status()["folders"][0]["role"], "viewer");

    // A reader's edits stay here, beside what the others have, and are explained.
    put(&b, "mine", 2);
    put(&b, "before", 3);
    assert_eq!(two.bob.until_issue("mine"), "viewer_only");
    let why = two.bob.ok(&["why", &b.join("mine").display().to_string()]);
    assert!(why.contains("role of editor"), "{why}");
    until("what was changed is back", PATIENCE, || holds(&b, "before", 1));
    put(&a, "second", 4);
    until("the next change comes", PATIENCE, || holds(&b, "second", 4));
    only(&a, &["before", "second"]).expect("nothing of the reader's got out");

    // A writer's edits go, also those that were made as a reader.
    two.anna.ok(&["share", "invite", NAMESPACE, BOB, "--role", "editor"]);
    until("what waited goes", PATIENCE, || holds(&a, "mine", 2));
    assert_eq!(two.bob.status()["folders"][0]["role"], "editor");
    put(&b, "second", 5);
    until("an edit goes", PATIENCE, || holds(&a, "second", 5));

    // Removed: nothing more goes or comes, what is there stays, and status and why say so.
    let held = names(&b);
    two.anna.ok(&["share", "remove", NAMESPACE, BOB]);
    two.bob.until_state("error");
    put(&a, "after", 6);
    put(&b, "after too", 7);
    two.anna.ok(&["wait", "--timeout", "60"]);
    pause(Duration::from_secs(5));
    gone(&b, "after").and(gone(&a, "after too")).expect("nothing passes");
    let now = names(&b);
    assert!(held.iter().all(|name| now.contains(name)), "{held:?} {now:?}");
    for text in [two.bob.ok(&["status"]), two.bob.ok(&["why", &b.join("second").display().to_string()])] {
        assert!(text.contains("no longer shared with you"), "{text}");
    }
    assert!(two.bob.ok(&["activity"]).contains("no longer shared with you"));

    // Invited again, he goes on where he was.
    two.share_again();
    until("both have all", PATIENCE, || holds(&b, "after", 6).and(holds(&a, "after too", 7)));
    two.finish();
}

impl Two {
    fn share_again(&self) {
        self.anna.ok(&["share", "invite", NAMESPACE, BOB, "--role", "editor"]);
        until("the invitation comes", PATIENCE, || {
            let answer = self.bob.run(&["share", "accept", NAMESPACE]);
            if answer.code == 0 { Ok(()) } else { Err(answer.err) }
        });
        self.bob.until_state("up_to_date");
    }
}

/// Declined, withdrawn, left; and what the command line says to whoever may not.
#[test]
fn invitations_end_in_every_way() {
    let two = Two::new();
    let invite = || two.anna.ok(&["share", "invite", NAMESPACE, BOB]);
    let waits = |yes: bool| {
        until("the invitation comes or goes", PATIENCE, || {
            let list = json(&two.bob, &["share", "pending", "--json"]);
            is(&list.to_string(), list["shares"].as_array().is_some_and(|s| s.is_empty() != yes))
        });
    };
    invite();
    waits(true);
    two.bob.ok(&["share", "decline", NAMESPACE]);
    waits(false);
    invite();
    waits(true);
    two.anna.ok(&["share", "remove", NAMESPACE, BOB]);
    waits(false);
    let late = two.bob.run(&["share", "accept", NAMESPACE]);
    assert_eq!(late.code, 7, "{late:?}");
    // An address that nobody has is answered like any other.
    let unknown = two.anna.ok(&["share", "invite", NAMESPACE, "nobody@example.org"]);
    assert_eq!(unknown.replace("nobody", "bob"), invite());
    two.anna.ok(&["share", "remove", NAMESPACE, BOB]);
    two.share("editor");
    let b = two.bob.path("d");
    put(&two.anna.path("d"), "f", 1);
    until("the file appears", PATIENCE, || holds(&b, "f", 1));
    for words in [vec!["share", "invite", NAMESPACE, "nobody@example.org"], vec!["share", "remove", NAMESPACE, "anna@example.org"]] {
        let refused = two.bob.run(&words);
        assert_eq!(refused.code, 4, "{words:?}: {refused:?}");
    }
    let own = two.anna.run(&["share", "leave", NAMESPACE, "--yes"]);
    assert_eq!(own.code, 8, "{own:?}");
    two.bob.ok(&["share", "leave", NAMESPACE, "--yes"]);
    assert_eq!(two.bob.status()["folders"].as_array().map(Vec::len), Some(0));
    holds(&b, "f", 1).expect("his files stay");
    let alone = json(&two.anna, &["share", "members", NAMESPACE, "--json"]);
    assert_eq!(alone["members"].as_array().map(Vec::len), Some(2), "the owner, and the address that nobody has: {alone}");
    two.finish();
}

/// One file of a folder is shared by its path, and the relay's operator sees and ends it.
#[test]
fn a_file_is_shared_by_its_path() {
    let two = Two::new();
    put(&two.anna.path("d"), "plan & co.txt", 1);
    two.anna.ok(&["wait", "--timeout", "60"]);
    let path = two.anna.path("d/plan & co.txt").display().to_string();
    two.anna.ok(&["share", "invite", &path, BOB, "--role", "editor"]);
    let directory = two.anna.run(&["share", "invite", &two.anna.path("d").display().to_string(), BOB]);
    assert_eq!(directory.code, 8, "{directory:?}");
    assert!(directory.err.contains("a folder of its own"), "{directory:?}");
    let members = json(&two.anna, &["share", "members", &path, "--json"]);
    assert_eq!(members["members"][0]["permission"], "write", "{members}");
    let list = two.relay.run(&["share", "list", BOB, "--json"]);
    let list: Json = serde_json::from_slice(&list.stdout).expect("a list");
    let id = list["shares"][0]["share_id"].as_str().expect("an id").to_owned();
    assert_eq!((&list["shares"][0]["kind"], &list["shares"][0]["with"]), (&Json::from("file"), &Json::from(BOB)));
    assert!(two.relay.run(&["share", "revoke", &id]).status.success());
    assert_eq!(two.relay.run(&["share", "revoke", &id]).status.code(), Some(7));
    let members = json(&two.anna, &["share", "members", &path, "--json"]);
    assert_eq!(members["members"].as_array().map(Vec::len), Some(0), "{members}");
    two.finish();
}
