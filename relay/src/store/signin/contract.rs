//! What every [`SigninStore`] must do, run against each implementation (R6).

use super::*;
use crate::service::Scope;
use crate::store::MetaStore;
use ferry_protocol::{NamespaceId, NodeId};
use std::sync::Arc;

const T0: i64 = 1_800_000_000_000;

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

                    crate::store::testing::on_each_store!(run);
                }
            )*
        }
    };
}

contract!(
    a_request_is_decided_once,
    a_network_asks_so_often,
    a_device_gets_its_tokens_once,
    asking_too_soon_slows_down,
    of_many_questions_at_once_one_is_let_in,
    a_cookie_opens_its_session,
    a_challenge_has_few_attempts,
    a_second_factor_counts_when_it_is_confirmed,
    a_code_of_a_second_factor_is_used_once,
    recovery_codes_open_once,
    app_passwords_are_counted_listed_and_revoked,
    an_identity_opens_one_account,
    a_user_of_an_identity_is_made_whole_or_not,
    a_refresh_token_names_its_session,
    deleting_a_user_ends_their_ways_in,
    what_ended_long_ago_is_forgotten,
);

type Store = Arc<dyn MetaStore>;

fn user(n: u8) -> User {
    User {
        user_id: UserId::from_bytes([n; 16]),
        email: format!("user{n}@example.org"),
        email_key: format!("user{n}@example.org"),
        name: format!("User {n}"),
        password_hash: "hash".into(),
        role: UserRole::User,
        storage_used_bytes: 0,
        storage_limit_bytes: None,
        disabled: false,
        created_at_ms: T0,
    }
}

async fn with_user(store: &Store) -> UserId {
    store.insert_user(&user(1)).await.unwrap();
    user(1).user_id
}

fn request(n: u8) -> DeviceRequest {
    DeviceRequest {
        device_code: [n; 32],
        user_code: [n + 100; 32],
        device_name: "laptop".into(),
        public_key: [n; 32],
        system: "Linux".into(),
        remote_ip: "::1".into(),
        remote_net: "::/64".into(),
        interval_ms: 5000,
        created_at_ms: T0,
        expires_at_ms: T0 + 600_000,
    }
}

async fn ask(store: &Store, request: &DeviceRequest) -> RequestStored {
    store.insert_device_request(request, 3, 3_600_000).await.unwrap()
}

fn session(n: u8) -> Session {
    Session {
        session_id: SessionId::from_bytes([n; 16]),
        user_id: user(1).user_id,
        device_id: None,
        created_at_ms: T0,
        last_used_at_ms: T0,
        expires_at_ms: T0 + 1_000_000,
        revoked_at_ms: None,
    }
}

fn token(n: u8) -> ApiToken {
    let folder = TokenFolder { namespace: NamespaceId::from_bytes([7; 16]), directory: NodeId::from_bytes([8; 16]) };
    ApiToken {
        token_id: SessionId::from_bytes([n; 16]),
        user_id: user(1).user_id,
        name: format!("token {n}"),
        scopes: Scopes::of([Scope::FilesRead, Scope::Dav]).unwrap(),
        folder: (n == 2).then_some(folder),
        path: (n == 2).then(|| "/Photos".into()),
        created_at_ms: T0 + i64::from(n),
        expires_at_ms: (n == 3).then_some(T0 + 1000),
        last_used_at_ms: None,
        last_used_ip: None,
        revoked_at_ms: None,
    }
}

fn identity(n: u8) -> Identity {
    Identity { issuer: "https://id.example".into(), subject: format!("sub-{n}"), email: format!("user{n}@example.org") }
}

async fn a_request_is_decided_once(store: Store) {
    let ana = with_user(&store).await;
    assert_eq!(ask(&store, &request(1)).await, RequestStored::Stored);
    assert_eq!(ask(&store, &DeviceRequest { device_code: [9; 32], ..request(1) }).await, RequestStored::CodeTaken);
    assert_eq!(store.device_request([101; 32]).await.unwrap(), Some((request(1), RequestState::Waiting)));
    assert_eq!(store.device_request([1; 32]).await.unwrap(), None, "the device's code is not the person's");
    assert!(!store.decide_device_request([99; 32], Some(ana), T0).await.unwrap());
    assert!(!store.decide_device_request([101; 32], Some(ana), T0 + 600_000).await.unwrap(), "too late");
    assert!(store.decide_device_request([101; 32], Some(ana), T0).await.unwrap());
    assert!(!store.decide_device_request([101; 32], None, T0).await.unwrap());
    assert_eq!(store.device_request([101; 32]).await.unwrap().unwrap().1, RequestState::Approved(ana));
    ask(&store, &request(2)).await;
    assert!(store.decide_device_request([102; 32], None, T0).await.unwrap());
    assert!(!store.decide_device_request([102; 32], Some(ana), T0).await.unwrap());
    assert_eq!(store.poll_device_request([2; 32], T0, 5000).await.unwrap(), Poll::Denied);
}

async fn a_network_asks_so_often(store: Store) {
    for n in 1..=3 {
        assert_eq!(ask(&store, &DeviceRequest { created_at_ms: T0 + i64::from(n), ..request(n) }).await, RequestStored::Stored);
    }
    assert_eq!(ask(&store, &request(4)).await, RequestStored::TooMany { again_at_ms: T0 + 1 + 3_600_000 });
    assert_eq!(ask(&store, &DeviceRequest { remote_net: "10.0.0.1".into(), ..request(4) }).await, RequestStored::Stored);
    let later = DeviceRequest { created_at_ms: T0 + 1 + 3_600_000, ..request(5) };
    assert_eq!(ask(&store, &later).await, RequestStored::Stored);
}

async fn a_device_gets_its_tokens_once(store: Store) {
    let ana = with_user(&store).await;
    ask(&store, &request(1)).await;
    assert_eq!(store.poll_device_request([101; 32], T0, 5000).await.unwrap(), Poll::Unknown, "the person's code opens nothing");
    assert_eq!(store.poll_device_request([1; 32], T0, 5000).await.unwrap(), Poll::Waiting);
    store.decide_device_request([101; 32], Some(ana), T0).await.unwrap();
    assert_eq!(store.poll_device_request([1; 32], T0 + 600_000, 5000).await.unwrap(), Poll::Expired);
    assert_eq!(store.poll_device_request([1; 32], T0 + 5000, 5000).await.unwrap(), Poll::Approved(Box::new(request(1)), ana));
    assert_eq!(store.poll_device_request([1; 32], T0 + 10_000, 5000).await.unwrap(), Poll::Unknown);
    assert_eq!(store.device_request([101; 32]).await.unwrap().unwrap().1, RequestState::Used);
}

async fn asking_too_soon_slows_down(store: Store) {
    ask(&store, &request(1)).await;
    let poll = |at_ms: i64| store.poll_device_request([1; 32], T0 + at_ms, 5000);
    assert_eq!(poll(0).await.unwrap(), Poll::Waiting);
    assert_eq!(poll(4999).await.unwrap(), Poll::TooSoon);
    assert_eq!(poll(4999 + 9999).await.unwrap(), Poll::TooSoon, "the interval is 10 s now");
    assert_eq!(poll(4999 + 9999 + 15_000).await.unwrap(), Poll::Waiting);
}

async fn of_many_questions_at_once_one_is_let_in(store: Store) {
    let ana = with_user(&store).await;
    ask(&store, &request(1)).await;
    store.decide_device_request([101; 32], Some(ana), T0).await.unwrap();
    let all: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.poll_device_request([1; 32], T0, 5000).await.unwrap() })
        })
        .collect();
    let mut let_in = 0;
    for one in all {
        let_in += usize::from(matches!(one.await.unwrap(), Poll::Approved(..)));
    }
    assert_eq!(let_in, 1);
}

async fn a_cookie_opens_its_session(store: Store) {
    let ana = with_user(&store).await;
    store.insert_web_session(&session(1), [5; 32]).await.unwrap();
    assert_eq!(store.web_session([5; 32]).await.unwrap(), Some((session(1).session_id, T0 + 1_000_000)));
    assert_eq!(store.web_session([6; 32]).await.unwrap(), None);
    assert!(store.session_access(session(1).session_id).await.unwrap().unwrap().live);
    assert_eq!(store.sessions(ana, T0).await.unwrap(), [session(1)]);
    store.revoke_session(ana, session(1).session_id, "logout", T0).await.unwrap();
    assert!(!store.session_access(session(1).session_id).await.unwrap().unwrap().live);
}

async fn a_challenge_has_few_attempts(store: Store) {
    let ana = with_user(&store).await;
    store.insert_challenge([1; 32], ana, T0 + 1000).await.unwrap();
    let attempt = |at_ms: i64| store.take_attempt([1; 32], T0 + at_ms, 3);
    assert_eq!(store.take_attempt([2; 32], T0, 3).await.unwrap(), None);
    assert_eq!(attempt(1000).await.unwrap(), None, "too late");
    for _ in 0..3 {
        assert_eq!(attempt(0).await.unwrap(), Some(ana));
    }
    assert_eq!(attempt(0).await.unwrap(), None, "used up");
    store.insert_challenge([3; 32], ana, T0 + 1000).await.unwrap();
    assert!(store.end_challenge([3; 32]).await.unwrap());
    assert!(!store.end_challenge([3; 32]).await.unwrap());
    assert_eq!(store.take_attempt([3; 32], T0, 3).await.unwrap(), None);
}

async fn a_second_factor_counts_when_it_is_confirmed(store: Store) {
    let ana = with_user(&store).await;
    assert_eq!(store.totp(ana).await.unwrap(), None);
    assert!(!store.confirm_totp(ana, 5, &[[1; 32]], T0).await.unwrap());
    assert!(store.put_totp(ana, b"one", T0).await.unwrap());
    assert!(store.put_totp(ana, b"two", T0).await.unwrap(), "what was never confirmed is replaced");
    assert_eq!(store.totp(ana).await.unwrap(), Some(Totp { sealed: b"two".to_vec(), is_confirmed: false, last_step: 0 }));
    assert!(!store.use_totp_step(ana, 5).await.unwrap());
    assert!(!store.replace_recovery_codes(ana, &[[9; 32]]).await.unwrap());
    assert!(store.confirm_totp(ana, 5, &[[1; 32], [2; 32]], T0).await.unwrap());
    assert!(!store.confirm_totp(ana, 6, &[], T0).await.unwrap());
    assert!(!store.put_totp(ana, b"three", T0).await.unwrap());
    assert_eq!(store.totp(ana).await.unwrap(), Some(Totp { sealed: b"two".to_vec(), is_confirmed: true, last_step: 5 }));
    assert_eq!(store.recovery_codes_left(ana).await.unwrap(), 2);
    assert!(store.remove_totp(ana).await.unwrap());
    assert!(!store.remove_totp(ana).await.unwrap());
    assert_eq!((store.totp(ana).await.unwrap(), store.recovery_codes_left(ana).await.unwrap()), (None, 0));
}

async fn a_code_of_a_second_factor_is_used_once(store: Store) {
    let ana = with_user(&store).await;
    store.put_totp(ana, b"s", T0).await.unwrap();
    store.confirm_totp(ana, 5, &[], T0).await.unwrap();
    assert!(!store.use_totp_step(ana, 5).await.unwrap(), "the code that confirmed it is used");
    let all: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.use_totp_step(ana, 7).await.unwrap() })
        })
        .collect();
    let mut used = 0;
    for one in all {
        used += usize::from(one.await.unwrap());
    }
    assert_eq!(used, 1);
    assert!(!store.use_totp_step(ana, 6).await.unwrap(), "an older code is no better");
    assert!(store.use_totp_step(ana, 8).await.unwrap());
}

async fn recovery_codes_open_once(store: Store) {
    let ana = with_user(&store).await;
    store.insert_user(&user(2)).await.unwrap();
    store.put_totp(ana, b"s", T0).await.unwrap();
    store.confirm_totp(ana, 5, &[[1; 32], [2; 32]], T0).await.unwrap();
    assert!(!store.use_recovery_code(user(2).user_id, [1; 32], T0).await.unwrap());
    assert!(store.use_recovery_code(ana, [1; 32], T0).await.unwrap());
    assert!(!store.use_recovery_code(ana, [1; 32], T0).await.unwrap());
    assert_eq!(store.recovery_codes_left(ana).await.unwrap(), 1);
    assert!(store.replace_recovery_codes(ana, &[[3; 32], [4; 32], [5; 32]]).await.unwrap());
    assert!(!store.use_recovery_code(ana, [2; 32], T0).await.unwrap(), "the old ones are gone");
    assert_eq!(store.recovery_codes_left(ana).await.unwrap(), 3);
}

async fn app_passwords_are_counted_listed_and_revoked(store: Store) {
    let ana = with_user(&store).await;
    store.insert_user(&user(2)).await.unwrap();
    for n in 1..=3 {
        assert!(store.insert_api_token(&token(n), [n; 32], 3).await.unwrap());
    }
    assert!(!store.insert_api_token(&token(4), [4; 32], 3).await.unwrap(), "three are good");
    assert_eq!(store.api_tokens(ana, T0).await.unwrap(), [token(1), token(2), token(3)]);
    assert_eq!(store.api_tokens(ana, T0 + 1000).await.unwrap(), [token(1), token(2)], "one is over");
    let access = store.api_token([2; 32]).await.unwrap().unwrap();
    assert_eq!(
        (access.token, access.role, access.email_key.as_str(), access.disabled),
        (token(2), UserRole::User, "user1@example.org", false)
    );
    assert_eq!(store.api_token([9; 32]).await.unwrap(), None);
    store.touch_api_token(token(1).token_id, "10.0.0.1", T0 + 9).await.unwrap();
    let used = store.api_token([1; 32]).await.unwrap().unwrap().token;
    assert_eq!((used.last_used_at_ms, used.last_used_ip.as_deref()), (Some(T0 + 9), Some("10.0.0.1")));
    assert!(!store.revoke_api_token(user(2).user_id, token(1).token_id, T0).await.unwrap());
    assert!(store.revoke_api_token(ana, token(1).token_id, T0 + 10).await.unwrap());
    assert!(!store.revoke_api_token(ana, token(1).token_id, T0 + 11).await.unwrap());
    assert_eq!(store.api_token([1; 32]).await.unwrap().unwrap().token.revoked_at_ms, Some(T0 + 10));
    assert!(store.insert_api_token(&token(4), [4; 32], 3).await.unwrap(), "a revoked one does not count");
}

async fn an_identity_opens_one_account(store: Store) {
    let ana = with_user(&store).await;
    store.insert_user(&user(2)).await.unwrap();
    assert_eq!(store.use_identity("https://id.example", "sub-1", T0).await.unwrap(), None);
    assert!(store.link_identity(&identity(1), ana, T0).await.unwrap());
    assert!(!store.link_identity(&identity(1), user(2).user_id, T0).await.unwrap());
    assert_eq!(store.use_identity("https://id.example", "sub-1", T0 + 5).await.unwrap(), Some(ana));
    assert_eq!(store.use_identity("https://other.example", "sub-1", T0).await.unwrap(), None, "a subject is its issuer's");
    assert_eq!(store.identities(ana).await.unwrap(), [identity(1)]);
}

async fn a_user_of_an_identity_is_made_whole_or_not(store: Store) {
    assert!(store.insert_user_of_identity(&user(1), &identity(1)).await.unwrap());
    assert!(!store.insert_user_of_identity(&user(1), &identity(2)).await.unwrap(), "the address is taken");
    assert!(!store.insert_user_of_identity(&user(2), &identity(1)).await.unwrap(), "the identity is taken");
    assert_eq!(store.user(user(2).user_id).await.unwrap(), None);
    assert_eq!(store.use_identity("https://id.example", "sub-2", T0).await.unwrap(), None);
    assert_eq!(store.use_identity("https://id.example", "sub-1", T0).await.unwrap(), Some(user(1).user_id));
}

async fn a_refresh_token_names_its_session(store: Store) {
    let ana = with_user(&store).await;
    let first = crate::store::accounts::NewToken { hash: [1; 32], expires_at_ms: T0 + 1_000_000 };
    store.insert_session(&session(1), &first).await.unwrap();
    assert_eq!(store.session_of_refresh([1; 32]).await.unwrap(), Some((ana, session(1).session_id)));
    assert_eq!(store.session_of_refresh([2; 32]).await.unwrap(), None);
    let second = crate::store::accounts::NewToken { hash: [2; 32], ..first };
    store.rotate([1; 32], &second, T0, 0).await.unwrap();
    for hash in [[1; 32], [2; 32]] {
        assert_eq!(store.session_of_refresh(hash).await.unwrap(), Some((ana, session(1).session_id)));
    }
}

async fn deleting_a_user_ends_their_ways_in(store: Store) {
    let ana = with_user(&store).await;
    ask(&store, &request(1)).await;
    store.decide_device_request([101; 32], Some(ana), T0).await.unwrap();
    store.insert_web_session(&session(1), [5; 32]).await.unwrap();
    store.insert_challenge([1; 32], ana, T0 + 1000).await.unwrap();
    store.put_totp(ana, b"s", T0).await.unwrap();
    store.confirm_totp(ana, 5, &[[1; 32]], T0).await.unwrap();
    store.insert_api_token(&token(1), [1; 32], 9).await.unwrap();
    store.link_identity(&identity(1), ana, T0).await.unwrap();
    assert!(store.delete_user(ana).await.unwrap());
    assert_eq!(store.poll_device_request([1; 32], T0, 5000).await.unwrap(), Poll::Unknown);
    assert_eq!(store.web_session([5; 32]).await.unwrap(), None);
    assert_eq!(store.take_attempt([1; 32], T0, 9).await.unwrap(), None);
    assert_eq!((store.totp(ana).await.unwrap(), store.recovery_codes_left(ana).await.unwrap()), (None, 0));
    assert_eq!(store.api_token([1; 32]).await.unwrap(), None);
    assert_eq!(store.use_identity("https://id.example", "sub-1", T0).await.unwrap(), None);
}

async fn what_ended_long_ago_is_forgotten(store: Store) {
    let ana = with_user(&store).await;
    ask(&store, &request(1)).await;
    store.insert_challenge([1; 32], ana, T0 + 1000).await.unwrap();
    for n in 1..=3 {
        store.insert_api_token(&token(n), [n; 32], 9).await.unwrap();
    }
    store.revoke_api_token(ana, token(1).token_id, T0 + 500).await.unwrap();
    store.forget_ended_signins(T0).await.unwrap();
    assert!(store.device_request([101; 32]).await.unwrap().is_some());
    assert!(store.api_token([1; 32]).await.unwrap().is_some() && store.api_token([3; 32]).await.unwrap().is_some());
    store.forget_ended_signins(T0 + 2000).await.unwrap();
    assert!(store.api_token([1; 32]).await.unwrap().is_none() && store.api_token([3; 32]).await.unwrap().is_none());
    assert!(store.api_token([2; 32]).await.unwrap().is_some(), "one without an end stays");
    assert_eq!(store.take_attempt([1; 32], T0, 9).await.unwrap(), None);
    store.forget_ended_signins(T0 + 600_001).await.unwrap();
    assert_eq!(store.device_request([101; 32]).await.unwrap(), None);
}
