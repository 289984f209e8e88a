//! `ferry folder rewind`: a folder, or what one device or user did to it, as it was at a time.

use super::args::RewindArgs;
use super::client::encode;
use super::{Context, selector};
use crate::problem::{Outcome, Problem, exit};
use crate::quantity::{self, Span};
use crate::supervisor::now_ms;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Requests of one rewind: each takes thousands of items.
const REQUESTS_MAX: usize = 10_000;

/// Shows what would happen, or does it.
pub async fn run(context: &Context, args: RewindArgs) -> Outcome<u8> {
    let ui = &context.ui;
    let path = format!("/folders/{}/rewind", encode(selector(&args.folder)?));
    let mut wish = json!({"to": time(&args.to)?.to_string(), "dry_run": true});
    if let Some(device) = &args.only_by {
        wish["by_device"] = json!(device);
    }
    if let Some(user) = &args.only_by_user {
        wish["by_user"] = json!(user);
    }
    let plan = context.client.post(&path, &wish).await?;
    if args.dry_run {
        if ui.json {
            ui.document(&plan);
        } else {
            print_plan(context, &plan);
        }
        return Ok(exit::OK);
    }
    if !ui.json {
        print_plan(context, &plan);
    }
    ui.confirm("Take the folder back to then")?;
    wish["dry_run"] = false.into();
    wish["id"] = hex::encode(crate::folder::random_bytes()).into();
    for _ in 0..REQUESTS_MAX {
        // The same id: a request whose answer was lost goes on where it was.
        let answer = context.client.post(&path, &wish).await?;
        if answer["finished"] == true {
            if ui.json {
                ui.document(&answer);
            } else {
                ui.done(&format!("{}; the devices follow", sentence(&answer["counts"])));
                ui.line(&format!(
                    "  take this back with: ferry folder rewind {} --to {}",
                    args.folder,
                    answer["undo_to"].as_str().unwrap_or("?")
                ));
            }
            return Ok(exit::OK);
        }
    }
    Err(Problem::failed("rewind_endless", "the relay does not come to an end with this; ask its operator"))
}

fn print_plan(context: &Context, plan: &Value) {
    let ui = &context.ui;
    ui.line(&format!("At {}: {}", plan["to"].as_str().unwrap_or("?"), sentence(&plan["counts"])));
    for entry in plan["entries"].as_array().into_iter().flatten().take(20) {
        let acts: Vec<&str> = entry["acts"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let path = ferry_protocol::name::display_bytes(entry["path"].as_str().unwrap_or("?").as_bytes());
        ui.line(&format!("  {:<18} {path}", acts.join(", ")));
    }
    if plan["entries"].as_array().is_some_and(|e| e.len() > 20) || plan["has_more"] == true {
        ui.line("  and more; all of them with --json");
    }
}

fn sentence(counts: &Value) -> String {
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    let mut parts = Vec::new();
    for (name, words) in [
        ("restored", "brought back"),
        ("reverted", "with the content of then"),
        ("moved", "at the old place"),
        ("removed", "that came later to the trash"),
        ("not_kept", "left, as their content was purged"),
        ("kept_for_others", "left, as somebody else has changed them since"),
        ("changed_meanwhile", "left, as they changed just now: rewind again"),
    ] {
        if count(name) > 0 {
            parts.push(format!("{} {words}", quantity::count(count(name))));
        }
    }
    if parts.is_empty() { "nothing is different".into() } else { parts.join(", ") }
}

/// A time: RFC 3339, a local date and time, or so long ago.
fn time(text: &str) -> Outcome<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(local) = text.trim().replace(' ', "T").parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = local.to_zoned(TimeZone::system())
    {
        return Ok(zoned.timestamp());
    }
    let ago = text.parse::<Span>().ok().and_then(|Span(ago)| {
        let ms = now_ms().checked_sub(i64::try_from(ago.as_millis()).ok()?)?;
        Timestamp::from_millisecond(ms).ok()
    });
    ago.ok_or_else(|| {
        Problem::usage(format!("'{}' is not a time", ferry_protocol::name::display_bytes(text.as_bytes())))
            .hint("write it like 2026-11-22T10:30:00Z, \"2026-11-22 10:30\", or 2h for two hours ago")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_local_or_ago() {
        assert_eq!(time("2026-11-22T10:30:00Z").unwrap().as_millisecond(), 1_795_343_400_000);
        let local = time("2026-11-22 10:30").unwrap();
        assert_eq!(local.to_zoned(TimeZone::system()).strftime("%F %R").to_string(), "2026-11-22 10:30");
        let ago = now_ms() - time("2h").unwrap().as_millisecond();
        assert!((7_200_000..7_260_000).contains(&ago));
        for wrong in ["", "yesterday", "25:00"] {
            assert_eq!(time(wrong).unwrap_err().exit_code, exit::USAGE, "{wrong}");
        }
    }

    #[test]
    fn counts_become_a_sentence() {
        assert_eq!(sentence(&json!({"restored": 0})), "nothing is different");
        assert_eq!(sentence(&json!({"restored": 2, "moved": 1})), "2 brought back, 1 at the old place");
    }
}
