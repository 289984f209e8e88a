//! The web client's files (`relay/web`), carried in the relay's own bytes: found by name, compressed once, named after their content.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::OnceLock;

/// Every file by its name below `relay/web`; listed by `build.rs`.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/web_files.rs"));
/// Stands in our files where the build's name belongs.
const BUILD_HOLE: &str = "__BUILD__";
/// What a script or worker of ours may do: it loads modules of this relay and asks this relay.
const CSP: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// One file, ready to be sent.
#[derive(Debug)]
pub(super) struct Asset {
    plain: Bytes,
    gzip: Option<Bytes>,
    media_type: &'static str,
}

#[derive(Debug)]
struct Assets {
    build: String,
    by_name: BTreeMap<&'static str, Asset>,
}

fn assets() -> &'static Assets {
    static ASSETS: OnceLock<Assets> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let mut hash = Sha256::new();
        for (name, bytes) in FILES {
            hash.update(name.as_bytes());
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        let build = hex::encode(&hash.finalize()[..8]);
        let by_name = FILES.iter().map(|(name, bytes)| (*name, Asset::new(name, bytes, &build)));
        Assets { by_name: by_name.collect(), build }
    })
}

/// The name of this build of the client: another content, another name.
pub(super) fn build() -> &'static str {
    &assets().build
}

/// A file by its name below `relay/web`.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    assets().by_name.get(name)
}

impl Asset {
    fn new(name: &str, bytes: &'static [u8], build: &str) -> Self {
        let plain = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(BUILD_HOLE) => Bytes::from(text.replace(BUILD_HOLE, build)),
            _ => Bytes::from_static(bytes),
        };
        let gzip = gzip(&plain).filter(|packed| packed.len() < plain.len()).map(Bytes::from);
        Self { plain, gzip, media_type: media_type(name) }
    }

    /// The file as an answer, compressed for who takes it.
    pub(super) fn answer(&self, headers: &HeaderMap, cache: &'static str) -> Response {
        let packed = self.gzip.as_ref().filter(|_| takes_gzip(headers));
        let mut response = (StatusCode::OK, packed.unwrap_or(&self.plain).clone()).into_response();
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
        out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if packed.is_some() {
            out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !parts.any(|p| p == "q=0")
    })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first view is what the shell names, the catalogue and the start page; measured, not guessed.
    #[test]
    fn the_first_view_is_small() {
        let shell = std::str::from_utf8(&find("index.html").unwrap().plain).unwrap();
        let mut names = vec!["index.html", "i18n/de.json"];
        for part in shell.split(&format!("/assets/{}/", build())).skip(1) {
            names.push(part.split('"').next().unwrap());
        }
        let sizes = names.iter().map(|n| find(n).unwrap_or_else(|| panic!("no {n}")).gzip.as_ref().map_or(0, Bytes::len));
        let total: usize = sizes.sum();
        println!("the first view: {} files, {total} bytes compressed", names.len());
        assert!(names.len() > 10 && total < 60_000, "{} files, {total} bytes", names.len());
    }

    #[test]
    fn files_know_their_build_and_what_they_are() {
        assert!(find("lib/api.js").is_some() && find("../Cargo.toml").is_none());
        for (name, asset) in &assets().by_name {
            assert!(!String::from_utf8_lossy(&asset.plain).contains(BUILD_HOLE), "{name}");
            assert_ne!(asset.media_type, "application/octet-stream", "{name}");
        }
    }
}
