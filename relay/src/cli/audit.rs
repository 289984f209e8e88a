//! Commands for the audit log: read it, and hand it on.

use super::accounts::open;
use super::{Failure, Global, Outcome, show};
use crate::App;
use crate::http::time_text;
use crate::store::accounts::AuditEntry;
use clap::Subcommand;
use ferry_protocol::UserId;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Entries that are read at once.
const PAGE: u32 = 1000;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// The newest entries, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// All entries, newest first, one a line: for keeping elsewhere
    Export {
        #[command(flatten)]
        which: Which,
        /// The form of a line
        #[arg(long, value_enum, default_value_t = Format::Ndjson)]
        format: Format,
        /// Write to this file, which must not be there; not given: standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
pub(super) struct Which {
    /// Done to or by this user only
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// Not older than this: a time (2026-11-01T00:00:00Z) or an age (90s, 12h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// The form of an exported line.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a heading.
    Csv,
}

/// Reads the log backwards, page by page.
struct Reader<'a> {
    app: &'a App,
    user: Option<UserId>,
    since_ms: i64,
    before: Option<i64>,
}

impl<'a> Reader<'a> {
    async fn new(app: &'a App, which: &Which) -> Result<Self, Failure> {
        let user = match &which.user {
            Some(email) => Some(app.accounts.user_by_email(email).await?.user_id),
            None => None,
        };
        let since_ms = match &which.since {
            Some(text) => parse_since(text, app.clock.now_ms()).ok_or_else(|| {
                Failure::new(2, "usage", format!("'{text}' is neither a time nor an age"))
                    .hint("a time is 2026-11-01T00:00:00Z, an age 90s, 30m, 12h or 7d")
            })?,
            None => i64::MIN,
        };
        Ok(Self { app, user, since_ms, before: None })
    }

    /// The next entries; none at the end.
    async fn next(&mut self, limit: u32) -> Result<Vec<AuditEntry>, Failure> {
        let mut page = self.app.accounts.audit_entries(self.before, self.user, limit.min(PAGE)).await?;
        self.before = page.last().map(|e| e.audit_id);
        page.retain(|e| e.at_ms >= self.since_ms);
        Ok(page)
    }
}

/// A time, or how long ago.
fn parse_since(text: &str, now_ms: i64) -> Option<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_millisecond());
    }
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let age_ms = number.parse::<i64>().ok().filter(|n| *n >= 0)?.checked_mul(seconds * 1000)?;
    now_ms.checked_sub(age_ms)
}

pub(super) async fn audit(global: &Global, command: AuditCommand) -> Outcome {
    let app = open(global).await?;
    let done = match command {
        AuditCommand::List { which, limit } => list(global, &app, &which, limit).await,
        AuditCommand::Export { which, format, output } => export(global, &app, &which, format, output).await,
    };
    app.close().await;
    done
}

async fn list(global: &Global, app: &App, which: &Which, limit: u32) -> Outcome {
    let mut reader = Reader::new(app, which).await?;
    let mut entries = Vec::new();
    while entries.len() < limit as usize {
        let page = reader.next(limit - entries.len() as u32).await?;
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    let lines: Vec<String> = entries.iter().map(|e| fields(e).map(|f| if f.is_empty() { "-".into() } else { f }).join("\t")).collect();
    let rows: Vec<Value> = entries.iter().map(to_json).collect();
    show(global, lines.join("\n"), &json!({ "entries": rows }));
    Ok(())
}

async fn export(global: &Global, app: &App, which: &Which, format: Format, output: Option<PathBuf>) -> Outcome {
    let mut reader = Reader::new(app, which).await?;
    let name = output.as_ref().map_or("standard output".to_owned(), |p| p.display().to_string());
    let failed = |e: std::io::Error| Failure::new(1, "export", format!("cannot write the entries to {name}: {e}"));
    let mut out: BufWriter<Box<dyn Write + Send>> = BufWriter::new(match &output {
        Some(path) => Box::new(std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?),
        None => Box::new(std::io::stdout()),
    });
    if format == Format::Csv {
        writeln!(out, "{}", HEADING.join(",")).map_err(failed)?;
    }
    let mut count = 0u64;
    loop {
        let page = reader.next(PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in &page {
            let line = match format {
                Format::Ndjson => to_json(entry).to_string(),
                Format::Csv => fields(entry).map(|f| csv(&f)).join(","),
            };
            writeln!(out, "{line}").map_err(failed)?;
        }
        count += page.len() as u64;
    }
    out.flush().map_err(failed)?;
    // On standard output there is nothing but the entries.
    if output.is_some() {
        show(global, format!("{count} entries written to {name}"), &json!({"entries": count, "output": name}));
    }
    Ok(())
}

const HEADING: [&str; 8] = ["at", "event", "user_id", "actor_id", "via", "device_id", "remote_ip", "detail"];

fn fields(e: &AuditEntry) -> [String; 8] {
    let id = |id: Option<String>| id.unwrap_or_default();
    [
        time_text(e.at_ms),
        e.event.clone(),
        id(e.user_id.map(|u| u.to_string())),
        id(e.actor_id.map(|u| u.to_string())),
        e.via.clone(),
        id(e.device_id.map(|d| d.to_string())),
        id(e.remote_ip.clone()),
        e.detail.clone(),
    ]
}

fn to_json(e: &AuditEntry) -> Value {
    json!({"audit_id": e.audit_id, "at": time_text(e.at_ms), "event": e.event, "user_id": e.user_id, "actor_id": e.actor_id, "via": e.via,
        "device_id": e.device_id, "remote_ip": e.remote_ip, "detail": e.detail})
}

/// A field of a line. What a spreadsheet would take for a formula gets an apostrophe: details hold words of users.
fn csv(text: &str) -> String {
    let safe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if safe.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        let now_ms = 1_000_000_000;
        assert_eq!(parse_since("1970-01-02T00:00:00Z", now_ms), Some(86_400_000));
        assert_eq!(parse_since("90s", now_ms), Some(now_ms - 90_000));
        assert_eq!(parse_since("2d", now_ms), Some(now_ms - 172_800_000));
        for wrong in ["", "soon", "5", "d", "-1d", "1w", "99999999999999999d"] {
            assert_eq!(parse_since(wrong, now_ms), None, "{wrong}");
        }
    }

    #[test]
    fn lines_stay_lines_and_words_stay_words() {
        assert_eq!(csv("plain"), "plain");
        assert_eq!(csv("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(csv("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }
}
