//! What every store must do with the shown tree (R6).

use super::*;
use crate::service::UserRole;
use crate::store::MetaStore;
use crate::store::accounts::User;
use crate::store::content::{NamespaceRow, NodeWrite, Scope};
use crate::store::testing::{Db, on_each_kind};
use ferry_protocol::wire::Role;
use ferry_protocol::{Author, DeviceId, NodeState, Place, ReplicaId, Stamp, UserId, Value, node};

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn write(n: u8, parent: NodeId, called: &str, (size_bytes, standing): (u64, Standing)) -> NodeWrite {
    let replica = ReplicaId::from_bytes([7; 16]);
    let stamp = Stamp { counter: u64::from(n), replica };
    let mut state = NodeState::new(Place { stamp, parent, name: name(called) });
    let is_directory = size_bytes == 0;
    let content = if is_directory { node::Content::Dir } else { node::Content::Symlink(b"x".as_slice().into()) };
    let author = Author { device: DeviceId::default(), name: "d".into() };
    let value = Value { dot: state.body().next_dot(replica), stamp, content, author, wall_ms: 3 };
    state.body_mut().put(&[], value);
    NodeWrite {
        id: id(n),
        seq: u64::from(n),
        state,
        size_bytes,
        file_type: if is_directory { "directory" } else { "symlink" },
        hash: None,
        link_target: None,
        is_deleted: standing == Standing::Hidden,
        standing,
        before: None,
        changed_by: None,
    }
}

async fn namespace(store: &dyn MetaStore) -> NamespaceRow {
    let owner = UserId::from_bytes([1; 16]);
    let email = "one@example.org".to_owned();
    let user = User {
        user_id: owner,
        email: email.clone(),
        email_key: email,
        name: "n".into(),
        password_hash: "!".into(),
        role: UserRole::User,
        storage_used_bytes: 0,
        storage_limit_bytes: None,
        disabled: false,
        created_at_ms: 1,
    };
    assert!(store.insert_user(&user).await.unwrap());
    let (id, run) = (NamespaceId::from_bytes([9; 16]), Some(ReplicaId::from_bytes([3; 16])));
    let row =
        NamespaceRow { id, owner, name: "N".into(), is_home: true, head_seq: 0, settled_seq: 0, max_counter: 0, run, role: Role::Owner };
    let mut tx = store.begin(Scope::Owner(owner)).await.unwrap();
    tx.create_namespace(&row, 5).await.unwrap();
    tx.commit().await.unwrap();
    row
}

fn ids(placed: &[PlacedNode]) -> Vec<u8> {
    placed.iter().map(|p| p.row.id.as_bytes()[0]).collect()
}

fn sorted(placed: &[PlacedNode]) -> Vec<u8> {
    let mut ids = ids(placed);
    ids.sort_unstable();
    ids
}

on_each_kind!(nodes_stand_where_they_were_put);

async fn nodes_stand_where_they_were_put(kind: Db) {
    use Standing::{Contested, Hidden, Plain};
    let dir = tempfile::tempdir().unwrap();
    let store = kind.store(&dir).await;
    let row = namespace(&*store).await;
    let namespace = row.id;
    // 1 > (2 "b" 30 bytes, 3 "a" 10, 4 "c" 10, 5 hidden "d", 6 and 7 both "e"), 2 > 8; 9 stands in the hidden 5.
    let nodes = [
        write(1, NodeId::ROOT, "top", (0, Plain)),
        write(2, id(1), "b", (30, Plain)),
        write(3, id(1), "a", (10, Plain)),
        write(4, id(1), "c", (10, Plain)),
        write(5, id(1), "d", (0, Hidden)),
        write(6, id(1), "e", (50, Contested)),
        write(7, id(1), "e", (0, Contested)),
        write(8, id(2), "x\u{ff}", (5, Plain)),
        write(9, id(5), "y", (5, Plain)),
    ];
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    tx.put_nodes(&row, &nodes, 9, 9, 40).await.unwrap();
    tx.put_nodes(&row, &[NodeWrite { seq: 10, ..nodes[3].clone() }], 10, 9, 50).await.unwrap();
    assert_eq!(tx.all_nodes(namespace).await.unwrap().len(), 9);
    tx.commit().await.unwrap();
    let now = store.namespace_for(namespace, row.owner).await.unwrap().unwrap();
    assert_eq!((now.head_seq, now.settled_seq), (10, 10), "who writes nodes says how they stand");

    let children = async |order, descending, after: Option<(i64, &str)>, limit| {
        let after = after.map(|(key, text)| (key, name(text)));
        let after = after.as_ref().map(|(key, name)| (*key, name));
        let all = store.children(namespace, ChildQuery { parent: id(1), order, descending, after, limit }).await.unwrap();
        let (plain, contested): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.stand.standing == Plain);
        assert_eq!(sorted(&contested), [6, 7], "with every page, whatever it begins after: they are settled together");
        ids(&plain)
    };
    assert_eq!(children(Order::Name, false, None, 9).await, [3, 2, 4]);
    assert_eq!(children(Order::Name, true, None, 2).await, [4, 2]);
    assert_eq!(children(Order::Name, false, Some((0, "a")), 9).await, [2, 4]);
    assert_eq!(children(Order::Name, true, Some((0, "b")), 9).await, [3]);
    assert_eq!(children(Order::Size, false, None, 9).await, [3, 4, 2]);
    assert_eq!(children(Order::Size, false, Some((10, "a")), 9).await, [4, 2]);
    assert_eq!(children(Order::Size, true, Some((30, "b")), 9).await, [4, 3]);
    assert_eq!(children(Order::Modified, false, None, 9).await, [3, 2, 4]);
    assert_eq!(children(Order::Modified, true, Some((50, "c")), 1).await, [2]);

    assert_eq!(sorted(&store.claims(namespace, &[id(1)], true).await.unwrap()), [6, 7]);
    assert_eq!(sorted(&store.claims(namespace, &[id(1), id(2)], false).await.unwrap()), [2, 3, 4, 6, 7, 8]);
    assert_eq!(sorted(&store.named(namespace, id(1), &name("a")).await.unwrap()), [3, 6, 7]);
    assert_eq!(sorted(&store.named(namespace, id(1), &name("d")).await.unwrap()), [6, 7]);
    let asked = ["a", "d", "e", "z"].map(name).into();
    assert_eq!(store.taken(namespace, id(1), &asked).await.unwrap(), [name("a")].into(), "what is plain takes a name");
    let line = store.line(namespace, &[id(8), id(3), id(77)]).await.unwrap();
    assert_eq!(sorted(&line), [1, 2, 3, 8]);
    let eight = line.iter().find(|p| p.row.id == id(8)).unwrap();
    let stand = Stand { node: id(8), parent: id(2), name: name("x\u{ff}"), standing: Plain, is_displaced: false, is_directory: false };
    assert_eq!((&eight.stand, &eight.row.state), (&stand, &nodes[7].state));
    assert_eq!(sorted(&store.subtree(namespace, &[id(1)], 100).await.unwrap()), [2, 3, 4, 6, 7, 8], "what is hidden ends the way down");
    assert_eq!(store.subtree(namespace, &[id(1)], 3).await.unwrap().len(), 3);
    let asked = [id(1), id(2), id(3), id(5)];
    assert_eq!(store.with_shown_child(namespace, &asked).await.unwrap(), [id(1), id(2), id(5)].into());
    assert!(store.is_contested(namespace).await.unwrap());
    assert!(!store.is_contested(NamespaceId::default()).await.unwrap());

    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    assert_eq!(tx.displaced(namespace).await.unwrap(), []);
    let places = [(id(1), name("a")), (id(1), name("e")), (id(1), name("nothing"))];
    assert_eq!(sorted(&tx.crowded(namespace, &places).await.unwrap()), [6, 7]);
    assert_eq!(tx.with_shown_child(namespace, &[id(3), id(2)]).await.unwrap(), [id(2)].into());
    let moved = Stand { parent: NodeId::ROOT, is_displaced: true, standing: Contested, ..stand.clone() };
    let seven = Stand { node: id(7), name: name("f"), standing: Plain, is_directory: true, parent: id(1), is_displaced: false };
    tx.set_stands(namespace, &[moved.clone(), seven.clone()]).await.unwrap();
    assert_eq!(tx.displaced(namespace).await.unwrap(), std::slice::from_ref(&moved));
    assert_eq!(tx.stands(namespace, &[id(7), id(78)]).await.unwrap(), [seven]);
    // One alone that is contested all the same is a crowd, so that it is looked at.
    assert_eq!(sorted(&tx.crowded(namespace, &[(id(1), name("e")), (id(1), name("f"))]).await.unwrap()), [6]);
    tx.set_settled(namespace, 4).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.namespace_for(namespace, row.owner).await.unwrap().unwrap().settled_seq, 4);
    // Written again, a node stands at its newest place.
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    tx.put_nodes(&row, &[NodeWrite { seq: 11, ..nodes[7].clone() }], 11, 9, 60).await.unwrap();
    assert_eq!(tx.stands(namespace, &[id(8)]).await.unwrap(), [stand]);
}
