//! Packets that do not arrive: nft rules that hold as long as a [`Rule`] lives.
//!
//! All of them look at frames that enter a port, at the host's end or at the bridge's, so that a sender is never told: what is dropped vanishes.

use super::{Host, Lan, run, within};
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

static RULES: AtomicU32 = AtomicU32::new(0);

/// Something that is dropped, until this value is.
#[must_use = "the rule ends when this is dropped"]
pub struct Rule {
    table: String,
    places: Vec<String>,
}

impl Rule {
    fn new(places: &[(&str, &str)], statements: &[String]) -> Self {
        let table = format!("rule{}", RULES.fetch_add(1, Ordering::Relaxed));
        let rule = Self { table, places: places.iter().map(|(namespace, _)| (*namespace).into()).collect() };
        for (namespace, device) in places {
            let lines: String = statements.iter().map(|s| format!("{s} counter drop\n")).collect();
            let head = format!("type filter hook ingress device \"{device}\" priority 0;");
            nft(namespace, &format!("table netdev {} {{\nchain drops {{\n{head}\n{lines}}}\n}}\n", rule.table));
        }
        rule
    }

    /// How many frames it dropped.
    pub fn hits(&self) -> u64 {
        let mut hits = 0;
        for namespace in &self.places {
            let text = run(within(namespace, "nft").args(["-j", "list", "table", "netdev", &self.table]));
            let all: serde_json::Value = serde_json::from_str(&text).expect("nft writes JSON");
            let rules = all["nftables"].as_array().into_iter().flatten().filter_map(|o| o["rule"]["expr"].as_array());
            hits += rules.flatten().filter_map(|e| e["counter"]["packets"].as_u64()).sum::<u64>();
        }
        hits
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        for namespace in &self.places {
            // The network may be gone already.
            let _ = within(namespace, "nft").args(["delete", "table", "netdev", &self.table]).output();
        }
    }
}

impl Host {
    /// Drops UDP to and from this host on this LAN.
    pub fn block_udp(&self, lan: Lan) -> Rule {
        self.both_ways(lan, &["meta l4proto udp".into()])
    }

    /// Drops multicast for finding services (IPv4 groups and the group of mDNS in IPv6) to and from this host; neighbours are still found.
    pub fn block_multicast(&self, lan: Lan) -> Rule {
        self.both_ways(lan, &["ip daddr 224.0.0.0/4".into(), "ip6 daddr ff02::fb".into()])
    }

    /// Drops TCP and UDP that another host sends to this one: a one-way link. Their addresses are still resolved.
    pub fn block_from(&self, lan: Lan, sender: &Host) -> Rule {
        let statements = sender.ports().into_iter().flat_map(|port| {
            let (mac, address) = (port.mac, port.address);
            [format!("meta l4proto {{ tcp, udp }} ether saddr {mac}"), format!("meta l4proto {{ tcp, udp }} ip saddr {address}")]
        });
        let port = self.port(lan);
        Rule::new(&[(self.namespace(), &port.device)], &statements.collect::<Vec<_>>())
    }

    /// Drops what goes from one LAN to another through this router.
    pub fn block_between(&self, from: Lan, to: Lan) -> Rule {
        let port = self.port(from);
        Rule::new(&[(self.namespace(), &port.device)], &[format!("ip daddr {}", to.range())])
    }

    /// Loses so many of 1,000 frames that come to this host, at random.
    pub fn lose(&self, lan: Lan, per_mille: u32) -> Rule {
        let port = self.port(lan);
        let chance = format!("numgen random mod 1000 < {per_mille}");
        Rule::new(&[(self.namespace(), &port.device)], &[format!("meta l4proto {{ tcp, udp }} {chance}")])
    }

    fn both_ways(&self, lan: Lan, statements: &[String]) -> Rule {
        let port = self.port(lan);
        Rule::new(&[(self.namespace(), &port.device), (&port.bridge, &port.far)], statements)
    }
}

fn nft(namespace: &str, rules: &str) {
    let mut command = within(namespace, "nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nft starts");
    child.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    assert!(output.status.success(), "nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
}
