//! Which addresses a device may say that it can be reached at.

use crate::service::{ServiceError, ServiceResult};
use std::net::{IpAddr, SocketAddr};

/// Most addresses of one device.
const ADDRESSES_MAX: usize = 32;
/// Longest address with its port, in characters: IPv6 with brackets, a scope and a port.
const TEXT_MAX: usize = 80;

/// The addresses, each once and without the scope, which means something on that device only. Loopback addresses stay only when there are no others:
/// devices of one machine.
pub(super) fn check(texts: &[String]) -> ServiceResult<Vec<SocketAddr>> {
    if texts.len() > ADDRESSES_MAX {
        return Err(ServiceError::invalid("too_many_addresses", format!("A device has at most {ADDRESSES_MAX} addresses.")));
    }
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(texts.len());
    for text in texts {
        let address = parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(TEXT_MAX).collect();
            ServiceError::invalid(
                "invalid_address",
                format!("'{shown}' is not the address of a device: expected ADDRESS:PORT or [ADDRESS]:PORT."),
            )
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.iter().any(|a| !a.ip().is_loopback()) {
        addresses.retain(|a| !a.ip().is_loopback());
    }
    Ok(addresses)
}

fn parse(text: &str) -> Option<SocketAddr> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let plain = match text.split_once('%') {
        Some((address, rest)) => format!("{address}]{}", rest.split_once(']')?.1),
        None => text.to_owned(),
    };
    let address: SocketAddr = plain.parse().ok()?;
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let names_one_device = !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast && address.port() != 0;
    names_one_device.then(|| SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(texts: &[&str]) -> Option<Vec<String>> {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        check(&texts).ok().map(|list| list.iter().map(SocketAddr::to_string).collect())
    }

    #[test]
    fn addresses_have_one_form() {
        let list = ["192.168.1.5:4711", "[fe80::1%eth0]:4711", "[fe80::1%3]:4711", "[::ffff:192.168.1.5]:4711", "[2001:db8::1]:1"];
        assert_eq!(checked(&list).unwrap(), ["192.168.1.5:4711", "[fe80::1]:4711", "[2001:db8::1]:1"]);
        assert_eq!(checked(&[]).unwrap(), [""; 0]);
    }

    #[test]
    fn loopback_is_for_devices_of_one_machine() {
        assert_eq!(checked(&["127.0.0.1:1", "[::1]:2"]).unwrap(), ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(checked(&["127.0.0.1:1", "10.0.0.1:1"]).unwrap(), ["10.0.0.1:1"]);
    }

    #[test]
    fn what_names_no_device_is_refused() {
        let long = format!("[{}]:1", "0".repeat(100));
        for text in ["", "10.0.0.1", "host:1", "10.0.0.1:0", "0.0.0.0:1", "[::]:1", "224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1"] {
            assert_eq!(checked(&[text]), None, "{text}");
        }
        for text in ["10.0.0.1%eth0:1", "[fe80::1%eth0:1", "%", "%]", "[::1%]:1 ", "10.0.0.1:65536", &long] {
            assert_eq!(checked(&[text]), None, "{text}");
        }
        assert_eq!(checked(&["10.0.0.1:1"; 33]), None);
    }
}
