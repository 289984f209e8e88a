//! Commands for what lets people and programs in without a login: invitations and app passwords. They work beside a running relay, which heeds them at once.

use super::accounts::{all_users, done, open};
use super::{Failure, Global, Outcome};
use crate::App;
use crate::http::time_text;
use crate::service::SessionId;
use crate::service::accounts::NewAppPassword;
use crate::store::accounts::User;
use crate::store::signin::ApiToken;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Subcommand)]
pub(super) enum InviteCommand {
    /// A code with which one person may register
    Create {
        /// For how long: 7d, 12h, 30m
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        expires: Option<i64>,
    },
    /// Invitations that can still be used; their codes are not kept
    List,
    /// Take an invitation back
    Revoke {
        /// Its id, or the code
        id: String,
    },
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// An app password of a user; shown once
    Create {
        /// The user's e-mail address
        user: String,
        /// What it is for, for people
        #[arg(long)]
        name: String,
        /// What it may do: files:read, files:write, dav; several times for several
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// For how long: 90d, 12h; without it until it is revoked
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        expires: Option<i64>,
    },
    /// App passwords of a user, or of all
    List {
        /// The user's e-mail address
        user: Option<String>,
    },
    /// End an app password, at once and everywhere
    Revoke {
        /// Its id
        id: String,
        /// Whose it is; without it all users are searched
        #[arg(long)]
        user: Option<String>,
    },
}

/// `7d`, `12h`, `30m`, `45s`: milliseconds.
fn parse_span(text: &str) -> Result<i64, String> {
    let wrong = || format!("'{text}' is not a time such as 7d, 12h or 30m");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.parse::<i64>().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    number.checked_mul(seconds * 1000).ok_or_else(wrong)
}

pub(super) async fn invite(global: &Global, command: InviteCommand) -> Outcome {
    let app = open(global).await?;
    match command {
        InviteCommand::Create { expires } => {
            let code = match expires {
                Some(ttl_ms) => app.accounts.create_invite_for(ttl_ms).await?,
                None => app.accounts.create_invite().await?,
            };
            done(global, &app, code.secret.clone(), json!({"code": code.secret, "expires_at": time_text(code.expires_at_ms)})).await
        }
        InviteCommand::List => {
            let all = app.accounts.invites().await?;
            let lines: Vec<String> = all
                .iter()
                .map(|i| format!("{}\tmade {}\tuntil {}", i.id, time_text(i.created_at_ms), time_text(i.expires_at_ms)))
                .collect();
            let rows: Vec<Value> = all
                .iter()
                .map(|i| json!({"id": i.id, "created_at": time_text(i.created_at_ms), "expires_at": time_text(i.expires_at_ms)}))
                .collect();
            let human = if lines.is_empty() { "no invitation is open".into() } else { lines.join("\n") };
            done(global, &app, human, json!({"invites": rows})).await
        }
        InviteCommand::Revoke { id } => {
            app.accounts.revoke_invite(&id).await?;
            done(global, &app, "invitation taken back".into(), json!({"revoked": true})).await
        }
    }
}

pub(super) async fn token(global: &Global, command: TokenCommand) -> Outcome {
    let app = open(global).await?;
    match command {
        TokenCommand::Create { user, name, scopes, expires } => {
            let user = app.accounts.user_by_email(&user).await?;
            let expires_at_ms = expires.map(|span_ms| app.clock.now_ms().saturating_add(span_ms));
            let new = NewAppPassword { name, scopes, folder: None, expires_at_ms };
            let (secret, token) = app.accounts.create_app_password_for(user.user_id, new).await?;
            let mut machine = token_json(&user, &token);
            machine["token"] = json!(secret);
            done(global, &app, format!("{secret}\n  it is shown this once; its id is {}", token.token_id), machine).await
        }
        TokenCommand::List { user } => {
            let mut rows = Vec::new();
            for user in users(&app, user.as_deref()).await? {
                for token in app.accounts.app_passwords(user.user_id).await? {
                    rows.push((user.clone(), token));
                }
            }
            let lines: Vec<String> = rows.iter().map(|(user, token)| token_text(user, token)).collect();
            let machine: Vec<Value> = rows.iter().map(|(user, token)| token_json(user, token)).collect();
            let human = if lines.is_empty() { "no app passwords".into() } else { lines.join("\n") };
            done(global, &app, human, json!({"tokens": machine})).await
        }
        TokenCommand::Revoke { id, user } => {
            let missing = || Failure::new(7, "not_found", format!("there is no app password '{id}'"));
            let token_id: SessionId = id.parse().map_err(|_| missing())?;
            for user in users(&app, user.as_deref()).await? {
                if app.accounts.app_passwords(user.user_id).await?.iter().any(|token| token.token_id == token_id) {
                    app.accounts.revoke_app_password(user.user_id, token_id).await?;
                    return done(global, &app, format!("an app password of {} ended", user.email), json!({"id": id, "revoked": true}))
                        .await;
                }
            }
            Err(missing())
        }
    }
}

async fn users(app: &App, email: Option<&str>) -> Result<Vec<User>, Failure> {
    match email {
        Some(email) => Ok(vec![app.accounts.user_by_email(email).await?]),
        None => all_users(app).await,
    }
}

fn token_text(user: &User, token: &ApiToken) -> String {
    let until = token.expires_at_ms.map_or("until it is revoked".to_owned(), |at_ms| format!("until {}", time_text(at_ms)));
    let used = token.last_used_at_ms.map_or("never used".to_owned(), |at_ms| format!("used {}", time_text(at_ms)));
    format!("{}\t{}\t{}\t{}\t{until}\t{used}", token.token_id, user.email, token.name, token.scopes.names().join(","))
}

fn token_json(user: &User, token: &ApiToken) -> Value {
    json!({
        "id": token.token_id.to_string(), "user": user.email, "name": token.name, "scopes": token.scopes.names(), "path": token.path,
        "created_at": time_text(token.created_at_ms), "expires_at": token.expires_at_ms.map(time_text),
        "last_used_at": token.last_used_at_ms.map(time_text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(parse_span("7d"), Ok(7 * 86_400_000));
        assert_eq!(parse_span("30m"), Ok(1_800_000));
        for wrong in ["", "7", "d", "-1d", "0h", "1w", "9999999999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
