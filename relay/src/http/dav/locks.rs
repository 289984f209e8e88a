//! What the protocol's library asks of a lock system, answered by the content service: the locks are the database's, so every process knows them.
//!
//! The library's trait knows no failure but a lock in the way; a store that does not answer is one, and the visit remembers the reason (A4).

use super::visit::{Visit, Where};
use crate::service::content::{DavLock, LockWish};
use crate::service::{ServiceError, ServiceResult};
use dav_server::davpath::{DavPath, ParseError};
use dav_server::ls::{DavLock as Lock, DavLockSystem, LsFuture};
use ferry_protocol::RelPath;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use xmltree::{Element, EmitterConfig, Namespace};

/// See the module.
#[derive(Clone)]
pub(super) struct Locks {
    visit: Arc<Visit>,
    /// The address of the list of folders.
    root: DavPath,
}

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locks")
    }
}

impl Locks {
    pub(super) fn of(visit: Arc<Visit>) -> ServiceResult<Self> {
        let root = parsed(&format!("{}/", super::PREFIX)).map_err(ServiceError::internal)?;
        Ok(Self { visit, root })
    }

    /// A lock in the library's words.
    fn told(&self, lock: &DavLock) -> Lock {
        let space = self.visit.space().map_or("", |space| space.name.as_str());
        let timeout = Duration::from_secs(lock.timeout_s);
        Lock {
            token: Uuid::from_bytes(lock.token).urn().to_string(),
            path: Box::new(address(space, &lock.path).unwrap_or_else(|_| self.root.clone())),
            principal: None,
            owner: lock.owner_xml.as_deref().and_then(|xml| Element::parse(xml.as_bytes()).ok()).map(Box::new),
            timeout_at: None,
            timeout: Some(timeout),
            shared: lock.is_shared,
            deep: lock.is_deep,
        }
    }

    /// What stands for a lock in the way when the reason is another.
    fn barred(&self, error: ServiceError) -> Lock {
        self.visit.refuse(error);
        let path = Box::new(self.root.clone());
        let (token, shared, deep) = (String::new(), false, true);
        Lock { token, path, principal: None, owner: None, timeout_at: None, timeout: None, shared, deep }
    }

    fn inside(&self, path: &DavPath) -> Option<RelPath> {
        match self.visit.place(path) {
            Ok(Where::Inside(path)) => Some(path),
            _ => None,
        }
    }

    async fn lock(&self, path: Option<RelPath>, wish: LockWish) -> Result<Lock, Lock> {
        let (Some(path), Some(entry)) = (path, self.visit.entry()) else { return Err(self.barred(ServiceError::not_found())) };
        let made = self.visit.app.content.dav_lock(entry, LockWish { path, ..wish }).await.map_err(|e| self.barred(e))?;
        made.map(|lock| self.told(&lock)).map_err(|lock| self.told(&lock))
    }

    /// Whether this very lock holds at a place: what the `If` header asks.
    async fn holds(&self, path: Option<RelPath>, tokens: Vec<[u8; 16]>) -> Result<(), Lock> {
        let (Some(path), Some(entry)) = (path, self.visit.entry()) else { return Err(self.barred(ServiceError::not_found())) };
        let locks = self.visit.app.content.dav_locks(entry.namespace()).await.map_err(|e| self.barred(e))?;
        let found = locks.iter().any(|lock| tokens.contains(&lock.token) && lock.covers(&path));
        if found { Ok(()) } else { Err(self.barred(ServiceError::not_found())) }
    }

    async fn check(&self, path: Option<RelPath>, tokens: Vec<[u8; 16]>, deep: bool) -> Result<(), Lock> {
        let (Some(path), Some(entry)) = (path, self.visit.entry()) else { return Err(self.barred(ServiceError::not_found())) };
        self.visit.show_tokens(tokens.clone());
        // Who makes or removes a name changes its directory, too.
        let as_member = match self.visit.asked.method.as_str() {
            "MKCOL" | "DELETE" | "MOVE" | "COPY" => true,
            "PUT" => self.visit.look(&path).await.is_err(),
            _ => false,
        };
        let found = self.visit.app.content.dav_check_locks(entry, &path, &tokens, deep, as_member).await.map_err(|e| self.barred(e))?;
        found.map_or(Ok(()), |lock| Err(self.told(&lock)))
    }

    async fn refresh(&self, path: Option<RelPath>, token: Option<[u8; 16]>, timeout_s: Option<u64>) -> Result<Lock, ()> {
        let (Some(path), Some(token), Some(entry)) = (path, token, self.visit.entry()) else { return Err(()) };
        let found = self.visit.app.content.dav_refresh_lock(entry, &path, token, timeout_s).await;
        found.map_err(|e| drop(self.barred(e)))?.map(|lock| self.told(&lock)).ok_or(())
    }

    async fn unlock(&self, path: Option<RelPath>, token: Option<[u8; 16]>) -> Result<(), ()> {
        let (Some(path), Some(token), Some(entry)) = (path, token, self.visit.entry()) else { return Err(()) };
        let done = self.visit.app.content.dav_unlock(entry, &path, token).await.map_err(|e| drop(self.barred(e)))?;
        if done { Ok(()) } else { Err(()) }
    }
}

/// A place as its address.
fn address(space: &str, path: &RelPath) -> Result<DavPath, ParseError> {
    let mut text = super::PREFIX.to_owned();
    for name in std::iter::once(space.as_bytes()).chain(path.names().iter().map(|name| name.as_bytes())) {
        text.push('/');
        for byte in name {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    parsed(&text)
}

fn parsed(text: &str) -> Result<DavPath, ParseError> {
    let mut path = DavPath::new(text)?;
    path.set_prefix(super::PREFIX)?;
    Ok(path)
}

/// The random bytes of a token.
fn token_of(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix("urn:uuid:").or_else(|| text.strip_prefix("opaquelocktoken:"))?;
    Uuid::parse_str(text).ok().map(Uuid::into_bytes)
}

/// What the client says of its user, by itself. The library has called its prefix `D`; what that means must be said here.
fn owner_text(owner: &Element) -> Option<String> {
    let mut owner = owner.clone();
    let mut spaces = owner.namespaces.take().unwrap_or_else(Namespace::empty);
    spaces.force_put("D", "DAV:");
    owner.namespaces = Some(spaces);
    let mut out = Vec::new();
    owner.write_with_config(&mut out, EmitterConfig { write_document_declaration: false, ..EmitterConfig::default() }).ok()?;
    String::from_utf8(out).ok()
}

impl DavLockSystem for Locks {
    fn lock(
        &'_ self,
        path: &DavPath,
        _: Option<&str>,
        owner: Option<&Element>,
        timeout: Option<Duration>,
        shared: bool,
        deep: bool,
    ) -> LsFuture<'_, Result<Lock, Lock>> {
        let wish = LockWish {
            path: RelPath::root(),
            owner_xml: owner.and_then(owner_text),
            is_shared: shared,
            is_deep: deep,
            timeout_s: timeout.map(|t| t.as_secs()),
        };
        let path = self.inside(path);
        Box::pin(Locks::lock(self, path, wish))
    }

    fn unlock(&'_ self, path: &DavPath, token: &str) -> LsFuture<'_, Result<(), ()>> {
        let (path, token) = (self.inside(path), token_of(token));
        Box::pin(Locks::unlock(self, path, token))
    }

    fn refresh(&'_ self, path: &DavPath, token: &str, timeout: Option<Duration>) -> LsFuture<'_, Result<Lock, ()>> {
        let (path, token) = (self.inside(path), token_of(token));
        Box::pin(Locks::refresh(self, path, token, timeout.map(|t| t.as_secs())))
    }

    fn check(
        &'_ self,
        path: &DavPath,
        _: Option<&str>,
        ignore_principal: bool,
        deep: bool,
        submitted_tokens: &[String],
    ) -> LsFuture<'_, Result<(), Lock>> {
        let path = self.inside(path);
        let tokens: Vec<[u8; 16]> = submitted_tokens.iter().filter_map(|text| token_of(text)).collect();
        if ignore_principal { Box::pin(self.holds(path, tokens)) } else { Box::pin(Locks::check(self, path, tokens, deep)) }
    }

    fn discover(&'_ self, path: &DavPath) -> LsFuture<'_, Vec<Lock>> {
        let path = self.inside(path);
        Box::pin(async move {
            let Some(path) = path else { return Vec::new() };
            let locks = self.visit.locks().await.unwrap_or_default();
            locks.iter().filter(|lock| lock.covers(&path)).map(|lock| self.told(lock)).collect()
        })
    }

    fn delete(&'_ self, path: &DavPath) -> LsFuture<'_, Result<(), ()>> {
        let path = self.inside(path);
        Box::pin(async move {
            let (Some(path), Some(entry)) = (path, self.visit.entry()) else { return Err(()) };
            self.visit.app.content.dav_forget_locks(entry, &path).await.map_err(|e| drop(self.barred(e)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_owners_come_back_as_they_went() {
        let token = [7; 16];
        assert_eq!(token_of(&Uuid::from_bytes(token).urn().to_string()), Some(token));
        assert_eq!((token_of("DAV:no-lock"), token_of("urn:uuid:x")), (None, None));
        let info = "<lockinfo xmlns='DAV:' xmlns:x='urn:x'><owner><x:who>a&amp;b</x:who></owner></lockinfo>";
        let mut owner = Element::parse(info.as_bytes()).unwrap().get_child("owner").unwrap().clone();
        owner.prefix = Some("D".into());
        let text = owner_text(&owner).unwrap();
        let back = Element::parse(text.as_bytes()).unwrap();
        assert_eq!((back.name.as_str(), back.namespace.as_deref()), ("owner", Some("DAV:")));
        assert_eq!(back.get_child("who").unwrap().get_text().unwrap(), "a&b");
        let place = RelPath::parse("a b/ü#".as_bytes()).unwrap();
        assert_eq!(address("My Files", &place).unwrap().with_prefix().as_url_string(), "/dav/My%20Files/a%20b/%C3%BC%23");
    }
}
