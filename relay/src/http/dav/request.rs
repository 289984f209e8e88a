//! What a request asks, read and checked before anybody acts on it: places without tricks, a bounded body, headers that say one thing.

use crate::http::Problem;
use crate::service::content::WriteTerms;
use crate::service::{Kind, ServiceError, ServiceResult};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use ferry_protocol::{Name, RelPath};

const DEPTH: HeaderName = HeaderName::from_static("depth");
const IF: HeaderName = HeaderName::from_static("if");
const OVERWRITE: HeaderName = HeaderName::from_static("overwrite");
const DESTINATION: HeaderName = HeaderName::from_static("destination");
const OC_MTIME: HeaderName = HeaderName::from_static("x-oc-mtime");
const OC_CHECKSUM: HeaderName = HeaderName::from_static("oc-checksum");
const EXPECTED_LENGTH: HeaderName = HeaderName::from_static("x-expected-entity-length");

/// Largest body that is XML, in bytes.
const XML_MAX_BYTES: usize = 64 * 1024;
/// Most elements in it. The library reads them by recursion: this is what its stack must hold.
const ELEMENTS_MAX: usize = 400;

/// How deep a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The place itself.
    Zero,
    /// And what is in it.
    One,
    /// Everything below.
    Infinite,
}

/// A folder's name as the address has it, and the place in it. No folder: the list of folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The folder's name, decoded.
    pub(super) space: Option<Vec<u8>>,
    /// Where in it.
    pub(super) path: RelPath,
}

/// A request, understood.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) place: Place,
    /// Of COPY and MOVE.
    pub(super) destination: Option<Place>,
    pub(super) depth: Depth,
    /// Of PUT.
    pub(super) terms: WriteTerms,
}

impl Asked {
    /// Whether it would change anything.
    pub(super) fn is_write(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PROPFIND")
    }

    /// Understands a request, and gives it back as the library is to see it.
    pub(super) async fn read(request: Request) -> Result<(Self, Request), Problem> {
        let (mut parts, mut body) = request.into_parts();
        let method = parts.method.as_str().to_owned();
        let place = place_of(parts.uri.path())?;
        let destination = match parts.headers.get(DESTINATION) {
            Some(value) if matches!(method.as_str(), "COPY" | "MOVE") => {
                let path = path_of_address(value)?.to_owned();
                let place = place_of(&path)?;
                // Behind a proxy the client knows the relay by another scheme and name: the path alone counts.
                parts.headers.insert(DESTINATION, HeaderValue::try_from(path).map_err(|_| not_a_place())?);
                Some(place)
            }
            _ => None,
        };
        check_conditions(&mut parts.headers)?;
        let depth = depth_of(&method, &parts.headers)?;
        if method == "PROPFIND" {
            let text = match depth {
                Depth::Zero => "0",
                Depth::One => "1",
                Depth::Infinite => "infinity",
            };
            parts.headers.insert(DEPTH, HeaderValue::from_static(text));
            parts.headers.remove("x-litmus");
        }
        if matches!(method.as_str(), "PROPFIND" | "PROPPATCH" | "LOCK") {
            let bytes = axum::body::to_bytes(body, XML_MAX_BYTES)
                .await
                .map_err(|_| ServiceError::too_large(format!("The body has more than {XML_MAX_BYTES} bytes, or did not arrive.")))?;
            check_xml(&bytes)?;
            body = Body::from(bytes);
        }
        let terms = if method == "PUT" { terms_of(&parts.headers)? } else { WriteTerms::default() };
        Ok((Self { method, place, destination, depth, terms }, Request::from_parts(parts, body)))
    }
}

fn not_a_place() -> ServiceError {
    ServiceError::new(Kind::Malformed, "invalid_path", "This is no place: a name in it is too long, is '.' or '..', or holds a slash.")
}

/// The path of an address, absolute or not.
fn path_of_address(value: &HeaderValue) -> ServiceResult<&str> {
    let text = value.to_str().map_err(|_| not_a_place())?;
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => text,
    };
    if path.starts_with('/') && !path.contains(['?', '#']) { Ok(path) } else { Err(not_a_place()) }
}

/// The place that a path names, every part decoded on its own.
pub(super) fn place_of(path: &str) -> ServiceResult<Place> {
    let below = path.strip_prefix(super::PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let below = below.ok_or_else(|| ServiceError::new(Kind::Forbidden, "elsewhere", "This is no address of WebDAV on this relay."))?;
    let mut names = Vec::new();
    for part in below.split('/').filter(|part| !part.is_empty()) {
        names.push(Name::new(decoded(part)).map_err(|_| not_a_place())?);
    }
    let space = if names.is_empty() { None } else { Some(names.remove(0).as_bytes().to_vec()) };
    Ok(Place { space, path: RelPath::from_names(names) })
}

/// Percent-encoding taken away; what is not such stands for itself.
fn decoded(part: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (part.as_bytes(), Vec::with_capacity(part.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|d| hex::decode(d).ok());
        out.push(digits.as_ref().map_or(*byte, |d| d[0]));
        at += if digits.is_some() { 3 } else { 1 };
    }
    out
}

/// Refuses conditions that are not well formed, which the library would leave out of account or stumble over, and writes the places in `If` in the one way
/// that it understands.
fn check_conditions(headers: &mut HeaderMap) -> ServiceResult<()> {
    let wrong = |name: &HeaderName| ServiceError::malformed(format!("The header '{name}' is not well formed."));
    for name in [header::IF_MATCH, header::IF_NONE_MATCH, OVERWRITE, IF, DEPTH, DESTINATION] {
        let mut values = headers.get_all(&name).iter();
        let Some(value) = values.next() else { continue };
        let text = value.to_str().map_err(|_| wrong(&name))?;
        let is_whole = match &name {
            name if *name == OVERWRITE => matches!(text, "T" | "F"),
            name if *name == header::IF_MATCH || *name == header::IF_NONE_MATCH => text.trim() == "*" || text.split(',').all(is_etag),
            _ => true,
        };
        if values.next().is_some() || !is_whole {
            return Err(wrong(&name));
        }
        if name == IF {
            let plain = plain_if(text).and_then(|text| HeaderValue::try_from(text).ok()).ok_or_else(|| wrong(&name))?;
            headers.insert(IF, plain);
        }
    }
    Ok(())
}

/// Whether this is an ETag, weak or strong.
fn is_etag(text: &str) -> bool {
    let text = text.trim();
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"') && !quoted[1..quoted.len() - 1].contains(['"', ' '])
}

/// The `If` header (RFC 4918, 10.4) with each place as an address of one form; none if it is not well formed.
fn plain_if(text: &str) -> Option<String> {
    let (mut rest, mut out) = (text.trim(), String::new());
    while !rest.is_empty() || out.is_empty() {
        if let Some((place, after)) = enclosed(rest, '<', '>') {
            let path = path_of_address(&HeaderValue::from_str(place).ok()?).ok()?.to_owned();
            out.push_str(&format!("<http://relay{path}> "));
            rest = after;
        }
        rest = rest.strip_prefix('(')?.trim_start();
        out.push('(');
        let from = out.len();
        while !rest.starts_with(')') {
            if let Some(after) = rest.strip_prefix("Not") {
                out.push_str("Not ");
                rest = after.trim_start();
            }
            let (said, after) = match enclosed(rest, '<', '>') {
                Some((token, after)) if token.contains(':') => (format!("<{token}>"), after),
                _ => enclosed(rest, '[', ']').filter(|(etag, _)| is_etag(etag)).map(|(etag, after)| (format!("[{etag}]"), after))?,
            };
            out.push_str(&said);
            out.push(' ');
            rest = after;
        }
        if out.len() == from {
            return None;
        }
        out.push(')');
        rest = rest[1..].trim_start();
    }
    Some(out)
}

/// What stands between two signs at the beginning of a text, and what comes behind it.
fn enclosed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    let (inner, after) = text.strip_prefix(open)?.split_once(close)?;
    let is_plain = !inner.is_empty() && !inner.contains(char::is_whitespace) && inner.matches('"').count().is_multiple_of(2);
    is_plain.then_some((inner, after.trim_start()))
}

/// Without a word about it, PROPFIND looks one level deep: what most servers do, and what clients that forget it expect.
fn depth_of(method: &str, headers: &HeaderMap) -> ServiceResult<Depth> {
    match headers.get(DEPTH).map(|v| v.as_bytes().to_ascii_lowercase()).as_deref() {
        None if method == "PROPFIND" => Ok(Depth::One),
        None | Some(b"infinity") => Ok(Depth::Infinite),
        Some(b"0") => Ok(Depth::Zero),
        Some(b"1") => Ok(Depth::One),
        Some(_) => Err(ServiceError::malformed("'Depth' is 0, 1 or infinity.")),
    }
}

/// Refuses what would cost the parser more than a request is worth.
fn check_xml(bytes: &[u8]) -> ServiceResult<()> {
    let elements = bytes.windows(2).filter(|w| w[0] == b'<' && w[1] != b'/').count();
    if elements > ELEMENTS_MAX {
        return Err(ServiceError::too_large(format!("The body has more than {ELEMENTS_MAX} elements.")));
    }
    if bytes.windows(9).any(|w| w.eq_ignore_ascii_case(b"<!DOCTYPE")) {
        return Err(ServiceError::malformed("The body has a document type. None is taken."));
    }
    Ok(())
}

/// What is said of a file that is sent.
fn terms_of(headers: &HeaderMap) -> ServiceResult<WriteTerms> {
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(ServiceError::malformed("A part of a file cannot be written. Send the whole file."));
    }
    let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let number = |name: &HeaderName| text(name).and_then(|t| t.parse().ok());
    let mtime_ns = match text(&OC_MTIME) {
        None => None,
        Some(said) => Some(
            crate::http::plain::parse_time_ns(said)
                .ok_or_else(|| ServiceError::malformed("'X-OC-Mtime' is a number of seconds since 1970."))?,
        ),
    };
    let checksum = text(&OC_CHECKSUM).and_then(|said| said.split_once(':')).and_then(|(name, digest)| {
        let digest = hex::decode(digest.trim()).ok()?;
        Some((name.trim().to_owned(), digest))
    });
    let only_over = match (text(&header::IF_MATCH), text(&header::IF_NONE_MATCH)) {
        (Some(etag), _) => super::meta::hash_of(etag.trim_matches('"')).map(Some),
        (None, Some("*")) => Some(None),
        _ => None,
    };
    let size_bytes = number(&header::CONTENT_LENGTH).or_else(|| number(&EXPECTED_LENGTH));
    Ok(WriteTerms { size_bytes, mtime_ns, checksum, only_over })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_protocol::ContentHash;
    use proptest::prelude::*;

    #[test]
    fn a_place_has_no_tricks() {
        let place = place_of("/dav/My%20Files/a%23b/%C3%BC%25/").unwrap();
        assert_eq!(place.space.as_deref(), Some(&b"My Files"[..]));
        assert_eq!(place.path, RelPath::parse("a#b/ü%".as_bytes()).unwrap());
        assert_eq!(place_of("/dav").unwrap(), place_of("/dav/").unwrap());
        assert!(place_of("/dav").unwrap().space.is_none());
        let long = format!("/dav/x/{}", "y".repeat(256));
        for wrong in ["/dav/x/../y", "/dav/x/%2e%2E", "/dav/./x", "/dav/x/a%2fb", "/dav/x/%00", "/dav/%2e%2e/etc", &long] {
            assert_eq!(place_of(wrong).unwrap_err().kind(), Kind::Malformed, "{wrong}");
        }
        for elsewhere in ["/davx/a", "/", "/download/1"] {
            assert_eq!(place_of(elsewhere).unwrap_err().kind(), Kind::Forbidden, "{elsewhere}");
        }
    }

    #[test]
    fn of_an_address_the_path_counts() {
        for (said, path) in [("https://other.example:8443/dav/x/y%20z", Some("/dav/x/y%20z")), ("/dav/x", Some("/dav/x")), ("x", None)] {
            assert_eq!(path_of_address(&HeaderValue::from_static(said)).ok(), path, "{said}");
        }
        for wrong in ["/dav/x?y", "/dav/x#y", "http://host"] {
            let path = path_of_address(&HeaderValue::from_static(wrong)).ok().map(place_of);
            assert!(path.is_none_or(|place| place.is_err()), "{wrong}");
        }
    }

    #[test]
    fn a_body_cannot_be_deep_or_define_words() {
        assert!(check_xml(b"<a><b/></a>").is_ok() && check_xml(b"").is_ok());
        assert!(check_xml("<a>".repeat(10_000).as_bytes()).is_err());
        assert!(check_xml(b"<?xml version='1.0'?><!doctype a [<!ENTITY b 'c'>]><a/>").is_err());
    }

    #[test]
    fn conditions_are_whole_or_refused() {
        for (said, plain) in [
            ("(<urn:uuid:1>)", "(<urn:uuid:1> )"),
            ("</dav/x y>(<a:b>)", ""),
            (
                "<https://host:1/dav/x> ( Not <DAV:no-lock> [W/\"e\"] )(<a:b>)",
                "<http://relay/dav/x> (Not <DAV:no-lock> [W/\"e\"] )(<a:b> )",
            ),
            ("</dav/x> (<a:b>)", "<http://relay/dav/x> (<a:b> )"),
            ("", ""),
            ("()", ""),
            ("(<a:b>", ""),
            ("(<a:b", ""),
            ("(<a:\"b>)", ""),
            ("([\"e)", ""),
            ("([e])", ""),
            ("(<a>)", ""),
            ("(Not)", ""),
            ("<a:b>", ""),
        ] {
            assert_eq!(plain_if(said).unwrap_or_default(), plain, "{said}");
        }
        let refused = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())]);
            check_conditions(&mut headers).is_err()
        };
        assert!(!refused("if-match", "\"a\", W/\"b\"") && !refused("if-none-match", "*") && !refused("overwrite", "F"));
        assert!(refused("if-match", "a") && refused("if-none-match", "\"a") && refused("overwrite", "no"));
        let mut twice = HeaderMap::new();
        twice.append(DEPTH, HeaderValue::from_static("0"));
        twice.append(DEPTH, HeaderValue::from_static("1"));
        assert!(check_conditions(&mut twice).is_err());
    }

    #[test]
    fn what_is_said_of_a_file() {
        let headers = |list: &[(&'static str, &str)]| {
            list.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect::<HeaderMap>()
        };
        let terms = terms_of(&headers(&[("x-oc-mtime", "1700000000.5"), ("oc-checksum", "SHA1:00ff"), ("content-length", "3")])).unwrap();
        assert_eq!((terms.size_bytes, terms.mtime_ns), (Some(3), Some(1_700_000_000_500_000_000)));
        assert_eq!(terms.checksum, Some(("SHA1".into(), vec![0, 255])));
        assert_eq!(terms_of(&headers(&[("if-none-match", "*")])).unwrap().only_over, Some(None));
        let hash = ContentHash::of(b"x");
        assert_eq!(
            terms_of(&headers(&[("if-match", &format!("\"{}\"", crate::http::dav::meta::etag_of(&hash)))])).unwrap().only_over,
            Some(Some(hash))
        );
        assert!(terms_of(&headers(&[("x-oc-mtime", "soon")])).is_err());
        assert!(terms_of(&headers(&[("content-range", "bytes 0-1/2")])).is_err());
    }

    proptest! {
        /// Whatever comes, a place is names that a folder can hold, and the same as the protocol's library understands.
        #[test]
        fn a_place_is_understood_in_one_way(parts in proptest::collection::vec("[a-z%.~2eEfF0/ü ]{0,6}", 0..5)) {
            let path = format!("/dav/{}", parts.join("/").replace('ü', "%C3%BC").replace(' ', "%20"));
            if let Ok(place) = place_of(&path) {
                let theirs = dav_server::davpath::DavPath::new(&path).map(|p| p.as_bytes().to_vec());
                let names: Vec<Vec<u8>> = place.space.iter().cloned().chain(place.path.names().iter().map(|n| n.as_bytes().to_vec())).collect();
                let ours = [b"/dav".to_vec(), names.iter().flat_map(|n| [b"/", &n[..]].concat()).collect()].concat();
                prop_assert_eq!(theirs.ok().map(|p| p.strip_suffix(b"/").unwrap_or(&p).to_vec()), Some(ours));
            }
        }
    }
}
