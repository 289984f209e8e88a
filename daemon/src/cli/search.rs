//! `ferry search`.

use super::client::encode;
use super::{Context, tilde};
use crate::problem::{Outcome, exit};
use crate::quantity::{self, Span};
use crate::ui::table::Table;
use clap::Args;
use ferry_protocol::name::display_bytes;
use serde_json::Value;

/// `ferry search`
#[derive(Debug, Clone, Args)]
pub struct SearchArgs {
    /// Words; a name holds all of them, in any order, whatever their case and accents
    pub words: Vec<String>,
    /// Only this folder
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<String>,
    /// Only this kind: directory, file, symlink, image, video, audio, document or archive
    #[arg(long = "type", value_name = "KIND")]
    pub kind: Option<String>,
    /// Only what changed in this last time, for example 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
    /// Not smaller, in bytes
    #[arg(long, value_name = "BYTES")]
    pub min_size: Option<u64>,
    /// Not larger, in bytes
    #[arg(long, value_name = "BYTES")]
    pub max_size: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}

/// Searches by name over all that the account may see on the relay, and says where it lies on this device.
pub async fn run(context: &Context, args: SearchArgs) -> Outcome<u8> {
    let (ui, limit) = (&context.ui, args.limit.to_string());
    let mut path = format!("/search?q={}&limit={limit}", encode(args.words.join(" ")));
    let folder = args.folder.as_deref().map(super::selector).transpose()?;
    let since = args.since.map(|s| s.0.as_secs().to_string());
    let sizes = [args.min_size, args.max_size].map(|size| size.map(|bytes| bytes.to_string()));
    for (name, value) in [
        ("folder", folder.as_deref()),
        ("type", args.kind.as_deref()),
        ("within_s", since.as_deref()),
        ("min_size", sizes[0].as_deref()),
        ("max_size", sizes[1].as_deref()),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    let answer = context.client.get(&path).await?;
    let found = answer["files"].as_array().cloned().unwrap_or_default();
    if ui.json {
        ui.document(&answer);
    } else {
        let mut table = Table::new(&["NAME", "WHERE", "SIZE", "CHANGED"]).right(2);
        for file in &found {
            let size = if file["kind"] == "file" { quantity::bytes(file["file_size"].as_u64().unwrap_or(0)) } else { String::new() };
            let changed = text(file, "modified_at").or(text(file, "updated_at")).unwrap_or_default();
            table.row(vec![shown(text(file, "file_name").unwrap_or_default()), place(file), size, changed.chars().take(10).collect()]);
        }
        table.print(ui, "nothing found");
        if answer["has_more"] == true {
            ui.message(&format!("these are the best {limit}; more words, or --limit, show others"));
        }
    }
    Ok(if found.is_empty() { exit::NOT_FOUND } else { exit::OK })
}

fn text<'a>(file: &'a Value, name: &str) -> Option<&'a str> {
    file[name].as_str()
}

fn shown(text: &str) -> String {
    display_bytes(text.as_bytes())
}

/// On this device where it is synced, else in its folder on the relay.
fn place(file: &Value) -> String {
    match (text(file, "local_path"), text(file, "folder")) {
        (Some(path), _) => tilde(path),
        (None, Some(folder)) => format!("{}:{}", shown(folder), shown(text(file, "file_path").unwrap_or_default())),
        (None, None) => "shared with me".into(),
    }
}
