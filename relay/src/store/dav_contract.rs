//! What every store must do with locks and properties of WebDAV clients; run by the contract of content stores.

use crate::store::content::{ContentStore, Scope};
use crate::store::dav::{DavLockRow, DavPropRow};
use ferry_protocol::{NamespaceId, NodeId, UserId};

pub(super) async fn locks_and_properties(store: &dyn ContentStore, namespace: NamespaceId, user: UserId) {
    let lock = |token: u8, path: &str| DavLockRow {
        token: [token; 16],
        path: path.into(),
        user,
        owner_xml: Some("<o>\u{fc}</o>".into()),
        is_shared: token.is_multiple_of(2),
        is_deep: !token.is_multiple_of(2),
        timeout_s: 60,
        expires_at_ms: i64::from(token) * 1000,
    };
    let (one, two) = (lock(1, "a/\u{fc}"), DavLockRow { owner_xml: None, path: vec![0xff], ..lock(2, "") });
    assert!(store.dav_locks(namespace).await.unwrap().is_empty());
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    for lock in [&two, &one] {
        tx.put_dav_lock(namespace, lock).await.unwrap();
    }
    assert_eq!(tx.dav_locks(namespace).await.unwrap(), [one.clone(), two.clone()]);
    drop(tx);
    // SQLite undoes what was dropped when the writer is next asked for.
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    assert!(tx.dav_locks(namespace).await.unwrap().is_empty(), "undone");
    for lock in [&two, &one] {
        tx.put_dav_lock(namespace, lock).await.unwrap();
    }
    tx.commit().await.unwrap();
    // The same token again is the same lock.
    let longer = DavLockRow { expires_at_ms: 9000, timeout_s: 600, ..one.clone() };
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    tx.put_dav_lock(namespace, &longer).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.dav_locks(namespace).await.unwrap(), [longer, two]);
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    tx.delete_dav_locks(namespace, &[[1; 16], [7; 16]]).await.unwrap();
    tx.delete_dav_locks(namespace, &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.dav_locks(namespace).await.unwrap().len(), 1);
    assert!(store.dav_locks(NamespaceId::from_bytes([99; 16])).await.unwrap().is_empty());

    let node = |n: u8| NodeId::from_bytes([n; 16]);
    let prop = |space: &str, name: &str, value: &[u8]| DavPropRow { space: space.into(), name: name.into(), value: value.into() };
    let (b, a) = (prop("urn:b", "x", b"<x/>"), prop("", "\u{fc}", b"\xff"));
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    for prop in [&b, &a] {
        tx.put_dav_prop(namespace, node(1), prop).await.unwrap();
    }
    tx.put_dav_prop(namespace, node(2), &b).await.unwrap();
    assert_eq!(
        (tx.dav_prop_count(namespace).await.unwrap(), tx.dav_props(namespace, node(1)).await.unwrap()),
        (3, vec![a.clone(), b.clone()])
    );
    tx.commit().await.unwrap();
    assert_eq!(store.dav_prop_nodes(namespace, 9).await.unwrap(), [node(1), node(2)].into());
    assert_eq!(store.dav_prop_nodes(namespace, 1).await.unwrap(), [node(1)].into());
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    tx.put_dav_prop(namespace, node(1), &prop("urn:b", "x", b"<y/>")).await.unwrap();
    tx.delete_dav_prop(namespace, node(1), "", "\u{fc}").await.unwrap();
    tx.delete_dav_prop(namespace, node(1), "urn:b", "never").await.unwrap();
    tx.delete_dav_prop(namespace, node(2), "urn:b", "x").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.dav_props(namespace, node(1)).await.unwrap(), [prop("urn:b", "x", b"<y/>")]);
    assert!(store.dav_props(namespace, node(2)).await.unwrap().is_empty());
    assert_eq!(store.dav_prop_nodes(namespace, 9).await.unwrap(), [node(1)].into());
}
