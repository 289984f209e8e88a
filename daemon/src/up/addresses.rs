//! Under which addresses other devices may reach this one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most addresses that go into a join code besides loopback.
const FOREIGN_MAX: usize = 4;

/// The addresses (`host:port`) by which others reach a relay that this device reaches at `host`. For a relay on this machine these are the
/// machine's own addresses, loopback last; for all others it is the host itself.
pub fn addresses_of(host: &str, port: u16) -> Vec<String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return vec![format!("{host}:{port}")];
    }
    // The relay of `ferry up` listens on IPv4.
    let own = v4(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
    let mut addresses: Vec<String> = own.into_iter().take(FOREIGN_MAX).map(|ip| SocketAddr::from((ip, port)).to_string()).collect();
    addresses.push(format!("{host}:{port}"));
    addresses
}

/// The addresses of `/proc/net/fib_trie`: those with a host route of the kind LOCAL.
fn v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(ip) = last
            && !ip.is_loopback()
            && !ip.is_link_local()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_read_from_the_kernels_table() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n        |-- 10.0.0.7\n           /32 host LOCAL\n        \
                    |-- 10.0.0.255\n           /32 link BROADCAST\n        |-- 127.0.0.1\n           /32 host LOCAL\nLocal:\n  |-- 10.0.0.7\n     /32 host LOCAL\n";
        assert_eq!(v4(trie), ["10.0.0.7".parse::<Ipv4Addr>().unwrap()]);
    }

    #[test]
    fn a_relay_elsewhere_has_one_address() {
        assert_eq!(addresses_of("files.example.org", 443), ["files.example.org:443"]);
        assert_eq!(addresses_of("127.0.0.1", 8484).last().unwrap(), "127.0.0.1:8484");
    }
}
