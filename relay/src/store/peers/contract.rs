//! What every [`PeerStore`] must do, run against each implementation (R6).

use super::*;
use crate::service::{SessionId, UserRole};
use crate::store::MetaStore;
use crate::store::accounts::{Device, NewToken, Session, User, UserChange};
use crate::store::content::{NamespaceRow, Scope};
use crate::store::testing::{Db, on_each_kind};
use ferry_protocol::ReplicaId;
use ferry_protocol::wire::Role;

const T0: i64 = 1_800_000_000_000;
const ENDS: i64 = T0 + 1_000_000;

/// A store with users 1 to 3, each with a home namespace of its own number and a device that is logged in; user 2 may read in namespace 1.
async fn filled(store: &dyn MetaStore) {
    for n in 1..=3u8 {
        let (user_id, email) = (user(n), format!("u{n}@example.org"));
        let row = User {
            user_id,
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
        link(store, n, n).await;
        let run = Some(ReplicaId::from_bytes([3; 16]));
        let row = NamespaceRow {
            id: namespace(n),
            owner: user_id,
            name: "N".into(),
            is_home: true,
            head_seq: 0,
            settled_seq: 0,
            max_counter: 0,
            run,
            role: Role::Owner,
        };
        let mut tx = store.begin(Scope::Owner(user_id)).await.unwrap();
        tx.create_namespace(&row, T0).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx = store.begin(Scope::Namespace(namespace(1))).await.unwrap();
    tx.set_member(namespace(1), user(2), Role::Viewer, T0).await.unwrap();
    tx.commit().await.unwrap();
}

async fn link(store: &dyn MetaStore, owner: u8, n: u8) {
    let row = Device {
        device_id: device(n),
        user_id: user(owner),
        name: format!("device {n}"),
        public_key: [n; 32],
        created_at_ms: T0,
        last_seen_at_ms: T0,
        revoked_at_ms: None,
    };
    store.put_device(&row).await.unwrap();
    let session = Session {
        session_id: SessionId::from_bytes([n; 16]),
        user_id: user(owner),
        device_id: Some(device(n)),
        created_at_ms: T0,
        last_used_at_ms: T0,
        expires_at_ms: ENDS,
        revoked_at_ms: None,
    };
    store.insert_session(&session, &NewToken { hash: [n; 32], expires_at_ms: ENDS }).await.unwrap();
}

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn device(n: u8) -> DeviceId {
    DeviceId::of_public_key(&[n; 32])
}

fn namespace(n: u8) -> NamespaceId {
    NamespaceId::from_bytes([n; 16])
}

/// Counts up, and lists nobody: the members are the other half of the answer.
fn next(before: Option<&Issued>, _: &[Member]) -> Issued {
    Issued { epoch: before.map_or(5, |b| b.epoch + 1), digest: [7; 32], issued_at_ms: T0 }
}

async fn listed(store: &dyn PeerStore, n: u8, now_ms: i64) -> Vec<(DeviceId, Role)> {
    let found = store.issue(namespace(n), now_ms, 100, &next).await.unwrap();
    found.map(|(_, members)| members.iter().map(|m| (m.device, m.role)).collect()).unwrap_or_default()
}

fn sorted(mut list: Vec<(DeviceId, Role)>) -> Vec<(DeviceId, Role)> {
    list.sort_by_key(|m| m.0);
    list
}

async fn members_are_the_devices_that_count(store: &dyn MetaStore) {
    let both = sorted(vec![(device(1), Role::Owner), (device(2), Role::Viewer)]);
    assert_eq!(listed(store, 1, T0).await, both);
    let (_, members) = store.issue(namespace(3), T0, 100, &next).await.unwrap().unwrap();
    assert_eq!(members, [Member { device: device(3), user: user(3), role: Role::Owner, name: "device 3".into() }]);
    assert_eq!(listed(store, 9, T0).await, [], "a namespace that is not there");
    link(store, 1, 4).await;
    let three = sorted(vec![(device(1), Role::Owner), (device(2), Role::Viewer), (device(4), Role::Owner)]);
    assert_eq!(listed(store, 1, T0).await, three);
    let found = store.issue(namespace(1), T0, 2, &next).await.unwrap().unwrap();
    assert_eq!(found.1.len(), 2, "no more than asked for");

    assert!(store.revoke_device(user(1), device(4), T0).await.unwrap());
    assert_eq!(listed(store, 1, T0).await, both, "revoked");
    let locked = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
    store.update_user(user(2), &locked(true)).await.unwrap();
    assert_eq!(listed(store, 1, T0).await, [(device(1), Role::Owner)], "its user is locked out");
    store.update_user(user(2), &locked(false)).await.unwrap();
    assert_eq!(listed(store, 1, T0).await, both);
    store.revoke_session(user(2), SessionId::from_bytes([2; 16]), "logout", T0).await.unwrap();
    assert_eq!(listed(store, 1, T0).await, [(device(1), Role::Owner)], "logged out");
    assert_eq!(listed(store, 1, ENDS).await, [], "the login has ended");
}

async fn what_was_issued_is_remembered(store: &dyn PeerStore) {
    let issue = async |decide: Decide<'_>| store.issue(namespace(1), T0, 100, decide).await.unwrap().unwrap().0;
    let first = issue(&next).await;
    assert_eq!(first.epoch, 5);
    let same = |before: Option<&Issued>, members: &[Member]| {
        assert_eq!(members.len(), 2);
        before.cloned().unwrap()
    };
    assert_eq!(issue(&same).await, first);
    assert_eq!(issue(&next).await.epoch, 6);
    assert_eq!(store.issue(namespace(2), T0, 100, &next).await.unwrap().unwrap().0.epoch, 5, "each namespace has its own");
    let (a, b) = tokio::join!(issue(&next), issue(&next));
    assert_eq!(a.epoch.max(b.epoch), 8, "of two at once each sees what the other did");
    assert_eq!(a.epoch.min(b.epoch), 7);
}

async fn addresses_are_seen_by_devices_of_a_common_namespace(store: &dyn MetaStore) {
    let at =
        |text: &str, announced_at_ms| Whereabouts { addresses: text.split(' ').map(|a| a.parse().unwrap()).collect(), announced_at_ms };
    assert_eq!(store.whereabouts(device(1)).await.unwrap(), None);
    for (n, text) in [(1, "10.0.0.1:1 [fe80::1]:1"), (2, "10.0.0.2:1"), (3, "10.0.0.3:1")] {
        store.put_whereabouts(device(n), &at("9.9.9.9:9", T0)).await.unwrap();
        store.put_whereabouts(device(n), &at(text, T0 + i64::from(n))).await.unwrap();
    }
    assert_eq!(store.whereabouts(device(1)).await.unwrap(), Some(at("10.0.0.1:1 [fe80::1]:1", T0 + 1)));
    let peers = async |n, except, after_ms, limit| {
        let list = store.peers(user(n), except, T0, after_ms, limit).await.unwrap();
        list.into_iter().map(|p| p.device_id).collect::<Vec<_>>()
    };
    assert_eq!(peers(1, None, 0, 9).await, [device(2), device(1)], "the newest first");
    assert_eq!(peers(1, Some(device(1)), 0, 9).await, [device(2)]);
    assert_eq!(peers(2, Some(device(2)), 0, 9).await, [device(1)]);
    assert_eq!(peers(3, Some(device(3)), 0, 9).await, []);
    assert_eq!(peers(1, None, T0 + 1, 9).await, [device(2)], "the other one is too old");
    assert_eq!(peers(1, None, 0, 1).await, [device(2)]);
    store.put_whereabouts(device(2), &Whereabouts { addresses: vec![], announced_at_ms: T0 }).await.unwrap();
    assert_eq!(store.whereabouts(device(2)).await.unwrap(), None);
    assert_eq!(peers(1, Some(device(1)), 0, 9).await, [], "withdrawn");
    store.revoke_device(user(1), device(1), T0).await.unwrap();
    assert_eq!(peers(2, None, 0, 9).await, [], "revoked");
}

async fn reports_are_of_devices(store: &dyn MetaStore) {
    let report = |lan_bytes| KeptReport {
        report: Report { run_at_ms: 7, lan_bytes, relay_bytes: 3, system: "Linux".into(), version: "1".into() },
        earlier_lan_bytes: 11,
        earlier_relay_bytes: 12,
        reported_at_ms: T0,
    };
    assert_eq!(store.report(device(1)).await.unwrap(), None);
    let nothing = DeviceNow { device_id: device(1), report: None, at: None };
    assert_eq!(store.reports(user(1)).await.unwrap(), std::slice::from_ref(&nothing));
    store.put_report(device(1), &report(1)).await.unwrap();
    store.put_report(device(1), &report(5)).await.unwrap();
    assert_eq!(store.report(device(1)).await.unwrap(), Some(report(5)));
    let at = Whereabouts { addresses: vec!["10.0.0.1:1".parse().unwrap()], announced_at_ms: T0 };
    store.put_whereabouts(device(1), &at).await.unwrap();
    let now = DeviceNow { report: Some(report(5)), at: Some(at), ..nothing };
    assert_eq!(store.reports(user(1)).await.unwrap(), [now]);
    assert_eq!(store.reports(user(2)).await.unwrap()[0].report, None, "of others nothing");
    store.revoke_device(user(1), device(1), T0).await.unwrap();
    assert_eq!(store.reports(user(1)).await.unwrap(), []);
}

async fn namespaces_come_by_id(store: &dyn PeerStore) {
    assert_eq!(store.member_namespaces(user(2), 9).await.unwrap(), [namespace(1), namespace(2)]);
    assert_eq!(store.member_namespaces(user(2), 1).await.unwrap(), [namespace(1)]);
    assert_eq!(store.member_namespaces(user(9), 9).await.unwrap(), []);
}

on_each_kind!(peers_are_kept_as_they_were_given);

async fn peers_are_kept_as_they_were_given(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let filled = async |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let store = kind.store_in(&dir).await;
        filled(&*store).await;
        store
    };
    members_are_the_devices_that_count(&*filled("a").await).await;
    what_was_issued_is_remembered(&*filled("b").await).await;
    addresses_are_seen_by_devices_of_a_common_namespace(&*filled("c").await).await;
    namespaces_come_by_id(&*filled("d").await).await;
    reports_are_of_devices(&*filled("e").await).await;
}
