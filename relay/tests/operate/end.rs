//! SIGTERM: readiness falls first, running requests finish, WebSockets are told to come back.

use super::process::*;
use std::io::Write;
use std::net::TcpStream;

#[test]
fn the_end_is_told_before_it_comes_and_cuts_nothing_off() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(&dir.path().join("data"), &[("FERRY_RELAY__DRAIN__DELAY_S", "3")]);
    let token = relay.login();
    let user = relay.call("GET", "/auth/me", &token, None).json()["user_id"].as_str().unwrap().to_owned();
    let mut socket = websocket(relay.addr, &user, &token);
    assert_eq!(frame(&mut socket).0, 1, "hello");
    // An upload whose second half is still on its way.
    let content = vec![7; 300_000];
    let hash = ferry_protocol::ContentHash::of(&content).to_string();
    let init = serde_json::json!({"file_name": "slow", "file_size": content.len(), "file_hash": hash});
    let version = relay.call("POST", "/upload/init", &token, Some(&init)).json()["version_id"].as_str().unwrap().to_owned();
    let mut upload = TcpStream::connect(relay.addr).unwrap();
    upload.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        upload,
        "PUT /upload/{version}/chunks/0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .unwrap();
    upload.write_all(&content[..150_000]).unwrap();
    let in_flight = || {
        let text = get(relay.admin, "/metrics").unwrap().text();
        text.lines().find_map(|l| l.strip_prefix("ferry_relay_http_requests_in_flight ")).unwrap().parse::<f64>().unwrap()
    };
    // The question is a request itself.
    until("the relay reads the upload", || in_flight() >= 2.0);

    relay.term();
    until("it says that it is not ready", || get(relay.addr, "/readyz").unwrap().status == 503);
    // Not ready, and serving as before: whoever has not noticed yet is served.
    assert_eq!(relay.call("GET", "/auth/me", &token, None).status, 200);
    assert_eq!(get(relay.addr, "/healthz").unwrap().status, 200, "it lives");
    until("it takes nobody new", || TcpStream::connect(relay.addr).is_err());
    let tells = get(relay.admin, "/readyz").unwrap();
    assert_eq!((tells.status, &tells.json()["checks"]["accepting"]["detail"]), (503, &serde_json::json!("shutting down")));
    let close = loop {
        let (opcode, payload) = frame(&mut socket);
        if opcode == 8 {
            break payload;
        }
    };
    assert_eq!(u16::from_be_bytes([close[0], close[1]]), 1012, "come back");
    // The request that was under way is finished, late as it is.
    upload.write_all(&content[150_000..]).unwrap();
    assert_eq!(read_answer(&mut upload).unwrap().status, 200);
    relay.ends_well();
    // What it said yes to is there.
    let relay = Relay::start(&dir.path().join("data"), &[]);
    let state = relay.call("GET", &format!("/upload/{version}"), &relay.login(), None).json();
    assert_eq!(state["remaining"], 0, "{state}");
}

#[test]
fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(&dir.path().join("data"), &[("FERRY_RELAY__DRAIN__DEADLINE_S", "1")]);
    let mut stuck = TcpStream::connect(relay.addr).unwrap();
    stuck.write_all(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{").unwrap();
    until("it is under way", || {
        let text = get(relay.admin, "/metrics").unwrap().text();
        text.lines().any(|l| l == "ferry_relay_http_requests_in_flight 2")
    });
    let log = relay.log.clone();
    relay.term();
    relay.ends_well();
    assert!(std::fs::read_to_string(log).unwrap().contains("cut off"));
}
