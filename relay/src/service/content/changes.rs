//! The plain delta: what changed since a time or a cursor, in all of the caller's namespaces, with paths.

use super::{Content, feed::epoch_changed};
use crate::service::{Caller, ServiceError, ServiceResult};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_protocol::wire::Role;
use ferry_protocol::{Epoch, NamespaceId, NodeId, RelPath, node, read};
use std::collections::BTreeMap;

/// Most changes of one page.
const PAGE_MAX: usize = 1000;
/// States of one page, in bytes.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// A time in milliseconds since 1970. Changes at that very time are included; taking one twice does no harm.
    TimeMs(i64),
    /// A cursor from an earlier answer.
    Cursor(String),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The node.
    pub node: NodeId,
    /// Where it is shown now; nothing if it is not shown.
    pub path: Option<RelPath>,
    /// The name at its newest place, for what is not shown.
    pub name: ferry_protocol::Name,
    /// What it shows; nothing if it is deleted.
    pub content: Option<node::Content>,
    /// When it changed on the relay, in milliseconds since 1970.
    pub updated_at_ms: i64,
    /// Its number in the namespace's feed.
    pub seq: u64,
}

/// A page of changes.
#[derive(Debug, Clone)]
pub struct ChangePage {
    /// The changes, per namespace in the order of its feed.
    pub changes: Vec<Change>,
    /// Ask with this next.
    pub cursor: String,
    /// Whether more follows now.
    pub has_more: bool,
    /// The relay's time in milliseconds since 1970.
    pub server_time_ms: i64,
}

type Position = BTreeMap<NamespaceId, u64>;

impl Content {
    /// What changed since then.
    pub async fn changes(&self, caller: &Caller, since: Since, limit: usize) -> ServiceResult<ChangePage> {
        let server_time_ms = self.clock.now_ms();
        let epoch = self.identity().epoch;
        let mut namespaces = self.meta.namespaces_of(caller.user_id).await?;
        if let Some(folder) = super::folder_of(caller) {
            namespaces.retain(|row| row.id == folder.namespace);
            if let Some(row) = namespaces.first() {
                // Feeds are of whole namespaces.
                self.entry(caller, row.clone(), Role::Viewer)?;
            }
        }
        let mut position = match &since {
            Since::Cursor(text) => decode(text, epoch)?,
            Since::TimeMs(_) => Position::new(),
        };
        // A namespace that the caller lost says nothing any more (I13).
        position.retain(|id, _| namespaces.iter().any(|n| n.id == *id));
        let mut left = limit.clamp(1, PAGE_MAX);
        let (mut changes, mut has_more) = (Vec::new(), false);
        for namespace in &namespaces {
            let from = match (&since, position.get(&namespace.id)) {
                // Everything: nobody need be asked where that begins.
                (Since::TimeMs(..=0), _) => 0,
                (Since::TimeMs(ms), _) => match self.meta.first_seq_since(namespace.id, *ms).await? {
                    Some(first) => first.saturating_sub(1),
                    None => namespace.head_seq,
                },
                (Since::Cursor(_), Some(seq)) => *seq,
                // A namespace that was joined since the cursor was made: everything in it is new.
                (Since::Cursor(_), None) => 0,
            };
            position.insert(namespace.id, from);
            // Whoever has come as far as the head is told nothing; most have, in most of their namespaces.
            if left == 0 || from == namespace.head_seq {
                has_more |= from < namespace.head_seq;
                continue;
            }
            let slice = self.meta.feed(namespace.id, from, left, PAGE_BYTES).await?;
            let is_cursor = matches!(since, Since::Cursor(_));
            if from > slice.head_seq || (is_cursor && !slice.since_is_known) {
                return Err(epoch_changed(epoch));
            }
            let reached = slice.nodes.last().map_or(from, |n| n.seq);
            has_more |= reached < slice.head_seq;
            position.insert(namespace.id, reached);
            left -= slice.nodes.len();
            if slice.nodes.is_empty() {
                continue;
            }
            self.settled(namespace).await?;
            let ids: Vec<NodeId> = slice.nodes.iter().map(|row| row.id).collect();
            let shown = self.view(namespace.id).of_nodes(&ids).await?;
            changes.extend(slice.nodes.into_iter().map(|row| Change {
                namespace: namespace.id,
                node: row.id,
                path: shown.get(&row.id).map(|s| s.path.clone()),
                name: row.state.places()[0].name.clone(),
                content: read::shown(row.state.body()).first().map(|s| s.value.content.clone()),
                updated_at_ms: row.updated_at_ms,
                seq: row.seq,
            }));
        }
        Ok(ChangePage { changes, cursor: encode(epoch, &position)?, has_more, server_time_ms })
    }
}

fn encode(epoch: Epoch, position: &Position) -> ServiceResult<String> {
    let bytes = postcard::to_stdvec(&(epoch, position)).map_err(ServiceError::internal)?;
    Ok(format!("c{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn decode(text: &str, epoch: Epoch) -> ServiceResult<Position> {
    let bytes = text.strip_prefix('c').and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
    let decoded = bytes.as_deref().and_then(|b| postcard::take_from_bytes::<(Epoch, Position)>(b).ok());
    let Some(((of, position), [])) = decoded else {
        return Err(ServiceError::malformed("'since' is neither a time (RFC 3339 or seconds since 1970) nor a cursor of this relay."));
    };
    if of != epoch { Err(epoch_changed(epoch)) } else { Ok(position) }
}
