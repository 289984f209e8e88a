//! The newcomer's way: `ferry up`, `ferry join`, and logins that go wrong.

mod support;

use rustix::process::Signal;
use support::{Device, next_record, stop, until};

#[test]
fn up_makes_an_account_and_join_brings_the_files() {
    let first = Device::new();
    let folder = first.path("Ferry");
    let (up, mut out) = first.spawn(&["up", folder.to_str().unwrap(), "--name", "alpha", "--json"]);
    let ready = next_record(&mut out);
    assert_eq!(ready["type"], "ready", "{ready}");
    std::fs::write(folder.join("hello.txt"), "hello").unwrap();

    let second = Device::new();
    let there = second.path("Ferry");
    let code = ready["code"].as_str().unwrap();
    let (join, mut joined) = second.spawn(&["join", code, there.to_str().unwrap(), "--name", "beta", "--json"]);
    assert_eq!(next_record(&mut joined)["folder_id"], ready["folder_id"]);
    until("the file arrives", || std::fs::read(there.join("hello.txt")).is_ok_and(|text| text == b"hello"));
    assert_eq!(second.run(&["wait", "--timeout", "60"]).code, 0);
    let status = second.run(&["status", "--json"]).document();
    assert_eq!((status["device"]["name"].as_str(), status["relay"]["state"].as_str()), (Some("beta"), Some("connected")));
    assert_eq!(status["account"]["user"], ready["email"]);

    // A code is good once.
    let third = Device::new();
    let refused = third.run(&["join", code, third.path("x").to_str().unwrap(), "--json"]);
    assert_eq!((refused.code, refused.error()["code"].as_str()), (8, Some("code_used")), "{}", refused.err);

    logins(&third, &ready);

    // Ctrl-C ends both cleanly; the second waits for the relay, and the first goes on when it is run again.
    assert_eq!(stop(up, Signal::INT), 0);
    until("the second says that the relay is gone", || second.run(&["status", "--json"]).document()["relay"]["state"] == "offline");
    let (up, mut out) = first.spawn(&["up", "--json"]);
    let again = next_record(&mut out);
    assert_eq!((&again["web"], &again["email"], &again["folder_id"]), (&ready["web"], &ready["email"], &ready["folder_id"]));
    assert!(again["password"].is_null());
    assert_eq!(stop(up, Signal::INT), 0);
    assert_eq!(stop(join, Signal::INT), 0);
}

/// Every way in which a login goes wrong has its exit code and says what to do; the right one works without a daemon.
fn logins(device: &Device, ready: &serde_json::Value) {
    let (web, email, password) = (ready["web"].as_str().unwrap(), ready["email"].as_str().unwrap(), ready["password"].as_str().unwrap());
    let login = |relay: &str, password: &str| {
        let ran = device
            .run_with_input(&["login", "--relay", relay, "--email", email, "--password-stdin", "--name", "gamma", "--json"], password);
        let code = if ran.code == 0 { String::new() } else { ran.error()["code"].as_str().unwrap().to_owned() };
        (ran.code, code)
    };
    assert_eq!(login(web, "wrong password\n"), (4, "login_failed".into()));
    assert_eq!(login("http://127.0.0.1:1", "x\n"), (5, "relay_unreachable".into()));
    assert_eq!(login("http://relay.example.org", "x\n"), (2, "relay_url_insecure".into()));
    assert_eq!(login("relay", "x\n"), (2, "relay_url_invalid".into()));
    assert_eq!(login(web, "\n"), (2, "password_needed".into()));
    assert_eq!(device.run(&["whoami"]).code, 4);
    assert_eq!(login(web, &format!("{password}\n")), (0, String::new()));
    let who = device.run(&["whoami", "--json"]).document();
    assert_eq!((who["user"].as_str(), who["device"].as_str()), (Some(email), Some("gamma")));
    let state = std::fs::read_to_string(device.path("home/state/account.json")).unwrap();
    assert!(!state.contains(password), "a password is never kept");
    assert_eq!(device.run(&["logout"]).code, 0);
    assert_eq!(device.run(&["whoami"]).code, 4);
}

#[test]
fn a_taken_port_is_said() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let device = Device::new();
    let ran = device.run(&["up", device.path("Ferry").to_str().unwrap(), "--port", &port, "--json"]);
    assert_eq!((ran.code, ran.error()["code"].as_str()), (8, Some("port_taken")), "{}", ran.err);
    assert!(ran.error()["message"].as_str().unwrap().contains(&port));
    assert!(!device.path("Ferry").exists());
}
