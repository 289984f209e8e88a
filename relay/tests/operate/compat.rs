//! `compat_ports`: each part of the relay on a port of its own beside the whole, and nothing else there.

use super::process::*;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;

/// The roles' ports are fixed; an address of its own gives this test all of them.
fn own_address() -> IpAddr {
    let [.., b, c, d] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, b | 1, c, d | 1))
}

#[test]
fn every_part_answers_on_its_own_port_and_no_other_part_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    add_user(&data, EMAIL);
    let ip = own_address();
    // A port below the range from which connections take theirs, and none of a role's.
    let whole = (9000..9100).map(|port| SocketAddr::new(ip, port)).find(|at| TcpListener::bind(at).is_ok()).unwrap();
    let admin = SocketAddr::new(ip, whole.port() + 100);
    let child = program(&data)
        .args(["serve", "--listen", &whole.to_string()])
        .env("FERRY_RELAY__COMPAT_PORTS", "true")
        .env("FERRY_RELAY__ADMIN__LISTEN", admin.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let relay = Relay { child, addr: whole, admin, log: data.with_extension("log") };
    until("the relay is ready", || get(whole, "/readyz").is_ok_and(|a| a.status == 200));
    let token = relay.login();
    let file = relay.upload(&token, "a file", b"its content");
    let init =
        json!({"file_name": "other", "file_size": 5, "file_hash": ferry_protocol::ContentHash::of(b"other").to_string()}).to_string();
    let login = json!({"email": EMAIL, "password": PASSWORD}).to_string();
    let routes = [
        (8001, "POST", "/auth/login".to_owned(), login.as_str()),
        (8001, "GET", "/api/v1/me/sessions".to_owned(), ""),
        (8002, "GET", "/api/v1/me/usage".to_owned(), ""),
        (8003, "POST", "/upload/init".to_owned(), init.as_str()),
        (8004, "GET", format!("/download/{file}"), ""),
        (8005, "GET", "/sync/v1/namespaces".to_owned(), ""),
    ];
    for (owner, method, path, body) in &routes {
        for port in 8001..=8005 {
            let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
            let headers = format!("{kind}Authorization: Bearer {token}\r\n");
            let answer = ask(SocketAddr::new(ip, port), method, path, &headers, body.as_bytes()).unwrap();
            if port == *owner {
                assert!((200..300).contains(&answer.status), "{path} on {port}: {} {}", answer.status, answer.text());
            } else {
                assert_eq!(answer.status, 404, "{path} on {port}: {}", answer.text());
            }
        }
        assert!(
            ask(whole, method, path, &format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"), body.as_bytes())
                .is_ok_and(|a| (200..300).contains(&a.status))
        );
    }
    for port in 8001..=8005 {
        assert_eq!(get(SocketAddr::new(ip, port), "/readyz").unwrap().status, 200, "a balancer asks each");
        assert_eq!(get(SocketAddr::new(ip, port), "/").unwrap().status, 404, "pages are on the port of the whole");
    }
    relay.term();
    relay.ends_well();
}
