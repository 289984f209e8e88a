//! Uploads through a public link. Whoever uploads learns nothing of what is in the folder, not even that a name is taken.

use super::super::plain::{bytes_of, time, uuid};
use super::super::upload::hash;
use super::super::{AppState, Json, Path, Problem, Query, RawBody};
use super::Visit;
use crate::service::content::UploadBegun;
use crate::service::links::LinkKind;
use crate::service::{Kind, ServiceError};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InitBody {
    file_name: String,
    /// Bytes.
    file_size: u64,
    /// SHA-256, 64 hexadecimal digits, if it is known already.
    file_hash: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct InitDoc {
    upload_id: String,
    /// Bytes.
    chunk_size: u64,
    num_chunks: u64,
    expires_at: String,
}

#[derive(Deserialize)]
pub(super) struct ChunkQuery {
    upload_id: String,
    chunk_index: u64,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteBody {
    upload_id: String,
    /// SHA-256 of the whole, 64 hexadecimal digits, if it was not said at the beginning.
    file_hash: Option<String>,
}

pub(super) async fn init(
    State(app): State<AppState>,
    visit: Visit,
    Path(token): Path<String>,
    Json(body): Json<InitBody>,
) -> Result<Json<InitDoc>, Problem> {
    let opened = visit.open_for(&app, &token, &[LinkKind::Upload]).await?;
    let hash = body.file_hash.as_deref().map(hash).transpose()?;
    app.links.may_upload(&opened).await?;
    match app.content.begin_public_upload(&opened.entry, &body.file_name, body.file_size, hash).await.map_err(discreet)? {
        UploadBegun::Begun(row) => Ok(Json(InitDoc {
            upload_id: uuid(&row.version_id),
            chunk_size: row.chunk_size_bytes,
            num_chunks: row.num_chunks,
            expires_at: time(row.expires_at_ms),
        })),
        // Whoever comes by a link has nothing that could be deduplicated with.
        UploadBegun::Deduplicated(_) => Err(ServiceError::internal("an upload through a link was deduplicated").into()),
    }
}

pub(super) async fn chunk(
    State(app): State<AppState>,
    visit: Visit,
    Path(token): Path<String>,
    Query(query): Query<ChunkQuery>,
    RawBody(bytes): RawBody,
) -> Result<Json<Value>, Problem> {
    let opened = visit.open_for(&app, &token, &[LinkKind::Upload]).await?;
    let id = bytes_of(&query.upload_id)?;
    let done = app.content.put_public_chunk(&opened.entry, id, query.chunk_index, bytes).await.map_err(discreet)?;
    Ok(Json(json!({"chunk_index": done.index, "remaining": done.remaining})))
}

pub(super) async fn complete(
    State(app): State<AppState>,
    visit: Visit,
    Path(token): Path<String>,
    Json(body): Json<CompleteBody>,
) -> Result<Json<Value>, Problem> {
    let opened = visit.open_for(&app, &token, &[LinkKind::Upload]).await?;
    let told = body.file_hash.as_deref().map(hash).transpose()?;
    let size = app.content.complete_public_upload(&opened.entry, bytes_of(&body.upload_id)?, told).await.map_err(discreet)?;
    Ok(Json(json!({"status": "completed", "size": size})))
}

/// How much the owner uses and may use is nobody else's to know.
fn discreet(error: ServiceError) -> ServiceError {
    if error.code() == "quota_exceeded" {
        return ServiceError::new(Kind::TooLarge, "quota_exceeded", "There is no room for this file. Nothing was stored.");
    }
    error
}
