//! `ferry peer`: the devices nearby.

use super::Context;
use super::args::PeerCommand;
use crate::problem::{Outcome, exit};
use crate::quantity;
use crate::ui::table::Table;
use serde_json::Value;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Runs a peer command.
pub async fn run(context: &Context, command: PeerCommand) -> Outcome<u8> {
    let PeerCommand::List = command;
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

fn row(peer: &Value, plain: bool) -> Vec<String> {
    let bytes = |name: &str| {
        let count = peer[name].as_u64().unwrap_or(0);
        if plain { count.to_string() } else { quantity::bytes(count) }
    };
    let found: Vec<&str> = peer["found"].as_array().into_iter().flatten().filter_map(Value::as_str).map(way).collect();
    vec![
        text(peer, "name").to_owned(),
        text(peer, "state").to_owned(),
        text(peer, "address").to_owned(),
        found.join(", "),
        peer["rtt_ms"].as_f64().map(|ms| format!("{ms:.1} ms")).unwrap_or_default(),
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
    use serde_json::json;

    #[test]
    fn a_peer_is_one_line_with_the_way_it_was_found_and_why_it_is_not_there() {
        let peer = json!({"name": "tv", "state": "unreachable", "address": "10.0.0.2:7", "found": ["mdns", "relay"], "rtt_ms": null,
            "in_bytes": 0, "out_bytes": 1500, "reason": "10.0.0.2:7: no answer"});
        let line = row(&peer, false).join("|");
        assert_eq!(line, "tv|unreachable|10.0.0.2:7|this network, the relay||0 B|1.5 kB|0 B|0 B|10.0.0.2:7: no answer");
    }
}
