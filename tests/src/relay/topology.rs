//! The deployment of many processes on loopback or on a host of a test network: what one relay of it stands on, and where its processes listen.
//!
//! NGINX runs with our `relay/deploy/nginx.conf`, in which only addresses are put in; each service runs once. PostgreSQL is one server for the whole
//! test run, with a database for each relay; Redis, the S3 server, NGINX and the services are each relay's own.

use crate::net::Host;
use crate::postgres::Cluster;
use crate::programs::free_port;
use crate::proxy::Proxy;
use crate::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The services with the ports that nginx.conf names.
const ROLES: [(&str, u16); 6] = [("auth", 8001), ("metadata", 8002), ("upload", 8003), ("download", 8004), ("sync", 8005), ("web", 8000)];
/// Below which the relay's objects are in the bucket.
const PREFIX: &str = "relay";

/// One process of the relay.
pub(super) struct Service {
    pub role: &'static str,
    pub address: SocketAddrV4,
}

impl Service {
    /// What it is told to serve: the pages and WebDAV are one process, as deployed.
    pub fn serves(&self) -> &'static str {
        if self.role == "web" { "web,dav" } else { self.role }
    }
}

/// What a relay of many processes stands on.
pub struct Topology {
    folder: PathBuf,
    ports: [u16; ROLES.len()],
    settings: Vec<(String, String)>,
    database: String,
    copies: AtomicU32,
    redis: Child,
    s3: S3Server,
    /// From the relay's host to PostgreSQL, which is on the machine's own network.
    _to_postgres: Option<Proxy>,
}

impl Topology {
    /// Starts everything but the relay's own processes, below `folder`, for a relay that NGINX gives this address.
    pub(super) fn start(folder: &Path, address: SocketAddrV4, host: Option<&Host>) -> Self {
        let folder = folder.join("topology");
        for part in ["keys", "nginx", "redis"] {
            std::fs::create_dir_all(folder.join(part)).expect("a folder");
        }
        let on_host = |program: PathBuf| host.map_or_else(|| Command::new(&program), |host| host.command(&program));
        let redis_port = free_port();
        let mut redis = on_host(system_program("redis-server"));
        redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &redis_port.to_string(), "--dir"]);
        let redis = redis.arg(folder.join("redis")).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("redis-server starts");
        let s3 = S3Server::start_on(host, &folder.join("s3"));

        let database = postgres().database();
        let to_postgres = host.map(|host| Proxy::on(host, postgres().port()));
        let port = to_postgres.as_ref().map_or(postgres().port(), Proxy::port);
        let name = database.rsplit('/').next().expect("an address ends with the database").to_owned();
        let mut settings: Vec<(String, String)> = [
            ("DATABASE__URL", format!("postgres://postgres@127.0.0.1:{port}/{name}")),
            ("REDIS__URL", format!("redis://127.0.0.1:{redis_port}")),
            ("BLOBS__URL", s3.blobs_url(PREFIX)),
            ("BLOBS__ACCESS_KEY", ACCESS_KEY.into()),
            ("BLOBS__SECRET_KEY", SECRET_KEY.into()),
            ("TRUSTED_PROXIES", "127.0.0.1".into()),
            ("ADMIN__LISTEN", String::new()),
            ("PUBLIC_URL", format!("http://{address}")),
        ]
        .map(|(name, value)| (format!("FERRY_RELAY__{name}"), value))
        .into();
        for key in ["jwt", "grant", "secrets"] {
            let path = folder.join("keys").join(format!("{key}.key"));
            make_key(&path, key == "secrets");
            settings.push((format!("FERRY_RELAY__AUTH__{}_KEY", key.to_uppercase()), path.display().to_string()));
        }
        let topology = Self {
            ports: ROLES.map(|_| free_port()),
            settings,
            database: name,
            copies: AtomicU32::new(0),
            redis,
            s3,
            _to_postgres: to_postgres,
            folder,
        };
        std::fs::create_dir_all(topology.objects()).expect("a folder for objects");
        std::fs::write(topology.nginx_conf(), topology.proxy_settings(address)).expect("room");
        topology
    }

    /// Settings of every process and command.
    pub(super) fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// The relay's processes.
    pub(super) fn services(&self) -> Vec<Service> {
        let both = ROLES.into_iter().zip(self.ports);
        both.map(|((role, _), port)| Service { role, address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port) }).collect()
    }

    /// The configuration of NGINX.
    pub(super) fn nginx_conf(&self) -> PathBuf {
        self.folder.join("nginx/nginx.conf")
    }

    /// Our nginx.conf with addresses of this relay; each service stands there once.
    fn proxy_settings(&self, address: SocketAddrV4) -> String {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relay/deploy/nginx.conf");
        let text = std::fs::read_to_string(&ours).unwrap_or_else(|e| panic!("{}: {e}", ours.display()));
        let place = self.folder.join("nginx").display().to_string();
        let mut text = text.replace("/tmp/nginx", &place).replace("listen 8080;", &format!("listen {address};"));
        for (service, (role, port)) in self.services().iter().zip(ROLES) {
            let (first, second) = (format!("server {role}-1:{port} "), format!("server {role}-2:{port} "));
            assert!(text.contains(&first) && text.contains(&second), "nginx.conf has {role} twice");
            text = text.replace(&first, &format!("server {} ", service.address)).replace(&second, &format!("# server {role}-2 "));
        }
        text
    }

    /// Where the relay's objects are on the disk of its S3 server.
    pub(super) fn objects(&self) -> PathBuf {
        self.folder.join("s3").join(BUCKET).join(PREFIX)
    }

    /// The whole disk of the S3 server.
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join("s3")
    }

    /// The S3 server.
    pub fn s3(&self) -> &S3Server {
        &self.s3
    }

    pub(super) fn sql(&self, sql: &str) -> String {
        postgres().sql(&self.database, sql)
    }

    /// A copy of the database, which nobody uses now; its name.
    pub(super) fn copy_database(&self) -> String {
        let copy = format!("{}_copy{}", self.database, self.copies.fetch_add(1, Ordering::Relaxed));
        postgres().copy(&self.database, &copy);
        copy
    }

    /// The database as it was when it was copied.
    pub(super) fn restore_database(&mut self, copy: &str) {
        postgres().remove(&self.database);
        postgres().copy(copy, &self.database);
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        let _ = self.redis.kill();
        let _ = self.redis.wait();
        if !std::thread::panicking() {
            let copies = (0..self.copies.load(Ordering::Relaxed)).map(|n| format!("{}_copy{n}", self.database));
            copies.chain([self.database.clone()]).for_each(|name| postgres().remove(&name));
        }
    }
}

/// The server of this run; it ends with the process, because its keeper hears of that.
fn postgres() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start_with(&["max_connections=800"]))
}

/// A program of the system, also of a folder that is only in root's path.
///
/// # Panics
///
/// When it is not installed.
pub(super) fn system_program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = folders.find_map(|folder| Some(Path::new(folder).join(name)).filter(|p| p.is_file()));
    found.unwrap_or_else(|| panic!("{name} is not installed; `bash tests/run` installs it"))
}

/// A key file as an operator makes it, by openssl: a signing key, or 32 bytes in hex.
fn make_key(path: &Path, is_hex: bool) {
    let words: &[&str] = if is_hex { &["rand", "-hex", "32"] } else { &["genpkey", "-algorithm", "ed25519"] };
    let output = Command::new("openssl").args(words).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(options.create(true).truncate(true).write(true), 0o600);
    let mut file = options.open(path).expect("a key file");
    std::io::Write::write_all(&mut file, &output.stdout).expect("room");
}
