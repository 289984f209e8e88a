//! `ferry retention`: how long the relay keeps old versions and the trash.

use super::client::encode;
use super::status::plural;
use super::{Context, selector};
use crate::problem::{Outcome, Problem, exit};
use crate::quantity::{self, Span};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

const DAY_S: u64 = 24 * 60 * 60;

/// `ferry retention`
#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Show the rule
    Show {
        /// Of this folder: name, id or path
        #[arg(long)]
        folder: Option<String>,
    },
    /// Set the rule; what is not named is kept for ever
    #[command(
        after_long_help = "Examples:\n  ferry retention set --all 30d --daily 365d --trash 90d --dry-run\n  ferry retention set --folder Photos --max-versions 3\n\nA time begins when a version was replaced. What a file holds now and versions with a label are kept in any case.\nA new rule is kept to from a day later on."
    )]
    Set(SetArgs),
    /// Take the rule away: everything is kept; of a folder, as the rule for all folders says
    Clear {
        /// Of this folder: name, id or path
        #[arg(long)]
        folder: Option<String>,
    },
    /// Say what would go by the rule that there is, if it were kept to now
    Preview {
        /// Of this folder: name, id or path
        #[arg(long)]
        folder: Option<String>,
    },
}

/// `ferry retention set`
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// Only for this folder: name, id or path [default: for all own folders that have no rule]
    #[arg(long)]
    pub folder: Option<String>,
    /// Keep every version for so long after it was replaced, for example 30d
    #[arg(long, value_name = "TIME")]
    pub all: Option<Span>,
    /// After that keep the last version of each day, until so long after it was replaced; 0 for none [default: for ever]
    #[arg(long, value_name = "TIME", requires = "all")]
    pub daily: Option<Span>,
    /// Keep at most so many old versions of a file
    #[arg(long, value_name = "N", required_unless_present_any = ["all", "trash"])]
    pub max_versions: Option<u32>,
    /// Remove for good what has been in the trash for longer than this
    #[arg(long, value_name = "TIME")]
    pub trash: Option<Span>,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs a retention command.
pub async fn run(context: &Context, command: RetentionCommand) -> Outcome<u8> {
    let folder_of = |folder: Option<String>| folder.map(|folder| selector(&folder)).transpose();
    match command {
        RetentionCommand::Show { folder } => {
            let query = folder_of(folder)?.map(|folder| format!("?folder={}", encode(folder))).unwrap_or_default();
            tell(context, &context.client.get(&format!("/relay/retention{query}")).await?);
        }
        RetentionCommand::Set(args) => {
            let rule = json!({
                "all_days": days(args.all)?, "daily_days": days(args.daily)?, "max_versions": args.max_versions, "trash_days": days(args.trash)?,
            });
            let mut wish = json!({"folder": folder_of(args.folder)?, "rule": rule, "dry_run": true});
            if args.dry_run {
                preview(context, &context.client.post("/relay/retention", &wish).await?);
                return Ok(exit::OK);
            }
            if !context.ui.json {
                preview(context, &context.client.post("/relay/retention", &wish).await?);
            }
            context.ui.confirm("Keep old versions and the trash no longer than this")?;
            wish["dry_run"] = false.into();
            tell(context, &context.client.post("/relay/retention", &wish).await?);
        }
        RetentionCommand::Clear { folder } => {
            let wish = json!({"folder": folder_of(folder)?, "rule": null});
            tell(context, &context.client.post("/relay/retention", &wish).await?);
        }
        RetentionCommand::Preview { folder } => {
            let wish = json!({"folder": folder_of(folder)?, "rule": null, "dry_run": true});
            preview(context, &context.client.post("/relay/retention", &wish).await?);
        }
    }
    Ok(exit::OK)
}

/// Whole days.
fn days(span: Option<Span>) -> Outcome<Option<u64>> {
    let Some(Span(time)) = span else { return Ok(None) };
    if time.as_secs() % DAY_S != 0 {
        return Err(Problem::usage("the relay keeps things for whole days").hint("write it like 30d or 4w"));
    }
    Ok(Some(time.as_secs() / DAY_S))
}

fn tell(context: &Context, answer: &Value) {
    let ui = &context.ui;
    if ui.json {
        return ui.document(answer);
    }
    let rule = if answer["effective"].is_object() { &answer["effective"] } else { &answer["rule"] };
    let whose = match (answer["folder"].as_str(), answer["rule"].is_null()) {
        (None, _) => "all own folders".to_owned(),
        (Some(folder), false) => format!("{folder}, by a rule of its own"),
        (Some(folder), true) => format!("{folder}, by its owner's rule for all folders"),
    };
    ui.line(&format!("{whose}:"));
    for line in said(rule) {
        ui.line(&format!("  {line}"));
    }
}

/// A rule in words.
fn said(rule: &Value) -> Vec<String> {
    let number = |name: &str| rule[name].as_u64();
    let of_days = |days: u64| plural(days, "day", "days");
    let mut lines = Vec::new();
    match (number("all_days"), number("daily_days")) {
        (None, _) => lines.push("every old version is kept for ever".to_owned()),
        (Some(all), Some(0)) => lines.push(format!("every old version is kept for {}", of_days(all))),
        (Some(all), daily) => {
            let until = daily.map_or_else(|| "for ever".to_owned(), |days| format!("until {}", of_days(days)));
            lines.push(format!("every old version is kept for {}, then one a day {until}", of_days(all)));
        }
    }
    lines.extend(number("max_versions").map(|max| format!("at most {} of a file", plural(max, "old version", "old versions"))));
    lines.push(number("trash_days").map_or_else(
        || "what is in the trash stays there until somebody removes it".to_owned(),
        |days| format!("what has been in the trash for {} is removed for good", of_days(days)),
    ));
    lines
}

fn preview(context: &Context, answer: &Value) {
    let ui = &context.ui;
    if ui.json {
        return ui.document(answer);
    }
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    ui.line(&format!(
        "If it were kept to now: {} of {} and {} from the trash would go, at least {}",
        plural(count("versions"), "version", "versions"),
        plural(count("files"), "file", "files"),
        plural(count("trash_entries"), "entry", "entries"),
        quantity::bytes(count("freed_bytes"))
    ));
    for file in answer["named"].as_array().into_iter().flatten().take(20) {
        let numbers: Vec<String> = file["versions"].as_array().into_iter().flatten().map(Value::to_string).collect();
        let path = ferry_protocol::name::display_bytes(file["path"].as_str().unwrap_or("?").as_bytes());
        ui.line(&format!("  {path}   {}", numbers.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_days() {
        assert_eq!(days(Some("4w".parse().unwrap())).unwrap(), Some(28));
        assert_eq!(days(Some("0".parse().unwrap())).unwrap(), Some(0));
        assert_eq!(days(Some("36h".parse().unwrap())).unwrap_err().exit_code, exit::USAGE);
        assert_eq!(days(None).unwrap(), None);
    }

    #[test]
    fn a_rule_is_said_in_words() {
        let for_ever = said(&Value::Null);
        assert_eq!((for_ever.len(), for_ever[0].as_str()), (2, "every old version is kept for ever"));
        let rule = json!({"all_days": 30, "daily_days": 365, "max_versions": 1, "trash_days": 90});
        let wanted = [
            "every old version is kept for 30 days, then one a day until 365 days",
            "at most 1 old version of a file",
            "what has been in the trash for 90 days is removed for good",
        ];
        assert_eq!(said(&rule), wanted);
        assert_eq!(said(&json!({"all_days": 1, "daily_days": 0}))[0], "every old version is kept for 1 day");
        assert!(said(&json!({"all_days": 7}))[0].ends_with("one a day for ever"));
    }
}
