//! How long old versions and the trash are kept: a rule of the folder, else its owner's for all folders, else for ever. Which versions go is decided in
//! `rule.rs`; here it is carried out, file by file inside transactions that hold the namespace, so that what was given a label or brought back just
//! now stays.
//!
//! A rule that was set is first kept to a day later: whoever regrets it, or finds that somebody else set it, still has everything.

mod rule;

use super::{Content, Entry, patiently};
use crate::service::{Caller, ServiceError, ServiceResult};
use crate::store::content::{NodeRow, Purged, Scope};
use crate::store::versions::RetentionRow;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};
use rule::{Kept, going};
use serde::Serialize;

pub use rule::Rule as RetentionRule;

/// Files that one transaction looks at: writers wait no longer than that takes.
const FILES: usize = 50;
/// Entries of the trash that one transaction takes away.
const ENTRIES: usize = 200;
/// How often a namespace is seen to, and how long a new rule waits, in milliseconds.
const EVERY_MS: i64 = 24 * 60 * 60 * 1000;
/// Files that a report names.
const NAMED_MAX: usize = 100;

/// What a folder's rule is, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The folder's own rule.
    pub own: Option<RetentionRule>,
    /// Its owner's for all folders.
    pub owners: Option<RetentionRule>,
    /// The one that counts.
    pub effective: RetentionRule,
    /// When it is next kept to, in milliseconds since 1970; nothing while it keeps everything.
    pub next_at_ms: Option<i64>,
}

impl Retention {
    fn of(row: &RetentionRow) -> ServiceResult<Self> {
        let (own, owners) = (RetentionRule::parse(row.rule.as_deref())?, RetentionRule::parse(row.owner_rule.as_deref())?);
        let effective = own.or(owners).unwrap_or_default();
        let next_at_ms = (!effective.is_for_ever()).then(|| row.retained_at_ms.saturating_add(EVERY_MS));
        Ok(Self { own, owners, effective, next_at_ms })
    }
}

/// What a rule took away, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RetentionReport {
    /// Files of which versions went.
    pub files: u64,
    /// Those versions.
    pub versions: u64,
    /// Entries that went from the trash for good.
    pub trash_entries: u64,
    /// Bytes that this frees, in the end; of a dry run at least so many, as what several files share is counted for none of them.
    pub freed_bytes: u64,
    /// Some of the files.
    #[serde(skip)]
    pub named: Vec<RetentionFile>,
}

/// A file of which versions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionFile {
    /// The file.
    pub node: NodeId,
    /// Where it is shown; its name, if it is in the trash.
    pub path: String,
    /// The numbers of those versions, the oldest first.
    pub versions: Vec<u64>,
}

impl RetentionReport {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.versions += other.versions;
        self.trash_entries += other.trash_entries;
        self.freed_bytes += other.freed_bytes;
        self.named.extend(other.named);
        self.named.truncate(NAMED_MAX);
    }
}

impl Content {
    /// How long a folder keeps things.
    pub async fn retention(&self, entry: &Entry) -> ServiceResult<Retention> {
        Retention::of(&self.meta.retention(entry.row.id).await?.ok_or_else(ServiceError::not_found)?)
    }

    /// Gives a folder a rule of its own, or (with nothing) none. Only its owner may.
    pub async fn set_retention(&self, entry: &Entry, rule: Option<RetentionRule>) -> ServiceResult<Retention> {
        let text = rule.map(|rule| rule.checked()?.to_text()).transpose()?;
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let namespace = tx.namespace_for(entry.row.id, entry.caller.user_id).await?.ok_or_else(ServiceError::not_found)?;
            self.entry(&entry.caller, namespace, Role::Owner)?;
            tx.set_retention(entry.row.id, text.as_deref()).await?;
            tx.begin_retention(entry.row.id, i64::MAX, self.clock.now_ms()).await?;
            tx.commit().await?;
            ServiceResult::Ok(())
        };
        patiently!(attempt().await)?;
        self.retention(entry).await
    }

    /// A user's rule for all folders that have none of their own.
    pub async fn user_retention(&self, user: UserId) -> ServiceResult<Option<RetentionRule>> {
        RetentionRule::parse(self.meta.user_retention(user).await?.as_deref())
    }

    /// Sets it.
    pub async fn set_user_retention(&self, user: UserId, rule: Option<RetentionRule>) -> ServiceResult<Option<RetentionRule>> {
        let text = rule.map(|rule| rule.checked()?.to_text()).transpose()?;
        // The wait begins before the rule counts.
        for row in self.meta.namespaces_of(user).await?.into_iter().filter(|row| row.owner == user) {
            self.begin(row.id, i64::MAX).await?;
        }
        if !self.meta.set_user_retention(user, text.as_deref()).await? {
            return Err(ServiceError::not_found());
        }
        Ok(rule)
    }

    /// What this rule would take away now. Only a folder's owner is told, as of its trash.
    pub async fn rehearse_retention(&self, entry: &Entry, rule: RetentionRule) -> ServiceResult<RetentionReport> {
        self.entry(&entry.caller, entry.row.clone(), Role::Owner)?;
        self.retain(entry.row.id, entry.row.owner, &rule.checked()?, true).await
    }

    /// Keeps every namespace to its rule that was not seen to for a day. For upkeep.
    pub async fn keep_to_rules(&self) -> ServiceResult<RetentionReport> {
        let mut report = RetentionReport::default();
        for namespace in self.meta.namespace_ids().await? {
            let Some(row) = self.meta.retention(namespace).await? else { continue };
            let rule = Retention::of(&row)?.effective;
            let since_ms = self.clock.now_ms().saturating_sub(EVERY_MS);
            if rule.is_for_ever() || row.retained_at_ms > since_ms || !self.begin(namespace, since_ms).await? {
                continue;
            }
            report.add(self.retain(namespace, row.owner, &rule, false).await?);
        }
        Ok(report)
    }

    /// Keeps a user's folders, or everybody's, to their rules at once. For operators.
    pub async fn retain_now(&self, user: Option<UserId>, dry_run: bool) -> ServiceResult<RetentionReport> {
        let mut report = RetentionReport::default();
        for namespace in self.meta.namespace_ids().await? {
            let Some(row) = self.meta.retention(namespace).await?.filter(|row| user.is_none_or(|user| user == row.owner)) else { continue };
            let rule = Retention::of(&row)?.effective;
            if !rule.is_for_ever() {
                report.add(self.retain(namespace, row.owner, &rule, dry_run).await?);
            }
        }
        Ok(report)
    }

    /// The folders of a caller's own that a user's rule is about, with what it would take away in each.
    pub async fn rehearse_user_retention(&self, caller: &Caller, rule: RetentionRule) -> ServiceResult<RetentionReport> {
        let (rule, mut report) = (rule.checked()?, RetentionReport::default());
        for row in self.meta.namespaces_of(caller.user_id).await?.into_iter().filter(|row| row.owner == caller.user_id) {
            let has_own = self.meta.retention(row.id).await?.is_some_and(|said| said.rule.is_some());
            if !has_own {
                report.add(self.retain(row.id, row.owner, &rule, true).await?);
            }
        }
        Ok(report)
    }

    async fn begin(&self, namespace: NamespaceId, since_ms: i64) -> ServiceResult<bool> {
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(namespace)).await?;
            let begun = tx.begin_retention(namespace, since_ms, self.clock.now_ms()).await?;
            tx.commit().await?;
            ServiceResult::Ok(begun)
        };
        patiently!(attempt().await)
    }

    async fn retain(&self, namespace: NamespaceId, owner: UserId, rule: &RetentionRule, dry_run: bool) -> ServiceResult<RetentionReport> {
        let mut report = RetentionReport::default();
        if rule.all_days.is_some() || rule.max_versions.is_some() {
            let mut after = None;
            loop {
                let files = self.meta.files_with_history(namespace, after, FILES).await?;
                let Some(last) = files.last().copied() else { break };
                report.add(patiently!(self.retain_files(namespace, owner, rule, &files, dry_run).await)?);
                after = Some(last);
            }
        }
        if let Some(before_ms) = rule.trash_before_ms(self.clock.now_ms()) {
            self.retain_trash(namespace, owner, before_ms, dry_run, &mut report).await?;
        }
        let nodes: Vec<NodeId> = report.named.iter().map(|file| file.node).collect();
        let mut shown = self.view(namespace).of_nodes(&nodes).await?;
        for file in &mut report.named {
            if let Some(shown) = shown.remove(&file.node) {
                file.path = format!("/{}", shown.path);
            }
        }
        Ok(report)
    }

    async fn retain_files(
        &self,
        namespace: NamespaceId,
        owner: UserId,
        rule: &RetentionRule,
        files: &[NodeId],
        dry_run: bool,
    ) -> ServiceResult<RetentionReport> {
        let mut tx = self.meta.begin(Scope::Namespace(namespace)).await?;
        let Some(row) = tx.namespace_for(namespace, owner).await? else { return Ok(RetentionReport::default()) };
        let (mut report, mut gone, now_ms) = (RetentionReport::default(), Vec::new(), self.clock.now_ms());
        for node in tx.nodes(namespace, files).await? {
            let mut versions = tx.versions(namespace, node.id).await?;
            versions.reverse();
            let kept: Vec<Kept> = versions
                .iter()
                .map(|version| Kept {
                    created_at_ms: version.created_at_ms,
                    is_safe: version.label.is_some() || node.state.body().value(version.dot).is_some(),
                })
                .collect();
            let going = going(&kept, rule, now_ms);
            if going.is_empty() {
                continue;
            }
            report.files += 1;
            if report.named.len() < NAMED_MAX {
                report.named.push(named(&node, going.iter().map(|at| versions[*at].number).collect()));
            }
            gone.extend(going.into_iter().map(|at| versions[at].version_id));
        }
        let dropped = tx.drop_versions(&row, &gone, now_ms).await?;
        (report.versions, report.freed_bytes) = (dropped.versions, dropped.freed_bytes);
        // The same statements, in a transaction that is dropped (CS2).
        if dry_run {
            tx.rollback().await?
        } else {
            tx.commit().await?
        }
        Ok(report)
    }

    async fn retain_trash(
        &self,
        namespace: NamespaceId,
        owner: UserId,
        before_ms: i64,
        dry_run: bool,
        report: &mut RetentionReport,
    ) -> ServiceResult<()> {
        let mut before_seq = i64::MAX as u64;
        loop {
            let page = self.meta.deleted(namespace, before_seq, ENTRIES).await?;
            let Some(last) = page.last() else { return Ok(()) };
            before_seq = last.seq;
            let nodes: Vec<(NodeId, u64)> = page.iter().filter(|row| row.deleted_at_ms < before_ms).map(|row| (row.id, row.seq)).collect();
            if nodes.is_empty() {
                continue;
            }
            let attempt = async || {
                let mut tx = self.meta.begin(Scope::Namespace(namespace)).await?;
                let Some(row) = tx.namespace_for(namespace, owner).await? else { return Ok(Purged::default()) };
                let purged = tx.purge(&row, &nodes, self.clock.now_ms()).await?;
                if dry_run {
                    tx.rollback().await?
                } else {
                    tx.commit().await?
                }
                ServiceResult::Ok(purged)
            };
            let purged = patiently!(attempt().await)?;
            report.trash_entries += purged.entries;
            report.versions += purged.versions;
            report.freed_bytes += purged.freed_bytes;
        }
    }
}

fn named(node: &NodeRow, versions: Vec<u64>) -> RetentionFile {
    let path = node.state.places().first().map(|place| place.name.to_string()).unwrap_or_default();
    RetentionFile { node: node.id, path, versions }
}
