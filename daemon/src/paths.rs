//! Where this device keeps its things.
//!
//! With `FERRY_HOME` (or `--home`) everything stands under that one directory, so that several devices can run on one machine. Without it:
//! configuration in `$XDG_CONFIG_HOME/ferry`, state and index in `$XDG_STATE_HOME/ferry`, the control socket in `$XDG_RUNTIME_DIR/ferry`.

use etcetera::BaseStrategy;
use ferry_protocol::NamespaceId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Longest path that fits into a socket address, in bytes.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// What the caller gave on the command line or in the environment.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `--home` or `FERRY_HOME`.
    pub home: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
}

/// Where this device keeps its things. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The one directory of this device, if there is one.
    pub home: Option<PathBuf>,
    /// `ferry.toml`.
    pub config_file: PathBuf,
    /// Keys, account, folders, activity, indexes. Mode 0700.
    pub state_dir: PathBuf,
    /// The control socket; its directory has mode 0700.
    pub socket: PathBuf,
}

/// The places cannot be told: neither `FERRY_HOME` nor `HOME` is set.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot tell where to keep configuration and state: {0}")]
pub struct PathsError(String);

impl Paths {
    /// Computes the places; touches nothing.
    pub fn find(given: &Given) -> Result<Self, PathsError> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| PathsError(e.to_string()));
        let home = given.home.clone().or_else(|| set("FERRY_HOME")).map(|p| absolute(&p)).transpose()?;
        let mut paths = match home {
            Some(home) => Self {
                config_file: home.join("ferry.toml"),
                state_dir: home.join("state"),
                socket: home.join("run/control.sock"),
                home: Some(home),
            },
            None => Self::xdg()?,
        };
        if let Some(config) = &given.config {
            paths.config_file = absolute(config)?;
        }
        if let Some(socket) = &given.socket {
            paths.socket = absolute(socket)?;
        }
        Ok(paths)
    }

    fn xdg() -> Result<Self, PathsError> {
        let base = etcetera::base_strategy::Xdg::new().map_err(|e| PathsError(format!("{e}; set HOME or FERRY_HOME")))?;
        // `STATE_DIRECTORY` is set by the system unit; in a user unit of systemd 252 it would be the configuration directory, so that unit sets none.
        let state_dir = set("STATE_DIRECTORY")
            .unwrap_or_else(|| base.state_dir().unwrap_or_else(|| base.home_dir().join(".local/state")).join("ferry"));
        let socket = match set("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join("ferry/control.sock"),
            None => state_dir.join("run/control.sock"),
        };
        Ok(Self { home: None, config_file: base.config_dir().join("ferry/ferry.toml"), state_dir, socket })
    }

    /// The file that a running daemon holds locked.
    pub fn lock_file(&self) -> PathBuf {
        self.state_dir.join("lock")
    }

    /// What people see of the relay account.
    pub fn account_file(&self) -> PathBuf {
        self.state_dir.join("account.json")
    }

    /// The relay's grants.
    pub fn grants_file(&self) -> PathBuf {
        self.state_dir.join("grants.json")
    }

    /// The folders of this device.
    pub fn folders_file(&self) -> PathBuf {
        self.state_dir.join("folders.json")
    }

    /// The activity log.
    pub fn activity_file(&self) -> PathBuf {
        self.state_dir.join("activity.jsonl")
    }

    /// The directory of one folder's index.
    pub fn index_dir(&self, id: NamespaceId) -> PathBuf {
        self.state_dir.join("index").join(id.to_string())
    }

    /// The data of the relay that `ferry up` runs.
    pub fn relay_dir(&self) -> PathBuf {
        self.state_dir.join("relay")
    }

    /// What `ferry up` remembers: ports and account.
    pub fn up_file(&self) -> PathBuf {
        self.state_dir.join("up.json")
    }

    /// The socket's address: its path, or a way through an open directory where the path is too long for a socket address.
    pub fn socket_address(&self) -> std::io::Result<SocketAddress> {
        use std::os::unix::ffi::OsStrExt;
        if self.socket.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX_BYTES {
            return Ok(SocketAddress { path: self.socket.clone(), _dir: None });
        }
        let dir = std::fs::File::open(self.socket.parent().unwrap_or(Path::new("/")))?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
        let name = self.socket.file_name().unwrap_or_default();
        Ok(SocketAddress { path: Path::new("/proc/self/fd").join(fd.to_string()).join(name), _dir: Some(dir) })
    }
}

/// See [`Paths::socket_address`]. Keep it until the socket is bound or connected.
#[derive(Debug)]
pub struct SocketAddress {
    /// What to bind or connect to.
    pub path: PathBuf,
    _dir: Option<std::fs::File>,
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|v: &OsString| !v.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_holds_everything_and_flags_win() {
        let given = Given { home: Some("/h".into()), ..Given::default() };
        let paths = Paths::find(&given).unwrap();
        assert_eq!(paths.config_file, Path::new("/h/ferry.toml"));
        assert!(
            paths.state_dir.starts_with("/h")
                && paths.socket.starts_with("/h")
                && paths.index_dir(NamespaceId::default()).starts_with("/h")
        );
        let paths = Paths::find(&Given { socket: Some("/s/x.sock".into()), config: Some("/c.toml".into()), ..given }).unwrap();
        assert_eq!((paths.socket.as_path(), paths.config_file.as_path()), (Path::new("/s/x.sock"), Path::new("/c.toml")));
    }

    #[test]
    fn a_socket_path_of_any_length_can_be_bound_and_reached() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("x".repeat(120));
        std::fs::create_dir_all(home.join("run")).unwrap();
        let paths = Paths::find(&Given { home: Some(home), ..Given::default() }).unwrap();
        let address = paths.socket_address().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&address.path).unwrap();
        assert!(paths.socket.exists());
        let address = paths.socket_address().unwrap();
        std::os::unix::net::UnixStream::connect(&address.path).unwrap();
    }
}
