//! Under which addresses other devices may reach this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses that go into a join code besides loopback.
const FOREIGN_MAX: usize = 5;

/// The addresses (`host:port`) by which others reach a relay that this device reaches at `host`. For a relay on this machine these are the
/// machine's own addresses, loopback last; for all others it is the host itself.
pub fn addresses_of(host: &str, port: u16) -> Vec<String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return vec![format!("{host}:{port}")];
    }
    let mut addresses: Vec<String> = own().into_iter().take(FOREIGN_MAX).map(|ip| at(ip, port)).collect();
    addresses.push(format!("{host}:{port}"));
    addresses
}

fn at(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

/// This machine's own addresses, IPv4 first, without loopback and link-local ones.
pub fn own() -> Vec<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = v4(&read("/proc/net/fib_trie"));
    all.extend(v6(&read("/proc/net/if_inet6")));
    all
}

/// The addresses of `/proc/net/fib_trie`: those with a host route of the kind LOCAL.
fn v4(trie: &str) -> Vec<IpAddr> {
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
            && !found.contains(&IpAddr::V4(ip))
        {
            found.push(IpAddr::V4(ip));
        }
    }
    found
}

/// The addresses of `/proc/net/if_inet6`: 32 hexadecimal digits at the beginning of each line.
fn v6(table: &str) -> Vec<IpAddr> {
    let parse = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok().map(Ipv6Addr::from_bits);
    let usable = |ip: &Ipv6Addr| !ip.is_loopback() && !ip.is_unicast_link_local();
    table.lines().filter_map(parse).filter(usable).map(IpAddr::V6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_read_from_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n        |-- 10.0.0.7\n           /32 host LOCAL\n        \
                    |-- 10.0.0.255\n           /32 link BROADCAST\n        |-- 127.0.0.1\n           /32 host LOCAL\nLocal:\n  |-- 10.0.0.7\n     /32 host LOCAL\n";
        assert_eq!(v4(trie), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfe80000000000000000000000000abcd 02 40 20 80     eth0\n\
                     20010db8000000000000000000000007 02 40 00 80     eth0\n";
        assert_eq!(v6(table), ["2001:db8::7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_relay_elsewhere_has_one_address() {
        assert_eq!(addresses_of("files.example.org", 443), ["files.example.org:443"]);
        assert_eq!(addresses_of("127.0.0.1", 8484).last().unwrap(), "127.0.0.1:8484");
    }
}
