//! The rules of accounts, over a real store and a clock that the test moves.

use super::*;
use crate::clock::ManualClock;
use crate::service::{Kind, UserRole};
use crate::store::MetaStore;
use crate::store::accounts::{User, UserChange};
use crate::store::testing::{Db, on_each_store};

const T0: i64 = 1_800_000_000_000;
const PASSWORD: &str = "correct horse";

struct World {
    accounts: Arc<Accounts>,
    clock: ManualClock,
    db: Arc<dyn MetaStore>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn on(kind: Db) -> Self {
        Self::with_on(kind, Auth::default()).await
    }

    async fn with_on(kind: Db, policy: Auth) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = kind.store(&dir).await;
        let clock = ManualClock::at(T0);
        let accounts = open(&dir, &policy, &db, &clock).await;
        Self { accounts: Arc::new(accounts), clock, db, _dir: dir }
    }

    async fn user(&self, email: &str) -> User {
        self.accounts.add_user(NewUser { email, name: None, password: PASSWORD }, UserRole::User).await.unwrap()
    }

    async fn login(&self, email: &str, device: Option<u8>) -> TokenSet {
        self.accounts.login(email, PASSWORD, device.map(intro).as_ref(), ip(1)).await.unwrap()
    }

    async fn kind(&self, token: &str) -> Option<Kind> {
        self.accounts.authenticate(token).await.err().map(|e| e.kind())
    }
}

async fn open(dir: &tempfile::TempDir, policy: &Auth, db: &Arc<dyn MetaStore>, clock: &ManualClock) -> Accounts {
    let (db, clock) = (db.clone(), Arc::new(clock.clone()));
    let shared = Shared::local([7; 32]);
    let peers = Peers::open(dir.path(), policy, db.clone(), shared.clone(), clock.clone()).unwrap();
    Accounts::open(dir.path(), policy, db, Arc::new(peers), shared, clock).await.unwrap()
}

fn intro(n: u8) -> DeviceIntro {
    DeviceIntro { name: format!("device {n}"), public_key: hex::encode([n; 32]) }
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, n, 1])
}

on_each_store!(a_login_gives_tokens_for_user_and_device);

async fn a_login_gives_tokens_for_user_and_device(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("Ana@Example.org").await;
    let set = world.login(" ana@example.ORG ", Some(1)).await;
    assert_eq!((set.user_id, set.device_id), (user.user_id, Some(DeviceId::of_public_key(&[1; 32]))));
    let caller = world.accounts.authenticate(&set.access_token).await.unwrap();
    assert_eq!((caller.user_id, caller.device_id, caller.role), (set.user_id, set.device_id, UserRole::User));
    assert_eq!(world.login("ana@example.org", None).await.device_id, None);
    world.clock.advance_ms(15 * 60_000);
    assert_eq!(world.kind(&set.access_token).await, Some(Kind::Unauthenticated));
}

on_each_store!(unknown_and_wrong_have_one_answer);

async fn unknown_and_wrong_have_one_answer(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let answer = |email: &'static str, password: &'static str, n| {
        let accounts = world.accounts.clone();
        async move {
            let e = accounts.login(email, password, None, ip(n)).await.unwrap_err();
            (e.kind(), e.code(), e.detail().to_owned(), e.hint_text().map(str::to_owned))
        }
    };
    let wrong = answer("ana@example.org", "wrong horse", 1).await;
    assert_eq!(wrong.1, "wrong_credentials");
    assert_eq!(wrong, answer("bob@example.org", "wrong horse", 2).await);
    assert_eq!(wrong, answer("not an address", "", 3).await);
}

on_each_store!(a_bcrypt_hash_is_taken_once_and_replaced);

async fn a_bcrypt_hash_is_taken_once_and_replaced(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("ana@example.org").await;
    let old = bcrypt::hash(PASSWORD, 4).unwrap();
    world.db.replace_password(user.user_id, &user.password_hash, &old).await.unwrap();
    world.login("ana@example.org", None).await;
    let stored = world.accounts.user(user.user_id).await.unwrap().password_hash;
    assert!(stored.starts_with("$argon2id$"));
    world.login("ana@example.org", None).await;
}

on_each_store!(guessing_is_slowed_and_the_owner_gets_in);

async fn guessing_is_slowed_and_the_owner_gets_in(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    world.login("ana@example.org", None).await;
    let mut kinds = Vec::new();
    for _ in 0..11 {
        kinds.push(world.accounts.login("ana@example.org", "wrong horse", None, ip(66)).await.unwrap_err());
    }
    assert!(kinds[..5].iter().all(|e| e.kind() == Kind::Unauthenticated));
    assert!(kinds[5..].iter().all(|e| e.kind() == Kind::TooMany && e.retry_after_s() > Some(0)));
    assert_eq!(world.accounts.login("ana@example.org", PASSWORD, None, ip(66)).await.unwrap_err().kind(), Kind::TooMany);
    world.login("ana@example.org", None).await;
    world.clock.advance_ms(60_000);
    assert!(world.accounts.login("ana@example.org", PASSWORD, None, ip(66)).await.is_ok(), "no pause is for ever");
}

on_each_store!(good_logins_are_never_too_many);

async fn good_logins_are_never_too_many(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    for n in 0..8 {
        world.login("ana@example.org", Some(n + 1)).await;
    }
}

on_each_store!(refreshing_goes_on_and_a_stolen_token_ends_it);

async fn refreshing_goes_on_and_a_stolen_token_ends_it(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let first = world.login("ana@example.org", Some(1)).await;
    let other = world.login("ana@example.org", Some(2)).await;
    let refresh = |token: String| {
        let accounts = world.accounts.clone();
        async move { accounts.refresh(&token, ip(1)).await }
    };
    let second = refresh(first.refresh_token.clone()).await.unwrap();
    let parallel = refresh(first.refresh_token.clone()).await.unwrap();
    assert_ne!(second.refresh_token, parallel.refresh_token);
    world.clock.advance_ms(60_000);
    let third = refresh(second.refresh_token.clone()).await.unwrap();
    assert!(world.kind(&third.access_token).await.is_none());
    assert_eq!(refresh(first.refresh_token).await.unwrap_err().code(), "session_ended");
    for token in [&third.access_token, &second.access_token, &parallel.access_token] {
        assert_eq!(world.kind(token).await, Some(Kind::Unauthenticated), "the family is revoked at once");
    }
    assert!(refresh(third.refresh_token).await.is_err());
    assert!(refresh(other.refresh_token).await.is_ok(), "other logins of the user go on");
}

on_each_store!(tokens_of_another_kind_are_refused);

async fn tokens_of_another_kind_are_refused(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let set = world.login("ana@example.org", None).await;
    assert!(world.accounts.refresh(&set.access_token, ip(1)).await.is_err());
    assert!(world.accounts.refresh("", ip(1)).await.is_err());
    assert_eq!(world.kind(&set.refresh_token).await, Some(Kind::Unauthenticated));
}

on_each_store!(a_login_ends_sixty_days_after_its_last_use);

async fn a_login_ends_sixty_days_after_its_last_use(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let set = world.login("ana@example.org", None).await;
    world.clock.advance_ms(59 * 24 * 3600 * 1000);
    let set = world.accounts.refresh(&set.refresh_token, ip(1)).await.unwrap();
    world.clock.advance_ms(59 * 24 * 3600 * 1000);
    let set = world.accounts.refresh(&set.refresh_token, ip(1)).await.unwrap();
    world.clock.advance_ms(60 * 24 * 3600 * 1000);
    assert!(world.accounts.refresh(&set.refresh_token, ip(1)).await.is_err());
}

on_each_store!(what_is_revoked_is_dead_at_once_here_and_soon_elsewhere);

async fn what_is_revoked_is_dead_at_once_here_and_soon_elsewhere(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("ana@example.org").await;
    let elsewhere = open(&world._dir, &Auth::default(), &world.db, &world.clock).await;
    let set = world.login("ana@example.org", Some(1)).await;
    assert!(elsewhere.authenticate(&set.access_token).await.is_ok());
    assert!(world.kind(&set.access_token).await.is_none());
    world.accounts.revoke_device(user.user_id, set.device_id.unwrap()).await.unwrap();
    assert_eq!(world.kind(&set.access_token).await, Some(Kind::Unauthenticated));
    world.clock.advance_ms(CACHE_MS);
    assert!(elsewhere.authenticate(&set.access_token).await.is_err());
    assert!(world.accounts.refresh(&set.refresh_token, ip(1)).await.is_err());
    let again = world.accounts.login("ana@example.org", PASSWORD, Some(&intro(1)), ip(1)).await.unwrap_err();
    assert_eq!(again.code(), "device_revoked");
}

on_each_store!(logout_password_change_lock_and_deletion_end_tokens);

async fn logout_password_change_lock_and_deletion_end_tokens(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("ana@example.org").await;
    let (a, b, c) = (
        world.login("ana@example.org", None).await,
        world.login("ana@example.org", None).await,
        world.login("ana@example.org", None).await,
    );
    let caller = |set: &TokenSet| {
        let (accounts, token) = (world.accounts.clone(), set.access_token.clone());
        async move { accounts.authenticate(&token).await.unwrap() }
    };
    world.accounts.logout(&caller(&a).await).await.unwrap();
    assert!(world.kind(&a.access_token).await.is_some() && world.kind(&b.access_token).await.is_none());
    let b_caller = caller(&b).await;
    assert_eq!(world.accounts.change_password(&b_caller, "wrong horse", "new password", ip(1)).await.unwrap_err().code(), "wrong_password");
    world.accounts.change_password(&b_caller, PASSWORD, "new password", ip(1)).await.unwrap();
    assert!(world.kind(&b.access_token).await.is_none() && world.kind(&c.access_token).await.is_some());
    assert!(world.accounts.login("ana@example.org", PASSWORD, None, ip(2)).await.is_err());
    world.accounts.update_user(user.user_id, &UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    assert!(world.kind(&b.access_token).await.is_some());
    let locked = world.accounts.login("ana@example.org", "new password", None, ip(3)).await.unwrap_err();
    assert_eq!(locked.code(), "account_disabled");
    world.accounts.update_user(user.user_id, &UserChange { disabled: Some(false), ..UserChange::default() }).await.unwrap();
    let d = world.accounts.login("ana@example.org", "new password", None, ip(3)).await.unwrap();
    world.accounts.delete_user(user.user_id).await.unwrap();
    assert!(world.kind(&d.access_token).await.is_some());
}

on_each_store!(registration_obeys_the_policy);

async fn registration_obeys_the_policy(kind: Db) {
    let new = |email| NewUser { email, name: None, password: PASSWORD };
    let world = World::on(kind).await;
    assert_eq!(world.accounts.register(new("a@x"), None, ip(1)).await.unwrap_err().code(), "registration_closed");
    let world = World::with_on(kind, Auth { registration: Registration::Open, ..Auth::default() }).await;
    assert_eq!(world.accounts.register(new("a@x"), None, ip(1)).await.unwrap().role, UserRole::User);
    assert_eq!(world.accounts.register(new("A@X"), None, ip(1)).await.unwrap_err().code(), "email_taken");
    assert_eq!(world.accounts.register(new("admin"), None, ip(1)).await.unwrap_err().kind(), Kind::Invalid);
    let short = NewUser { password: "short", ..new("b@x") };
    assert_eq!(world.accounts.register(short, None, ip(1)).await.unwrap_err().code(), "password_too_short");
    let world = World::with_on(kind, Auth { registration: Registration::Invite, ..Auth::default() }).await;
    assert_eq!(world.accounts.register(new("a@x"), None, ip(1)).await.unwrap_err().code(), "invitation_needed");
    let invite = world.accounts.create_invite().await.unwrap().secret;
    assert!(world.accounts.register(new("a@x"), Some("wrong"), ip(1)).await.is_err());
    assert!(world.accounts.register(new("a@x"), Some(&invite), ip(1)).await.is_ok());
    assert_eq!(world.accounts.register(new("b@x"), Some(&invite), ip(1)).await.unwrap_err().code(), "code_used");
}

on_each_store!(an_invitation_is_listed_and_taken_back);

async fn an_invitation_is_listed_and_taken_back(kind: Db) {
    let new = |email| NewUser { email, name: None, password: PASSWORD };
    let world = World::with_on(kind, Auth { registration: Registration::Invite, ..Auth::default() }).await;
    let (one, two) = (world.accounts.create_invite().await.unwrap(), world.accounts.create_invite_for(60_000).await.unwrap());
    let listed = world.accounts.invites().await.unwrap();
    assert_eq!(listed.len(), 2);
    let short = listed.iter().find(|i| i.expires_at_ms == two.expires_at_ms).unwrap();
    assert!(!one.secret.contains(&short.id) && !two.secret.contains(&short.id));
    world.accounts.revoke_invite(&short.id).await.unwrap();
    assert_eq!(world.accounts.revoke_invite(&short.id).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.accounts.register(new("a@x"), Some(&two.secret), ip(1)).await.unwrap_err().code(), "code_unknown");
    world.accounts.register(new("a@x"), Some(&one.secret), ip(1)).await.unwrap();
    assert_eq!(world.accounts.invites().await.unwrap(), []);
    let by_code = world.accounts.create_invite().await.unwrap();
    world.accounts.revoke_invite(&by_code.secret).await.unwrap();
    for wrong in [0, -1, i64::MAX] {
        assert_eq!(world.accounts.create_invite_for(wrong).await.unwrap_err().code(), "invalid_expiry");
    }
}

on_each_store!(of_two_first_administrators_one_wins);

async fn of_two_first_administrators_one_wins(kind: Db) {
    let world = World::on(kind).await;
    let code = world.accounts.create_setup_code().await.unwrap().unwrap().secret;
    let new = |email| NewUser { email, name: None, password: PASSWORD };
    assert_eq!(world.accounts.setup("00000-00000-00000-00000-00000", new("a@x"), ip(2)).await.unwrap_err().code(), "code_unknown");
    let (a, b) = tokio::join!(world.accounts.setup(&code, new("a@x"), ip(1)), world.accounts.setup(&code, new("b@x"), ip(1)));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    let won = won.unwrap();
    assert_eq!(won.role, UserRole::Admin);
    assert_eq!(lost.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(world.accounts.create_setup_code().await.unwrap(), None);
    for change in
        [UserChange { disabled: Some(true), ..UserChange::default() }, UserChange { role: Some(UserRole::User), ..UserChange::default() }]
    {
        assert_eq!(world.accounts.update_user(won.user_id, &change).await.unwrap_err().code(), "last_admin");
    }
    assert_eq!(world.accounts.delete_user(won.user_id).await.unwrap_err().code(), "last_admin");
}

on_each_store!(a_join_code_brings_one_device_in);

async fn a_join_code_brings_one_device_in(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("ana@example.org").await;
    let code = world.accounts.create_join_code(user.user_id).await.unwrap();
    let bad = DeviceIntro { public_key: "00".into(), ..intro(1) };
    assert_eq!(world.accounts.join(&code.secret, &bad, ip(1)).await.unwrap_err().code(), "invalid_device_key");
    let set = world.accounts.join(&code.secret.to_lowercase(), &intro(1), ip(1)).await.unwrap();
    assert_eq!((set.user_id, set.device_id.is_some()), (user.user_id, true));
    assert_eq!(world.accounts.join(&code.secret, &intro(2), ip(1)).await.unwrap_err().code(), "code_used");
    let late = world.accounts.create_join_code(user.user_id).await.unwrap();
    world.clock.advance_ms(15 * 60_000);
    assert_eq!(world.accounts.join(&late.secret, &intro(2), ip(1)).await.unwrap_err().code(), "code_expired");
    for n in 0..5 {
        let guess = world.accounts.join(&format!("{n}"), &intro(2), ip(9)).await.unwrap_err();
        assert_eq!(guess.kind(), Kind::Unauthenticated);
    }
    assert_eq!(world.accounts.join("x", &intro(2), ip(9)).await.unwrap_err().kind(), Kind::TooMany);
}

on_each_store!(devices_are_their_owners);

async fn devices_are_their_owners(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let bob = world.user("bob@example.org").await;
    let set = world.login("ana@example.org", Some(1)).await;
    let id = set.device_id.unwrap();
    let taken = world.accounts.login("bob@example.org", PASSWORD, Some(&intro(1)), ip(1)).await.unwrap_err();
    assert_eq!(taken.code(), "device_of_another_user");
    assert_eq!(world.accounts.revoke_device(bob.user_id, id).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.accounts.rename_device(bob.user_id, id, "x").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.accounts.rename_device(set.user_id, id, "a\nb").await.unwrap_err().code(), "invalid_device_name");
    assert_eq!(world.accounts.rename_device(set.user_id, id, " Laptop ").await.unwrap().name, "Laptop");
}

on_each_store!(a_reset_code_sets_one_password_and_ends_all_logins);

async fn a_reset_code_sets_one_password_and_ends_all_logins(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("ana@example.org").await;
    let set = world.login("ana@example.org", None).await;
    let code = world.accounts.create_reset_code(user.user_id).await.unwrap().secret;
    assert_eq!(world.accounts.reset_password(&code, "short", ip(1)).await.unwrap_err().kind(), Kind::Invalid);
    world.accounts.reset_password(&code, "new password", ip(1)).await.unwrap();
    assert!(world.kind(&set.access_token).await.is_some());
    assert_eq!(world.accounts.reset_password(&code, "other password", ip(1)).await.unwrap_err().code(), "code_used");
    assert!(world.accounts.login("ana@example.org", "new password", None, ip(1)).await.is_ok());
}

on_each_store!(nothing_secret_is_kept_in_clear);

async fn nothing_secret_is_kept_in_clear(kind: Db) {
    let world = World::on(kind).await;
    let user = world.user("ana@example.org").await;
    let set = world.login("ana@example.org", Some(1)).await;
    let code = world.accounts.create_join_code(user.user_id).await.unwrap().secret;
    world.accounts.refresh(&set.refresh_token, ip(1)).await.unwrap();
    let _ = world.accounts.login("ana@example.org", "wrong horse", None, ip(2)).await;
    world.db.close().await;
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(world._dir.path()).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    for secret in [PASSWORD, "wrong horse", &set.refresh_token, &set.refresh_token[4..], &set.access_token, &code, &code.replace('-', "")] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
    }
}

on_each_store!(a_store_that_does_not_answer_lets_nobody_in);

async fn a_store_that_does_not_answer_lets_nobody_in(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let set = world.login("ana@example.org", None).await;
    world.db.close().await;
    assert_eq!(world.kind(&set.access_token).await, Some(Kind::Unavailable));
    assert_eq!(world.accounts.login("ana@example.org", PASSWORD, None, ip(1)).await.unwrap_err().kind(), Kind::Unavailable);
}

fn whole(world: &World, user: &User) -> Caller {
    let session_id = SessionId::from_bytes([7; 16]);
    let expires_at_ms = world.clock.now_ms() + 1000;
    Caller { user_id: user.user_id, device_id: None, session_id, role: user.role, expires_at_ms, token: None }
}

on_each_store!(a_device_asks_slows_down_and_is_let_in_once);

/// The words of RFC 8628, in the order in which a device hears them.
async fn a_device_asks_slows_down_and_is_let_in_once(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user("ana@example.org").await;
    let codes = world.accounts.request_device(&intro(1), "Linux", ip(1)).await.unwrap();
    let code = |result: ServiceResult<TokenSet>| result.map(|_| "in").unwrap_or_else(|e| e.code());
    let ask = || async { code(world.accounts.redeem_device(&codes.device_code, ip(1)).await) };
    assert_eq!(ask().await, "authorization_pending");
    assert_eq!(ask().await, "slow_down");
    world.clock.advance_ms(9_999);
    assert_eq!(ask().await, "slow_down", "ten seconds now");
    world.clock.advance_ms(15_000);
    assert_eq!(ask().await, "authorization_pending");
    let shown = world.accounts.waiting_device(&codes.user_code, ip(2)).await.unwrap();
    assert_eq!((shown.name.as_str(), shown.system.as_str(), shown.remote_ip.as_str()), ("device 1", "Linux", "10.0.1.1"));
    world.accounts.decide_device(&whole(&world, &ana), &codes.user_code, true, ip(2)).await.unwrap();
    world.clock.advance_ms(15_000);
    assert_eq!(ask().await, "in");
    assert_eq!(ask().await, "invalid_grant");
    assert_eq!(world.accounts.devices(ana.user_id).await.unwrap().len(), 1);
}

on_each_store!(nobody_decides_too_late);

async fn nobody_decides_too_late(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user("ana@example.org").await;
    let codes = world.accounts.request_device(&intro(1), "", ip(1)).await.unwrap();
    world.clock.advance_ms(10 * 60_000);
    assert_eq!(world.accounts.redeem_device(&codes.device_code, ip(1)).await.unwrap_err().code(), "expired_token");
    let late = world.accounts.decide_device(&whole(&world, &ana), &codes.user_code, true, ip(1)).await.unwrap_err();
    assert_eq!(late.kind(), Kind::NotFound);
    // Approved in time and then locked out: nothing.
    let codes = world.accounts.request_device(&intro(2), "", ip(1)).await.unwrap();
    world.accounts.decide_device(&whole(&world, &ana), &codes.user_code, true, ip(1)).await.unwrap();
    world.accounts.update_user(ana.user_id, &UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    assert_eq!(world.accounts.redeem_device(&codes.device_code, ip(1)).await.unwrap_err().code(), "access_denied");
}

on_each_store!(a_browser_is_logged_in_for_a_month);

async fn a_browser_is_logged_in_for_a_month(kind: Db) {
    let world = World::on(kind).await;
    world.user("ana@example.org").await;
    let login = world.accounts.login_browser("ana@example.org", PASSWORD, ip(1)).await.unwrap();
    world.clock.advance_ms(login.max_age_s * 1000 - 1);
    assert!(world.accounts.authenticate_cookie(&login.cookie).await.is_ok());
    world.clock.advance_ms(1);
    assert_eq!(world.accounts.authenticate_cookie(&login.cookie).await.unwrap_err().kind(), Kind::Unauthenticated);
    assert_eq!(world.accounts.authenticate(&login.cookie).await.unwrap_err().kind(), Kind::Unauthenticated, "a cookie is no token");
}

on_each_store!(an_app_password_ends_by_itself_and_with_its_owner);

async fn an_app_password_ends_by_itself_and_with_its_owner(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user("ana@example.org").await;
    let new = |expires_at_ms| NewAppPassword { name: "x".into(), scopes: vec!["dav".into()], folder: None, expires_at_ms };
    let caller = whole(&world, &ana);
    let (ends, _) = world.accounts.create_app_password(&caller, new(Some(T0 + 60_000)), ip(1)).await.unwrap();
    let (stays, _) = world.accounts.create_app_password(&caller, new(None), ip(1)).await.unwrap();
    let refused = |secret: String| {
        let accounts = world.accounts.clone();
        async move { accounts.authenticate_app_password(&secret, None, ip(1)).await.err().map(|e| e.kind()) }
    };
    assert_eq!((refused(ends.clone()).await, refused(stays.clone()).await), (None, None));
    world.clock.advance_ms(60_000);
    assert_eq!((refused(ends).await, refused(stays.clone()).await), (Some(Kind::Unauthenticated), None));
    assert_eq!(world.kind(&stays).await, Some(Kind::Unauthenticated), "it is no access token");
    world.accounts.update_user(ana.user_id, &UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    assert_eq!(refused(stays).await, Some(Kind::Unauthenticated));
}

on_each_store!(an_operator_makes_app_passwords_for_users_that_there_are);

async fn an_operator_makes_app_passwords_for_users_that_there_are(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user("ana@example.org").await;
    let new = || NewAppPassword { name: "backup".into(), scopes: vec!["files:read".into()], folder: None, expires_at_ms: None };
    let (secret, token) = world.accounts.create_app_password_for(ana.user_id, new()).await.unwrap();
    let caller = world.accounts.authenticate_app_password(&secret, None, ip(1)).await.unwrap();
    assert_eq!((caller.user_id, caller.token.unwrap().scopes.names()), (ana.user_id, vec!["files:read"]));
    world.accounts.revoke_app_password(ana.user_id, token.token_id).await.unwrap();
    assert!(world.accounts.authenticate_app_password(&secret, None, ip(1)).await.is_err());
    let nobody = ferry_protocol::UserId::from_bytes([9; 16]);
    assert_eq!(world.accounts.create_app_password_for(nobody, new()).await.unwrap_err().kind(), Kind::NotFound);
}

on_each_store!(guesses_of_a_second_factor_are_counted_for_the_account);

/// The right password alone buys no guesses of the second factor.
async fn guesses_of_a_second_factor_are_counted_for_the_account(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user("ana@example.org").await;
    let new = world.accounts.begin_totp(&whole(&world, &ana), PASSWORD, ip(1)).await.unwrap();
    let secret = totp_rs::Secret::try_from_base32(&new.secret).unwrap();
    let app = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let code = app.generate(T0 as u64 / 1000).to_string();
    world.accounts.confirm_totp(&whole(&world, &ana), &code, ip(1)).await.unwrap();
    let mut kinds = Vec::new();
    for n in 0..12 {
        let asked = world.accounts.login("ana@example.org", PASSWORD, None, ip(100 + n)).await.unwrap_err();
        if asked.code() != "mfa_required" {
            kinds.push(asked.kind());
            continue;
        }
        let token = asked.extra()["mfa_token"].as_str().unwrap().to_owned();
        kinds.push(world.accounts.login_mfa(&token, "000000", None, ip(100 + n)).await.unwrap_err().kind());
    }
    assert!(kinds.contains(&Kind::TooMany), "{kinds:?}");
}

on_each_store!(of_many_codes_at_once_few_are_compared);

/// Forty-nine wrong codes and the right one behind them, all at once: no more are compared than may fail in a minute, and the right one is not among them.
async fn of_many_codes_at_once_few_are_compared(kind: Db) {
    let world = World::on(kind).await;
    let ana = whole(&world, &world.user("ana@example.org").await);
    let new = world.accounts.begin_totp(&ana, PASSWORD, ip(1)).await.unwrap();
    let secret = totp_rs::Secret::try_from_base32(&new.secret).unwrap();
    let app = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let code = |after_s: u64| app.generate(T0 as u64 / 1000 + after_s).to_string();
    world.accounts.confirm_totp(&ana, &code(0), ip(1)).await.unwrap();
    let (right, wrong) = (code(30), "not it".to_owned());
    let guess = |n: u8| world.accounts.remove_totp(&ana, if n == 49 { &right } else { &wrong }, ip(1));
    let answers = futures_util::future::join_all((0..50).map(guess)).await;
    let compared = answers.iter().filter(|a| !matches!(a, Err(e) if e.kind() == Kind::TooMany)).count();
    assert_eq!(compared, 5);
    world.clock.advance_ms(60_000);
    world.accounts.remove_totp(&ana, &code(60), ip(1)).await.unwrap();
}
