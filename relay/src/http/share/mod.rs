//! What visitors of a public link see: a page without any script of others, files, an archive, and where uploads go. Nobody is logged in here; whoever
//! knows the address and, if there is one, the password of the link, may do what the link is for.
//!
//! Every handler begins with [`Visit::open`], so that no route can forget a link's password, end or limit (PL1). Nothing of an address leaves: no page
//! and no file names a referrer, no log a path (R43).

mod files;
mod page;
mod upload;

use super::browser::Cookie;
use super::{Access, AppState, ClientIp, Route, Routes};
use crate::service::links::{LinkKind, Opened, VISIT_TTL_MS};
use crate::service::{Kind, ServiceError, ServiceResult};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use ferry_protocol::{Name, NodeId, RelPath};
use std::convert::Infallible;
use std::net::IpAddr;

const FORM_MAX_BYTES: usize = 16 * 1024;
/// A chunk of 4 MiB.
const CHUNK_MAX_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Signed;
    Routes::new(app)
        .add(Route::get("/s/{token}", Signed, "The page of a public link").page(), page::look)
        .add(
            Route::post("/s/{token}/unlock", Signed, "Give the password of a public link (form)").body_max(FORM_MAX_BYTES).page(),
            page::unlock,
        )
        .add(Route::get("/s/{token}/list", Signed, "What a folder of a public link holds: ?path="), files::list)
        .add(
            Route::get("/s/{token}/raw/{*path}", Signed, "A file of a public link, or a part of it; ?inline=1 to show it").no_timeout(),
            files::raw,
        )
        .add(Route::get("/s/{token}/zip", Signed, "A folder of a public link as one zip: ?path=").no_timeout(), files::zip)
        .add(
            Route::post("/s/{token}/upload/init", Signed, "Begin an upload through a public link")
                .body_max(FORM_MAX_BYTES)
                .takes::<upload::InitBody>()
                .gives::<upload::InitDoc>(),
            upload::init,
        )
        .add(
            Route::post("/s/{token}/upload/chunk", Signed, "Send one chunk (raw): ?upload_id=&chunk_index=").body_max(CHUNK_MAX_BYTES),
            upload::chunk,
        )
        .add(
            Route::post("/s/{token}/upload/complete", Signed, "Complete an upload through a public link")
                .body_max(FORM_MAX_BYTES)
                .takes::<upload::CompleteBody>()
                .no_timeout(),
            upload::complete,
        )
}

/// Who visits, and with what.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    ip: IpAddr,
    pass: Option<String>,
    program: Vec<u8>,
}

impl FromRequestParts<AppState> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Infallible> {
        let ClientIp(ip) = ClientIp::from_request_parts(parts, app).await?;
        let program = parts.headers.get(header::USER_AGENT).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
        Ok(Self { ip, pass: Cookie::Link.read(app, &parts.headers), program })
    }
}

impl Visit {
    /// The link of this address, if it opens now for this visitor.
    async fn open(&self, app: &AppState, token: &str) -> ServiceResult<Opened> {
        app.links.open(token, self.pass.as_deref(), self.ip).await
    }

    /// The same, for a link that is for one of these.
    async fn open_for(&self, app: &AppState, token: &str, kinds: &[LinkKind]) -> ServiceResult<Opened> {
        let opened = self.open(app, token).await?;
        if kinds.contains(&opened.link.kind) {
            return Ok(opened);
        }
        let (code, detail) = match opened.link.kind {
            LinkKind::Upload => ("upload_only", "This link is for putting files in; it shows none."),
            LinkKind::View => ("view_only", "This link is for looking only."),
            LinkKind::Download => ("no_uploads", "This link takes no files."),
        };
        Err(ServiceError::new(Kind::Forbidden, code, detail))
    }

    /// Counts a download of this visitor's.
    async fn count(&self, app: &AppState, opened: &Opened, node: NodeId) -> ServiceResult<()> {
        let visitor = app.links.visitor(&opened.link, self.pass.as_deref(), self.ip, &self.program);
        app.links.count(opened, visitor, node).await
    }
}

/// Sets the visitor's cookie.
fn cookie(app: &AppState, token: &str, pass: &str) -> ServiceResult<HeaderValue> {
    Cookie::Link.set_for(app, &format!("/s/{token}"), pass, VISIT_TTL_MS / 1000)
}

/// A path of an address, decoded once: every part is a name, whatever bytes it has. A slash within a part is none.
fn path_of(encoded: &str) -> ServiceResult<RelPath> {
    let names = encoded.split('/').map(|part| decoded(part).and_then(|bytes| Name::new(bytes).ok()));
    names.collect::<Option<Vec<_>>>().map(RelPath::from_names).ok_or_else(ServiceError::not_found)
}

/// The path that a query names, with or without slashes around it; the root if it names none.
fn path_of_query(query: Option<&str>) -> ServiceResult<RelPath> {
    let value = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("path=")).unwrap_or_default();
    let bytes = decoded(&value.replace('+', " ")).ok_or_else(ServiceError::not_found)?;
    let from = bytes.iter().position(|b| *b != b'/').unwrap_or(bytes.len());
    let to = bytes.iter().rposition(|b| *b != b'/').map_or(from, |last| last + 1);
    match &bytes[from..to] {
        [] => Ok(RelPath::root()),
        inner => RelPath::parse(inner).map_err(|_| ServiceError::not_found()),
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let mut byte = [0];
        hex::decode_to_slice(rest.get(..2)?, &mut byte).ok()?;
        out.push(byte[0]);
        rest = &rest[2..];
    }
    Some(out)
}

/// A name as one part of an address.
fn encoded(name: &[u8]) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.iter().map(|b| if plain(*b) { char::from(*b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A path as a part of an address.
fn encoded_path(path: &RelPath) -> String {
    path.names().iter().map(|name| encoded(name.as_bytes())).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_decoded_once_and_stays_inside() {
        let names = |text: &str| path_of(text).map(|p| p.to_bytes());
        assert_eq!(names("a/b%20c").unwrap(), b"a/b c");
        assert_eq!(names("%252e%252e").unwrap(), b"%2e%2e", "decoded once");
        assert_eq!(names("%FF").unwrap(), b"\xff");
        for outside in ["..", "a/../b", "%2e%2e/x", "a%2fb", "a%2F..%2Fb", "", "/", "a//b", "a/", ".", "%00", "%", "%g1", "a/%2e"] {
            assert!(path_of(outside).is_err(), "{outside}");
        }
        let query = |text: &str| path_of_query(Some(text)).map(|p| p.to_bytes());
        assert_eq!((query("path=/a+b/c/").unwrap(), query("x=1&path=a%2Fb").unwrap()), (b"a b/c".to_vec(), b"a/b".to_vec()));
        assert!(path_of_query(None).unwrap().is_root() && path_of_query(Some("path=%2F")).unwrap().is_root());
        for outside in ["path=..", "path=a/../../b", "path=a%2f..%2fb", "path=a//b", "path=%00", "path=%"] {
            assert!(path_of_query(Some(outside)).is_err(), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(names in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..4)) {
            if let Some(names) = names.iter().map(|n| Name::new(n).ok()).collect::<Option<Vec<_>>>() {
                let path = RelPath::from_names(names);
                prop_assert_eq!(path_of(&encoded_path(&path)).unwrap(), path.clone());
                prop_assert_eq!(path_of_query(Some(&format!("path={}", encoded_path(&path)))).is_ok(), true);
            }
        }

        #[test]
        fn no_address_leads_out(text in "[a./%2eEfF5c\\\\]{0,24}") {
            if let Ok(path) = path_of(&text) {
                prop_assert!(path.names().iter().all(|n| n.as_bytes() != b".." && n.as_bytes() != b"." && !n.as_bytes().contains(&b'/')));
            }
        }
    }
}
