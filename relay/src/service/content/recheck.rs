//! Whether whoever is being sent something long may still have it: asked again while it is sent, since a right that has ended ends what goes by it (R21).

use super::{Content, Entry, check_membership};
use crate::service::{ServiceError, ServiceResult};
use ferry_protocol::wire::Role;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// How long a body may go on without the question, in milliseconds.
pub(super) const RECHECK_MS: i64 = 60_000;

type Answer = Pin<Box<dyn Future<Output = ServiceResult<()>> + Send>>;

/// The question, to be asked as often as it takes.
#[derive(Clone)]
pub struct Recheck(Arc<dyn Fn() -> Answer + Send + Sync>);

impl Recheck {
    /// A question that is answered by this.
    pub fn new<F: Future<Output = ServiceResult<()>> + Send + 'static>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// Refuses if the right has ended.
    pub async fn ask(&self) -> ServiceResult<()> {
        (self.0)().await
    }
}

impl fmt::Debug for Recheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recheck")
    }
}

impl Content {
    /// Whether the caller may still read what was entered.
    pub fn still_reads(self: &Arc<Self>, entry: &Entry) -> Recheck {
        let (this, entry) = (Arc::clone(self), entry.clone());
        Recheck::new(move || {
            let (this, entry) = (Arc::clone(&this), entry.clone());
            async move { this.check_reads(&entry).await }
        })
    }

    async fn check_reads(&self, entry: &Entry) -> ServiceResult<()> {
        let (user, namespace) = (entry.caller.user_id, entry.row.id);
        let row = match entry.only {
            Some(file) => self.meta.locate_shared(user, file).await?.into_iter().find(|row| row.id == namespace),
            None => self.meta.namespace_for(namespace, user).await?,
        };
        check_membership(&entry.caller, &row.ok_or_else(ServiceError::not_found)?, Role::Viewer)
    }
}
