//! Commands for how long old versions and the trash are kept. They work beside a running relay.

use super::{Failure, Global, Outcome, accounts, show};
use crate::App;
use crate::service::content::RetentionRule;
use clap::{Args, Subcommand};
use ferry_protocol::UserId;
use serde_json::json;

#[derive(Subcommand)]
pub(super) enum RetentionCommand {
    /// The rule of a user for all folders that have none of their own
    Show {
        /// The user's e-mail address
        user: String,
    },
    /// Set the rule of a user; what is not named is kept for ever
    Set {
        /// The user's e-mail address
        user: String,
        #[command(flatten)]
        rule: RuleArgs,
    },
    /// Take the rule of a user away: everything is kept
    Clear {
        /// The user's e-mail address
        user: String,
    },
    /// Keep all folders to their rules now; the relay does it by itself once a day
    Run {
        /// Only this user's folders
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

/// A rule, in days.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(super) struct RuleArgs {
    /// Keep every version for so many days after it was replaced
    #[arg(long, value_name = "DAYS")]
    all_days: Option<u32>,
    /// After that keep one version a day, until so many days after it was replaced; 0 for none
    #[arg(long, value_name = "DAYS", requires = "all_days")]
    daily_days: Option<u32>,
    /// Keep at most so many old versions of a file
    #[arg(long, value_name = "N")]
    max_versions: Option<u32>,
    /// Remove what has been in the trash for so many days
    #[arg(long, value_name = "DAYS")]
    trash_days: Option<u32>,
}

pub(super) async fn retention(global: &Global, command: RetentionCommand) -> Outcome {
    let app = accounts::open(global).await?;
    let outcome = match command {
        RetentionCommand::Show { user } => show_rule(global, &app, &user).await,
        RetentionCommand::Set { user, rule } => {
            let RuleArgs { all_days, daily_days, max_versions, trash_days } = rule;
            set(global, &app, &user, Some(RetentionRule { all_days, daily_days, max_versions, trash_days })).await
        }
        RetentionCommand::Clear { user } => set(global, &app, &user, None).await,
        RetentionCommand::Run { user, dry_run } => run(global, &app, user, dry_run).await,
    };
    app.close().await;
    outcome
}

async fn find(app: &App, user: &str) -> Result<UserId, Failure> {
    Ok(app.accounts.user_by_email(user).await?.user_id)
}

async fn show_rule(global: &Global, app: &App, user: &str) -> Outcome {
    let rule = app.content.user_retention(find(app, user).await?).await?;
    show(global, said(rule), &json!({ "rule": rule }));
    Ok(())
}

async fn set(global: &Global, app: &App, user: &str, rule: Option<RetentionRule>) -> Outcome {
    let rule = app.content.set_user_retention(find(app, user).await?, rule).await?;
    app.accounts.note_operation("retention.changed", &format!("{user}: {}", said(rule))).await;
    show(global, format!("{}; it is kept to from a day later on", said(rule)), &json!({ "rule": rule }));
    Ok(())
}

async fn run(global: &Global, app: &App, user: Option<String>, dry_run: bool) -> Outcome {
    let user = match &user {
        Some(email) => Some(find(app, email).await?),
        None => None,
    };
    let report = app.content.retain_now(user, dry_run).await?;
    let verb = if dry_run { "would go" } else { "gone" };
    let human = format!(
        "{} versions of {} files and {} entries of trashes {verb}; {} bytes are free once the sweep has been",
        report.versions, report.files, report.trash_entries, report.freed_bytes
    );
    show(global, human, &serde_json::to_value(&report).unwrap_or_default());
    Ok(())
}

/// A rule in words.
fn said(rule: Option<RetentionRule>) -> String {
    let rule = rule.unwrap_or_default();
    if rule.is_for_ever() {
        return "everything is kept for ever".to_owned();
    }
    let mut parts =
        vec![rule.all_days.map_or_else(|| "every version for ever".to_owned(), |days| format!("every version for {days} days"))];
    match (rule.all_days, rule.daily_days) {
        (None, _) | (_, Some(0)) => {}
        (_, Some(days)) => parts.push(format!("then one a day until {days} days")),
        (_, None) => parts.push("then one a day for ever".to_owned()),
    }
    parts.extend(rule.max_versions.map(|max| format!("at most {max} old versions of a file")));
    parts.push(rule.trash_days.map_or_else(|| "the trash for ever".to_owned(), |days| format!("the trash for {days} days")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_sentence() {
        assert_eq!(said(None), "everything is kept for ever");
        let rule = RetentionRule { all_days: Some(30), daily_days: Some(365), max_versions: None, trash_days: Some(90) };
        assert_eq!(said(Some(rule)), "every version for 30 days, then one a day until 365 days, the trash for 90 days");
        let rule = RetentionRule { max_versions: Some(3), ..RetentionRule::default() };
        assert_eq!(said(Some(rule)), "every version for ever, at most 3 old versions of a file, the trash for ever");
    }
}
