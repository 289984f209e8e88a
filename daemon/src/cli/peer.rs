//! `ferry peer`: the devices nearby.

use super::Context;
use super::client::encode;
use crate::problem::{Outcome, exit};
use crate::quantity;
use crate::ui::table::Table;
use clap::Subcommand;
use serde_json::{Value, json};

/// `ferry peer`
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// The devices that share a folder with this one: how each was found, and why one is not reached directly
    #[command(after_long_help = "Examples:\n  ferry peer list\n  ferry peer list --json | jq '.peers[] | select(.state == \"connected\")'")]
    List,
    /// One of them: the way to it, its addresses, how fast it is, and why it is not reached directly
    Show {
        /// Its name or id
        peer: String,
    },
    /// Measure the way to its daemon and back, over the connection that there is
    #[command(after_long_help = "Examples:\n  ferry peer ping nas\n  ferry peer ping nas --count 20 --json")]
    Ping {
        /// Its name or id
        peer: String,
        /// How often
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        count: u32,
    },
    /// Forget where it was and why it was not reached, end the connection, and look for it anew
    #[command(
        after_long_help = "What it may do here is not forgotten: that is what the relay says. Take its access away with the folder's members, or with\nits session at the relay."
    )]
    Forget {
        /// Its name or id
        peer: String,
    },
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Runs a peer command.
pub async fn run(context: &Context, command: PeerCommand) -> Outcome<u8> {
    match command {
        PeerCommand::List => list(context).await,
        PeerCommand::Show { peer } => {
            let answer = context.client.get(&format!("/peers/{}", encode(peer))).await?;
            tell(context, &answer, || sheet(&answer).iter().for_each(|line| context.ui.line(line)));
            Ok(exit::OK)
        }
        PeerCommand::Ping { peer, count } => {
            let answer = context.client.post(&format!("/peers/{}/ping", encode(peer)), &json!({"count": count})).await?;
            tell(context, &answer, || pings(&answer).iter().for_each(|line| context.ui.line(line)));
            Ok(if answer["received"].as_u64().unwrap_or(0) > 0 { exit::OK } else { exit::TEMPORARY })
        }
        PeerCommand::Forget { peer } => {
            let answer = context.client.post(&format!("/peers/{}/forget", encode(peer)), &json!({})).await?;
            tell(context, &answer, || {
                let connection = if answer["was_connected"] == true { "; the connection with it is ended" } else { "" };
                context
                    .ui
                    .done(&format!("What was known of where {} is is forgotten{connection}; it is looked for anew", text(&answer, "name")));
            });
            Ok(exit::OK)
        }
    }
}

fn tell(context: &Context, answer: &Value, human: impl FnOnce()) {
    if context.ui.json { context.ui.document(answer) } else { human() }
}

async fn list(context: &Context) -> Outcome<u8> {
    let answer = context.client.get("/peers").await?;
    let ui = &context.ui;
    if ui.json {
        ui.document(&answer);
        return Ok(exit::OK);
    }
    let mut table = Table::new(&["DEVICE", "STATE", "ADDRESS", "FOUND BY", "RTT", "IN", "OUT", "IN/S", "OUT/S", "WHY"])
        .right(4)
        .right(5)
        .right(6)
        .right(7)
        .right(8);
    for peer in answer["peers"].as_array().into_iter().flatten() {
        table.row(row(peer, ui.plain));
    }
    table.print(ui, "no other device shares a folder with this one; show a code for one with: ferry join");
    Ok(exit::OK)
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn milliseconds(value: &Value) -> String {
    value.as_f64().map(|ms| format!("{ms:.1} ms")).unwrap_or_default()
}

/// What is known of one device, a line for each thing.
fn sheet(peer: &Value) -> Vec<String> {
    let bytes = |name: &str| quantity::bytes(peer[name].as_u64().unwrap_or(0));
    let found: Vec<&str> = texts(&peer["found"]).into_iter().map(way).collect();
    let folders: Vec<&str> = peer["folders"].as_array().into_iter().flatten().map(|f| text(f, "name")).collect();
    let others: Vec<&str> = texts(&peer["addresses"]).into_iter().filter(|a| *a != text(peer, "address")).collect();
    let path = if peer["state"] == "connected" { "direct, over this network" } else { "by the relay" };
    let rates = format!("in {}/s, out {}/s", bytes("in_bytes_per_s"), bytes("out_bytes_per_s"));
    let lines = [
        ("device", text(peer, "name").to_owned()),
        ("id", text(peer, "id").to_owned()),
        ("state", text(peer, "state").to_owned()),
        ("path", path.to_owned()),
        ("address", text(peer, "address").to_owned()),
        ("others", others.join(", ")),
        ("found by", found.join(", ")),
        ("rtt", milliseconds(&peer["rtt_ms"])),
        ("now", rates),
        ("so far", format!("in {}, out {}", bytes("in_bytes"), bytes("out_bytes"))),
        ("folders", folders.join(", ")),
        ("why", text(peer, "reason").to_owned()),
    ];
    lines.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name:<9} {value}")).collect()
}

/// A line for each ping, and one for all of them.
fn pings(answer: &Value) -> Vec<String> {
    let name = text(answer, "name");
    let each = |probe: &Value| match probe["error"].as_str() {
        Some(error) => format!("{name}: {error}"),
        None => format!("{name} at {}: {}", text(answer, "address"), milliseconds(&probe["rtt_ms"])),
    };
    let mut lines: Vec<String> = answer["probes"].as_array().into_iter().flatten().map(each).collect();
    let figures = ["min_ms", "average_ms", "max_ms"].map(|figure| milliseconds(&answer[figure]));
    let [least, average, most] = figures;
    let sum = format!("{} of {} came back", answer["received"], answer["sent"]);
    lines.push(if least.is_empty() { sum } else { format!("{sum}; least {least}, average {average}, most {most}") });
    lines
}

fn row(peer: &Value, plain: bool) -> Vec<String> {
    let bytes = |name: &str| {
        let count = peer[name].as_u64().unwrap_or(0);
        if plain { count.to_string() } else { quantity::bytes(count) }
    };
    let found: Vec<&str> = texts(&peer["found"]).into_iter().map(way).collect();
    vec![
        text(peer, "name").to_owned(),
        text(peer, "state").to_owned(),
        text(peer, "address").to_owned(),
        found.join(", "),
        milliseconds(&peer["rtt_ms"]),
        bytes("in_bytes"),
        bytes("out_bytes"),
        bytes("in_bytes_per_s"),
        bytes("out_bytes_per_s"),
        text(peer, "reason").to_owned(),
    ]
}

/// How a device was found, in words.
pub fn way(found: &str) -> &str {
    match found {
        "mdns" => "this network",
        "relay" => "the relay",
        "static" => "lan.peers",
        "incoming" => "it came",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_line_with_the_way_it_was_found_and_why_it_is_not_there() {
        let peer = json!({"name": "tv", "state": "unreachable", "address": "10.0.0.2:7", "found": ["mdns", "relay"], "rtt_ms": null,
            "in_bytes": 0, "out_bytes": 1500, "reason": "10.0.0.2:7: no answer"});
        let line = row(&peer, false).join("|");
        assert_eq!(line, "tv|unreachable|10.0.0.2:7|this network, the relay||0 B|1.5 kB|0 B|0 B|10.0.0.2:7: no answer");
    }

    #[test]
    fn one_device_is_told_of_in_lines_without_empty_ones() {
        let peer = json!({"name": "tv", "id": "ab", "state": "connected", "address": "10.0.0.2:7", "addresses": ["10.0.0.2:7", "[fd00::2]:7"],
            "found": ["mdns"], "rtt_ms": 0.42, "in_bytes": 0, "out_bytes": 1500, "in_bytes_per_s": 0, "out_bytes_per_s": 10,
            "folders": [{"id": "x", "name": "docs"}], "reason": null});
        let lines = sheet(&peer).join("|");
        assert!(lines.contains("path      direct, over this network|address   10.0.0.2:7|others    [fd00::2]:7|"), "{lines}");
        assert!(lines.contains("rtt       0.4 ms|now       in 0 B/s, out 10 B/s|") && lines.ends_with("folders   docs"), "{lines}");
        let away = sheet(&json!({"name": "tv", "state": "unreachable", "reason": "no answer"})).join("|");
        assert!(away.contains("path      by the relay") && away.ends_with("why       no answer") && !away.contains("rtt"), "{away}");
    }

    #[test]
    fn pings_are_lines_and_a_sum() {
        let answer = json!({"name": "tv", "address": "a", "probes": [{"rtt_ms": 1.0}, {"error": "late"}], "sent": 2, "received": 1,
            "min_ms": 1.0, "average_ms": 1.0, "max_ms": 1.0});
        let wanted = ["tv at a: 1.0 ms", "tv: late", "1 of 2 came back; least 1.0 ms, average 1.0 ms, most 1.0 ms"];
        assert_eq!(pings(&answer), wanted);
        assert_eq!(pings(&json!({"name": "tv", "probes": [], "sent": 0, "received": 0})), ["0 of 0 came back"]);
    }
}
