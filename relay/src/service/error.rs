//! The one error of the service layer: what is wrong, in words for the caller, with a stable code. `http` turns it into a problem document;
//! what only an operator may know travels as `source` and is logged there, never sent.

use crate::store::StoreError;
use serde_json::{Map, Value};
use std::fmt;

/// What kind of failure it is; `http` maps each to one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be understood (400).
    Malformed,
    /// Nobody, or nobody known, is calling (401).
    Unauthenticated,
    /// The caller may not do this (403).
    Forbidden,
    /// It does not exist, or the caller may not know that it does (404).
    NotFound,
    /// The rest of the request does not come (408).
    TooSlow,
    /// The state has moved on (409).
    Conflict,
    /// It existed and does no more (410).
    Gone,
    /// A stated precondition does not hold (412).
    PreconditionFailed,
    /// More than a limit or the caller's quota allows (413).
    TooLarge,
    /// The body is of a kind that this route does not take (415).
    UnsupportedMedia,
    /// The range asked for does not exist (416).
    RangeNotSatisfiable,
    /// Understood, and wrong (422).
    Invalid,
    /// Too often; `retry_after_s` says when again (429).
    TooMany,
    /// Our fault (500).
    Internal,
    /// Not now; trying again helps (503).
    Unavailable,
    /// No space is left on the relay (507).
    StorageFull,
}

/// Why a service did not do what was asked. Nothing was changed unless the text says otherwise, or the store broke off while it committed.
#[derive(Debug)]
pub struct ServiceError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    code: &'static str,
    detail: String,
    hint: Option<String>,
    extra: Map<String, Value>,
    retry_after_s: Option<u64>,
    source: Option<String>,
    in_doubt: bool,
}

/// What a service answers.
pub type ServiceResult<T> = Result<T, ServiceError>;

/// The code of what another transaction stood in the way of.
const CONTENDED: &str = "contended";

impl ServiceError {
    /// An error of this kind with its stable code and a sentence for the caller.
    pub fn new(kind: Kind, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code,
            detail: detail.into(),
            hint: None,
            extra: Map::new(),
            retry_after_s: None,
            source: None,
            in_doubt: false,
        }))
    }

    /// 400: the request cannot be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, "malformed", detail)
    }

    /// 422: understood, and wrong.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, code, detail)
    }

    /// 401 without a reason that would help a guesser.
    pub fn unauthenticated() -> Self {
        Self::new(Kind::Unauthenticated, "unauthenticated", "This needs a valid access token.").hint("Log in again, or refresh the token.")
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, "forbidden", detail)
    }

    /// 404: the same answer for what does not exist and for what the caller may not see (I13).
    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "not_found", "There is nothing here under this address.")
    }

    /// 409.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, code, detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(Kind::TooLarge, "too_large", detail)
    }

    /// 429.
    pub fn too_many(retry_after_s: u64) -> Self {
        let mut error = Self::new(Kind::TooMany, "too_many_requests", format!("Too many attempts. Try again in {retry_after_s} s."));
        error.0.retry_after_s = Some(retry_after_s);
        error
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut error = Self::new(Kind::Unavailable, "unavailable", detail);
        error.0.retry_after_s = Some(1);
        error
    }

    /// 500: `source` is logged; the caller learns the request id only.
    pub fn internal(source: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, "internal", "The relay failed to answer. The operator finds the reason in the log under the request id.")
            .source(source)
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a member to the problem document.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(key.to_owned(), value.into());
        self
    }

    /// Adds what only the operator may know.
    #[must_use]
    pub fn source(mut self, source: impl fmt::Display) -> Self {
        self.0.source = Some(source.to_string());
        self
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The same for one more caller.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether another transaction stood in the way, and doing it all again may help.
    pub(crate) fn is_contended(&self) -> bool {
        self.0.code == CONTENDED
    }

    /// Whether what was asked may have been done all the same: the store broke off while it committed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// The sentence for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What the caller can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Further members of the problem document.
    pub fn extra(&self) -> &Map<String, Value> {
        &self.0.extra
    }

    /// In how many seconds trying again makes sense.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.0.retry_after_s
    }

    /// What goes to the log and nowhere else.
    pub fn source_text(&self) -> Option<&str> {
        self.0.source.as_deref()
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        match &self.0.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServiceError {}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) => Self::unavailable("The relay's store does not answer now. Try again.").source(&error),
            StoreError::Contended(_) => {
                let mut busy =
                    Self::new(Kind::Unavailable, CONTENDED, "Too many change the same things at once. Try again.").source(&error);
                busy.0.retry_after_s = Some(1);
                busy
            }
            StoreError::InDoubt(_) => {
                let mut broken =
                    Self::unavailable("The relay's store broke off before it said whether this was done. Try again.").source(&error);
                broken.0.in_doubt = true;
                broken
            }
            StoreError::Full(_) => Self::new(
                Kind::StorageFull,
                "storage_full",
                "No space is left on the relay. Its operator must make room; nothing was stored.",
            )
            .source(&error),
            StoreError::Conflict(_) => {
                Self::conflict("conflict", "Somebody else changed this at the same time. Read it again and repeat.").source(&error)
            }
            StoreError::Corrupt(_) => Self::internal(&error),
        }
    }
}
