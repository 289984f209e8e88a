//! Bodies between a device and the relay: versioned binary ([`ferry_protocol::wire`]), zstd where both sides want it. Limits hold for the decompressed size.

use super::error::Problem;
use super::routes::BodyMax;
use super::{AppState, RawBody};
use crate::service::content::Entry;
use crate::service::{Caller, Kind, ServiceError};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ferry_protocol::NamespaceId;
use ferry_protocol::limits::REQUEST_MAX_BYTES;
use ferry_protocol::wire::{self, Body, Role};
use std::io::Read;

/// Answers smaller than this are sent as they are.
const COMPRESS_MIN_BYTES: usize = 1024;
/// Bodies above this are compressed and decompressed off the threads that serve requests.
const OFF_THREAD_MIN_BYTES: usize = 64 * 1024;
/// The largest window that a compressed body may ask us to keep: 64 MiB.
const WINDOW_LOG_MAX: u32 = 26;

/// A body of bytes, decompressed if the caller compressed it.
#[derive(Debug, Clone)]
pub(super) struct Inflated(pub Bytes);

impl FromRequest<AppState> for Inflated {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let encoding = request.headers().get(header::CONTENT_ENCODING).map(|v| v.as_bytes().to_ascii_lowercase());
        // What a body may hold plain, it may hold compressed.
        let max_bytes = request.extensions().get::<BodyMax>().map_or(REQUEST_MAX_BYTES, |max| max.0);
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        match encoding.as_deref() {
            None | Some(b"" | b"identity") => Ok(Self(bytes)),
            Some(b"zstd") if bytes.len() < OFF_THREAD_MIN_BYTES => Ok(Self(inflate(&bytes, max_bytes)?)),
            Some(b"zstd") => {
                let inflated = tokio::task::spawn_blocking(move || inflate(&bytes, max_bytes)).await.map_err(ServiceError::internal)?;
                Ok(Self(inflated?))
            }
            Some(_) => {
                let detail = "This route takes bodies that are plain or compressed with zstd.";
                Err(ServiceError::new(Kind::UnsupportedMedia, "unsupported_encoding", detail).into())
            }
        }
    }
}

fn inflate(bytes: &[u8], max_bytes: usize) -> Result<Bytes, ServiceError> {
    let malformed = |e: std::io::Error| ServiceError::malformed(format!("The body is not valid zstd: {e}."));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(malformed)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(malformed)?;
    let mut out = Vec::new();
    decoder.take(max_bytes as u64 + 1).read_to_end(&mut out).map_err(malformed)?;
    if out.len() > max_bytes {
        return Err(ServiceError::too_large("The decompressed body is larger than this route takes.").with("limit_bytes", max_bytes));
    }
    Ok(out.into())
}

/// A decoded body.
#[derive(Debug, Clone)]
pub(super) struct Wire<B>(pub B);

impl<B: Body> FromRequest<AppState> for Wire<B> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        if !kind.eq_ignore_ascii_case(wire::CONTENT_TYPE) {
            let detail = format!("Send this body with 'Content-Type: {}'.", wire::CONTENT_TYPE);
            return Err(ServiceError::new(Kind::UnsupportedMedia, "unsupported_media_type", detail).into());
        }
        let Inflated(bytes) = Inflated::from_request(request, state).await?;
        Ok(Self(wire::decode(&bytes).map_err(refused)?))
    }
}

fn refused(error: wire::DecodeError) -> ServiceError {
    match error {
        wire::DecodeError::Limit(_) => ServiceError::too_large(error.to_string()),
        wire::DecodeError::Format(_) => ServiceError::new(Kind::UnsupportedMedia, "unsupported_format", error.to_string()),
        wire::DecodeError::Empty | wire::DecodeError::Malformed(_) => ServiceError::malformed(error.to_string()),
    }
}

/// Whether the caller takes zstd.
pub(super) fn takes_zstd(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("zstd")) && !parts.any(|p| p == "q=0")
    })
}

/// Compresses fast: the other side is usually waiting.
pub(super) fn deflate(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, 1)
}

/// An encoded body as an answer.
pub(super) async fn answer<B: Body>(status: StatusCode, body: &B, headers: &HeaderMap) -> Result<Response, Problem> {
    let bytes = wire::encode(body);
    let common = [(header::CONTENT_TYPE, wire::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store"), (header::VARY, "accept-encoding")];
    if bytes.len() < COMPRESS_MIN_BYTES || !takes_zstd(headers) {
        return Ok((status, common, bytes).into_response());
    }
    let packed = if bytes.len() < OFF_THREAD_MIN_BYTES {
        deflate(&bytes)
    } else {
        tokio::task::spawn_blocking(move || deflate(&bytes)).await.map_err(ServiceError::internal)?
    };
    let packed = packed.map_err(ServiceError::internal)?;
    Ok((status, common, [(header::CONTENT_ENCODING, "zstd")], packed).into_response())
}

/// The namespace in the path (`{ns}`), for a caller who may read it.
#[derive(Debug, Clone)]
pub(super) struct CanRead(pub Entry);

/// The namespace in the path (`{ns}`), for a caller who may change it.
#[derive(Debug, Clone)]
pub(super) struct CanEdit(pub Entry);

/// The namespace in the path (`{ns}`), for its owner.
#[derive(Debug, Clone)]
pub(super) struct Owns(pub Entry);

impl FromRequestParts<AppState> for CanRead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        enter(parts, state, Role::Viewer).await.map(Self)
    }
}

impl FromRequestParts<AppState> for CanEdit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        enter(parts, state, Role::Editor).await.map(Self)
    }
}

impl FromRequestParts<AppState> for Owns {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        enter(parts, state, Role::Owner).await.map(Self)
    }
}

async fn enter(parts: &mut Parts, state: &AppState, role: Role) -> Result<Entry, Problem> {
    let caller = Caller::from_request_parts(parts, state).await?;
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| ServiceError::not_found())?;
    let id = params.iter().find(|(key, _)| *key == "ns").and_then(|(_, value)| value.parse::<NamespaceId>().ok());
    let id = id.ok_or_else(ServiceError::not_found)?;
    Ok(state.content.enter(&caller, id, role).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0u8; REQUEST_MAX_BYTES + 1], 1).unwrap();
        assert!(bomb.len() < 64 * 1024);
        let inflate = |bytes: &[u8]| super::inflate(bytes, REQUEST_MAX_BYTES);
        assert_eq!(inflate(&bomb).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(inflate(b"not zstd").unwrap_err().kind(), Kind::Malformed);
        let packed = deflate(b"hello").unwrap();
        assert_eq!(&inflate(&packed).unwrap()[..], b"hello");
        assert_eq!(super::inflate(&packed, 4).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(&super::inflate(&packed, 5).unwrap()[..], b"hello");
    }

    /// X11: cut, changed, with a tail, with a dictionary that nobody has.
    #[test]
    fn damaged_compression_is_refused() {
        let inflate = |bytes: &[u8]| super::inflate(bytes, REQUEST_MAX_BYTES).map_err(|e| e.kind());
        let text: Vec<u8> = (0..50_000u32).flat_map(|i| (i % 777).to_le_bytes()).collect();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        std::io::Write::write_all(&mut encoder, &text).unwrap();
        let good = encoder.finish().unwrap();
        assert_eq!(inflate(&good).unwrap(), text);
        for cut in [1, 4, good.len() / 2, good.len() - 1] {
            assert_eq!(inflate(&good[..cut]), Err(Kind::Malformed), "cut at {cut}");
        }
        let mut checksum = good.clone();
        *checksum.last_mut().unwrap() ^= 1;
        assert_eq!(inflate(&checksum), Err(Kind::Malformed), "a wrong checksum");
        assert_eq!(inflate(&[&good[..], b"tail"].concat()), Err(Kind::Malformed), "a tail");
        let mut dictionary = zstd::bulk::Compressor::with_dictionary(3, &text[..4000]).unwrap();
        let packed = dictionary.compress(&text[..2000]).unwrap();
        assert_ne!(inflate(&packed).map(|b| b.to_vec()), Ok(text[..2000].to_vec()), "another dictionary");
    }

    #[test]
    fn zstd_is_used_only_for_those_who_take_it() {
        let with = |v: &'static str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, v.parse().unwrap())]);
        assert!(takes_zstd(&with("gzip, zstd")) && takes_zstd(&with("zstd;q=0.5")));
        assert!(!takes_zstd(&with("gzip")) && !takes_zstd(&with("zstd;q=0")) && !takes_zstd(&HeaderMap::new()));
    }
}
