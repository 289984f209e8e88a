//! Finding devices by announcements on the network (mDNS, DNS-SD): an opaque tag and a port, nothing else (L07).
//!
//! The tag is random and changes from time to time, so that a listener learns that Ferry is used here, and neither by whom nor for what.

use super::dial::TargetKey;
use super::hub::Hub;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

const SERVICE: &str = "_ferry._udp.local.";
/// How long a tag is used.
const TAG_LIFE: Duration = Duration::from_secs(3600);

/// Announces this device and looks for others, until it is dropped.
pub(super) async fn run(hub: Arc<Hub>, port: u16) {
    let daemon = match ServiceDaemon::new() {
        Ok(daemon) => Guard(daemon),
        Err(error) => {
            tracing::warn!(%error, "devices cannot be looked for on the network; those that the relay names or the configuration are found");
            return;
        }
    };
    let events = match daemon.0.browse(SERVICE) {
        Ok(events) => events,
        Err(error) => {
            tracing::warn!(%error, "devices cannot be looked for on the network");
            return;
        }
    };
    let mut tags = Tags::default();
    loop {
        tags.renew(&daemon.0, port);
        let until = tokio::time::sleep(TAG_LIFE);
        tokio::pin!(until);
        loop {
            tokio::select! {
                event = events.recv_async() => match event {
                    Ok(event) => take(&hub, &tags, event),
                    Err(_) => return,
                },
                () = &mut until => break,
            }
        }
    }
}

/// Says goodbye when it is dropped.
struct Guard(ServiceDaemon);

impl Drop for Guard {
    fn drop(&mut self) {
        // It ends by itself with the process; this is politeness.
        let _ = self.0.shutdown();
    }
}

/// Our own tags: the one in use, and older ones that may still be heard.
#[derive(Default)]
struct Tags {
    used: BTreeSet<String>,
    current: Option<String>,
}

impl Tags {
    fn renew(&mut self, daemon: &ServiceDaemon, port: u16) {
        if let Some(old) = self.current.take() {
            let _ = daemon.unregister(&format!("{old}.{SERVICE}"));
        }
        let tag = hex::encode(&crate::folder::random_bytes()[..8]);
        let info = ServiceInfo::new(SERVICE, &tag, &format!("{tag}.local."), "", port, &[("v", "1")][..]);
        let registered = info.map(ServiceInfo::enable_addr_auto).and_then(|info| daemon.register(info));
        match registered {
            Ok(()) => {
                self.used.insert(tag.clone());
                self.current = Some(tag);
            }
            Err(error) => tracing::warn!(%error, "this device cannot announce itself on the network"),
        }
    }
}

fn tag_of(fullname: &str) -> Option<String> {
    let tag = fullname.strip_suffix(SERVICE)?.strip_suffix('.')?;
    // Anything else is not one of ours.
    (tag.len() == 16 && tag.bytes().all(|b| b.is_ascii_hexdigit())).then(|| tag.to_ascii_lowercase())
}

fn take(hub: &Hub, tags: &Tags, event: ServiceEvent) {
    match event {
        ServiceEvent::ServiceResolved(service) => {
            let Some(tag) = tag_of(service.get_fullname()).filter(|tag| !tags.used.contains(tag)) else { return };
            // The smaller tag begins.
            let patient = tags.current.as_ref().is_some_and(|own| *own > tag);
            hub.targets.hint(TargetKey::Tag(tag), addresses(&service), patient);
        }
        ServiceEvent::ServiceRemoved(_, fullname) => {
            if let Some(tag) = tag_of(&fullname) {
                hub.targets.forget(&TargetKey::Tag(tag));
            }
        }
        _ => {}
    }
}

fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let port = service.get_port();
    let mut out = Vec::new();
    for scoped in service.get_addresses() {
        match scoped {
            mdns_sd::ScopedIp::V4(v4) => out.push(SocketAddr::new(IpAddr::V4(*v4.addr()), port)),
            mdns_sd::ScopedIp::V6(v6) => {
                let local = v6.addr().is_unicast_link_local();
                let scope = if local { v6.scope_id().index } else { 0 };
                out.push(SocketAddr::V6(SocketAddrV6::new(*v6.addr(), port, 0, scope)));
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_form_are_taken() {
        assert_eq!(tag_of("0123456789abcdef._ferry._udp.local.").as_deref(), Some("0123456789abcdef"));
        for name in [
            "._ferry._udp.local.",
            "0123._ferry._udp.local.",
            "0123456789abcdeg._ferry._udp.local.",
            "0123456789abcdef._other._udp.local.",
            "",
        ] {
            assert_eq!(tag_of(name), None, "{name}");
        }
    }
}
