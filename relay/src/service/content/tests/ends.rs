//! What ends while a transaction is under way, on PostgreSQL: a membership or the share of a file waits for it, and a user who is deleted leaves nothing
//! that it makes.

use crate::service::Caller;
use crate::service::content::testing::World;
use crate::store::content::{NamespaceRow, Scope};
use crate::store::shares::{Invitation, InviteBounds, ShareId};
use crate::store::testing::{Db, cluster};
use ferry_protocol::wire::Role;
use ferry_protocol::{NamespaceId, NodeId, UserId};
use std::time::Duration;

/// Waits until a statement that begins so waits for a row, in one of the databases of this world, or until `is_done`. Which of the two it was.
async fn waits(world: &World, statement: &str, is_done: impl Fn() -> bool) -> bool {
    let places = world.db.shard_totals().await.unwrap();
    let names: Vec<String> = places.iter().map(|s| format!("'{}'", s.place.rsplit('/').next().unwrap())).collect();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{statement}%' AND datname IN ({})",
        names.join(", ")
    );
    loop {
        if is_done() {
            return false;
        }
        if cluster().sql("postgres", &sql).trim() != "0" {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_waits_for_commits_on_one_database() {
    a_change_of_members_waits_for_commits(Db::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_waits_for_commits_on_shards() {
    a_change_of_members_waits_for_commits(Db::Shards).await;
}

/// A file of a namespace, shared with a user to write.
async fn share_file(world: &World, (namespace, file): (NamespaceId, NodeId), owner: &Caller, with: UserId) -> ShareId {
    let (share_id, email) = (world.id(), "bob@example.org".to_owned());
    let invitation = Invitation {
        share_id,
        namespace,
        file: Some(file),
        email_key: email.clone(),
        email,
        role: Role::Editor,
        invited_by: owner.user_id,
        created_at_ms: 1,
    };
    world.db.invite(&invitation, InviteBounds { here: 10, open: 10 }).await.unwrap();
    world.db.take_invitation(share_id, with, 1).await.unwrap().unwrap();
    share_id
}

/// ADR 0007: once a member was told that the role is gone, nothing more is committed by it.
async fn a_change_of_members_waits_for_commits(kind: Db) {
    let world = World::on(kind).await;
    let (alice, bob) = (world.user(None).await, world.user(None).await);
    let home = world.home(&alice).await;
    let (id, bob) = (home.namespace(), world.share(&home, &bob, Role::Editor).await.caller().user_id);
    let file = NodeId::from_bytes(world.id());
    let share = share_file(&world, (id, file), &alice, bob).await;
    for (ends, only_file) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut commit = world.db.begin(Scope::Namespace(id)).await.unwrap();
        let seen = match only_file {
            true => commit.shared_namespace(id, file, bob).await.unwrap(),
            false => commit.namespace_for(id, bob).await.unwrap(),
        };
        assert_eq!(seen.unwrap().role, if ends { Role::Viewer } else { Role::Editor });
        let db = world.db.clone();
        let change = tokio::spawn(async move {
            match (ends, only_file) {
                (true, false) => db.end_membership(id, bob).await.unwrap(),
                (false, false) => db.change_member(id, bob, Role::Viewer).await.unwrap(),
                (true, true) => db.drop_shared_file(share).await.unwrap(),
                (false, true) => db.set_shared_file_role(share, Role::Viewer).await.unwrap(),
            }
        });
        assert!(waits(&world, "SELECT CASE WHEN n.moving_to", || change.is_finished()).await, "it has not waited");
        commit.commit().await.unwrap();
        assert!(change.await.unwrap());
        let role = match only_file {
            true => world.db.locate_shared(bob, file).await.unwrap().pop().map(|row| row.role),
            false => world.db.namespace_for(id, bob).await.unwrap().map(|row| row.role),
        };
        assert_eq!(role, (!ends).then_some(Role::Viewer));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_deleted_user_on_one_database() {
    nothing_is_left_of_a_deleted_user(Db::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_deleted_user_on_shards() {
    nothing_is_left_of_a_deleted_user(Db::Shards).await;
}

/// A namespace that is being made while its user is deleted has no owner afterwards: it goes, too.
async fn nothing_is_left_of_a_deleted_user(kind: Db) {
    let world = World::on(kind).await;
    let user: UserId = world.user(None).await.user_id;
    let run = Some(world.content.identity().replica);
    let id = NamespaceId::from_bytes(world.id());
    let name = "late".to_owned();
    let row = NamespaceRow { id, owner: user, name, is_home: true, head_seq: 0, settled_seq: 0, max_counter: 0, run, role: Role::Owner };
    let mut late = world.db.begin(Scope::Owner(user)).await.unwrap();
    late.create_namespace(&row, 1).await.unwrap();
    let db = world.db.clone();
    let deletion = tokio::spawn(async move { db.delete_user(user).await.unwrap() });
    assert!(waits(&world, "DELETE FROM users", || deletion.is_finished()).await, "the member that is being made holds the user");
    late.commit().await.unwrap();
    assert!(deletion.await.unwrap());
    assert_eq!(world.db.namespace_ids().await.unwrap(), [], "nobody owns it");
    let late = world.db.begin(Scope::Owner(user)).await.map(drop);
    assert!(late.is_err(), "whoever comes later finds no user");
}
