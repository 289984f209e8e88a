//! The parts of a relay, and which paths and ports are whose.

use super::ConfigError;

/// A part of the relay: one of the seed's services, or the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Accounts, devices, tokens.
    Auth,
    /// Files, versions, trash.
    Metadata,
    /// Chunks in.
    Upload,
    /// Chunks and files out.
    Download,
    /// Feeds and wake-ups.
    Sync,
    /// Pages for people.
    Web,
    /// Folders for WebDAV clients.
    Dav,
}

impl Role {
    /// Every role with its name.
    pub const ALL: [(Role, &'static str); 7] = [
        (Role::Auth, "auth"),
        (Role::Metadata, "metadata"),
        (Role::Upload, "upload"),
        (Role::Download, "download"),
        (Role::Sync, "sync"),
        (Role::Web, "web"),
        (Role::Dav, "dav"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }

    /// The port on which it is served alone.
    pub const fn port(self) -> u16 {
        match self {
            Self::Auth => 8001,
            Self::Metadata => 8002,
            Self::Upload => 8003,
            Self::Download => 8004,
            Self::Sync => 8005,
            Self::Web | Self::Dav => 8000,
        }
    }

    /// The beginnings of the paths that it serves, whole segments; of two that fit, the longer one counts. What nobody names is the pages'. A proxy in front
    /// of processes of one role each needs this table and nothing else (`relay/deploy/nginx.conf`); the health routes are everybody's.
    pub const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Auth => {
                &["/auth", "/oauth", "/.well-known", "/api/v1/me", "/api/v1/admin", "/api/v1/join-codes", "/api/v1/server", "/api/v1/setup"]
            }
            Self::Metadata => &[
                "/metadata",
                "/api/v1/files",
                "/api/v1/folders",
                "/api/v1/spaces",
                "/api/v1/search",
                "/api/v1/trash",
                "/api/v1/versions",
                "/api/v1/shares",
                "/api/v1/links",
                "/api/v1/activity",
                "/api/v1/conflicts",
                "/api/v1/me/usage",
            ],
            Self::Upload => &["/upload"],
            Self::Download => &["/download", "/d", "/api/v1/thumbnails", "/api/v1/previews", "/api/v1/archives"],
            Self::Sync => &["/sync", "/ws", "/api/v1/devices", "/api/v1/peers", "/api/v1/events", "/api/v1/ws-ticket"],
            Self::Web => &["/", "/s"],
            Self::Dav => &["/dav"],
        }
    }

    /// Who serves this path.
    pub fn of_path(path: &str) -> Self {
        let fits = |begin: &str| path.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let longest = |role: Role| role.paths().iter().filter(|begin| fits(begin)).map(|begin| begin.len()).max().unwrap_or(0);
        Self::ALL.map(|(role, _)| role).into_iter().filter(|role| longest(*role) > 0).max_by_key(|role| longest(*role)).unwrap_or(Self::Web)
    }

    /// Reads `all` or `auth,sync`.
    pub fn parse_list(text: &str) -> Result<Vec<Role>, ConfigError> {
        let mut roles = Vec::new();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            if word == "all" {
                roles.extend(Self::ALL.map(|(role, _)| role));
            } else if let Some((role, _)) = Self::ALL.iter().find(|(_, name)| *name == word) {
                roles.push(*role);
            } else {
                let names = Self::ALL.map(|(_, name)| name).join(", ");
                return Err(ConfigError(format!("'{word}' is not a role; roles are: all, {names}")));
            }
        }
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() { Err(ConfigError("no role is named; 'all' serves everything".into())) } else { Ok(roles) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_server() {
        for (path, role) in [
            ("/auth/login", Role::Auth),
            ("/api/v1/me", Role::Auth),
            ("/api/v1/me/sessions/1", Role::Auth),
            ("/api/v1/me/usage", Role::Metadata),
            ("/api/v1/me/usages", Role::Auth),
            ("/d/token", Role::Download),
            ("/download/1", Role::Download),
            ("/device", Role::Web),
            ("/ws/sync/1", Role::Sync),
            ("/wsx", Role::Web),
            ("/", Role::Web),
            ("/assets/x.css", Role::Web),
            ("/dav", Role::Dav),
            ("/dav/Ferry/a", Role::Dav),
            ("/davx", Role::Web),
            ("/s/token/raw/x", Role::Web),
            ("/api/v1/archives", Role::Download),
        ] {
            assert_eq!(Role::of_path(path), role, "{path}");
        }
    }
}
