//! Commands for shards: the databases in which the content of users stands. They work beside a running relay.

use super::{Global, Outcome, accounts, show};
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand)]
pub(super) enum ShardCommand {
    /// Every shard with its database, its users and what it holds
    List,
}

pub(super) async fn shard(global: &Global, command: ShardCommand) -> Outcome {
    let ShardCommand::List = command;
    let app = accounts::open(global).await?;
    let all = app.content.shard_totals().await;
    app.close().await;
    let all = all?;
    let lines: Vec<String> = all
        .iter()
        .map(|s| {
            let t = &s.totals;
            format!(
                "{:>5}  {:<32} {:>8} users {:>8} namespaces {:>10} nodes {:>16} bytes",
                s.shard, s.place, s.users, t.namespaces, t.nodes, t.chunk_bytes
            )
        })
        .collect();
    let rows: Vec<_> = all.iter().map(|s| json!({"shard": s.shard.0, "database": s.place, "users": s.users, "totals": s.totals})).collect();
    show(global, lines.join("\n"), &json!({ "shards": rows }));
    Ok(())
}
