//! Public links: one file or folder for whoever knows an address.
//!
//! * **PL1** Whatever serves bytes, names or takes bytes asks [`Links::open`] first, and that reads the link's row and its maker's rights anew each time:
//!   what is revoked, over, used up or locked is so for every route at once.
//! * **PL2** A link opens no more than its maker may do in the namespace now, and nothing outside the node that it names; it goes with its maker's role
//!   of editor, account, and the node. What is brought back from the trash is open again.
//! * **PL3** Whoever gave a link's password holds a cookie of that link and that password, good for no other link and for no later password.
//! * **PL4** The secret of an address is 144 random bits. The database finds it by its hash and keeps it encrypted under a key of the relay's, so that its
//!   maker can see the address again and whoever steals the database cannot.

mod visit;

#[cfg(test)]
mod tests;

pub use visit::VISIT_TTL_MS;

use super::accounts::Accounts;
use super::content::{Content, Entry, PublicItem, Recheck, hmac_sha256};
use super::shared::Shared;
use super::{Caller, Kind, ServiceError, ServiceResult};
use crate::clock::Clock;
use crate::store::MetaStore;
use crate::store::limits::Meter;
use crate::store::links::{Counted, LinkChange, LinkId, Visitor};
pub use crate::store::links::{Link, LinkKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, RelPath};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// Links of one user that are not revoked.
const LINKS_MAX: u32 = 1000;
/// Random bytes of an address.
const TOKEN_BYTES: usize = 18;
/// Longest life that may be asked for, in milliseconds.
const TTL_MAX_MS: i64 = 10 * 366 * 24 * 3600 * 1000;
/// Most downloads that may be allowed.
const DOWNLOADS_MAX: u64 = 1_000_000;
/// Wrong passwords of one link in a minute, from anywhere.
const WRONG_PER_MINUTE: u32 = 10;
/// Unknown addresses asked for by one caller in a minute.
const UNKNOWN_PER_MINUTE: u32 = 30;
/// Uploads begun through one link in a minute.
const UPLOADS_PER_MINUTE: u32 = 120;
/// Visits of a link without a limit that are remembered one by one.
const REMEMBERED_MAX: u64 = 10_000;
/// How long an ended link is kept, in milliseconds: until nobody asks what became of it.
const ENDED_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;
/// What the addresses' secrets are encrypted for.
const SEALED_FOR: &str = "public link";

/// The service of public links. Holds no state that matters (R7).
pub struct Links {
    store: Arc<dyn MetaStore>,
    content: Arc<Content>,
    accounts: Arc<Accounts>,
    shared: Shared,
    clock: Arc<dyn Clock>,
    /// Signs what visitors carry.
    key: [u8; 32],
}

/// A link that is to be made.
#[derive(Debug, Clone)]
pub struct NewLink {
    /// Where; nothing for the caller's home, or for wherever the node is.
    pub namespace: Option<NamespaceId>,
    /// The file or folder.
    pub target: Target,
    /// What it is for.
    pub kind: LinkKind,
    /// A password.
    pub password: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Most downloads.
    pub max_downloads: Option<u64>,
}

/// What a link opens.
#[derive(Debug, Clone)]
pub enum Target {
    /// This node.
    Node(NodeId),
    /// What stands at this path; the root for the whole namespace.
    Path(RelPath),
}

/// A change of a link; what is `None` stays, an inner `None` removes.
#[derive(Debug, Clone, Default)]
pub struct LinkUpdate {
    /// What it is for.
    pub kind: Option<LinkKind>,
    /// The password.
    pub password: Option<Option<String>>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: Option<Option<i64>>,
    /// Most downloads.
    pub max_downloads: Option<Option<u64>>,
}

/// How a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It opens.
    Active,
    /// Its time is over.
    Expired,
    /// It was used as often as it may be.
    UsedUp,
    /// What it opened is in the trash, or its maker may no longer let others in.
    Gone,
}

/// A link as its maker sees it.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// The link.
    pub link: Link,
    /// The secret of its address; nothing if the relay's key is another one since.
    pub token: Option<String>,
    /// How it does.
    pub state: LinkState,
    /// Where in the namespace what it opens is now; nothing if it is gone.
    pub path: Option<RelPath>,
    /// What it opens; nothing if that is gone.
    pub item: Option<PublicItem>,
}

/// A link that a visitor may use now.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The link.
    pub link: Link,
    /// The way into what it opens.
    pub entry: Entry,
}

impl Opened {
    /// Whether it was used as often as it may be.
    pub fn is_used_up(&self) -> bool {
        self.link.kind != LinkKind::Upload && self.link.max_downloads.is_some_and(|max| self.link.downloads >= max)
    }
}

impl Links {
    /// The service. `key` signs what visitors carry and is the same in all processes of the relay.
    pub fn new(
        store: Arc<dyn MetaStore>,
        content: Arc<Content>,
        accounts: Arc<Accounts>,
        shared: Shared,
        clock: Arc<dyn Clock>,
        key: [u8; 32],
    ) -> Self {
        Self { store, content, accounts, shared, clock, key }
    }

    /// Makes a link. Needs the role of an editor: who may only look may not let others look.
    pub async fn create(&self, caller: &Caller, new: NewLink) -> ServiceResult<LinkView> {
        let (namespace, node) = self.target(caller, &new).await?;
        let entry = self.content.enter_public(caller.user_id, namespace, node).await?;
        if matches!(&new.target, Target::Path(path) if path != entry.within()) {
            // The node is shown elsewhere under its own name.
            let detail = "This is one of two contents that claim a name. Settle the conflict first.";
            return Err(ServiceError::conflict("conflicted_copy", detail));
        }
        let item = self.content.public_item(&entry, &RelPath::root()).await?;
        self.check(new.kind, new.expires_at_ms, new.max_downloads)?;
        if new.kind == LinkKind::Upload && !item.is_directory {
            return Err(ServiceError::invalid("not_a_directory", "Only a folder can take uploads."));
        }
        let password_hash = match &new.password {
            Some(password) => Some(self.accounts.hash_password(password).await?),
            None => None,
        };
        let (link_id, secret) = (random::<16>()?, random::<TOKEN_BYTES>()?);
        let token = URL_SAFE_NO_PAD.encode(secret);
        let link = Link {
            link_id,
            token_sealed: self.accounts.seal(SEALED_FOR, &link_id, token.as_bytes())?,
            namespace,
            node,
            maker: caller.user_id,
            kind: new.kind,
            password_hash,
            expires_at_ms: new.expires_at_ms,
            max_downloads: new.max_downloads,
            downloads: 0,
            created_at_ms: self.clock.now_ms(),
            revoked_at_ms: None,
        };
        if !self.store.insert_link(&link, hash_of(&token), LINKS_MAX).await? {
            return Err(ServiceError::conflict("too_many_links", format!("There are {LINKS_MAX} links. Revoke those not needed.")));
        }
        self.accounts.note_act(caller, "link.made", &format!("{} {} of {}", hex::encode(link_id), new.kind.as_str(), namespace)).await;
        let path = Some(entry.within().clone());
        Ok(LinkView { link, token: Some(token), state: LinkState::Active, path, item: Some(item) })
    }

    async fn target(&self, caller: &Caller, new: &NewLink) -> ServiceResult<(NamespaceId, NodeId)> {
        match &new.target {
            Target::Node(node) if *node != NodeId::ROOT => {
                let entry = self.content.enter_by_file(caller, *node, new.namespace, Role::Editor).await?;
                Ok((entry.namespace(), *node))
            }
            target => {
                let entry = match new.namespace {
                    Some(namespace) => self.content.enter(caller, namespace, Role::Editor).await?,
                    None => self.content.enter_home(caller).await?,
                };
                let path = match target {
                    Target::Path(path) => path.clone(),
                    Target::Node(_) => RelPath::root(),
                };
                let item = self.content.public_item(&entry, &path).await?;
                Ok((entry.namespace(), item.node))
            }
        }
    }

    fn check(&self, kind: LinkKind, expires_at_ms: Option<i64>, max_downloads: Option<u64>) -> ServiceResult<()> {
        let now_ms = self.clock.now_ms();
        if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms || at_ms > now_ms + TTL_MAX_MS) {
            return Err(ServiceError::invalid("invalid_expiry", "A link ends in the future, at most ten years from now."));
        }
        if max_downloads.is_some_and(|max| !(1..=DOWNLOADS_MAX).contains(&max)) {
            return Err(ServiceError::invalid("invalid_limit", format!("A link can be limited to 1 to {DOWNLOADS_MAX} downloads.")));
        }
        if kind == LinkKind::Upload && max_downloads.is_some() {
            return Err(ServiceError::invalid("invalid_limit", "Nothing is downloaded through a link for uploads."));
        }
        Ok(())
    }

    /// The caller's links, and all links into namespaces that the caller owns, newest first.
    pub async fn list(&self, caller: &Caller) -> ServiceResult<Vec<LinkView>> {
        let mut views = Vec::new();
        for link in self.store.links_of(caller.user_id).await? {
            views.push(self.view(link).await?);
        }
        Ok(views)
    }

    async fn view(&self, link: Link) -> ServiceResult<LinkView> {
        let token = self.accounts.unseal(SEALED_FOR, &link.link_id, &link.token_sealed).and_then(|bytes| String::from_utf8(bytes).ok());
        let (path, item) = match self.content.enter_public(link.maker, link.namespace, link.node).await {
            Ok(entry) => match self.content.public_item(&entry, &RelPath::root()).await {
                Ok(item) => (Some(entry.within().clone()), Some(item)),
                Err(e) if matches!(e.kind(), Kind::NotFound) => (None, None),
                Err(e) => return Err(e),
            },
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Forbidden) => (None, None),
            Err(e) => return Err(e),
        };
        let state = if item.is_none() {
            LinkState::Gone
        } else if self.is_over(&link) {
            LinkState::Expired
        } else if link.max_downloads.is_some_and(|max| link.downloads >= max) {
            LinkState::UsedUp
        } else {
            LinkState::Active
        };
        Ok(LinkView { link, token, state, path, item })
    }

    fn is_over(&self, link: &Link) -> bool {
        link.expires_at_ms.is_some_and(|at_ms| at_ms <= self.clock.now_ms())
    }

    /// A link that the caller may change: its maker, and the owner of the namespace that it leads into. It does not exist for others.
    async fn own(&self, caller: &Caller, link_id: LinkId) -> ServiceResult<Link> {
        let link = self.store.link(link_id).await?.filter(|l| l.revoked_at_ms.is_none()).ok_or_else(ServiceError::not_found)?;
        if link.maker != caller.user_id {
            let entered = self.content.enter(caller, link.namespace, Role::Owner).await;
            entered.map_err(|e| if matches!(e.kind(), Kind::Forbidden) { ServiceError::not_found() } else { e })?;
        }
        Ok(link)
    }

    /// One of the links that the caller may change.
    pub async fn get(&self, caller: &Caller, link_id: LinkId) -> ServiceResult<LinkView> {
        let link = self.own(caller, link_id).await?;
        self.view(link).await
    }

    /// Changes a link. A new password locks out whoever gave the old one.
    pub async fn change(&self, caller: &Caller, link_id: LinkId, update: LinkUpdate) -> ServiceResult<LinkView> {
        let link = self.own(caller, link_id).await?;
        let kind = update.kind.unwrap_or(link.kind);
        if (kind == LinkKind::Upload) != (link.kind == LinkKind::Upload) {
            return Err(ServiceError::invalid("invalid_kind", "A link for uploads stays one. Make another link."));
        }
        self.check(kind, update.expires_at_ms.flatten(), update.max_downloads.flatten())?;
        let password_hash = match &update.password {
            Some(Some(password)) => Some(Some(self.accounts.hash_password(password).await?)),
            Some(None) => Some(None),
            None => None,
        };
        let change =
            LinkChange { kind: update.kind, password_hash, expires_at_ms: update.expires_at_ms, max_downloads: update.max_downloads };
        if !self.store.update_link(link_id, &change).await? {
            return Err(ServiceError::not_found());
        }
        self.accounts.note_act(caller, "link.changed", &hex::encode(link_id)).await;
        self.get(caller, link_id).await
    }

    /// Ends a link, at once and for everybody.
    pub async fn revoke(&self, caller: &Caller, link_id: LinkId) -> ServiceResult<()> {
        self.own(caller, link_id).await?;
        if !self.store.revoke_link(link_id, self.clock.now_ms()).await? {
            return Err(ServiceError::not_found());
        }
        self.accounts.note_act(caller, "link.revoked", &hex::encode(link_id)).await;
        Ok(())
    }

    /// Opens a link for a visitor who carries `pass` (PL1).
    pub async fn open(&self, token: &str, pass: Option<&str>, ip: IpAddr) -> ServiceResult<Opened> {
        let link = self.find(token, ip).await?;
        if !self.passes(&link, pass) {
            hit("locked");
            return Err(ServiceError::new(Kind::Unauthenticated, "password_required", "This link needs a password."));
        }
        match self.content.enter_public(link.maker, link.namespace, link.node).await {
            Ok(entry) => {
                hit("opened");
                Ok(Opened { link, entry })
            }
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Forbidden) => Err(ended()),
            Err(e) => Err(e),
        }
    }

    /// Whether a link that was opened still is: for what is sent for long.
    pub fn still_open(self: &Arc<Self>, opened: &Opened) -> Recheck {
        let (this, link) = (Arc::clone(self), opened.link.clone());
        Recheck::new(move || {
            let (this, link) = (Arc::clone(&this), link.clone());
            async move { this.check_open(&link).await }
        })
    }

    async fn check_open(&self, opened: &Link) -> ServiceResult<()> {
        let link = self.store.link(opened.link_id).await?.filter(|now| now.revoked_at_ms.is_none() && !self.is_over(now));
        let link = link.filter(|now| now.password_hash == opened.password_hash && now.kind == opened.kind).ok_or_else(ended)?;
        if self.accounts.user(link.maker).await?.disabled {
            return Err(ended());
        }
        self.content.enter_public(link.maker, link.namespace, link.node).await.map(drop)
    }

    /// The link of an address, as long as it is neither revoked nor over.
    async fn find(&self, token: &str, ip: IpAddr) -> ServiceResult<Link> {
        let found = if is_token(token) { self.store.link_of_token(hash_of(token)).await? } else { None };
        let Some((link, is_locked_out)) = found else {
            let meter = Meter::Bucket { key: self.shared.meter_key("link-unknown", &network(ip)), per_minute: UNKNOWN_PER_MINUTE };
            let wait_ms = self.shared.limits.count(&[meter], self.clock.now_ms()).await?;
            hit(if wait_ms > 0 { "too_many" } else { "unknown" });
            too_many(wait_ms)?;
            return Err(ServiceError::not_found());
        };
        if link.revoked_at_ms.is_some() || is_locked_out || self.is_over(&link) {
            return Err(ended());
        }
        Ok(link)
    }

    /// Compares the password of a link; the answer is what the visitor carries from now on.
    pub async fn unlock(&self, token: &str, password: &str, ip: IpAddr) -> ServiceResult<String> {
        let link = self.find(token, ip).await?;
        let Some(hash) = &link.password_hash else { return self.pass(&link) };
        let meter = [Meter::Bucket { key: self.shared.meter_key("link-password", &link.link_id), per_minute: WRONG_PER_MINUTE }];
        let now_ms = self.clock.now_ms();
        let refused = |wait_ms: i64| too_many(wait_ms).inspect_err(|_| hit("too_many"));
        // Counted before it is compared: of many guesses at once no more than fit are compared at all. What was no wrong guess gives its place back.
        refused(self.shared.limits.count(&meter, now_ms).await?)?;
        let verdict = self.accounts.is_password(password, hash).await;
        if !matches!(verdict, Ok(false)) {
            self.shared.limits.give_back(&meter, now_ms).await?;
        }
        if !verdict? {
            hit("wrong_password");
            return Err(ServiceError::new(Kind::Unauthenticated, "wrong_password", "This is not the password of this link."));
        }
        hit("unlocked");
        self.pass(&link)
    }

    /// Counts a download, once for each visitor and file; refuses when there were as many as the link allows.
    pub async fn count(&self, opened: &Opened, visitor: Visitor, node: NodeId) -> ServiceResult<()> {
        let counted = self.store.count_download(opened.link.link_id, visitor, node, REMEMBERED_MAX, self.clock.now_ms()).await?;
        if counted == Counted::UsedUp { Err(used_up()) } else { Ok(()) }
    }

    /// Whether one more upload may begin through this link now.
    pub async fn may_upload(&self, opened: &Opened) -> ServiceResult<()> {
        let meter = Meter::Bucket { key: self.shared.meter_key("link-upload", &opened.link.link_id), per_minute: UPLOADS_PER_MINUTE };
        too_many(self.shared.limits.count(&[meter], self.clock.now_ms()).await?)
    }

    /// Forgets what ended long ago: call now and then.
    pub async fn forget_ended(&self) -> ServiceResult<()> {
        let now_ms = self.clock.now_ms();
        Ok(self.store.forget_links(now_ms - VISIT_TTL_MS, now_ms - ENDED_KEPT_MS).await?)
    }
}

fn hit(result: &'static str) {
    metrics::counter!("ferry_relay_share_link_hits_total", "result" => result).increment(1);
}

fn ended() -> ServiceError {
    hit("ended");
    ServiceError::new(Kind::Gone, "link_ended", "This link has ended. Ask whoever gave it to you for another one.")
}

/// The refusal of a link that was used as often as it may be.
pub fn used_up() -> ServiceError {
    hit("used_up");
    ServiceError::new(Kind::Gone, "link_used_up", "This link was used as often as it may be. Ask whoever gave it to you for another one.")
}

fn too_many(wait_ms: i64) -> ServiceResult<()> {
    if wait_ms <= 0 { Ok(()) } else { Err(ServiceError::too_many(wait_ms.unsigned_abs().div_ceil(1000))) }
}

/// Whether this can be the secret of an address.
fn is_token(token: &str) -> bool {
    token.len() == TOKEN_BYTES / 3 * 4 && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn hash_of(token: &str) -> [u8; 32] {
    Sha256::new().chain_update(b"ferry-public-link\0").chain_update(token).finalize().into()
}

/// The network that is counted as one caller: an IPv4 address, the /64 of an IPv6 address.
fn network(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    }
}

fn random<const N: usize>() -> ServiceResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| ServiceError::internal(format!("no random numbers: {e}")))?;
    Ok(bytes)
}
