//! WebDAV with the programs that people use: the protocol's own test suite, rclone, davfs2 and cadaver against real relay processes, and a daemon that sees
//! what they do and they what it does.

use ferry_tests::cluster::{Cluster, NAMESPACE};
use ferry_tests::poll::until_true;
use ferry_tests::postgres;
use ferry_tests::relay::{EMAIL, PASSWORD, Relay};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How many tests each part of litmus 0.13 has.
const LITMUS: [(&str, usize); 5] = [("basic", 16), ("copymove", 13), ("props", 30), ("locks", 41), ("http", 4)];

/// An app password for WebDAV.
fn password(relay: &Relay) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::builder().no_proxy().build().expect("a client");
    let send = |path: &str, token: Option<&str>, body: Value| -> Value {
        let mut request = client.post(format!("{}{path}", relay.url())).header("content-type", "application/json").body(body.to_string());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let text = request.send().expect("an answer").text().expect("a body");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let login = send("/auth/login", None, json!({"email": EMAIL, "password": PASSWORD}));
    let token = login["access_token"].as_str().unwrap_or_else(|| panic!("{login}"));
    let made = send("/api/v1/me/tokens", Some(token), json!({"name": "mount", "scopes": ["dav"]}));
    made["secret"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn ran(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// All of litmus passes.
fn litmus(relay: &Relay, folder: &Path) {
    let output = Command::new("litmus")
        .args([&format!("{}/dav/Ferry/", relay.url()), EMAIL, &password(relay)])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("litmus is installed (Debian package litmus)");
    let text = ran(&output);
    for (part, tests) in LITMUS {
        let wanted = format!("<- summary for `{part}': of {tests} tests run: {tests} passed, 0 failed. 100.0%");
        assert!(text.contains(&wanted), "{text}");
    }
}

#[test]
fn litmus_passes_on_sqlite() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut relay = Relay::start(folder.path());
    litmus(&relay, folder.path());
    relay.verify();
    relay.stop();
}

/// On PostgreSQL, and a lock that one process gave holds at another.
#[test]
fn litmus_passes_on_postgres_and_processes_share_locks() {
    let server = postgres::Cluster::start();
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let (database, blobs) = (server.database(), format!("file://{}", folders[0].path().join("blobs").display()));
    let settings = [("FERRY_RELAY__DATABASE__URL", database.as_str()), ("FERRY_RELAY__BLOBS__URL", blobs.as_str())];
    let mut first = Relay::start_with(folders[0].path(), &settings);
    litmus(&first, folders[0].path());
    first.verify();

    let mut second = Relay::start_another(folders[1].path(), &settings);
    let secret = password(&first);
    let client = Client::builder().no_proxy().build().expect("a client");
    let ask = |relay: &Relay, method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = client.request(method, format!("{}/dav/Ferry/{path}", relay.url())).basic_auth(EMAIL, Some(&secret));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.to_owned()).send().expect("an answer")
    };
    let wanted = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    assert_eq!(ask(&first, "PUT", "shared", &[], "one").status(), 201);
    let locked = ask(&first, "LOCK", "shared", &[("timeout", "Second-300")], wanted);
    assert_eq!(locked.status(), 200);
    let condition = format!("({})", locked.headers()["lock-token"].to_str().expect("text"));
    assert_eq!(ask(&second, "LOCK", "shared", &[], wanted).status(), 423);
    assert_eq!(ask(&second, "PUT", "shared", &[], "two").status(), 423);
    assert_eq!(ask(&second, "PUT", "shared", &[("if", &condition)], "two").status(), 204);
    assert_eq!(ask(&first, "GET", "shared", &[], "").text().expect("a body"), "two");
    second.stop();
    first.stop();
}

/// What rclone, davfs2 and cadaver write is on the device's disk, and the other way round.
#[test]
fn people_and_devices_see_the_same_files() {
    let mut cluster = Cluster::new(1);
    let (relay, device) = (&cluster.relay, &cluster.devices[0]);
    let secret = password(relay);
    let url = format!("{}/dav/{NAMESPACE}", relay.url());
    let folder = cluster.folder().join("webdav");
    let there = folder.join("there");
    let names = ["plain.txt", "a b/100%.txt", "a b/x#y?z", "ünï/cödé.txt", ".hidden", "empty"];
    for (name, k) in names.iter().zip(0u32..) {
        let path = there.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        let text = if *name == "empty" { String::new() } else { format!("{name} {k}\n").repeat(1 + 40_000 * (k as usize % 2)) };
        fs::write(&path, text).expect("a file");
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + u64::from(k));
        fs::File::options().append(true).open(&path).and_then(|f| f.set_modified(at)).expect("a time");
    }
    let obscured = ran(&Command::new("rclone").args(["obscure", &secret]).output().expect("rclone is installed"));
    let rclone = |words: &[&str]| {
        let output = Command::new("rclone")
            .args(words)
            .args(["--webdav-url", &url, "--webdav-vendor", "owncloud", "--webdav-user", EMAIL, "--webdav-pass", obscured.trim()])
            .args(["--config", "/dev/null", "--retries", "1"])
            .output()
            .expect("rclone is installed (Debian package rclone)");
        ran(&output)
    };
    let local = there.display().to_string();
    rclone(&["copy", &local, ":webdav:from-rclone"]);
    rclone(&["check", "--download", &local, ":webdav:from-rclone"]);
    // Times are kept, so that a second copy has nothing to do.
    let again = rclone(&["copy", "-v", &local, ":webdav:from-rclone"]);
    assert!(!again.contains("Copied"), "{again}");
    let on_disk = device.path("from-rclone");
    until_true("the device has what rclone wrote", Duration::from_secs(60), || {
        names.iter().all(|name| fs::read(on_disk.join(name)).ok() == fs::read(there.join(name)).ok())
    });
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).expect("a time");
    assert_eq!(time(&on_disk.join("plain.txt")), time(&there.join("plain.txt")));

    // What the device writes comes to rclone.
    fs::create_dir_all(device.path("from-device/ä ö")).expect("a folder");
    fs::write(device.path("from-device/ä ö/ü"), vec![7; 3 << 20]).expect("a file");
    cluster.settle();
    let (relay, device) = (&cluster.relay, &cluster.devices[0]);
    let back = folder.join("back");
    rclone(&["copy", ":webdav:from-device", &back.display().to_string()]);
    assert_eq!(fs::read(back.join("ä ö/ü")).expect("it came"), vec![7; 3 << 20]);
    rclone(&["moveto", ":webdav:from-device/ä ö/ü", ":webdav:moved"]);
    rclone(&["purge", ":webdav:from-device"]);
    until_true("the device has moved it", Duration::from_secs(60), || {
        device.path("moved").is_file() && !device.path("from-device").exists()
    });

    cadaver(relay, &secret, &folder);
    until_true("the device has what cadaver wrote", Duration::from_secs(60), || {
        fs::read(device.path("c/two")).ok().as_deref() == Some(b"by cadaver") && !device.path("c/one").exists()
    });
    davfs(&url, &secret, &device.path(""));
    cluster.settle();
    cluster.finish();
}

/// A session of the plainest client: make a directory, put, copy, move, lock, unlock, delete.
fn cadaver(relay: &Relay, secret: &str, folder: &Path) {
    let home = folder.join("cadaver");
    fs::create_dir_all(&home).expect("a folder");
    fs::write(home.join(".netrc"), format!("machine 127.0.0.1 login {EMAIL} password {secret}\n")).expect("a file");
    fs::write(home.join("local"), "by cadaver").expect("a file");
    let session =
        "mkcol c\ncd c\nput local one\nlock one\nput local one\nunlock one\ncopy one two\nmove one three\ndelete three\nls\nquit\n";
    let mut child = Command::new("cadaver")
        .arg(format!("{}/dav/{NAMESPACE}/", relay.url()))
        .env("HOME", &home)
        .current_dir(&home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cadaver is installed (Debian package cadaver)");
    child.stdin.take().expect("it is piped").write_all(session.as_bytes()).expect("it reads");
    let text = ran(&child.wait_with_output().expect("it ends"));
    assert!(!text.contains("failed") && text.contains("two"), "{text}");
}

/// A mount, written to and read like any folder. Its program works as a user of its own, who must reach its cache.
fn davfs(url: &str, secret: &str, root: &Path) {
    if !super::e2e::can_mount() || !Path::new("/dev/fuse").exists() {
        eprintln!("NOT RUN: davfs2 needs root and /dev/fuse");
        return;
    }
    let mode = |bits| <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(bits);
    let folder = tempfile::Builder::new().prefix("ferry-davfs-").permissions(mode(0o755)).tempdir().expect("a folder");
    let (cache, point, secrets) = (folder.path().join("cache"), folder.path().join("mnt"), folder.path().join("secrets"));
    fs::create_dir(&cache).and_then(|()| fs::create_dir(&point)).expect("folders");
    let groups = fs::read_to_string("/etc/group").expect("a list of groups");
    let group = groups.lines().find_map(|line| line.strip_prefix("davfs2:")?.split(':').nth(1)?.parse().ok());
    std::os::unix::fs::chown(&cache, Some(0), Some(group.expect("davfs2 is installed (Debian package davfs2)"))).expect("the group's");
    fs::set_permissions(&cache, mode(0o770)).expect("open to the group");
    fs::write(&secrets, format!("{url} {EMAIL} {secret}\n")).expect("a file");
    fs::set_permissions(&secrets, mode(0o600)).expect("closed");
    let settings = format!("secrets {}\ncache_dir {}\ndelay_upload 0\nask_auth 0\n", secrets.display(), cache.display());
    fs::write(folder.path().join("conf"), settings).expect("a file");
    let mount = Command::new("mount.davfs")
        .arg("-o")
        .arg(format!("conf={}", folder.path().join("conf").display()))
        .arg(url)
        .arg(&point)
        .stdin(Stdio::null())
        .output()
        .expect("davfs2 is installed (Debian package davfs2)");
    ran(&mount);
    let written = fs::create_dir(point.join("by-davfs")).and_then(|()| fs::write(point.join("by-davfs/note"), "through the mount"));
    let read = fs::read_to_string(point.join("c/two"));
    // Unmounting waits until everything is sent.
    ran(&Command::new("umount").arg(&point).output().expect("umount"));
    written.expect("the mount takes a file");
    assert_eq!(read.expect("the mount shows a file"), "by cadaver");
    until_true("the device has what was written through the mount", Duration::from_secs(60), || {
        fs::read_to_string(root.join("by-davfs/note")).is_ok_and(|text| text == "through the mount")
    });
}
