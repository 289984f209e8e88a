//! What every [`LinkStore`] must do, run against each implementation (R6).

use super::*;
use crate::service::UserRole;
use crate::store::MetaStore;
use crate::store::accounts::{User, UserChange};
use crate::store::content::{NamespaceRow, Scope};
use crate::store::testing::{Db, on_each_kind};
use ferry_protocol::ReplicaId;
use ferry_protocol::wire::Role;

const T0: i64 = 1_800_000_000_000;

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn namespace(n: u8) -> NamespaceId {
    NamespaceId::from_bytes([n; 16])
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn link(n: u8, maker: u8, of: u8) -> Link {
    Link {
        link_id: [n; 16],
        token_sealed: vec![n; 40],
        namespace: namespace(of),
        node: node(n),
        maker: user(maker),
        kind: LinkKind::Download,
        password_hash: Some("hash".into()),
        expires_at_ms: Some(T0 + i64::from(n)),
        max_downloads: Some(2),
        downloads: 0,
        created_at_ms: T0 + i64::from(n),
        revoked_at_ms: None,
    }
}

/// A store with users 1 and 2, each with a namespace of its own number; user 2 may edit in namespace 1.
async fn filled(store: &dyn MetaStore) {
    for n in 1..=2u8 {
        let email = format!("u{n}@example.org");
        let row = User {
            user_id: user(n),
            email: email.clone(),
            email_key: email,
            name: "n".into(),
            password_hash: "!".into(),
            role: UserRole::User,
            storage_used_bytes: 0,
            storage_limit_bytes: None,
            disabled: false,
            created_at_ms: T0,
        };
        assert!(store.insert_user(&row).await.unwrap());
        let row = NamespaceRow {
            id: namespace(n),
            owner: user(n),
            name: "N".into(),
            is_home: true,
            head_seq: 0,
            settled_seq: 0,
            max_counter: 0,
            run: Some(ReplicaId::from_bytes([3; 16])),
            role: Role::Owner,
        };
        let mut tx = store.begin(Scope::Owner(user(n))).await.unwrap();
        tx.create_namespace(&row, T0).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx = store.begin(Scope::Namespace(namespace(1))).await.unwrap();
    tx.set_member(namespace(1), user(2), Role::Editor, T0).await.unwrap();
    tx.commit().await.unwrap();
}

async fn a_link_is_found_as_it_was_made(store: &dyn MetaStore) {
    assert_eq!((store.link_of_token([1; 32]).await.unwrap(), store.link([1; 16]).await.unwrap()), (None, None));
    let bare = Link { kind: LinkKind::Upload, password_hash: None, expires_at_ms: None, max_downloads: None, ..link(2, 1, 1) };
    assert!(store.insert_link(&link(1, 1, 1), [1; 32], 2).await.unwrap());
    assert!(store.insert_link(&bare, [2; 32], 2).await.unwrap());
    assert_eq!(store.link_of_token([1; 32]).await.unwrap(), Some((link(1, 1, 1), false)));
    assert_eq!(store.link([2; 16]).await.unwrap(), Some(bare));
    assert_eq!(store.link_of_token([3; 32]).await.unwrap(), None);
    assert!(!store.insert_link(&link(3, 1, 1), [3; 32], 2).await.unwrap(), "so many at once");
    assert!(store.insert_link(&link(3, 2, 1), [3; 32], 2).await.unwrap(), "counted by their makers");
    assert!(matches!(store.insert_link(&link(4, 2, 1), [3; 32], 9).await, Err(StoreError::Conflict(_))), "one address, one link");
    assert!(store.revoke_link([1; 16], T0).await.unwrap());
    assert!(store.insert_link(&link(4, 1, 1), [4; 32], 2).await.unwrap(), "a revoked one takes no place");
    let locked = UserChange { disabled: Some(true), ..UserChange::default() };
    store.update_user(user(1), &locked).await.unwrap();
    assert_eq!(store.link_of_token([4; 32]).await.unwrap(), Some((link(4, 1, 1), true)), "its maker is locked out");
    assert!(store.delete_user(user(1)).await.unwrap());
    assert_eq!(store.link_of_token([4; 32]).await.unwrap(), None, "gone with its maker");
}

async fn links_are_listed_to_their_makers_and_to_owners(store: &dyn MetaStore) {
    for (n, maker, of) in [(1, 1, 1), (2, 2, 1), (3, 2, 2)] {
        assert!(store.insert_link(&link(n, maker, of), [n; 32], 9).await.unwrap());
    }
    let listed = async |n: u8| store.links_of(user(n)).await.unwrap().iter().map(|l| l.link_id[0]).collect::<Vec<_>>();
    assert_eq!((listed(1).await, listed(2).await, listed(3).await), (vec![2, 1], vec![3, 2], vec![]));
    assert!(store.revoke_link([2; 16], T0 + 5).await.unwrap());
    assert_eq!((listed(1).await, listed(2).await), (vec![1], vec![3]));
}

async fn a_link_changes_until_it_is_revoked(store: &dyn MetaStore) {
    assert!(store.insert_link(&link(1, 1, 1), [1; 32], 9).await.unwrap());
    assert!(store.update_link([1; 16], &LinkChange::default()).await.unwrap());
    assert_eq!(store.link([1; 16]).await.unwrap(), Some(link(1, 1, 1)), "nothing asked, nothing changed");
    let removed =
        LinkChange { kind: Some(LinkKind::View), password_hash: Some(None), expires_at_ms: Some(None), max_downloads: Some(None) };
    assert!(store.update_link([1; 16], &removed).await.unwrap());
    let bare = Link { kind: LinkKind::View, password_hash: None, expires_at_ms: None, max_downloads: None, ..link(1, 1, 1) };
    assert_eq!(store.link([1; 16]).await.unwrap(), Some(bare));
    let set = LinkChange {
        kind: None,
        password_hash: Some(Some("other".into())),
        expires_at_ms: Some(Some(T0 + 9)),
        max_downloads: Some(Some(7)),
    };
    assert!(store.update_link([1; 16], &set).await.unwrap());
    let found = store.link([1; 16]).await.unwrap().unwrap();
    assert_eq!((found.kind, found.password_hash.as_deref()), (LinkKind::View, Some("other")));
    assert_eq!((found.expires_at_ms, found.max_downloads), (Some(T0 + 9), Some(7)));
    assert!(store.revoke_link([1; 16], T0 + 5).await.unwrap());
    assert!(!store.revoke_link([1; 16], T0 + 6).await.unwrap() && !store.update_link([1; 16], &set).await.unwrap());
    assert!(!store.revoke_link([9; 16], T0).await.unwrap() && !store.update_link([9; 16], &set).await.unwrap());
    assert_eq!(
        store.link_of_token([1; 32]).await.unwrap().unwrap().0.revoked_at_ms,
        Some(T0 + 5),
        "it can be told from one that never was"
    );
}

async fn downloads_are_counted_once_for_each_visitor_and_file(store: &dyn MetaStore) {
    assert!(store.insert_link(&link(1, 1, 1), [1; 32], 9).await.unwrap());
    let count = async |id: u8, visitor: u8, of: u8| store.count_download([id; 16], [visitor; 16], node(of), 2, T0).await.unwrap();
    assert_eq!(count(1, 1, 1).await, Counted::New);
    assert_eq!(count(1, 1, 1).await, Counted::Again);
    assert_eq!(count(1, 1, 2).await, Counted::New);
    assert_eq!((count(1, 2, 1).await, count(1, 1, 1).await), (Counted::UsedUp, Counted::Again), "whoever began may finish");
    assert_eq!(store.link([1; 16]).await.unwrap().unwrap().downloads, 2);
    // Without a limit each counts when there were so many.
    let free = Link { max_downloads: None, ..link(2, 1, 1) };
    assert!(store.insert_link(&free, [2; 32], 9).await.unwrap());
    let seen = [count(2, 1, 1).await, count(2, 1, 1).await, count(2, 2, 1).await, count(2, 3, 1).await, count(2, 3, 1).await];
    assert_eq!(seen, [Counted::New, Counted::Again, Counted::New, Counted::New, Counted::New]);
    assert_eq!(count(9, 1, 1).await, Counted::UsedUp, "no such link");
}

async fn of_many_downloads_at_once_no_more_than_allowed_are_counted(store: &dyn MetaStore) {
    assert!(store.insert_link(&link(1, 1, 1), [1; 32], 9).await.unwrap());
    let all = (0..16u8).map(|n| store.count_download([1; 16], [n; 16], node(1), 9, T0));
    let done = futures_util::future::join_all(all).await;
    let new = done.into_iter().filter(|c| matches!(c, Ok(Counted::New))).count();
    assert_eq!((new, store.link([1; 16]).await.unwrap().unwrap().downloads), (2, 2));
}

async fn what_ended_long_ago_is_forgotten(store: &dyn MetaStore) {
    for n in 1..=3 {
        let expires_at_ms = (n > 1).then_some(T0 + 100 * i64::from(n));
        assert!(store.insert_link(&Link { expires_at_ms, ..link(n, 1, 1) }, [n; 32], 9).await.unwrap());
    }
    store.revoke_link([1; 16], T0 + 50).await.unwrap();
    store.count_download([3; 16], [1; 16], node(1), 9, T0 + 10).await.unwrap();
    store.forget_links(T0 + 10, T0 + 50).await.unwrap();
    assert!(store.link([1; 16]).await.unwrap().is_some());
    assert_eq!(store.count_download([3; 16], [1; 16], node(1), 9, T0 + 10).await.unwrap(), Counted::Again);
    store.forget_links(T0 + 11, T0 + 201).await.unwrap();
    assert_eq!((store.link([1; 16]).await.unwrap(), store.link([2; 16]).await.unwrap()), (None, None));
    assert_eq!(store.count_download([3; 16], [1; 16], node(1), 9, T0 + 11).await.unwrap(), Counted::New);
}

/// One suite, many stores.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod on {
            use super::*;
            $(
                mod $test {
                    use super::*;

                    async fn run(kind: Db) {
                        let dir = tempfile::tempdir().unwrap();
                        let store = kind.store(&dir).await;
                        filled(&*store).await;
                        super::super::$test(&*store).await;
                    }

                    on_each_kind!(run);
                }
            )*
        }
    };
}

contract!(
    a_link_is_found_as_it_was_made,
    links_are_listed_to_their_makers_and_to_owners,
    a_link_changes_until_it_is_revoked,
    downloads_are_counted_once_for_each_visitor_and_file,
    of_many_downloads_at_once_no_more_than_allowed_are_counted,
    what_ended_long_ago_is_forgotten,
);
