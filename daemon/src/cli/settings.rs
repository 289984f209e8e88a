//! `ferry config` and `ferry limit`. The daemon writes the file if one runs; without one this does.

use super::Context;
use super::args::{ConfigCommand, LimitCommand};
use crate::config::{self, Key};
use crate::control::settings_document;
use crate::problem::{Outcome, Problem, exit};
use crate::ui::table::Table;
use serde_json::{Map, Value, json};

/// Runs a config command.
pub async fn config(context: &Context, command: ConfigCommand) -> Outcome<u8> {
    let ui = &context.ui;
    let file = &context.paths.config_file;
    match command {
        ConfigCommand::Path => {
            tell(context, &json!({"type": "config_path", "path": config::shown(file)}), || ui.line(&config::shown(file)))
        }
        ConfigCommand::List => {
            let document = document(context).await?;
            tell(context, &document, || list(context, &document));
        }
        ConfigCommand::Get { key } => {
            known(&key)?;
            let document = document(context).await?;
            let found = setting(&document, &key);
            tell(context, &found, || ui.line(found["value"].as_str().unwrap_or_default()));
        }
        ConfigCommand::Set { key, value } => {
            known(&key)?;
            let document = change(context, &key, Some(&value)).await?;
            report(context, &document, &key);
        }
        ConfigCommand::Unset { key } => {
            known(&key)?;
            let document = change(context, &key, None).await?;
            report(context, &document, &key);
        }
        ConfigCommand::Edit => edit(context).await?,
        ConfigCommand::Validate => {
            config::load(file, config::process_env, &[])?;
            tell(context, &json!({"type": "config_valid", "path": config::shown(file), "valid": true}), || {
                ui.done(&format!("{} is valid", config::shown(file)))
            });
        }
    }
    Ok(exit::OK)
}

fn tell(context: &Context, document: &Value, human: impl FnOnce()) {
    if context.ui.json { context.ui.document(document) } else { human() }
}

fn known(key: &str) -> Outcome<()> {
    Key::find(key).map(drop).map_err(|e| Problem::not_found("unknown_setting", e.message))
}

fn setting(document: &Value, key: &str) -> Value {
    let mut found = document["settings"].as_array().into_iter().flatten().find(|s| s["key"] == key).cloned().unwrap_or_default();
    found["type"] = "setting".into();
    found
}

async fn document(context: &Context) -> Outcome<Value> {
    match context.client.get("/config").await {
        Err(problem) if problem.code == "daemon_unreachable" => here(context),
        answer => answer,
    }
}

fn here(context: &Context) -> Outcome<Value> {
    let file = &context.paths.config_file;
    Ok(settings_document(&config::load(file, config::process_env, &[])?, file))
}

async fn change(context: &Context, key: &str, value: Option<&str>) -> Outcome<Value> {
    let mut changes = Map::new();
    changes.insert(key.to_owned(), value.into());
    match context.client.patch("/config", &Value::Object(changes)).await {
        Err(problem) if problem.code == "daemon_unreachable" => {}
        answer => return answer,
    }
    let file = &context.paths.config_file;
    let done = match value {
        Some(value) => config::set(file, key, value).map(drop),
        None => config::unset(file, key).map(drop),
    };
    done.map_err(|e| Problem::usage(e.message).code("config_invalid"))?;
    here(context)
}

fn report(context: &Context, document: &Value, key: &str) {
    let found = setting(document, key);
    tell(context, &found, || {
        let value = found["value"].as_str().unwrap_or_default();
        context.ui.done(&format!("{key} = {}", if value.is_empty() { "(not set)" } else { value }));
        if matches!(found["source"].as_str(), Some("env" | "flag")) {
            context.ui.warning(&format!(
                "{key} is overridden by the {} of the daemon",
                if found["source"] == "env" { "environment" } else { "command line" }
            ));
        }
    });
}

fn list(context: &Context, document: &Value) {
    let mut table = Table::new(&["KEY", "VALUE", "FROM", "MEANING"]);
    for found in document["settings"].as_array().into_iter().flatten() {
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        table.row(vec![text("key"), text("value"), text("source"), text("help")]);
    }
    table.print(&context.ui, "");
}

async fn edit(context: &Context) -> Outcome<()> {
    let file = &context.paths.config_file;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|v| config::process_env(v)).unwrap_or_else(|| "vi".into());
    if context.ui.no_input || context.ui.json || !context.ui.out_is_terminal {
        return Err(Problem::usage("an editor needs a terminal")
            .code("terminal_needed")
            .hint("change single settings with: ferry config set KEY VALUE"));
    }
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let status = std::process::Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status()?;
    if !status.success() {
        return Err(Problem::failed("editor_failed", format!("the editor '{editor}' failed")));
    }
    config::load(file, config::process_env, &[])?;
    match context.client.post("/reload", &json!({})).await {
        Ok(_) => context.ui.done("The daemon has taken up the settings"),
        Err(problem) if problem.code == "daemon_unreachable" => context.ui.done("The settings are valid"),
        Err(problem) => return Err(problem),
    }
    Ok(())
}

/// Runs a limit command.
pub async fn limit(context: &Context, command: LimitCommand) -> Outcome<u8> {
    if let LimitCommand::Set { up, down, lan } = command {
        for (key, rate) in [("limit.up", up), ("limit.down", down), ("limit.lan", lan)] {
            if let Some(rate) = rate {
                change(context, key, Some(&rate.to_string())).await?;
            }
        }
    }
    let document = document(context).await?;
    let value = |key: &str| setting(&document, key)["value"].as_str().unwrap_or_default().to_owned();
    let bytes = |key: &str| value(key).parse::<crate::quantity::Rate>().ok().and_then(|r| r.0);
    let answer = json!({
        "type": "limits", "up": value("limit.up"), "up_bytes_per_s": bytes("limit.up"),
        "down": value("limit.down"), "down_bytes_per_s": bytes("limit.down"),
        "lan": value("limit.lan"), "lan_bytes_per_s": bytes("limit.lan"),
    });
    tell(context, &answer, || {
        context.ui.line(&format!("up     {}", value("limit.up")));
        context.ui.line(&format!("down   {}", value("limit.down")));
        context.ui.line(&format!("lan    {}", value("limit.lan")));
    });
    Ok(exit::OK)
}
