//! Chunks between a device and the relay: which are missing, many in one request, many in one answer.

use super::wire::{CanEdit, CanRead, Inflated, Wire, answer, deflate, takes_zstd};
use super::{Access, AppState, Json, Problem, Query, Route, Routes};
use crate::service::content::{ChunkStream, SIGNED_FOR, SignedChunk};
use crate::service::{Kind, ServiceError};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ferry_protocol::ChunkId;
use ferry_protocol::limits::REQUEST_MAX_BYTES;
use ferry_protocol::wire::{CHUNKS_CONTENT_TYPE, ChunkIds};
use serde::Deserialize;
use serde_json::{Value, json};

/// A question about chunks has at most 65,536 ids of 32 bytes and a few bytes around them.
const IDS_BODY_MAX_BYTES: usize = 3 * 1024 * 1024;

pub(super) fn upload_routes(app: &AppState) -> Routes {
    Routes::new(app)
        .add(
            Route::post("/upload/v1/{ns}/missing", Access::User, "Which of these chunks must be sent").body_max(IDS_BODY_MAX_BYTES),
            missing,
        )
        .add(Route::get("/upload/v1/{ns}/lacks", Access::User, "Chunks of which the relay has lost the bytes"), lacks)
        .add(Route::post("/upload/v1/{ns}/chunks", Access::User, "Send many chunks").body_max(REQUEST_MAX_BYTES).no_timeout(), put)
}

pub(super) fn download_routes(app: &AppState) -> Routes {
    let route = Route::post("/download/v1/{ns}/chunks", Access::User, "Fetch many chunks").body_max(IDS_BODY_MAX_BYTES);
    let signed = Route::post("/download/v1/{ns}/urls", Access::User, "Signed addresses of chunks in the object store, where that is on");
    Routes::new(app).add(route, get).add(signed, urls)
}

async fn missing(
    State(app): State<AppState>,
    CanEdit(entry): CanEdit,
    headers: HeaderMap,
    Wire(ids): Wire<ChunkIds>,
) -> Result<Response, Problem> {
    let ids = app.content.missing_chunks(&entry, &ids.ids).await?;
    answer(StatusCode::OK, &ChunkIds { ids }, &headers).await
}

#[derive(Deserialize)]
struct After {
    after: Option<ChunkId>,
    limit: Option<usize>,
}

/// Chunk ids of one answer when nobody says otherwise.
const LACKS_DEFAULT: usize = 4096;

async fn lacks(
    State(app): State<AppState>,
    CanEdit(entry): CanEdit,
    headers: HeaderMap,
    Query(query): Query<After>,
) -> Result<Response, Problem> {
    let ids = app.content.lacks(&entry, query.after, query.limit.unwrap_or(LACKS_DEFAULT)).await?;
    answer(StatusCode::OK, &ChunkIds { ids }, &headers).await
}

async fn put(State(app): State<AppState>, CanEdit(entry): CanEdit, headers: HeaderMap, body: Inflated) -> Result<Json<Value>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !kind.eq_ignore_ascii_case(CHUNKS_CONTENT_TYPE) {
        let detail = format!("Send chunk frames with 'Content-Type: {CHUNKS_CONTENT_TYPE}'.");
        return Err(ServiceError::new(Kind::UnsupportedMedia, "unsupported_media_type", detail).into());
    }
    let stored = app.content.put_chunks(&entry, body.0).await?;
    Ok(Json(json!({ "stored": stored })))
}

/// What each address needs is said beside it; the addresses are secrets and stand in no log.
async fn urls(
    State(app): State<AppState>,
    CanRead(entry): CanRead,
    Wire(ids): Wire<ChunkIds>,
) -> Result<([(header::HeaderName, &'static str); 1], Json<Value>), Problem> {
    let signed = app.content.sign_chunks(&entry, &ids.ids).await?;
    let one = |chunk: &SignedChunk| {
        let headers: serde_json::Map<String, Value> = chunk.read.headers.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        json!({"chunk_id": chunk.id, "length": chunk.len, "url": chunk.read.url, "headers": headers})
    };
    let body = json!({"expires_in": SIGNED_FOR.as_secs(), "chunks": signed.iter().map(one).collect::<Vec<_>>()});
    Ok(([(header::CACHE_CONTROL, "private, no-store")], Json(body)))
}

async fn get(
    State(app): State<AppState>,
    CanRead(entry): CanRead,
    headers: HeaderMap,
    Wire(ids): Wire<ChunkIds>,
) -> Result<Response, Problem> {
    let stream = app.content.get_chunks(&entry, ids.ids).await?;
    let common = [(header::CONTENT_TYPE, CHUNKS_CONTENT_TYPE), (header::CACHE_CONTROL, "private, no-store")];
    if takes_zstd(&headers) {
        return Ok((common, [(header::CONTENT_ENCODING, "zstd")], body_of(stream, true)).into_response());
    }
    Ok((common, body_of(stream, false)).into_response())
}

/// The stream as a body. A failure in the middle breaks the body off, so that nobody takes a part for the whole.
pub(super) fn body_of(stream: ChunkStream, compress: bool) -> Body {
    Body::from_stream(futures_util::stream::unfold(stream, move |mut stream| async move {
        let batch = match stream.recv().await? {
            Ok(bytes) if compress => {
                tokio::task::spawn_blocking(move || deflate(&bytes).map(Bytes::from)).await.map_err(std::io::Error::other).flatten()
            }
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                tracing::error!(%error, "a download ends early");
                Err(std::io::Error::other("the relay's store failed"))
            }
        };
        metrics::counter!("ferry_relay_download_bytes_total").increment(batch.as_ref().map_or(0, |b| b.len() as u64));
        Some((batch, stream))
    }))
}
