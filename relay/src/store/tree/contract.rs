//! What every store must do with the shown tree (R6).

use super::*;
use crate::service::UserRole;
use crate::store::MetaStore;
use crate::store::accounts::User;
use crate::store::content::{NamespaceRow, NodeWrite, Scope};
use crate::store::search::{Kind, NameHit, NameQuery};
use crate::store::testing::{Db, on_each_kind, on_each_store};
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

fn query<'q>(text: &'q str, words: &'q [String]) -> NameQuery<'q> {
    NameQuery {
        text,
        words,
        kind: Kind::Any,
        min_size: None,
        max_size: None,
        since_ms: None,
        below: None,
        not_in: &[],
        from: None,
        limit: 100,
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The first bytes of the nodes that are found in the one namespace.
async fn only(store: &dyn MetaStore, query: NameQuery<'_>) -> Vec<u8> {
    let hits = store.search_names(NamespaceId::from_bytes([9; 16]), &query).await.unwrap().expect("names are folded as they are written");
    hits.iter().map(|hit| hit.node.as_bytes()[0]).collect()
}

on_each_kind!(names_are_searched_where_they_stand);

async fn names_are_searched_where_they_stand(kind: Db) {
    use Standing::{Contested, Hidden, Plain};
    let dir = tempfile::tempdir().unwrap();
    let store = kind.store(&dir).await;
    let row = namespace(&*store).await;
    let namespace = row.id;
    let file = |n, parent, called, size| NodeWrite { file_type: "application/pdf", ..write(n, parent, called, (size, Plain)) };
    let nodes = [
        write(1, NodeId::ROOT, "Tax", (0, Plain)),
        file(2, id(1), "Täx 2026.PDF", 10),
        file(3, id(1), "syntax.txt", 20),
        file(4, NodeId::ROOT, "tax.pdf", 30),
        write(5, NodeId::ROOT, "tax hidden", (5, Hidden)),
        write(6, NodeId::ROOT, "tax contested", (0, Contested)),
        file(7, id(6), "100%_tax's \\ --", 40),
        write(8, id(6), "taxes", (0, Plain)),
        file(9, id(8), "deep", 1),
        write(10, id(8), "link to tax", (7, Plain)),
    ];
    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    tx.put_nodes(&row, &nodes, 10, 10, 40).await.unwrap();
    tx.put_nodes(&row, &[NodeWrite { seq: 11, ..nodes[2].clone() }], 11, 10, 50).await.unwrap();
    tx.commit().await.unwrap();
    let found =
        async |query: NameQuery<'_>| store.search_names(namespace, &query).await.unwrap().expect("names are folded as they are written");
    let nodes_of = |hits: &[NameHit]| hits.iter().map(|hit| hit.node.as_bytes()[0]).collect::<Vec<_>>();
    let tax = words("tax");
    let all = found(query("tax", &tax)).await;
    assert_eq!(nodes_of(&all), [1, 4, 2, 8, 3, 7, 10], "by rank, then the newest, then by id");
    assert_eq!(all.iter().map(|hit| hit.rank).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 2]);
    assert_eq!(all[4].updated_at_ms, 50);
    for n in 0..all.len() {
        let page = found(NameQuery { from: Some(all[n]), limit: 2, ..query("tax", &tax) }).await;
        assert_eq!(page, all[n..all.len().min(n + 2)]);
    }
    let base = query("tax", &tax);
    assert_eq!(only(&*store, NameQuery { kind: Kind::Directory, ..base }).await, [1, 8]);
    assert_eq!(only(&*store, NameQuery { kind: Kind::Symlink, ..base }).await, [10]);
    assert_eq!(only(&*store, NameQuery { kind: Kind::File, ..base }).await, [4, 2, 3, 7]);
    assert_eq!(only(&*store, NameQuery { kind: Kind::Ending(&[".pdf", ".x"]), ..base }).await, [4, 2]);
    assert_eq!(only(&*store, NameQuery { kind: Kind::Ending(&[".txt"]), ..base }).await, [3]);
    let several = Kind::Ending(&[".md", ".pdf", ".txt", ".docx"]);
    assert_eq!(only(&*store, NameQuery { kind: several, max_size: Some(20), ..base }).await, [2, 3]);
    assert_eq!(only(&*store, NameQuery { min_size: Some(20), max_size: Some(30), ..base }).await, [4, 3]);
    assert_eq!(only(&*store, NameQuery { since_ms: Some(50), ..base }).await, [3]);
    assert_eq!(only(&*store, NameQuery { below: Some(&[id(1)]), ..base }).await, [2, 3]);
    assert_eq!(only(&*store, NameQuery { below: Some(&[id(6), id(1)]), ..base }).await, [2, 8, 3, 7, 10]);
    assert_eq!(only(&*store, NameQuery { not_in: &[id(1), id(8)], ..base }).await, [1, 4, 8, 7]);
    assert_eq!(only(&*store, query("", &[])).await, [3, 1, 2, 4, 7, 8, 9, 10]);
    // What means something in SQL means itself.
    for (text, wanted) in [("100%_tax's \\ --", vec![7]), ("%", vec![7]), ("_", vec![7]), ("'", vec![7]), ("\\", vec![7]), ("t_x", vec![])]
    {
        assert_eq!(only(&*store, query(text, &words(text))).await, wanted, "{text}");
    }
    assert_eq!(store.contested_parents(namespace).await.unwrap(), [NodeId::ROOT]);
    assert_eq!(store.search_names(NamespaceId::default(), &base).await.unwrap(), None, "nothing is known of what is not there");

    let mut tx = store.begin(Scope::Namespace(namespace)).await.unwrap();
    let moved = Stand { node: id(3), parent: id(8), name: name("Grün"), standing: Plain, is_displaced: true, is_directory: false };
    tx.set_stands(namespace, &[moved]).await.unwrap();
    let now = tx.namespace_for(namespace, row.owner).await.unwrap().unwrap();
    tx.skip_numbers(&now, 1000, ReplicaId::from_bytes([3; 16])).await.unwrap();
    let now = tx.namespace_for(namespace, row.owner).await.unwrap().unwrap();
    tx.put_nodes(&now, &[NodeWrite { seq: 1001, ..file(11, id(1), "grun 2", 1) }], 1001, 10, 60).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        only(&*store, query("grun", &words("grun"))).await,
        [3, 11],
        "a name that counts since a cycle was broken, and one after a gap in the feed"
    );
    assert_eq!(only(&*store, query("syntax", &words("syntax"))).await, [0u8; 0]);
}

on_each_store!(names_that_another_release_wrote_are_folded_when_they_are_searched);

async fn names_that_another_release_wrote_are_folded_when_they_are_searched(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let url = kind.url(dir.path());
    let store = kind.open(&url).await;
    let row = namespace(&*store).await;
    let mut tx = store.begin(Scope::Namespace(row.id)).await.unwrap();
    let nodes = [write(1, NodeId::ROOT, "Ä", (0, Standing::Plain)), write(2, NodeId::ROOT, "B", (0, Standing::Plain))];
    tx.put_nodes(&row, &nodes, 2, 2, 40).await.unwrap();
    tx.commit().await.unwrap();
    // As it was before the column came, or as a release writes that does not know it.
    kind.sql(&url, "UPDATE files SET search_name = ''; UPDATE namespaces SET folded_seq = 0").await;
    let a = words("a");
    assert_eq!(store.search_names(row.id, &query("a", &a)).await.unwrap(), None);
    let mut tx = store.begin(Scope::Namespace(row.id)).await.unwrap();
    assert_eq!(tx.fold_names(row.id).await.unwrap(), 2);
    assert_eq!(tx.fold_names(row.id).await.unwrap(), 0);
    tx.commit().await.unwrap();
    let found = store.search_names(row.id, &query("a", &a)).await.unwrap().unwrap();
    assert_eq!(found, [NameHit { node: id(1), rank: 0, updated_at_ms: 40 }]);
}
