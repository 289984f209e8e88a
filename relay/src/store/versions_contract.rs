//! What every store must do with versions one by one; run by the contract of content stores.

use crate::store::content::*;
use ferry_protocol::*;

fn version(node: NodeId, number: u8, chunks: Vec<ChunkRef>, author: DeviceId) -> VersionWrite {
    let row = VersionRow {
        version_id: [number; 16],
        node,
        number: 0,
        dot: Dot { replica: ReplicaId::from_bytes([0x51; 16]), counter: u64::from(number) },
        hash: ContentHash::of(&[number]),
        size_bytes: chunks.iter().map(|c| u64::from(c.len)).sum(),
        mtime_ns: 0,
        author_device: author,
        author_name: "d".into(),
        wall_ms: 1,
        created_at_ms: 20_000,
        label: None,
    };
    VersionWrite { row, chunks }
}

pub(super) async fn versions_one_by_one(store: &dyn ContentStore, namespace: &NamespaceRow, user: UserId) {
    let id = namespace.id;
    let faults = store.check_rows().await.unwrap();
    let (node, other) = (NodeId::from_bytes([0xA1; 16]), NodeId::from_bytes([0xA2; 16]));
    let chunk = |text: &[u8]| ChunkRef { id: ChunkId::of(text), len: text.len() as u32 };
    let (own, twice, both) = (chunk(b"one version only"), chunk(b"twice in it"), chunk(b"in several"));
    let pack = PackRow { id: PackId([0xA3; 16]), length_bytes: 500, created_at_ms: 20_000 };
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    let at = |chunk: ChunkRef, offset| ChunkLocation { id: chunk.id, len: chunk.len, pack: pack.id, offset };
    tx.add_pack(pack, &[at(own, 37), at(twice, 137), at(both, 237)]).await.unwrap();
    let leased = tx.lease_chunks(id, &[(own.id, own.len), (twice.id, twice.len), (both.id, both.len)], 20_001).await.unwrap();
    tx.add_usage(namespace.owner, leased).await.unwrap();
    let by_web = DeviceId::from_bytes(*user.as_bytes());
    let versions = [
        version(node, 0x61, vec![own, twice, both, twice], by_web),
        version(node, 0x62, vec![both], by_web),
        version(other, 0x63, vec![both], by_web),
    ];
    tx.add_versions(id, &versions).await.unwrap();
    tx.commit().await.unwrap();

    what_files_held_last(store, id, &versions).await;

    let costs = store.version_costs(id, &[[0x61; 16], [0x62; 16], [0x63; 16], [0x64; 16]]).await.unwrap();
    assert_eq!(costs, [([0x61; 16], u64::from(own.len + twice.len))].into(), "what others name too costs nothing");
    assert!(store.version_costs(NamespaceId::default(), &[[0x61; 16]]).await.unwrap().is_empty());
    assert!(store.version_costs(id, &[]).await.unwrap().is_empty());

    let files = store.files_with_history(id, None, 100).await.unwrap();
    assert!(files.contains(&node) && !files.contains(&other) && files.is_sorted(), "{files:?}");
    let before = NodeId::from_bytes([0xA0; 16]);
    assert_eq!(store.files_with_history(id, Some(before), 1).await.unwrap(), [node]);
    assert!(!store.files_with_history(id, Some(node), 100).await.unwrap().contains(&node));

    let authors = store.authors_among(&[by_web, DeviceId::from_bytes([0xEE; 16])]).await.unwrap();
    let known = authors.iter().find(|author| author.device == by_web).unwrap();
    assert_eq!((authors.len(), known.user), (2, Some(user)));
    assert!(known.email.as_deref().is_some_and(|email| email.contains('@')));
    assert!(store.authors_among(&[]).await.unwrap().is_empty());

    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    assert!(tx.set_label(id, node, [0x61; 16], Some("sent to Ö")).await.unwrap());
    for (node, version) in [(other, [0x61; 16]), (node, [0x64; 16])] {
        assert!(!tx.set_label(id, node, version, Some("x")).await.unwrap());
    }
    let labels: Vec<Option<String>> = tx.versions(id, node).await.unwrap().into_iter().map(|v| v.label).collect();
    assert_eq!(labels, [None, Some("sent to Ö".to_owned())]);
    tx.commit().await.unwrap();
    assert_eq!(store.version(id, [0x61; 16]).await.unwrap().unwrap().label.as_deref(), Some("sent to Ö"));
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    assert!(tx.set_label(id, node, [0x61; 16], None).await.unwrap());
    tx.commit().await.unwrap();

    let used = store.quota(user).await.unwrap().used_bytes;
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    let dropped = tx.drop_versions(namespace, &[[0x61; 16], [0x64; 16]], 30_000).await.unwrap();
    assert_eq!(dropped, Purged { entries: 0, versions: 1, freed_bytes: u64::from(own.len + twice.len) });
    assert_eq!(tx.drop_versions(namespace, &[], 30_000).await.unwrap(), Purged::default());
    tx.commit().await.unwrap();
    assert_eq!(store.quota(user).await.unwrap().used_bytes, used - dropped.freed_bytes);
    assert_eq!(store.versions(id, node).await.unwrap().len(), 1);
    assert!(store.version_chunks(id, [0x61; 16]).await.unwrap().is_empty());
    let held = store.held(id, &[own.id, twice.id, both.id]).await.unwrap();
    assert_eq!(held.into_iter().map(|(id, held)| (id, held.refs)).collect::<Vec<_>>(), [(both.id, 2)]);
    assert_eq!(store.check_rows().await.unwrap(), faults, "no count is wrong that was right");
    how_long_things_are_kept(store, id, user).await;
}

/// Of a file with two versions, one with one, one whose content is empty, and one that nobody knows.
async fn what_files_held_last(store: &dyn ContentStore, id: NamespaceId, versions: &[VersionWrite]) {
    let nothing = version(NodeId::from_bytes([0xA4; 16]), 0x65, Vec::new(), versions[0].row.author_device);
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.add_versions(id, std::slice::from_ref(&nothing)).await.unwrap();
    tx.commit().await.unwrap();
    let (node, other, unknown) = (versions[0].row.node, versions[2].row.node, NodeId::from_bytes([0xA5; 16]));
    let newest = store.newest_contents(id, &[nothing.row.node, other, node, unknown]).await.unwrap();
    let found: Vec<_> = newest.into_iter().map(|(file, content)| (file, content.hash, content.mtime_ns, content.chunks)).collect();
    let of = |version: &VersionWrite| (version.row.node, version.row.hash, version.row.mtime_ns, version.chunks.clone());
    assert_eq!(found, [of(&versions[1]), of(&versions[2]), of(&nothing)]);
    assert!(store.newest_contents(NamespaceId::default(), &[node]).await.unwrap().is_empty());
    assert!(store.newest_contents(id, &[]).await.unwrap().is_empty());
}

async fn how_long_things_are_kept(store: &dyn ContentStore, id: NamespaceId, user: UserId) {
    let row = store.retention(id).await.unwrap().unwrap();
    assert_eq!((row.rule, row.owner_rule, row.retained_at_ms, row.owner), (None, None, 0, user));
    assert_eq!(store.retention(NamespaceId::default()).await.unwrap(), None);
    assert!(store.set_user_retention(user, Some("{}")).await.unwrap());
    assert!(!store.set_user_retention(UserId::from_bytes([0xEE; 16]), Some("{}")).await.unwrap());
    assert_eq!(store.user_retention(user).await.unwrap().as_deref(), Some("{}"));
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.set_retention(id, Some("{\"x\": 1}")).await.unwrap();
    assert!(tx.begin_retention(id, 500, 1000).await.unwrap());
    assert!(!tx.begin_retention(id, 500, 1001).await.unwrap(), "of two one");
    tx.commit().await.unwrap();
    let row = store.retention(id).await.unwrap().unwrap();
    assert_eq!((row.rule.as_deref(), row.owner_rule.as_deref(), row.retained_at_ms), (Some("{\"x\": 1}"), Some("{}"), 1000));
    let mut tx = store.begin(Scope::Namespace(id)).await.unwrap();
    tx.set_retention(id, None).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.set_user_retention(user, None).await.unwrap());
    assert_eq!(store.retention(id).await.unwrap().unwrap().rule, None);
}
