//! Dead properties: what WebDAV clients want to be kept with a file. They go with its node: along when it is moved, into the trash and back.

use crate::service::content::{Content, Entry, check_membership, patiently};
use crate::service::{ServiceError, ServiceResult};
use crate::store::content::{ContentTx, Scope};
use crate::store::dav::DavPropRow;
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId};
use std::collections::BTreeSet;

/// A property: XML namespace, name, and the whole element as XML.
pub type DavProp = DavPropRow;

/// Properties of one node.
const PROPS_OF_NODE_MAX: usize = 64;
/// Properties of all nodes of a namespace.
const PROPS_OF_NAMESPACE_MAX: u64 = 20_000;
/// Largest property with its XML namespace and name, in bytes.
const PROP_MAX_BYTES: usize = 16 * 1024;

impl Content {
    /// The nodes of a namespace that have properties.
    pub async fn dav_prop_nodes(&self, entry: &Entry) -> ServiceResult<BTreeSet<NodeId>> {
        Ok(self.meta.dav_prop_nodes(entry.row.id, PROPS_OF_NAMESPACE_MAX as usize).await?)
    }

    /// The properties of a node.
    pub async fn dav_props(&self, entry: &Entry, node: NodeId) -> ServiceResult<Vec<DavProp>> {
        Ok(self.meta.dav_props(entry.row.id, node).await?)
    }

    /// Sets and removes properties of a node, in this order, all or none. A removed one has no value.
    pub async fn dav_patch_props(&self, entry: &Entry, node: NodeId, patch: &[(bool, DavProp)]) -> ServiceResult<()> {
        if patch.iter().any(|(_, p)| p.space.len() + p.name.len() + p.value.len() > PROP_MAX_BYTES) {
            return Err(ServiceError::too_large(format!("A property has at most {PROP_MAX_BYTES} bytes.")));
        }
        let attempt = async || {
            let mut tx = self.meta.begin(Scope::Namespace(entry.row.id)).await?;
            let namespace = tx.namespace_for(entry.row.id, entry.caller.user_id).await?.ok_or_else(ServiceError::not_found)?;
            check_membership(&entry.caller, &namespace, Role::Editor)?;
            for (is_set, prop) in patch {
                if *is_set {
                    tx.put_dav_prop(entry.row.id, node, prop).await?;
                } else {
                    tx.delete_dav_prop(entry.row.id, node, &prop.space, &prop.name).await?;
                }
            }
            check_number(&mut *tx, entry.row.id, node).await?;
            ServiceResult::Ok(tx.commit().await?)
        };
        patiently!(attempt().await)
    }
}

/// Refuses more properties than there may be; the transaction then does nothing.
async fn check_number(tx: &mut dyn ContentTx, namespace: NamespaceId, node: NodeId) -> ServiceResult<()> {
    if tx.dav_props(namespace, node).await?.len() > PROPS_OF_NODE_MAX {
        return Err(ServiceError::too_large(format!("A file has at most {PROPS_OF_NODE_MAX} properties.")));
    }
    if tx.dav_prop_count(namespace).await? > PROPS_OF_NAMESPACE_MAX {
        return Err(ServiceError::too_large(format!("The files of a folder have at most {PROPS_OF_NAMESPACE_MAX} properties together.")));
    }
    Ok(())
}

/// Gives copies the properties of what they are copies of.
pub(super) async fn copy_props(tx: &mut dyn ContentTx, namespace: NamespaceId, pairs: &[(NodeId, NodeId)]) -> ServiceResult<()> {
    for (from, to) in pairs {
        let had = tx.dav_props(namespace, *to).await?;
        for old in had {
            tx.delete_dav_prop(namespace, *to, &old.space, &old.name).await?;
        }
        for prop in tx.dav_props(namespace, *from).await? {
            tx.put_dav_prop(namespace, *to, &prop).await?;
        }
        check_number(tx, namespace, *to).await?;
    }
    Ok(())
}
