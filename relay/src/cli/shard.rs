//! Commands for shards: the databases in which the content of users stands. They work beside a running relay.

use super::{Failure, Global, Outcome, accounts, show};
use crate::App;
use crate::service::content::{MoveReport, MoveStep, MoveWish};
use crate::store::content::{Shard, ShardTotals};
use clap::Subcommand;
use ferry_protocol::UserId;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

/// How long the old rows stay after a move, beyond the longest wait for a connection.
const SETTLE_BEYOND: Duration = Duration::from_secs(10);

#[derive(Subcommand)]
pub(super) enum ShardCommand {
    /// Every shard with its database, its users and what it holds; and moves that are not finished
    List,
    /// Move a user's content to another shard; cut short, say it again to go on, or name the shard where it was to go back
    Move {
        /// The user's e-mail address, or id
        user: String,
        /// The number of the shard
        #[arg(long, value_name = "SHARD")]
        to: u16,
        #[command(flatten)]
        how: How,
    },
    /// Place nobody new in a shard, and move every user of it to others, each to the one with the fewest
    Drain {
        /// The number of the shard
        shard: u16,
        /// Move all of them there
        #[arg(long, value_name = "SHARD")]
        to: Option<u16>,
        #[command(flatten)]
        how: How,
    },
    /// Place new users in a shard again that was drained
    Open {
        /// The number of the shard
        shard: u16,
    },
}

/// What moves of one user and of many have in common.
#[derive(clap::Args)]
pub(super) struct How {
    /// How long the user's writers may be told to come back, in seconds, while the last changes are copied
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pause: u16,
    /// How long the old rows stay for readers that have just been led to them, in seconds; default: the longest wait for a connection, and ten more
    #[arg(long, value_name = "SECONDS")]
    settle: Option<u16>,
    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn shard(global: &Global, command: ShardCommand) -> Outcome {
    let app = accounts::open(global).await?;
    let outcome = match command {
        ShardCommand::List => list(global, &app).await,
        ShardCommand::Move { user, to, how } => match find(&app, &user).await {
            Ok(user) => move_users(global, &app, vec![(user, Shard(to))], &how).await,
            Err(failure) => Err(failure),
        },
        ShardCommand::Drain { shard, to, how } => drain(global, &app, Shard(shard), to.map(Shard), &how).await,
        ShardCommand::Open { shard } => open(global, &app, Shard(shard)).await,
    };
    app.close().await;
    outcome
}

async fn list(global: &Global, app: &App) -> Outcome {
    let all = app.content.shard_totals().await?;
    let moves = app.content.unfinished_moves().await?;
    let closed = app.content.closed_shards().await?;
    let mut lines: Vec<String> = all
        .iter()
        .map(|s| {
            let t = &s.totals;
            format!(
                "{:>5}  {:<32} {:>8} users {:>8} namespaces {:>10} nodes {:>16} bytes{}",
                s.shard,
                s.place,
                s.users,
                t.namespaces,
                t.nodes,
                t.chunk_bytes,
                if closed.contains(&s.shard) { "  takes no new users" } else { "" }
            )
        })
        .collect();
    for m in &moves {
        let state = if m.is_switched { "the old rows are still to be removed" } else { "not switched" };
        lines.push(format!(
            "unfinished: user {} from shard {} to {}, {state}; go on with: ferry-relay shard move {} --to {}",
            m.user, m.from, m.to, m.user, m.to
        ));
    }
    let row = |s: &ShardTotals| {
        let takes_new_users = !closed.contains(&s.shard);
        json!({"shard": s.shard.0, "database": s.place, "users": s.users, "totals": s.totals, "takes_new_users": takes_new_users})
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let moves: Vec<_> = moves
        .iter()
        .map(|m| json!({"user_id": m.user.to_string(), "from": m.from.0, "to": m.to.0, "is_switched": m.is_switched}))
        .collect();
    show(global, lines.join("\n"), &json!({ "shards": rows, "unfinished": moves }));
    Ok(())
}

/// A user by address, or by id: one who was deleted in the middle of a move has no address any more.
async fn find(app: &App, user: &str) -> Result<UserId, Failure> {
    match user.parse::<UserId>() {
        Ok(id) => Ok(id),
        Err(_) => Ok(app.accounts.user_by_email(user).await?.user_id),
    }
}

/// Closed first, so that nobody comes while they go.
async fn drain(global: &Global, app: &App, shard: Shard, to: Option<Shard>, how: &How) -> Outcome {
    let closed = app.content.closed_shards().await?;
    if let Some(to) = to.filter(|to| *to == shard || closed.contains(to)) {
        let hint = format!("name another shard, or: ferry-relay shard open {to}");
        return Err(Failure::new(8, "closed", format!("shard {to} takes no new users")).hint(hint));
    }
    if !how.dry_run && !closed.contains(&shard) {
        app.content.close_shard(shard, true).await?;
        app.accounts.note_operation("shard.closed", &shard.to_string()).await;
    }
    let moves = targets(app, shard, to, &closed).await?;
    move_users(global, app, moves, how).await
}

async fn open(global: &Global, app: &App, shard: Shard) -> Outcome {
    app.content.close_shard(shard, false).await?;
    app.accounts.note_operation("shard.opened", &shard.to_string()).await;
    show(global, format!("shard {shard} takes new users"), &json!({"shard": shard.0, "takes_new_users": true}));
    Ok(())
}

/// Where each user of a shard goes.
async fn targets(app: &App, from: Shard, to: Option<Shard>, closed: &BTreeSet<Shard>) -> Result<Vec<(UserId, Shard)>, Failure> {
    let users = app.content.users_in(from).await?;
    if let Some(to) = to {
        return Ok(users.into_iter().map(|user| (user, to)).collect());
    }
    // As for new users: the directory's own database only if there is no other.
    let totals = app.content.shard_totals().await?;
    let is_open = |s: &&ShardTotals| s.shard != from && !closed.contains(&s.shard);
    let mut others: BTreeMap<Shard, u64> = totals.iter().filter(is_open).map(|s| (s.shard, s.users)).collect();
    if others.len() > 1 {
        others.remove(&Shard::default());
    }
    let mut moves = Vec::new();
    for user in users {
        let Some((to, held)) = others.iter_mut().min_by_key(|(_, held)| **held) else { break };
        *held += 1;
        moves.push((user, *to));
    }
    Ok(moves)
}

async fn move_users(global: &Global, app: &App, moves: Vec<(UserId, Shard)>, how: &How) -> Outcome {
    let config = global.load()?;
    let longest = Duration::from_secs(config.database.acquire_timeout_s.into()) + SETTLE_BEYOND;
    let settle = how.settle.map_or(longest, |seconds| Duration::from_secs(seconds.into()));
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    for (user, to) in moves {
        let report = if how.dry_run {
            app.content.rehearse_move(user, to).await?
        } else {
            let wish = MoveWish { user, to, pause_max: Duration::from_secs(how.pause.into()), settle };
            let mut sum = (0, 0);
            let mut told = |step| {
                tell(global, step, &mut sum);
                Ok(())
            };
            let report = app.content.move_user(&wish, &mut told).await?;
            if report.from != report.to {
                app.accounts.note_operation("shard.moved", &format!("{user} from {} to {}", report.from, report.to)).await;
            }
            report
        };
        lines.push(line(user, &report, how.dry_run));
        rows.push(json!({"user_id": user.to_string(), "report": report}));
    }
    let human = if lines.is_empty() { "no user is in that shard".to_owned() } else { lines.join("\n") };
    show(global, human, &json!({"moved": rows, "dry_run": how.dry_run}));
    Ok(())
}

fn line(user: UserId, report: &MoveReport, is_dry: bool) -> String {
    let MoveReport { from, to, namespaces, rows, chunks, chunk_bytes, chunks_damaged, paused_ms } = report;
    if from == to {
        return format!("user {user} is in shard {to}; nothing is to be moved");
    }
    let damaged = if *chunks_damaged > 0 { format!("; {chunks_damaged} chunks are damaged, there as here") } else { String::new() };
    let paused = if is_dry { String::new() } else { format!("; writers were told to come back for {paused_ms} ms") };
    let verb = if is_dry { "would move" } else { "has moved" };
    format!(
        "user {user} {verb} from shard {from} to {to}: {namespaces} namespaces, {rows} rows, {chunks} chunks of {chunk_bytes} bytes stored anew{damaged}{paused}"
    )
}

/// Says how a move goes: sums on a terminal, a line for each step with `--json`.
fn tell(global: &Global, step: MoveStep, (chunks, bytes): &mut (u64, u64)) {
    if global.json {
        eprintln!("{}", json!(step));
        return;
    }
    let text = match step {
        MoveStep::Chunks { chunks: more, bytes: more_bytes } => {
            *chunks += more;
            *bytes += more_bytes;
            if std::io::stderr().is_terminal() {
                eprint!("\r{chunks} chunks, {bytes} bytes stored anew ");
            }
            return;
        }
        MoveStep::Namespace { is_copied: false, .. } | MoveStep::Noted => return,
        MoveStep::Namespace { rows, .. } => format!("a namespace of {rows} rows is copied"),
        MoveStep::Resumed => "going on with a move that was cut short".to_owned(),
        MoveStep::Undone => "what an earlier move left was taken back".to_owned(),
        MoveStep::Held => "writers are told to come back".to_owned(),
        MoveStep::Switched => "everybody is led to the new shard".to_owned(),
        MoveStep::Arrived => "waiting for readers of the old rows to end".to_owned(),
        MoveStep::Cleared => "the old rows are removed".to_owned(),
    };
    eprintln!("{text}");
}
