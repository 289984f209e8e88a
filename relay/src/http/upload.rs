//! Upload (8003): the seed's init, chunk and complete, and raw chunks, progress and giving up.

use super::plain::{bytes_of, namespace_of, parse_time_ns, time, uuid};
use super::{Access, AppState, Json, Maybe, Path, Problem, RawBody, Route, Routes};
use crate::service::content::{Completed, NewUpload, UploadBegun, UploadProgress};
use crate::service::{Caller, Kind, Scope, ServiceError, ServiceResult};
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferry_protocol::{ChunkId, ContentHash};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// A chunk of 4 MiB in base64 with its JSON around it.
const CHUNK_BODY_MAX_BYTES: usize = 6 * 1024 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(
            Route::post("/upload/init", Access::User, "Begin an upload, or deduplicate it").scope(Scope::FilesWrite).takes::<InitUpload>(),
            init,
        )
        .add(
            Route::post("/upload/chunk", Access::User, "Send one chunk (JSON or multipart)")
                .scope(Scope::FilesWrite)
                .body_max(CHUNK_BODY_MAX_BYTES),
            chunk,
        )
        .add(
            Route::put("/upload/{version_id}/chunks/{index}", Access::User, "Send one chunk (raw)")
                .scope(Scope::FilesWrite)
                .body_max(CHUNK_BODY_MAX_BYTES),
            raw_chunk,
        )
        .add(Route::get("/upload/{version_id}", Access::User, "What an upload has and lacks").scope(Scope::FilesWrite), state)
        .add(Route::delete("/upload/{version_id}", Access::User, "Give an upload up").scope(Scope::FilesWrite), abort)
        .add(
            Route::post("/upload/complete/{version_id}", Access::User, "Complete an upload")
                .scope(Scope::FilesWrite)
                .may_take::<CompleteUpload>()
                .no_timeout(),
            complete,
        )
}

#[derive(Deserialize, ToSchema)]
struct InitUpload {
    file_name: String,
    /// Bytes.
    file_size: u64,
    /// SHA-256, 64 hexadecimal digits. Who says it may have no byte to send; who does not know it yet can say it at the end.
    file_hash: Option<String>,
    /// The directory, from the root of the space; directories that are not there are made.
    #[serde(default)]
    path: String,
    /// The space; nothing for the caller's home.
    space_id: Option<String>,
    /// The file's own time: RFC 3339 or seconds since 1970.
    mtime: Option<Value>,
    /// A file that is to get a new version: name and place are its own, whatever the rest says.
    file_id: Option<String>,
}

async fn init(State(app): State<AppState>, caller: Caller, Json(body): Json<InitUpload>) -> Result<Json<Value>, Problem> {
    let mtime_ns = match body.mtime {
        None | Some(Value::Null) => None,
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some(parse_time_ns(&text).ok_or_else(|| ServiceError::invalid("invalid_mtime", "'mtime' is RFC 3339 or seconds since 1970."))?)
        }
    };
    let new = NewUpload {
        file_name: body.file_name,
        directory: body.path,
        namespace: body.space_id.as_deref().map(namespace_of).transpose()?,
        size_bytes: body.file_size,
        hash: body.file_hash.as_deref().map(hash).transpose()?,
        mtime_ns,
    };
    let begun = match &body.file_id {
        Some(file) => app.content.begin_version(&caller, super::plain::node_of(file)?, &new).await?,
        None => app.content.begin_upload(&caller, &new).await?,
    };
    Ok(Json(match begun {
        UploadBegun::Deduplicated(done) => {
            let mut reply = completed(&done);
            reply["deduplication"] = true.into();
            reply
        }
        UploadBegun::Begun(row) => json!({
            "deduplication": false,
            "version_id": uuid(&row.version_id),
            "chunk_size": row.chunk_size_bytes,
            "num_chunks": row.num_chunks,
            "expires_at": time(row.expires_at_ms),
        }),
    }))
}

pub(super) fn hash(text: &str) -> ServiceResult<ContentHash> {
    let lower = text.to_ascii_lowercase();
    // No content is known to have the hash of zeros alone, which is how an upload is kept whose hash nobody has said.
    let hash = lower.parse().ok().filter(|hash| *hash != ContentHash::from_bytes([0; 32]));
    hash.ok_or_else(|| ServiceError::invalid("invalid_hash", "A hash is the SHA-256 in 64 hexadecimal digits."))
}

fn completed(done: &Completed) -> Value {
    json!({
        "status": "completed",
        "file_id": uuid(done.node.as_bytes()),
        "version_id": uuid(&done.version_id),
        "file_hash": done.hash,
        "size": done.size_bytes,
        "created_at": time(done.created_at_ms),
    })
}

/// One chunk, however it was sent.
struct Part {
    version_id: [u8; 16],
    index: u64,
    bytes: Bytes,
    hash: Option<ChunkId>,
}

async fn chunk(State(app): State<AppState>, caller: Caller, request: Request) -> Result<Json<Value>, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let part = if kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        from_multipart(request, &app).await?
    } else {
        from_json(Json::<JsonChunk>::from_request(request, &app).await?.0)?
    };
    let done = app.content.put_upload_chunk(&caller, part.version_id, part.index, part.bytes, part.hash).await?;
    Ok(Json(progress(done)))
}

fn progress(done: UploadProgress) -> Value {
    json!({"uploaded": true, "received": true, "chunk_index": done.index, "remaining": done.remaining})
}

#[derive(Deserialize)]
struct JsonChunk {
    version_id: String,
    chunk_index: u64,
    chunk_data: String,
    chunk_hash: Option<String>,
}

fn from_json(body: JsonChunk) -> ServiceResult<Part> {
    let bytes = STANDARD
        .decode(body.chunk_data)
        .map_err(|e| ServiceError::invalid("invalid_base64", format!("'chunk_data' is not base64: {e}.")))?;
    Ok(Part {
        version_id: bytes_of(&body.version_id)?,
        index: body.chunk_index,
        bytes: bytes.into(),
        hash: body.chunk_hash.as_deref().map(chunk_hash).transpose()?,
    })
}

fn chunk_hash(text: &str) -> ServiceResult<ChunkId> {
    hash(text).map(|h| ChunkId::from_bytes(*h.as_bytes()))
}

async fn from_multipart(request: Request, app: &AppState) -> Result<Part, Problem> {
    let mut form = Multipart::from_request(request, app).await.map_err(|e| ServiceError::malformed(e.body_text()))?;
    let (mut version_id, mut index, mut bytes, mut claimed) = (None, None, None, None);
    while let Some(field) = form.next_field().await.map_err(refused)? {
        let name = field.name().unwrap_or("").to_owned();
        let value = field.bytes().await.map_err(refused)?;
        let text = || String::from_utf8_lossy(&value).trim().to_owned();
        match name.as_str() {
            "version_id" => version_id = Some(bytes_of(&text())?),
            "chunk_index" => index = text().parse::<u64>().ok(),
            "chunk_hash" => claimed = Some(chunk_hash(&text())?),
            "chunk_data" => bytes = Some(value),
            _ => {}
        }
    }
    match (version_id, index, bytes) {
        (Some(version_id), Some(index), Some(bytes)) => Ok(Part { version_id, index, bytes, hash: claimed }),
        _ => Err(ServiceError::invalid("invalid_body", "The form needs 'version_id', 'chunk_index' and 'chunk_data'.").into()),
    }
}

fn refused(error: axum::extract::multipart::MultipartError) -> ServiceError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ServiceError::too_large("The body is larger than this route takes.");
    }
    ServiceError::malformed(error.body_text())
}

async fn raw_chunk(
    State(app): State<AppState>,
    caller: Caller,
    Path((version_id, index)): Path<(String, u64)>,
    headers: HeaderMap,
    RawBody(bytes): RawBody,
) -> Result<Json<Value>, Problem> {
    let claimed = headers.get("content-digest").map(digest).transpose()?;
    let done = app.content.put_upload_chunk(&caller, bytes_of(&version_id)?, index, bytes, claimed).await?;
    Ok(Json(progress(done)))
}

/// `sha-256=:BASE64:` (RFC 9530).
fn digest(value: &axum::http::HeaderValue) -> ServiceResult<ChunkId> {
    let text = value.to_str().ok().and_then(|v| v.strip_prefix("sha-256=:")?.strip_suffix(':'));
    let bytes = text.and_then(|t| STANDARD.decode(t).ok());
    bytes
        .and_then(|b| ChunkId::from_slice(&b))
        .ok_or_else(|| ServiceError::new(Kind::Malformed, "invalid_digest", "'Content-Digest' must be sha-256=:BASE64: (RFC 9530)."))
}

async fn state(State(app): State<AppState>, caller: Caller, Path(version_id): Path<String>) -> Result<Json<Value>, Problem> {
    let state = app.content.upload_state(&caller, bytes_of(&version_id)?).await?;
    let row = state.row;
    Ok(Json(json!({
        "version_id": uuid(&row.version_id),
        "file_size": row.size_bytes,
        "file_hash": row.hash,
        "chunk_size": row.chunk_size_bytes,
        "num_chunks": row.num_chunks,
        "received": state.received,
        "remaining": row.num_chunks.saturating_sub(state.received.len() as u64),
        "completed": row.completed_at_ms.is_some(),
        "expires_at": time(row.expires_at_ms),
    })))
}

async fn abort(State(app): State<AppState>, caller: Caller, Path(version_id): Path<String>) -> Result<StatusCode, Problem> {
    app.content.abort_upload(&caller, bytes_of(&version_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Default, Deserialize, ToSchema)]
struct CompleteUpload {
    /// SHA-256 of the whole, 64 hexadecimal digits, if it was not said at the beginning. Who could read such a file all along need not send the chunks
    /// that are missing. If nobody says it, it is what the chunks make.
    file_hash: Option<String>,
}

async fn complete(
    State(app): State<AppState>,
    caller: Caller,
    Path(version_id): Path<String>,
    Maybe(body): Maybe<CompleteUpload>,
) -> Result<Json<Value>, Problem> {
    let told = body.unwrap_or_default().file_hash.as_deref().map(hash).transpose()?;
    Ok(Json(completed(&app.content.complete_upload(&caller, bytes_of(&version_id)?, told).await?)))
}
