//! What every [`AccountStore`] must do, run against each implementation (R6).

use super::*;
use std::sync::Arc;

const T0: i64 = 1_800_000_000_000;
const TOLERANCE_MS: i64 = 10_000;

/// One suite, many stores: each test is written once, against the trait.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod on {
            $(
                mod $test {
                    async fn run(kind: crate::store::testing::Db) {
                        let dir = tempfile::tempdir().unwrap();
                        super::super::$test(kind.store(&dir).await).await;
                    }

                    crate::store::testing::on_each_kind!(run);
                }
            )*
        }
    };
}

contract!(
    a_setting_has_one_value,
    addresses_are_unique,
    users_change_only_where_asked,
    a_password_is_replaced_only_if_it_is_the_expected_one,
    users_come_in_pages,
    the_first_administrator_is_made_once,
    a_device_belongs_to_one_user_and_revoked_stays_revoked,
    a_token_is_exchanged_once,
    parallel_exchanges_are_tolerated_for_a_while,
    of_many_exchanges_at_once_none_is_lost,
    what_ended_gives_no_token,
    access_follows_user_device_and_session,
    sessions_are_listed_and_revoked,
    a_code_opens_once,
    of_many_uses_of_a_code_one_wins,
    codes_are_listed_and_taken_back,
    deleting_a_user_takes_only_theirs,
    the_audit_log_grows,
    settings_are_kept,
    what_ended_long_ago_is_forgotten,
);

type Store = Arc<dyn AccountStore>;

fn user(n: u8) -> User {
    User {
        user_id: UserId::from_bytes([n; 16]),
        email: format!("User{n}@Example.org"),
        email_key: format!("user{n}@example.org"),
        name: format!("User {n}"),
        password_hash: "hash".into(),
        role: UserRole::User,
        storage_used_bytes: 0,
        storage_limit_bytes: Some(1000),
        disabled: false,
        created_at_ms: T0,
    }
}

fn device(owner: u8, n: u8) -> Device {
    Device {
        device_id: DeviceId::of_public_key(&[n; 32]),
        user_id: UserId::from_bytes([owner; 16]),
        name: format!("device {n}"),
        public_key: [n; 32],
        created_at_ms: T0,
        last_seen_at_ms: T0,
        revoked_at_ms: None,
    }
}

fn session(owner: u8, n: u8, device_id: Option<DeviceId>) -> Session {
    Session {
        session_id: SessionId::from_bytes([n; 16]),
        user_id: UserId::from_bytes([owner; 16]),
        device_id,
        created_at_ms: T0,
        last_used_at_ms: T0,
        expires_at_ms: T0 + 1_000_000,
        revoked_at_ms: None,
    }
}

fn token(n: u8) -> NewToken {
    NewToken { hash: [n; 32], expires_at_ms: T0 + 1_000_000 }
}

async fn with_session(store: &Store) {
    store.insert_user(&user(1)).await.unwrap();
    store.put_device(&device(1, 1)).await.unwrap();
    store.insert_session(&session(1, 1, Some(device(1, 1).device_id)), &token(1)).await.unwrap();
}

async fn rotate(store: &Store, old: u8, new: u8, at_ms: i64) -> Rotation {
    store.rotate([old; 32], &token(new), at_ms, TOLERANCE_MS).await.unwrap()
}

async fn a_setting_has_one_value(store: Store) {
    assert_eq!(store.setting_or_insert("k", "first", T0).await.unwrap(), "first");
    assert_eq!(store.setting_or_insert("k", "second", T0).await.unwrap(), "first");
}

async fn addresses_are_unique(store: Store) {
    assert!(store.insert_user(&user(1)).await.unwrap());
    assert!(!store.insert_user(&User { user_id: UserId::from_bytes([9; 16]), ..user(1) }).await.unwrap());
    assert_eq!(store.user(user(1).user_id).await.unwrap(), Some(user(1)));
    assert_eq!(store.user_by_email("user1@example.org").await.unwrap(), Some(user(1)));
    assert_eq!(store.user_by_email("nobody@example.org").await.unwrap(), None);
    assert_eq!(store.user(UserId::from_bytes([9; 16])).await.unwrap(), None);
}

async fn users_change_only_where_asked(store: Store) {
    store.insert_user(&user(1)).await.unwrap();
    let id = user(1).user_id;
    assert!(store.update_user(id, &UserChange::default()).await.unwrap());
    assert_eq!(store.user(id).await.unwrap(), Some(user(1)));
    let change = UserChange { name: Some("N".into()), role: Some(UserRole::Admin), storage_limit_bytes: Some(None), disabled: Some(true) };
    assert!(store.update_user(id, &change).await.unwrap());
    let expected = User { name: "N".into(), role: UserRole::Admin, storage_limit_bytes: None, disabled: true, ..user(1) };
    assert_eq!(store.user(id).await.unwrap(), Some(expected));
    assert!(!store.update_user(UserId::from_bytes([9; 16]), &change).await.unwrap());
    assert_eq!(store.admins().await.unwrap(), 0, "a locked administrator does not count");
}

async fn a_password_is_replaced_only_if_it_is_the_expected_one(store: Store) {
    store.insert_user(&user(1)).await.unwrap();
    let id = user(1).user_id;
    assert!(!store.replace_password(id, "other", "new").await.unwrap());
    assert!(store.replace_password(id, "hash", "new").await.unwrap());
    assert_eq!(store.user(id).await.unwrap().unwrap().password_hash, "new");
}

async fn users_come_in_pages(store: Store) {
    for n in 1..=5 {
        store.insert_user(&user(n)).await.unwrap();
    }
    let first = store.users("", 3).await.unwrap();
    let rest = store.users(&first[2].email_key, 3).await.unwrap();
    let names: Vec<String> = first.iter().chain(&rest).map(|u| u.name.clone()).collect();
    assert_eq!(names, ["User 1", "User 2", "User 3", "User 4", "User 5"]);
}

fn code(n: u8, kind: CodeKind) -> NewCode {
    NewCode { hash: [n; 32], kind, user_id: None, created_at_ms: T0, expires_at_ms: T0 + 1000 }
}

async fn the_first_administrator_is_made_once(store: Store) {
    let admin = |n| User { role: UserRole::Admin, ..user(n) };
    store.insert_code(&code(1, CodeKind::Setup)).await.unwrap();
    store.insert_code(&code(2, CodeKind::Setup)).await.unwrap();
    store.insert_code(&code(3, CodeKind::Invite)).await.unwrap();
    let made = |n, c: u8, at| {
        let store = store.clone();
        async move { store.insert_first_admin(&admin(n), [c; 32], at).await.unwrap() }
    };
    assert_eq!(made(1, 9, T0).await, FirstAdmin::BadCode(CodeUse::Unknown));
    assert_eq!(made(1, 3, T0).await, FirstAdmin::BadCode(CodeUse::Unknown), "an invitation is no set-up code");
    assert_eq!(made(1, 1, T0 + 1000).await, FirstAdmin::BadCode(CodeUse::Expired));
    let (a, b) = tokio::join!(made(1, 1, T0), made(2, 2, T0));
    assert!(matches!((a, b), (FirstAdmin::Made, FirstAdmin::Exists) | (FirstAdmin::Exists, FirstAdmin::Made)), "{a:?} {b:?}");
    assert_eq!(store.admins().await.unwrap(), 1);
}

async fn a_device_belongs_to_one_user_and_revoked_stays_revoked(store: Store) {
    store.insert_user(&user(1)).await.unwrap();
    store.insert_user(&user(2)).await.unwrap();
    let id = device(1, 1).device_id;
    assert_eq!(store.put_device(&device(1, 1)).await.unwrap(), DeviceStored::Stored);
    assert_eq!(store.put_device(&device(2, 1)).await.unwrap(), DeviceStored::OfAnotherUser);
    let renewed = Device { name: "new".into(), last_seen_at_ms: T0 + 5, created_at_ms: T0 + 5, ..device(1, 1) };
    assert_eq!(store.put_device(&renewed).await.unwrap(), DeviceStored::Stored);
    assert_eq!(store.device(id).await.unwrap(), Some(Device { created_at_ms: T0, ..renewed }));
    assert!(!store.rename_device(user(2).user_id, id, "theirs").await.unwrap());
    assert!(store.rename_device(user(1).user_id, id, "mine").await.unwrap());
    assert!(!store.revoke_device(user(2).user_id, id, T0).await.unwrap());
    assert!(store.revoke_device(user(1).user_id, id, T0 + 7).await.unwrap());
    assert!(store.revoke_device(user(1).user_id, id, T0 + 8).await.unwrap());
    assert_eq!(store.devices(user(1).user_id).await.unwrap()[0].revoked_at_ms, Some(T0 + 7));
    assert_eq!(store.put_device(&device(1, 1)).await.unwrap(), DeviceStored::Revoked);
    assert!(!store.rename_device(user(1).user_id, id, "again").await.unwrap());
}

async fn a_token_is_exchanged_once(store: Store) {
    with_session(&store).await;
    let Rotation::Rotated(found) = rotate(&store, 1, 2, T0 + 100).await else { panic!() };
    assert_eq!((found.session_id, found.last_used_at_ms), (SessionId::from_bytes([1; 16]), T0 + 100));
    assert_eq!(store.device(device(1, 1).device_id).await.unwrap().unwrap().last_seen_at_ms, T0 + 100);
    assert!(matches!(rotate(&store, 2, 3, T0 + 200).await, Rotation::Rotated(_)));
    assert!(matches!(rotate(&store, 1, 4, T0 + 300).await, Rotation::Reused(_)), "its successor was exchanged: no parallel request");
    assert_eq!(rotate(&store, 3, 5, T0 + 400).await, Rotation::Dead, "the whole family is revoked");
    assert!(!store.session_access(SessionId::from_bytes([1; 16])).await.unwrap().unwrap().live);
}

async fn parallel_exchanges_are_tolerated_for_a_while(store: Store) {
    with_session(&store).await;
    assert!(matches!(rotate(&store, 1, 2, T0).await, Rotation::Rotated(_)));
    assert!(matches!(rotate(&store, 1, 3, T0 + TOLERANCE_MS).await, Rotation::Rotated(_)));
    assert!(matches!(rotate(&store, 1, 4, T0 + TOLERANCE_MS + 1).await, Rotation::Reused(_)));
}

async fn of_many_exchanges_at_once_none_is_lost(store: Store) {
    with_session(&store).await;
    let all = (0..16).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { rotate(&store, 1, 100 + n, T0).await })
    });
    for one in all.collect::<Vec<_>>() {
        assert!(matches!(one.await.unwrap(), Rotation::Rotated(_)));
    }
}

async fn what_ended_gives_no_token(store: Store) {
    with_session(&store).await;
    assert_eq!(rotate(&store, 9, 2, T0).await, Rotation::Dead);
    assert_eq!(rotate(&store, 1, 2, T0 + 1_000_000).await, Rotation::Dead);
    store.update_user(user(1).user_id, &UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    assert_eq!(rotate(&store, 1, 2, T0).await, Rotation::Dead);
    store.update_user(user(1).user_id, &UserChange { disabled: Some(false), ..UserChange::default() }).await.unwrap();
    store.revoke_device(user(1).user_id, device(1, 1).device_id, T0).await.unwrap();
    assert_eq!(rotate(&store, 1, 2, T0).await, Rotation::Dead);
}

async fn access_follows_user_device_and_session(store: Store) {
    with_session(&store).await;
    let id = SessionId::from_bytes([1; 16]);
    let live = || async { store.session_access(id).await.unwrap().unwrap().live };
    assert!(live().await);
    let lock = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
    store.update_user(user(1).user_id, &lock(true)).await.unwrap();
    assert!(!live().await);
    store.update_user(user(1).user_id, &UserChange { role: Some(UserRole::Admin), ..lock(false) }).await.unwrap();
    assert_eq!(store.session_access(id).await.unwrap().unwrap().role, UserRole::Admin);
    assert!(live().await);
    store.revoke_device(user(1).user_id, device(1, 1).device_id, T0).await.unwrap();
    assert!(!live().await);
    assert_eq!(store.session_access(SessionId::from_bytes([9; 16])).await.unwrap(), None);
}

async fn sessions_are_listed_and_revoked(store: Store) {
    with_session(&store).await;
    let id = user(1).user_id;
    for n in 2..=4 {
        store.insert_session(&session(1, n, None), &token(n)).await.unwrap();
    }
    assert_eq!(store.sessions(id, T0).await.unwrap().len(), 4);
    assert_eq!(store.sessions(id, T0 + 1_000_000).await.unwrap(), []);
    assert!(!store.revoke_session(UserId::from_bytes([9; 16]), SessionId::from_bytes([2; 16]), "w", T0).await.unwrap());
    assert!(store.revoke_session(id, SessionId::from_bytes([2; 16]), "w", T0).await.unwrap());
    assert!(!store.revoke_session(id, SessionId::from_bytes([2; 16]), "w", T0).await.unwrap());
    store.revoke_sessions(id, Some(SessionId::from_bytes([3; 16])), "w", T0).await.unwrap();
    assert_eq!(store.sessions(id, T0).await.unwrap(), [session(1, 3, None)]);
    store.revoke_sessions(id, None, "w", T0).await.unwrap();
    assert_eq!(store.sessions(id, T0).await.unwrap(), []);
}

async fn a_code_opens_once(store: Store) {
    store.insert_user(&user(1)).await.unwrap();
    store.insert_code(&NewCode { user_id: Some(user(1).user_id), ..code(1, CodeKind::Join) }).await.unwrap();
    assert_eq!(store.use_code([1; 32], CodeKind::Reset, T0).await.unwrap(), CodeUse::Unknown);
    assert_eq!(store.use_code([1; 32], CodeKind::Join, T0 + 1000).await.unwrap(), CodeUse::Expired);
    assert_eq!(store.use_code([1; 32], CodeKind::Join, T0 + 999).await.unwrap(), CodeUse::Used(Some(user(1).user_id)));
    assert_eq!(store.use_code([1; 32], CodeKind::Join, T0 + 999).await.unwrap(), CodeUse::AlreadyUsed);
    assert_eq!(store.use_code([2; 32], CodeKind::Join, T0).await.unwrap(), CodeUse::Unknown);
}

async fn codes_are_listed_and_taken_back(store: Store) {
    for (n, kind) in [(1, CodeKind::Invite), (2, CodeKind::Invite), (3, CodeKind::Reset), (4, CodeKind::Invite)] {
        store.insert_code(&code(n, kind)).await.unwrap();
    }
    assert!(matches!(store.use_code([4; 32], CodeKind::Invite, T0).await.unwrap(), CodeUse::Used(_)));
    let open = async |now_ms, limit| store.open_codes(CodeKind::Invite, now_ms, limit).await.unwrap();
    assert_eq!(open(T0, 10).await, [code(1, CodeKind::Invite), code(2, CodeKind::Invite)]);
    assert_eq!(open(T0, 1).await.len(), 1);
    assert_eq!(open(T0 + 1000, 10).await, [], "too late");
    assert!(!store.revoke_code([3; 32], CodeKind::Invite).await.unwrap(), "of another kind");
    assert!(!store.revoke_code([4; 32], CodeKind::Invite).await.unwrap(), "used");
    assert!(store.revoke_code([1; 32], CodeKind::Invite).await.unwrap());
    assert_eq!(store.use_code([1; 32], CodeKind::Invite, T0).await.unwrap(), CodeUse::Unknown);
    assert_eq!(open(T0, 10).await, [code(2, CodeKind::Invite)]);
}

async fn of_many_uses_of_a_code_one_wins(store: Store) {
    store.insert_code(&code(1, CodeKind::Invite)).await.unwrap();
    let all: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.use_code([1; 32], CodeKind::Invite, T0).await.unwrap() })
        })
        .collect();
    let mut used = 0;
    for one in all {
        used += usize::from(one.await.unwrap() == CodeUse::Used(None));
    }
    assert_eq!(used, 1);
}

async fn deleting_a_user_takes_only_theirs(store: Store) {
    with_session(&store).await;
    store.insert_user(&user(2)).await.unwrap();
    store.put_device(&device(2, 2)).await.unwrap();
    store.insert_session(&session(2, 2, None), &token(2)).await.unwrap();
    assert!(store.delete_user(user(1).user_id).await.unwrap());
    assert!(!store.delete_user(user(1).user_id).await.unwrap());
    assert_eq!(store.session_access(SessionId::from_bytes([1; 16])).await.unwrap(), None);
    assert_eq!(store.device(device(1, 1).device_id).await.unwrap(), None);
    assert_eq!(rotate(&store, 1, 9, T0).await, Rotation::Dead);
    assert_eq!(store.sessions(user(2).user_id, T0).await.unwrap().len(), 1);
    assert_eq!(store.devices(user(2).user_id).await.unwrap().len(), 1);
}

/// By any clock: the schema asks the database's own.
const LONG_AGO: i64 = 1_000_000_000_000;

async fn the_audit_log_grows(store: Store) {
    let entry = |n: i64, user_id| AuditEntry {
        audit_id: 0,
        at_ms: LONG_AGO + n,
        event: format!("event.{n}"),
        user_id,
        device_id: Some(device(1, 1).device_id),
        remote_ip: Some("::1".into()),
        actor_id: (n == 3).then_some(user(2).user_id),
        via: "cli".into(),
        detail: "d".into(),
    };
    for n in 0..5 {
        store.audit(&entry(n, (n % 2 == 0).then_some(user(1).user_id))).await.unwrap();
    }
    let all = store.audit_entries(i64::MAX, None, 10).await.unwrap();
    let events: Vec<&str> = all.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(events, ["event.4", "event.3", "event.2", "event.1", "event.0"]);
    assert_eq!(AuditEntry { audit_id: 0, ..all[0].clone() }, entry(4, Some(user(1).user_id)));
    assert_eq!(store.audit_entries(all[1].audit_id, None, 2).await.unwrap().len(), 2);
    assert_eq!(store.audit_entries(i64::MAX, Some(user(1).user_id), 10).await.unwrap().len(), 3);
    let by = store.audit_entries(i64::MAX, Some(user(2).user_id), 10).await.unwrap();
    assert_eq!(AuditEntry { audit_id: 0, ..by[0].clone() }, entry(3, None));
    assert_eq!(by.len(), 1);
    // Old entries go, a few at a time; young ones cannot.
    assert_eq!(store.forget_audit(LONG_AGO + 3, 2).await.unwrap(), 2);
    assert_eq!(store.forget_audit(LONG_AGO + 3, 2).await.unwrap(), 1);
    assert_eq!(store.audit_entries(i64::MAX, None, 10).await.unwrap().len(), 2);
    let now_ms = crate::clock::Clock::now_ms(&crate::clock::SystemClock);
    store.audit(&AuditEntry { at_ms: now_ms, ..entry(5, None) }).await.unwrap();
    assert!(store.forget_audit(i64::MAX, 10).await.is_err());
    assert_eq!(store.audit_entries(i64::MAX, None, 10).await.unwrap()[0].at_ms, now_ms);
}

async fn settings_are_kept(store: Store) {
    assert_eq!(store.setting("a").await.unwrap(), None);
    assert_eq!(store.setting_or_insert("a", "1", T0).await.unwrap(), "1");
    assert_eq!(store.setting_or_insert("a", "2", T0).await.unwrap(), "1");
    store.put_setting("a", "3", T0).await.unwrap();
    store.put_setting("b", "4", T0).await.unwrap();
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("3"));
    assert_eq!(store.setting("b").await.unwrap().as_deref(), Some("4"));
}

async fn what_ended_long_ago_is_forgotten(store: Store) {
    with_session(&store).await;
    store.insert_code(&code(1, CodeKind::Invite)).await.unwrap();
    store.forget_ended(T0).await.unwrap();
    assert_eq!(store.sessions(user(1).user_id, T0).await.unwrap().len(), 1);
    store.forget_ended(T0 + 2000).await.unwrap();
    assert_eq!(store.use_code([1; 32], CodeKind::Invite, T0).await.unwrap(), CodeUse::Unknown);
    store.forget_ended(T0 + 1_000_001).await.unwrap();
    assert_eq!(store.sessions(user(1).user_id, T0).await.unwrap(), []);
    assert_eq!(rotate(&store, 1, 9, T0).await, Rotation::Dead);
}
