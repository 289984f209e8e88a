//! What one folder of many costs: a list, a link's page or an archive of it reads what it shows, and not the namespace.

use crate::service::content::testing::World;
use crate::service::content::view::rows_read;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::CommitReply;
use ferry_protocol::{FileContent, Manifest, Name, NodeId, RelPath, node};
use std::future::Future;

const DIRECTORIES: usize = 30;
const FILES: usize = 100;

fn path(text: &str) -> RelPath {
    RelPath::from_names(text.split('/').map(|name| Name::new(name).unwrap()).collect())
}

on_each_store!(a_part_costs_what_it_shows);

async fn a_part_costs_what_it_shows(kind: Db) {
    let world = World::on(kind).await;
    let caller = world.user(None).await;
    let home = world.home(&caller).await;
    let namespace = home.namespace();
    let mut writer = world.writer(&caller);
    for n in 0..DIRECTORIES {
        let directory = NodeId::from_bytes(world.id());
        let mut nodes = vec![writer.node(directory, &format!("d{n}"), node::Content::Dir)];
        let deep = NodeId::from_bytes(world.id());
        nodes.push(writer.node_in(directory, deep, "deep", node::Content::Dir));
        for k in 0..FILES {
            let parent = if k < FILES - 5 { directory } else { deep };
            let empty = node::Content::File(FileContent::new(Manifest::empty(), 1));
            nodes.push(writer.node_in(parent, NodeId::from_bytes(world.id()), &format!("f{k}"), empty));
        }
        let reply = world.content.commit(&home, world.request(nodes, &[], u64::MAX)).await.unwrap();
        assert!(matches!(reply, CommitReply::Accepted { .. }), "{reply:?}");
    }
    let (content, home) = (&world.content, &home);
    // What is shown, and the way there, a few times over; far from the 3,060 nodes of all.
    let bound = |shown: usize| shown + 12;

    let listed = costs(namespace, content.dav_list(home, &path("d7")), bound(FILES)).await;
    assert_eq!(listed.unwrap().len(), FILES - 4);
    let listed = costs(namespace, content.dav_list(home, &path("d7/deep")), bound(5)).await;
    assert_eq!(listed.unwrap().len(), 5);
    assert!(costs(namespace, content.dav_has_more_than(home, &RelPath::root(), 200), bound(3 * 200)).await.unwrap());

    let shown = costs(namespace, content.public_list(home, &path("d9/deep")), bound(5)).await;
    assert_eq!(shown.unwrap().len(), 5);
    costs(namespace, content.public_item(home, &path("d9/f3")), bound(1)).await.unwrap();
    costs(namespace, content.public_download(home, &path("d9/f3")), bound(1)).await.unwrap();

    let archive = costs(namespace, content.public_archive(home, &path("d9/deep")), bound(5)).await.unwrap();
    assert_eq!(archive.len(), 6);
    costs(namespace, content.dav_copy(home, &path("d9/deep"), &path("d8/copy"), true, false), bound(5)).await.unwrap();
    costs(namespace, content.dav_move(home, &path("d8/copy"), &path("d7/moved"), false), bound(5)).await.unwrap();
    costs(namespace, content.dav_move(home, &path("d7/moved"), &path("d9/deep"), true), bound(5)).await.unwrap();
}

/// The answer, which must not have read more rows than that.
async fn costs<T>(namespace: ferry_protocol::NamespaceId, asked: impl Future<Output = T>, bound: usize) -> T {
    rows_read::take(namespace);
    let answer = asked.await;
    let read = rows_read::take(namespace);
    assert!((1..=bound).contains(&read), "{read} rows were read, and {bound} are enough");
    answer
}
