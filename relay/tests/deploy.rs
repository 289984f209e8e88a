//! What relay/deploy ships is what the code means: routes, roles, ports, sizes and settings, read from the files and compared. No container runs here.

use ferry_relay::App;
use ferry_relay::config::{Config, Role};
use ferry_relay::http::{AppState, Route, router};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use yaml_rust2::{Yaml, YamlLoader};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

/// A service of the compose file; its containers are NAME-1 and NAME-2.
const SERVICES: [Role; 6] = [Role::Auth, Role::Metadata, Role::Upload, Role::Download, Role::Sync, Role::Web];

/// What each process of a service serves: WebDAV stands where the pages do.
fn served(service: Role) -> Vec<Role> {
    if service == Role::Web { vec![Role::Web, Role::Dav] } else { vec![service] }
}

/// nginx.conf, as far as it says where requests go.
struct Proxy {
    /// Names and ports by upstream.
    upstreams: BTreeMap<String, Vec<String>>,
    /// By the beginning of the path: the upstream, and the largest body in bytes.
    locations: BTreeMap<String, (String, u64)>,
}

impl Proxy {
    fn read() -> Self {
        let text = text("nginx.conf");
        let words: Vec<&str> = text.lines().map(|l| l.split('#').next().unwrap_or("")).flat_map(str::split_whitespace).collect();
        let all_max = size_after(&words, "client_max_body_size");
        let (mut upstreams, mut locations) = (BTreeMap::new(), BTreeMap::new());
        for (at, word) in words.iter().enumerate() {
            let body: Vec<&str> = words[at..].iter().copied().take_while(|w| *w != "}").collect();
            if *word == "upstream" {
                let servers = body.windows(2).filter(|w| w[0] == "server").map(|w| w[1].to_owned()).collect();
                upstreams.insert(body[1].to_owned(), servers);
            } else if *word == "location" && body[1] != "=" && !body[1].starts_with('@') {
                let to = body[body.iter().position(|w| *w == "proxy_pass").unwrap() + 1];
                let to = to.trim_start_matches("http://").trim_end_matches(';').to_owned();
                let max = if body.contains(&"client_max_body_size") { size_after(&body, "client_max_body_size") } else { all_max };
                locations.insert(body[1].to_owned(), (to, max));
            }
        }
        Self { upstreams, locations }
    }

    /// NGINX takes the longest beginning that fits.
    fn of_path(&self, path: &str) -> &(String, u64) {
        let fits = self.locations.iter().filter(|(begin, _)| path.starts_with(begin.as_str()));
        fits.max_by_key(|(begin, _)| begin.len()).unwrap().1
    }
}

/// The size that stands last of those after this word, where the outermost block comes before the blocks in it.
fn size_after(words: &[&str], name: &str) -> u64 {
    let at = words.iter().position(|w| *w == name).unwrap() + 1;
    let megabytes = words[at].trim_end_matches(';').strip_suffix('m').unwrap();
    megabytes.parse::<u64>().unwrap() << 20
}

async fn routes() -> Vec<(Role, Route)> {
    let dir = tempfile::tempdir().unwrap();
    let app = AppState::new(App::open(&Config { data: dir.path().into(), ..Config::default() }).await.unwrap());
    SERVICES.into_iter().flat_map(|service| router(&app, &served(service)).1.into_iter().map(move |route| (service, route))).collect()
}

#[tokio::test]
async fn every_route_goes_to_its_service_and_fits_through() {
    let proxy = Proxy::read();
    for (role, route) in routes().await {
        let path = route.path.replace(['{', '}', '*'], "");
        let (upstream, body_max) = proxy.of_path(&path);
        let everywhere = ["/healthz", "/readyz"].contains(&path.as_str());
        assert!(everywhere || *upstream == format!("ferry_{}", role.name()), "{path} goes to {upstream}, {} serves it", role.name());
        assert!(*body_max >= route.body_max_bytes as u64, "{path} takes {} bytes, the proxy {body_max}", route.body_max_bytes);
    }
    for service in SERVICES {
        for begin in served(service).into_iter().flat_map(Role::paths) {
            let below = format!("{}/x", begin.trim_end_matches('/'));
            assert_eq!(proxy.of_path(&below).0, format!("ferry_{}", service.name()), "{below}");
        }
    }
}

#[test]
fn each_service_stands_behind_the_proxy_twice() {
    let proxy = Proxy::read();
    assert_eq!(proxy.upstreams.len(), SERVICES.len());
    for role in SERVICES {
        let wanted = [1, 2].map(|n| format!("{}-{n}:{}", role.name(), role.port()));
        assert_eq!(proxy.upstreams[&format!("ferry_{}", role.name())], wanted);
    }
}

/// Only what says so itself is kept by the proxy, and it lies in a place where nothing private is (R38).
#[tokio::test]
async fn nothing_private_is_kept_on_the_way() {
    let text = text("nginx.conf");
    assert!(!text.contains("proxy_ignore_headers") && !text.contains("proxy_cache_valid") && !text.contains("proxy_hide_header"));
    let kept: Vec<&str> = text.split("location ").filter(|block| block.contains("proxy_cache ")).collect();
    assert!(kept.len() == 1 && kept[0].starts_with("/assets/"), "{kept:?}");
    let below: Vec<_> = routes().await.into_iter().filter(|(_, route)| route.path.starts_with("/assets/")).collect();
    assert!(!below.is_empty() && below.iter().all(|(_, route)| route.access == ferry_relay::http::Access::Public));
}

#[test]
fn nginx_takes_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    // Names of containers and a folder of the container; everything else as it is.
    let mut text = text("nginx.conf").replace("/tmp/nginx", &place);
    for role in SERVICES {
        text = text.replace(&format!("server {}-", role.name()), "server 127.0.0.");
    }
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let output =
        Command::new("nginx").args(["-t", "-e", "stderr", "-c"]).arg(&file).output().expect("nginx is installed (Debian package nginx)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("[warn]"), "{said}");
}

/// NGINX in front of nothing: what it says of a request that it could not pass on holds no token, and its refusals are problem documents (R43).
#[test]
fn the_proxy_refuses_as_the_relay_does_and_its_log_holds_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = dir.path().display().to_string();
    let mut text = text("nginx.conf").replace("/tmp/nginx", &place).replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
    for role in SERVICES {
        // Port 1 is nobody's.
        for n in [1, 2] {
            text = text.replace(&format!("server {}-{n}:{} ", role.name(), role.port()), "server 127.0.0.1:1 ");
        }
    }
    std::fs::write(dir.path().join("nginx.conf"), text).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut nginx = Command::new("nginx")
        .args(["-e", "stderr", "-g", "daemon off; master_process off;", "-c"])
        .arg(dir.path().join("nginx.conf"))
        .stderr(log)
        .spawn()
        .expect("nginx is installed (Debian package nginx)");
    let began = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed().as_secs() < 60 && nginx.try_wait().unwrap().is_none(), "nginx listens");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ask = |path: &str, more: &[&str]| {
        let url = format!("http://127.0.0.1:{port}{path}");
        let output = Command::new("curl").args(["-s", "-i", "--max-time", "30"]).args(more).arg(url).output().expect("curl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for path in ["/d/fs-secret", "/auth/oidc/x/callback?code=fs-secret", "/metadata/files/1"] {
        let answer = ask(path, &[]);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{path}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("\"code\":\"unavailable\""), "{path}: {answer}");
    }
    let large = dir.path().join("large");
    std::fs::write(&large, vec![0; 2 << 20]).unwrap();
    let answer = ask("/auth/login", &["--data-binary", &format!("@{}", large.display())]);
    assert!(answer.contains("HTTP/1.1 413 ") && answer.contains("\"code\":\"too_large\""), "{answer}");
    nginx.kill().unwrap();
    nginx.wait().unwrap();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("/metadata/files/1"), "what went wrong is said: {log}");
    assert!(!log.contains("fs-secret"), "{log}");
}

/// The proxy gives an idle connection up before the relay does: a request that meets the closing cannot be repeated if it changes something.
#[test]
fn idle_connections_end_at_the_proxy_first() {
    let text = text("nginx.conf");
    let seconds: Vec<u64> =
        text.lines().filter_map(|l| l.strip_prefix("        keepalive_timeout ")?.strip_suffix("s;")?.parse().ok()).collect();
    assert_eq!(seconds.len(), SERVICES.len());
    let relay = ferry_relay::http::Patience::default().head.as_secs();
    assert!(seconds.iter().all(|s| *s < relay), "{seconds:?}, the relay {relay}");
}

fn compose() -> Yaml {
    YamlLoader::load_from_str(&text("compose.yaml")).unwrap().remove(0)
}

/// `map[key]`, also where it is merged in with `<<`.
fn get<'y>(map: &'y Yaml, key: &str) -> &'y Yaml {
    match &map[key] {
        Yaml::BadValue if !map["<<"].is_badvalue() => get(&map["<<"], key),
        value => value,
    }
}

fn keys(map: &Yaml) -> BTreeSet<String> {
    let Some(hash) = map.as_hash() else { return BTreeSet::new() };
    let own = hash.keys().filter_map(Yaml::as_str).filter(|k| *k != "<<").map(str::to_owned);
    own.chain(keys(&map["<<"])).collect()
}

fn strings(list: &Yaml) -> BTreeSet<String> {
    list.as_vec().into_iter().flatten().filter_map(Yaml::as_str).map(str::to_owned).collect()
}

fn secrets(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn make_secrets(folder: &Path) {
    let output = Command::new(deploy("make-secrets")).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the containers of a service are started with is a configuration that the relay takes, role and port as the proxy expects them.
#[test]
fn each_service_of_the_compose_file_is_a_relay_of_its_role() {
    let dir = tempfile::tempdir().unwrap();
    make_secrets(dir.path());
    let compose = compose();
    for role in SERVICES {
        for n in [1, 2] {
            let service = get(&compose["services"], &format!("{}-{n}", role.name()));
            let environment = get(service, "environment");
            let env: BTreeMap<String, String> = keys(environment)
                .into_iter()
                .filter(|k| k.starts_with("FERRY_RELAY__"))
                .map(|k| {
                    let value = get(environment, &k).as_str().unwrap_or_else(|| panic!("{k} is no text"));
                    (
                        k,
                        value
                            .replace("/run/secrets", &dir.path().display().to_string())
                            .replace("${PUBLIC_URL:-http://localhost:8080}", "http://x"),
                    )
                })
                .collect();
            let config = Config::load(None, env.into_iter()).unwrap();
            let database = &config.database.url;
            assert!(database.starts_with("postgres://ferry:") && database.ends_with("@postgres:5432/ferry"));
            assert_eq!(config.roles().unwrap(), served(role));
            assert_eq!(config.listen_addr().unwrap().port(), role.port());
            assert!(config.redis.url.starts_with("redis://"));
            assert!(config.blobs.url.starts_with("s3://") && !config.proxies().unwrap().is_empty());
            for needed in ["postgres", "redis", "garage"] {
                assert!(keys(get(service, "depends_on")).contains(needed), "{needed}");
            }
        }
    }
    let wanted: BTreeSet<String> = SERVICES.iter().flat_map(|r| [1, 2].map(|n| format!("{}-{n}", r.name()))).collect();
    let others: BTreeSet<String> = ["nginx", "postgres", "redis", "garage"].map(str::to_owned).into();
    assert_eq!(keys(&compose["services"]), &wanted | &others);
    assert_eq!(strings(&compose["services"]["nginx"]["depends_on"]), wanted);
}

#[test]
fn secrets_are_made_once_and_each_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("secrets");
    make_secrets(&folder);
    let compose = compose();
    assert_eq!(secrets(&folder), keys(&compose["secrets"]), "those that are made are those that are declared");
    let read = || -> BTreeMap<String, Vec<u8>> {
        secrets(&folder).into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
    };
    let first = read();
    assert!(first.values().all(|bytes| bytes.len() >= 24), "none is short");
    let mut used = BTreeSet::new();
    for service in keys(&compose["services"]) {
        used.extend(strings(get(get(&compose["services"], &service), "secrets")));
    }
    assert_eq!(used, keys(&compose["secrets"]));
    make_secrets(&folder);
    assert_eq!(read(), first, "what is there stays");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&folder).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    // Nowhere does a password stand in the files that are shipped.
    for name in ["compose.yaml", "nginx.conf", "garage.toml", "Dockerfile"] {
        for line in text(name).lines().filter(|l| l.to_lowercase().contains("password") && l.contains(':')) {
            assert!(
                line.contains("/run/secrets") || line.contains("./secrets") || !line.contains('"') || line.contains("cat "),
                "{name}: {line}"
            );
        }
    }
}

/// The keys that openssl makes are keys that the relay takes, as secrets of a container.
#[test]
fn the_relay_starts_with_the_keys_that_are_made() {
    let dir = tempfile::tempdir().unwrap();
    make_secrets(dir.path());
    let folder = dir.path().join("keys");
    std::fs::create_dir(&folder).unwrap();
    for key in ["jwt_key", "grant_key", "secrets_key"] {
        std::fs::copy(dir.path().join(key), folder.join(key)).unwrap();
    }
    let run = |credentials: &Path| {
        Command::new(env!("CARGO_BIN_EXE_ferry-relay"))
            .env_clear()
            .env("CREDENTIALS_DIRECTORY", credentials)
            .env("FERRY_RELAY__DATA", dir.path().join("data"))
            .env("FERRY_RELAY__AUTH__JWT_KEY", folder.join("jwt_key"))
            .env("FERRY_RELAY__AUTH__GRANT_KEY", folder.join("grant_key"))
            .env("FERRY_RELAY__AUTH__SECRETS_KEY", folder.join("secrets_key"))
            .args(["user", "list"])
            .output()
            .unwrap()
    };
    let output = run(&folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!run(Path::new("/nowhere")).status.success(), "a key that others may read is refused outside of a container");
}

#[test]
fn the_image_runs_as_nobody_in_particular() {
    let text = text("Dockerfile");
    assert!(text.contains("\nUSER 10001\n") && text.contains("--locked") && text.contains("HEALTHCHECK"));
    let ports: Vec<String> =
        text.lines().filter_map(|l| l.strip_prefix("EXPOSE ")).flat_map(str::split_whitespace).map(str::to_owned).collect();
    let mut wanted = SERVICES.map(|role| role.port().to_string());
    wanted.sort();
    assert_eq!(ports, wanted);
}
