//! What `ferry up` and `ferry join` show while they run.

use crate::cli::Context;
use crate::cli::{status, watch};
use crate::problem::Outcome;
use serde_json::{Value, json};
use std::time::Duration;

/// How often the state is looked at without a terminal.
const LOOK: Duration = Duration::from_millis(500);

/// Shows the state until the daemon stops: redrawn on a terminal, else a line (or record) whenever it changes.
pub async fn until_stopped(context: &Context) -> Outcome<()> {
    let ui = &context.ui;
    if ui.out_is_terminal && !ui.json && !ui.quiet {
        ui.line("");
        return watch::status(context).await.map(drop);
    }
    let mut last = Value::Null;
    loop {
        let status = context.client.get("/status").await?;
        let mut short = json!({"type": "state", "state": status["state"], "relay": status["relay"]["state"]});
        let folders = status["folders"].as_array().into_iter().flatten();
        short["folders"] = folders.clone().map(|f| json!({"name": f["name"], "state": f["state"], "issues": f["issues_total"]})).collect();
        if short != last {
            if ui.json {
                ui.record(&short);
            } else if !ui.quiet {
                for folder in folders {
                    ui.line(&format!("  {}   {}", folder["name"].as_str().unwrap_or_default(), status::state_words(folder)));
                }
            }
            last = short;
        }
        tokio::time::sleep(LOOK).await;
    }
}
