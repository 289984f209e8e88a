//! Where a relay is: its address, how safe the way there is, and the certificate that must answer.
//!
//! As text: `https://relay.example`, or with a pin `https://192.0.2.7:8443/#sha256:<64 hexadecimal digits>`.

use reqwest::Url;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use url::Host;

/// The SHA-256 of the one certificate (its DER) that a relay may show.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", hex::encode(&self.0[..4]))
    }
}

/// Why a text is not a relay's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an address at all.
    #[error("'{text}' is not a relay's address: write it like https://relay.example.com ({why})")]
    Malformed {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Plain HTTP to a public host would show passwords and files to everyone on the way.
    #[error(
        "http:// to '{host}' would send passwords and files in the clear: use https://, or an address on this machine or in a private network"
    )]
    Insecure {
        /// The host.
        host: String,
    },
}

/// A relay's address that policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    url: Url,
    pin: Option<Pin>,
}

impl RelayUrl {
    /// An https address at `host:port` with a pinned certificate.
    pub fn pinned(host_port: &str, pin: Pin) -> Result<Self, UrlError> {
        let mut url: Self = format!("https://{host_port}").parse()?;
        url.pin = Some(pin);
        Ok(url)
    }

    /// The pinned certificate, if the address carries one. Otherwise the system's trusted authorities decide.
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// What a person should know before using this address.
    pub fn warning(&self) -> Option<String> {
        let loopback = self.url.host().is_some_and(|host| is_loopback(&host));
        (!self.is_tls() && !loopback)
            .then(|| "This connection is not encrypted: everyone in this network can read the password and the files. Use it only where you trust all.".into())
    }

    /// The host.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The port, the scheme's own if none is written.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// The address of a path on the relay. `path` begins with '/'.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{base}{path}"));
        url.set_query(query);
        url
    }
}

impl FromStr for RelayUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let malformed = |why: &str| UrlError::Malformed { text: text.to_owned(), why: why.to_owned() };
        let mut url = Url::parse(text.trim()).map_err(|e| malformed(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(malformed("it must begin with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(malformed("names and passwords do not belong into it"));
        }
        if url.query().is_some() {
            return Err(malformed("it has a '?'"));
        }
        let pin = url
            .fragment()
            .map(|f| parse_pin(f).ok_or_else(|| malformed("after '#' comes sha256: and 64 hexadecimal digits")))
            .transpose()?;
        url.set_fragment(None);
        if url.scheme() == "http" {
            if pin.is_some() {
                return Err(malformed("a pinned certificate needs https://"));
            }
            let allowed = url.host().is_some_and(|host| is_loopback(&host) || is_private(&host));
            if !allowed {
                return Err(UrlError::Insecure { host: url.host_str().unwrap_or_default().to_owned() });
            }
        }
        Ok(Self { url, pin })
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pin {
            Some(pin) => write!(f, "{}#sha256:{}", self.url, hex::encode(pin.0)),
            None => f.write_str(self.url.as_str().trim_end_matches('/')),
        }
    }
}

fn parse_pin(fragment: &str) -> Option<Pin> {
    let mut pin = [0; 32];
    hex::decode_to_slice(fragment.strip_prefix("sha256:")?, &mut pin).ok()?;
    Some(Pin(pin))
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
    }
}

/// Names are never private: what they resolve to can change under our feet.
fn is_private(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => is_private_v4(*ip),
        Host::Ipv6(ip) => is_private_v6(*ip),
        Host::Domain(_) => false,
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    ip.is_private() || ip.is_link_local()
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_unique_local() || ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some_and(is_private_v4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RelayUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn https_goes_everywhere_without_a_warning() {
        for text in ["https://relay.example", "https://8.8.8.8:8443", "https://relay.example/ferry"] {
            let url = parse(text).unwrap();
            assert_eq!((url.warning(), url.to_string().as_str()), (None, text));
        }
    }

    #[test]
    fn plain_http_goes_to_this_machine_and_to_private_networks_only() {
        for text in ["http://127.0.0.1:8001", "http://localhost:1", "http://[::1]:8001"] {
            assert_eq!(parse(text).unwrap().warning(), None, "{text}");
        }
        for text in
            ["http://10.1.2.3", "http://172.16.0.1", "http://192.168.1.2:80", "http://169.254.1.1", "http://[fe80::1]", "http://[fd00::1]"]
        {
            assert!(parse(text).unwrap().warning().is_some(), "{text}");
        }
        for text in [
            "http://relay.example",
            "http://8.8.8.8",
            "http://172.32.0.1",
            "http://100.64.0.1",
            "http://[2001:db8::1]",
            "http://nas.local",
            "http://0.0.0.0",
        ] {
            assert!(matches!(parse(text), Err(UrlError::Insecure { .. })), "{text}");
        }
        // Other spellings of public addresses are still public, and of loopback still loopback.
        assert!(matches!(parse("http://0x08080808"), Err(UrlError::Insecure { .. })));
        assert!(parse("http://2130706433").is_ok());
        assert!(matches!(parse("http://[::ffff:8.8.8.8]"), Err(UrlError::Insecure { .. })));
    }

    #[test]
    fn what_is_no_address_gets_a_reason() {
        for text in [
            "",
            "relay.example",
            "ftp://relay.example",
            "https://",
            "https://u:p@relay.example",
            "https://relay.example?x",
            "https://a#sha256:00",
            "http://127.0.0.1/#x",
        ] {
            assert!(matches!(parse(text), Err(UrlError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_pin_travels_with_the_address() {
        let url = RelayUrl::pinned("192.0.2.7:8443", Pin([0xab; 32])).unwrap();
        let text = format!("https://192.0.2.7:8443/#sha256:{}", "ab".repeat(32));
        assert_eq!(url.to_string(), text);
        assert_eq!(parse(&text).unwrap(), url);
        assert!(parse(&text.replace("https", "http")).is_err());
    }

    #[test]
    fn paths_are_joined_to_the_relays_own() {
        assert_eq!(parse("https://a").unwrap().join("/auth/login").as_str(), "https://a/auth/login");
        assert_eq!(parse("https://a/x/").unwrap().join("/sync?since=1").as_str(), "https://a/x/sync?since=1");
    }
}
