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
use std::time::Duration;

/// Requests of one rewind: each takes thousands of items.
const REQUESTS_MAX: usize = 10_000;

/// Requests one after the other that may get no answer, and the first pause after one, which is doubled.
const LOST_MAX: u32 = 6;
const LOST_PAUSE: Duration = Duration::from_secs(1);

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
    let id = args.id.clone().unwrap_or_else(|| hex::encode(crate::folder::random_bytes()));
    wish["dry_run"] = false.into();
    wish["id"] = id.clone().into();
    if !ui.json {
        ui.line(&format!("  if this is interrupted, go on with: {}", command(&args, &wish)));
    }
    let mut answer = until_finished(async || context.client.post(&path, &wish).await, tokio::time::sleep).await.map_err(|problem| {
        let hint = format!("go on with it with: {}", command(&args, &wish));
        if may_have_been_lost(&problem) { problem.hint(hint) } else { problem }
    })?;
    answer["id"] = id.into();
    if ui.json {
        ui.document(&answer);
    } else {
        ui.done(&format!("{}; the devices follow", sentence(&answer["counts"])));
        ui.line(&format!(
            "  take this back with: ferry folder rewind {} --to {}",
            quoted(&args.folder),
            answer["undo_to"].as_str().unwrap_or("?")
        ));
    }
    Ok(exit::OK)
}

/// The command that goes on with this very rewind.
fn command(args: &RewindArgs, wish: &Value) -> String {
    let value = |name: &str| wish[name].as_str().unwrap_or("?").to_owned();
    let mut words = vec!["ferry folder rewind".to_owned(), quoted(&args.folder), "--to".into(), value("to"), "--id".into(), value("id")];
    for (flag, chosen) in [("--only-by", &args.only_by), ("--only-by-user", &args.only_by_user)] {
        words.extend(chosen.iter().flat_map(|name| [flag.to_owned(), quoted(name)]));
    }
    words.join(" ")
}

/// As one word of a shell.
pub fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"@%+=:,./-_~".contains(&b));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Whether a request may have been carried out although this is what came back: with the same id it is asked again.
fn may_have_been_lost(problem: &Problem) -> bool {
    matches!(problem.exit_code, exit::UNREACHABLE | exit::TEMPORARY | exit::NO_DAEMON)
}

/// Asks until the rewind is finished: each request does a part, and one whose answer was lost goes on where it was.
async fn until_finished<P: Future<Output = ()>>(ask: impl AsyncFn() -> Outcome<Value>, pause: impl Fn(Duration) -> P) -> Outcome<Value> {
    let mut lost: u32 = 0;
    for _ in 0..REQUESTS_MAX {
        match ask().await {
            Ok(answer) if answer["finished"] == true => return Ok(answer),
            Ok(_) => lost = 0,
            Err(problem) if may_have_been_lost(&problem) && lost < LOST_MAX => {
                pause(LOST_PAUSE.saturating_mul(1 << lost)).await;
                lost += 1;
            }
            Err(problem) => return Err(problem),
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
        ("not_kept", "contents left, as they were purged or the relay has lost them"),
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
pub fn time(text: &str) -> Outcome<Timestamp> {
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
    use std::cell::Cell;

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

    #[tokio::test]
    async fn what_may_have_been_lost_is_asked_again_and_what_was_refused_is_not() {
        let lost = || Err(Problem::unreachable("no answer"));
        let (part, all) = (|| Ok(json!({"finished": false})), || Ok(json!({"finished": true})));
        let run = async |answers: Vec<Outcome<Value>>| {
            let (asked, pauses) = (Cell::new(0), Cell::new(Duration::ZERO));
            let ask = async || {
                asked.set(asked.get() + 1);
                answers[asked.get() - 1].clone()
            };
            let pause = |pause| {
                pauses.set(pauses.get() + pause);
                std::future::ready(())
            };
            let done = until_finished(ask, pause).await;
            (done.map_err(|p| p.code), asked.get(), pauses.get().as_secs())
        };
        assert_eq!(run(vec![lost(), part(), lost(), lost(), all()]).await, (Ok(json!({"finished": true})), 5, 1 + 1 + 2));
        let refused = Err(Problem::forbidden("no"));
        assert_eq!(run(vec![part(), refused]).await, (Err("forbidden".into()), 2, 0));
        let dead = (0..=LOST_MAX).map(|_| lost()).collect();
        assert_eq!(run(dead).await, (Err("relay_unreachable".into()), LOST_MAX as usize + 1, 63));
    }

    #[test]
    fn the_command_that_goes_on_asks_for_the_very_same() {
        let args = RewindArgs {
            folder: "docs".into(),
            to: "2h".into(),
            dry_run: false,
            only_by: Some("old laptop".into()),
            only_by_user: None,
            id: None,
        };
        let wish = json!({"to": "2026-11-22T10:30:00Z", "id": "ab"});
        let wanted = "ferry folder rewind docs --to 2026-11-22T10:30:00Z --id ab --only-by 'old laptop'";
        assert_eq!(command(&args, &wish), wanted);
    }
}
