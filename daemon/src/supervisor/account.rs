//! The relay account of this device, as far as people see it. What proves it are the credentials, which the relay client keeps.

use crate::durable;
use crate::identity::{Credentials, CredentialsFile};
use crate::paths::Paths;
use crate::problem::{Outcome, Problem};
use ferry_protocol::UserId;
use serde::{Deserialize, Serialize};

/// A login, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The relay's address, with the certificate that is pinned, if one is.
    pub relay: String,
    /// The user's id on the relay.
    pub user_id: UserId,
    /// The user's e-mail address; empty for a device that joined by code.
    pub email: String,
}

impl Account {
    /// Reads the login and what proves it; nothing if there is none.
    pub fn load(paths: &Paths) -> Outcome<Option<(Self, Credentials)>> {
        let Some(credentials) = CredentialsFile::new(&paths.state_dir).load()? else { return Ok(None) };
        let kept: Option<Self> = durable::read_json(&paths.account_file())?;
        let email = kept.filter(|a| a.user_id == credentials.user_id).map(|a| a.email).unwrap_or_default();
        Ok(Some((Self { relay: credentials.relay.clone(), user_id: credentials.user_id, email }, credentials)))
    }

    /// Keeps what people see of a login.
    pub fn save(&self, paths: &Paths) -> Outcome<()> {
        Ok(durable::replace_json(&paths.account_file(), self)?)
    }

    /// The user, for people.
    pub fn user_name(&self) -> String {
        if self.email.is_empty() { format!("user {}", &self.user_id.to_string()[..8]) } else { self.email.clone() }
    }

    /// The relay, for people: without the pin.
    pub fn relay_url(&self) -> &str {
        self.relay.split('#').next().unwrap_or_default().trim_end_matches('/')
    }

    /// Which user's of which relay: under what a namespace is registered.
    pub fn key(&self) -> String {
        format!("{} {}", self.relay_url(), self.user_id)
    }
}

/// A login is needed for this.
pub fn required<T>(account: Option<T>) -> Outcome<T> {
    account.ok_or_else(Problem::login_required)
}
