//! What only time shows, on a clock that tests move; what visitors see is tested over HTTP.

use super::*;
use crate::App;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::service::accounts::NewUser;
use crate::service::{SessionId, UserRole};
use crate::store::testing::{Db, on_each_store};

const START_MS: i64 = 1_795_343_400_000;
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const DAY_MS: i64 = 24 * 3600 * 1000;

struct World {
    app: App,
    clock: ManualClock,
    caller: Caller,
    _dir: tempfile::TempDir,
}

impl World {
    async fn on(kind: Db) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(START_MS);
        let config = Config { data: dir.path().into(), database: kind.config(dir.path()), ..Config::default() };
        let app = App::open_with(&config, Arc::new(clock.clone())).await.unwrap();
        let new = NewUser { email: "ana@example.org", name: None, password: "correct horse" };
        let user = app.accounts.add_user(new, UserRole::User).await.unwrap();
        let caller = Caller {
            user_id: user.user_id,
            device_id: None,
            session_id: SessionId::from_bytes([0; 16]),
            role: UserRole::User,
            expires_at_ms: i64::MAX,
            token: None,
        };
        Self { app, clock, caller, _dir: dir }
    }

    async fn link(&self, password: Option<&str>, expires_at_ms: Option<i64>) -> LinkView {
        let new = NewLink {
            namespace: None,
            target: Target::Path(RelPath::root()),
            kind: LinkKind::Download,
            password: password.map(str::to_owned),
            expires_at_ms,
            max_downloads: Some(3),
        };
        self.app.links.create(&self.caller, new).await.unwrap()
    }
}

on_each_store!(a_link_ends_when_it_was_said_to);

async fn a_link_ends_when_it_was_said_to(kind: Db) {
    let world = World::on(kind).await;
    let links = &world.app.links;
    let made = world.link(None, Some(START_MS + 1000)).await;
    let token = made.token.unwrap();
    assert!(links.open(&token, None, HERE).await.is_ok());
    world.clock.advance_ms(999);
    assert!(links.open(&token, None, HERE).await.is_ok());
    world.clock.advance_ms(1);
    assert_eq!(links.open(&token, None, HERE).await.unwrap_err().kind(), Kind::Gone);
    assert_eq!(links.list(&world.caller).await.unwrap()[0].state, LinkState::Expired);
    // Given more time, it opens again; after a month nobody remembers it.
    let later = LinkUpdate { expires_at_ms: Some(Some(START_MS + DAY_MS)), ..LinkUpdate::default() };
    links.change(&world.caller, made.link.link_id, later).await.unwrap();
    assert!(links.open(&token, None, HERE).await.is_ok());
    world.clock.advance_ms(32 * DAY_MS);
    links.forget_ended().await.unwrap();
    assert_eq!(links.open(&token, None, HERE).await.unwrap_err().kind(), Kind::NotFound);
}

on_each_store!(a_password_is_asked_again_after_a_day);

async fn a_password_is_asked_again_after_a_day(kind: Db) {
    let world = World::on(kind).await;
    let links = &world.app.links;
    let token = world.link(Some("open sesame"), None).await.token.unwrap();
    let pass = links.unlock(&token, "open sesame", HERE).await.unwrap();
    assert!(links.open(&token, Some(&pass), HERE).await.is_ok());
    // Nobody gives himself more time.
    let (said, ends) = pass.split_at(MAC_AND_VISITOR);
    let longer = i64::from_str_radix(ends, 16).unwrap() + DAY_MS;
    assert!(links.open(&token, Some(&format!("{said}{longer:x}")), HERE).await.is_err());
    world.clock.advance_ms(VISIT_TTL_MS);
    assert_eq!(links.open(&token, Some(&pass), HERE).await.unwrap_err().code(), "password_required");
}

/// Digits of a pass before its end.
const MAC_AND_VISITOR: usize = 96;

on_each_store!(wrong_passwords_wear_off);

async fn wrong_passwords_wear_off(kind: Db) {
    let world = World::on(kind).await;
    let links = &world.app.links;
    let token = world.link(Some("open sesame"), None).await.token.unwrap();
    for n in 0..20u8 {
        let from = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, n, 1));
        let kind = links.unlock(&token, "wrong wrong", from).await.unwrap_err().kind();
        assert_eq!(kind, if n < 10 { Kind::Unauthenticated } else { Kind::TooMany }, "{n}");
    }
    world.clock.advance_ms(60_000);
    assert!(links.unlock(&token, "open sesame", HERE).await.is_ok());
}

on_each_store!(what_is_sent_for_long_is_asked_about_again);

/// R21: whatever ends a link ends what is being sent through it.
async fn what_is_sent_for_long_is_asked_about_again(kind: Db) {
    let world = World::on(kind).await;
    let links = &world.app.links;
    let watched = async |made: &LinkView| {
        let opened = links.open(made.token.as_ref().unwrap(), None, HERE).await.unwrap();
        let recheck = links.still_open(&opened);
        recheck.ask().await.unwrap();
        recheck
    };
    let ends = world.link(None, Some(START_MS + 1000)).await;
    let recheck = watched(&ends).await;
    world.clock.advance_ms(1000);
    assert_eq!(recheck.ask().await.unwrap_err().kind(), Kind::Gone);
    for update in [
        LinkUpdate { password: Some(Some("open sesame".into())), ..LinkUpdate::default() },
        LinkUpdate { kind: Some(LinkKind::View), ..LinkUpdate::default() },
    ] {
        let made = world.link(None, None).await;
        let recheck = watched(&made).await;
        links.change(&world.caller, made.link.link_id, update).await.unwrap();
        assert_eq!(recheck.ask().await.unwrap_err().kind(), Kind::Gone);
    }
    let made = world.link(None, None).await;
    let (recheck, other) = (watched(&made).await, watched(&world.link(None, None).await).await);
    links.revoke(&world.caller, made.link.link_id).await.unwrap();
    assert_eq!(recheck.ask().await.unwrap_err().kind(), Kind::Gone);
    other.ask().await.unwrap();
    let lock = crate::store::accounts::UserChange { disabled: Some(true), ..Default::default() };
    world.app.accounts.update_user(world.caller.user_id, &lock).await.unwrap();
    assert_eq!(other.ask().await.unwrap_err().kind(), Kind::Gone);
}

on_each_store!(of_many_guesses_at_once_few_are_compared);

/// Forty-nine wrong ones and the right one behind them, all at once: only as many as fit into a minute are compared, and the right one is not among them.
async fn of_many_guesses_at_once_few_are_compared(kind: Db) {
    let world = World::on(kind).await;
    let links = &world.app.links;
    let token = world.link(Some("open sesame"), None).await.token.unwrap();
    let guess = |n: u8| links.unlock(&token, if n == 49 { "open sesame" } else { "wrong wrong" }, HERE);
    let answers = futures_util::future::join_all((0..50).map(guess)).await;
    let compared = answers.iter().filter(|a| !matches!(a, Err(e) if e.kind() == Kind::TooMany)).count();
    assert_eq!(compared, WRONG_PER_MINUTE as usize);
    // Whoever knows it takes no place from the others.
    world.clock.advance_ms(60_000);
    for _ in 0..2 * WRONG_PER_MINUTE {
        links.unlock(&token, "open sesame", HERE).await.unwrap();
    }
    assert_eq!(links.unlock(&token, "wrong wrong", HERE).await.unwrap_err().code(), "wrong_password");
}

on_each_store!(a_user_has_so_many_links);

async fn a_user_has_so_many_links(kind: Db) {
    let world = World::on(kind).await;
    let first = world.link(None, None).await;
    for n in 1..LINKS_MAX {
        let id = u128::from(n).to_be_bytes();
        let row = Link { link_id: id, ..first.link.clone() };
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&id);
        assert!(world.app.db.insert_link(&row, hash, LINKS_MAX).await.unwrap());
    }
    let new = NewLink {
        namespace: None,
        target: Target::Path(RelPath::root()),
        kind: LinkKind::Download,
        password: None,
        expires_at_ms: None,
        max_downloads: None,
    };
    assert_eq!(world.app.links.create(&world.caller, new.clone()).await.unwrap_err().code(), "too_many_links");
    world.app.links.revoke(&world.caller, first.link.link_id).await.unwrap();
    assert!(world.app.links.create(&world.caller, new).await.is_ok());
}

#[test]
fn an_address_is_a_secret() {
    const { assert!(TOKEN_BYTES * 8 >= 128) };
    assert!(is_token("AZaz09-_AZaz09-_AZaz09-_") && !is_token("AZaz09-_AZaz09-_AZaz09-") && !is_token("AZaz09-_AZaz09-_AZaz09-/"));
    assert_ne!(hash_of("a"), hash_of("A"));
}
