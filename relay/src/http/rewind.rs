//! Going back to a time: `POST /api/v1/folders/{id}/rewind`.

use super::plain::{bytes_of, parse_time_ns, time, uuid};
use super::wire::CanEdit;
use super::{Access, AppState, Json, Problem, Route, Routes};
use crate::service::ServiceError;
use crate::service::content::{RewindCounts, RewindWish};
use axum::extract::State;
use ferry_protocol::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};

/// Entries of a page when nobody says otherwise.
const LIMIT_DEFAULT: usize = 200;

pub(super) fn routes(app: &AppState) -> Routes {
    let summary = "Take a folder, or what one device or user changed in it, back to a time";
    Routes::new(app).add(Route::post("/api/v1/folders/{ns}/rewind", Access::User, summary).no_timeout(), rewind)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// RFC 3339, or seconds since 1970.
    to: String,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// The client's id for this rewind, 16 bytes in hexadecimal: asked again with it, the rewind goes on. Needed unless it is a dry run.
    id: Option<String>,
    /// Only what this device changed: its name or id.
    by_device: Option<String>,
    /// Only what this user changed: address or id.
    by_user: Option<String>,
    /// Of a dry run: where the page of entries begins.
    cursor: Option<String>,
    /// Of a dry run: entries of the page.
    limit: Option<usize>,
}

async fn rewind(State(app): State<AppState>, CanEdit(entry): CanEdit, Json(body): Json<Wish>) -> Result<Json<Value>, Problem> {
    let ns = parse_time_ns(&body.to).ok_or_else(|| ServiceError::malformed("'to' is no time (RFC 3339 or seconds since 1970)."))?;
    let only_by = match (&body.by_device, &body.by_user) {
        (None, None) => None,
        (device, user) => Some(app.content.rewind_authors(&entry, device.as_deref(), user.as_deref()).await?),
    };
    let wish = RewindWish { to_ms: ns.div_euclid(1_000_000), only_by };
    if body.dry_run {
        let after = body.cursor.as_deref().map(str::parse::<NodeId>).transpose();
        let after = after.map_err(|_| ServiceError::malformed("'cursor' is not one of this relay."))?;
        let plan = app.content.rewind_plan(&entry, &wish, after, body.limit.unwrap_or(LIMIT_DEFAULT)).await?;
        let entries: Vec<Value> =
            plan.entries.iter().map(|e| json!({"file_id": uuid(e.node.as_bytes()), "path": e.path, "acts": e.acts})).collect();
        return Ok(Json(json!({
            "dry_run": true,
            "to": time(wish.to_ms),
            "counts": counts_json(plan.counts),
            "entries": entries,
            "cursor": plan.next.map(|n| n.to_string()),
            "has_more": plan.next.is_some(),
        })));
    }
    let id = body.id.as_deref().ok_or_else(|| ServiceError::malformed("Give 'id', 16 random bytes in hexadecimal, or 'dry_run'."))?;
    let id = bytes_of(id).map_err(|_| ServiceError::malformed("'id' is not 16 bytes in hexadecimal."))?;
    let done = app.content.rewind(&entry, id, &wish).await?;
    if done.is_finished {
        let detail = format!("folder {} to {}", entry.namespace(), time(wish.to_ms));
        app.accounts.note_act(entry.caller(), "folder.rewound", &detail).await;
    }
    Ok(Json(json!({
        "dry_run": false,
        "to": time(wish.to_ms),
        "finished": done.is_finished,
        "counts": counts_json(done.counts),
        // What was true just before it.
        "undo_to": time(done.started_at_ms - 1),
    })))
}

fn counts_json(counts: RewindCounts) -> Value {
    serde_json::to_value(counts).unwrap_or_default()
}
