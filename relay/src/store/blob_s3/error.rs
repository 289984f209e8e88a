//! What went wrong at the S3 server, as an error that says what to do. Codes and statuses only: what a server writes as text may hold a key's id.

use crate::config::S3Place;
use crate::store::StoreError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::fmt;

/// Codes by which servers say that no more fits.
const FULL: &[&str] = &["QuotaExceeded", "InsufficientCapacity", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"];
/// Codes by which servers refuse a key.
const REFUSED: &[&str] =
    &["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "Forbidden", "InvalidClientTokenId"];

/// One failed request.
#[derive(Debug)]
pub(super) struct Trouble {
    kind: Kind,
    /// The server's status, if it answered.
    pub(super) status: Option<u16>,
    code: Option<String>,
}

#[derive(Debug)]
enum Kind {
    /// The server answered that it failed or will not.
    Refused,
    /// No answer, or not all of one; trying again may help.
    Broken(String),
    /// An answer that cannot be right.
    Odd(String),
}

impl Trouble {
    pub(super) fn of<E: ProvideErrorMetadata>(error: SdkError<E, HttpResponse>) -> Self {
        let status = error.raw_response().map(|r| r.status().as_u16());
        let code = error.code().map(str::to_owned);
        let kind = match &error {
            SdkError::ServiceError(_) => Kind::Refused,
            SdkError::TimeoutError(_) => Kind::Broken("it does not answer in time".into()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Kind::Broken("it does not answer in time".into()),
            SdkError::DispatchFailure(failure) => Kind::Broken(innermost(failure.as_connector_error().map(|e| e as _))),
            SdkError::ResponseError(_) => Kind::Broken("its answer cannot be read".into()),
            SdkError::ConstructionFailure(_) => Kind::Odd("the request cannot be made".into()),
            _ => Kind::Broken("it does not answer".into()),
        };
        Self { kind, status, code }
    }

    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self { kind: Kind::Broken(why.into()), status: None, code: None }
    }

    pub(super) fn odd(why: impl Into<String>) -> Self {
        Self { kind: Kind::Odd(why.into()), status: None, code: None }
    }

    /// The answer to HEAD has no body that could name the reason; of a bucket 404 has one meaning.
    pub(super) fn of_a_bucket(mut self) -> Self {
        if self.status == Some(404) && self.code.as_deref().is_none_or(|code| code == "NotFound") {
            self.code = Some("NoSuchBucket".into());
        }
        self
    }

    /// Whether it broke off on its way.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.kind, Kind::Broken(_))
    }

    /// Whether the server says that there is no such object.
    pub(super) fn is_absence(&self) -> bool {
        self.code.as_deref() == Some("NoSuchKey")
    }

    /// Whether the server says that the object ends before the first byte that was asked for.
    pub(super) fn is_beyond_the_end(&self) -> bool {
        self.status == Some(416) && matches!(self.code.as_deref(), Some("InvalidRange") | None)
    }

    /// Whether the server says that it does not know this request.
    pub(super) fn is_unknown_here(&self) -> bool {
        self.status == Some(501) || self.code.as_deref() == Some("NotImplemented")
    }

    /// What a caller can do about it.
    pub(super) fn store_error(&self, doing: &str, place: &S3Place) -> StoreError {
        let code = self.code.as_deref().unwrap_or("");
        let what = match (&self.kind, self.status) {
            (Kind::Broken(why), _) => format!("{place} cannot be reached: {why}; see whether the server runs and blobs.url is right"),
            (Kind::Odd(why), _) => return StoreError::Corrupt(format!("{doing}: {place}: {why}")),
            _ if FULL.contains(&code) || self.status == Some(507) => {
                return StoreError::Full(format!("{doing}: {place} takes no more ({self}); make room or raise its quota"));
            }
            _ if code == "NoSuchBucket" => format!("{place} does not exist; create it, or correct blobs.url"),
            _ if code == "RequestTimeTooSkewed" => format!("{place} refuses our clock; set the time of this machine right"),
            _ if matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                format!("{place} is in another region ({self}); put the right one behind region= in blobs.url")
            }
            (_, Some(401 | 403)) => {
                format!("{place} refuses the key ({self}); check blobs.access_key and blobs.secret_key and what that key may do there")
            }
            _ if REFUSED.contains(&code) => format!("{place} refuses the key ({self}); check blobs.access_key and blobs.secret_key"),
            (_, Some(404)) => format!("nothing like {place} is there ({self}); check blobs.url"),
            _ => format!("{place} failed ({self})"),
        };
        StoreError::Unavailable(format!("{doing}: {what}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, self.status, &self.code) {
            (Kind::Broken(why) | Kind::Odd(why), ..) => f.write_str(why),
            (_, Some(status), Some(code)) => write!(f, "{status} {code}"),
            (_, Some(status), None) => write!(f, "{status}"),
            (_, None, code) => f.write_str(code.as_deref().unwrap_or("no reason given")),
        }
    }
}

/// The last cause: `connection refused` rather than `dispatch failure`.
fn innermost(error: Option<&(dyn std::error::Error + 'static)>) -> String {
    let Some(mut at) = error else { return "it does not answer".into() };
    while let Some(cause) = at.source() {
        at = cause;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> StoreError {
        let place = S3Place { bucket: "chunks".into(), prefix: String::new(), endpoint: Some("http://s3.test".into()), region: "r".into() };
        Trouble { kind: Kind::Refused, status: Some(status), code: Some(code.into()) }.store_error("storing a pack", &place)
    }

    #[test]
    fn an_error_says_what_to_do() {
        for (status, code, told) in [
            (404, "NoSuchBucket", "does not exist; create it"),
            (403, "SignatureDoesNotMatch", "check blobs.access_key and blobs.secret_key"),
            (403, "RequestTimeTooSkewed", "set the time"),
            (301, "PermanentRedirect", "region="),
            (503, "SlowDown", "503 SlowDown"),
        ] {
            let error = refused(status, code);
            assert!(matches!(&error, StoreError::Unavailable(_)) && error.to_string().contains(told), "{error}");
        }
        assert!(matches!(refused(507, "XMinioStorageFull"), StoreError::Full(_)));
        assert!(matches!(refused(403, "QuotaExceeded"), StoreError::Full(_)));
    }
}
