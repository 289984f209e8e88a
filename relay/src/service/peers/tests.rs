//! The rules of grants and rendezvous, over real stores and a clock that the test moves.

use super::*;
use crate::clock::ManualClock;
use crate::service::accounts::{Accounts, DeviceIntro, NewUser, TokenSet};
use crate::service::content::{Content, ContentConfig};
use crate::service::{Kind, UserRole};
use crate::store::MetaStore;
use crate::store::accounts::UserChange;
use crate::store::blob_memory::MemoryBlobs;
use crate::store::bus::{Heard, Wakes};
use crate::store::content::Scope;
use crate::store::testing::{Db, on_each_store};
use ferry_protocol::wire::Role;
use libp2p_identity::ed25519::PublicKey;
use std::net::IpAddr;

const T0: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 24 * 3_600_000;
const PASSWORD: &str = "correct horse";
const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct World {
    peers: Arc<Peers>,
    accounts: Accounts,
    content: Content,
    clock: ManualClock,
    db: Arc<dyn MetaStore>,
    wakes: Wakes,
    dir: tempfile::TempDir,
}

impl World {
    async fn on(kind: Db) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = kind.url(dir.path());
        Self::over(dir, kind, &url).await
    }

    async fn over(dir: tempfile::TempDir, kind: Db, url: &str) -> Self {
        let db = kind.open(url).await;
        let (clock, policy, shared) = (ManualClock::at(T0), Auth::default(), Shared::local([7; 32]));
        let (store, time) = (db.clone(), Arc::new(clock.clone()));
        let peers = Arc::new(Peers::open(dir.path(), &policy, store.clone(), shared.clone(), time.clone()).unwrap());
        let accounts = Accounts::open(dir.path(), &policy, store.clone(), peers.clone(), shared.clone(), time.clone()).await.unwrap();
        let blobs = Arc::new(MemoryBlobs::new(time.clone()));
        let content = Content::open(store, blobs, shared.bus.clone(), time, ContentConfig::default(), [7; 32]).await.unwrap();
        Self { peers, accounts, content, clock, db, wakes: shared.bus.subscribe(), dir }
    }

    /// A user with a home and device `n`.
    async fn user(&self, n: u8) -> Device {
        let email = format!("u{n}@example.org");
        self.accounts.add_user(NewUser { email: &email, name: None, password: PASSWORD }, UserRole::User).await.unwrap();
        let device = self.device(&email, n).await;
        self.content.ensure_home(device.caller.user_id).await.unwrap();
        device
    }

    async fn device(&self, email: &str, n: u8) -> Device {
        let intro = DeviceIntro { name: format!("device {n}"), public_key: hex::encode([n; 32]) };
        let tokens = self.accounts.login(email, PASSWORD, Some(&intro), IP).await.unwrap();
        let caller = self.accounts.authenticate(&tokens.access_token).await.unwrap();
        Device { email: email.to_owned(), caller, tokens }
    }

    async fn home(&self, device: &Device) -> NamespaceId {
        self.content.ensure_home(device.caller.user_id).await.unwrap()
    }

    async fn share(&self, namespace: NamespaceId, with: &Device, role: Role) {
        let mut tx = self.db.begin(Scope::Namespace(namespace)).await.unwrap();
        tx.set_member(namespace, with.caller.user_id, role, T0).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn announce(&self, device: &Device, addresses: &[&str]) -> Announcement {
        self.announce_knowing(device, addresses, &BTreeMap::new()).await
    }

    async fn announce_knowing(&self, device: &Device, addresses: &[&str], known: &BTreeMap<NamespaceId, u64>) -> Announcement {
        let addresses: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
        self.peers.announce(&device.caller, &addresses, known).await.unwrap()
    }

    /// The grant of a namespace as this device gets it, checked as a device checks it.
    async fn grant(&self, device: &Device, namespace: NamespaceId) -> Option<Grant> {
        let answer = self.announce(device, &[]).await;
        let (_, signed) = answer.grants.into_iter().find(|(id, _)| *id == namespace)?;
        let key = PublicKey::try_from_bytes(&hex::decode(&device.tokens.grant_key).unwrap()).unwrap();
        let grant = signed.open(|message, signature| key.verify(message, signature)).unwrap();
        assert_eq!(grant.namespace, namespace);
        Some(grant)
    }

    /// Which namespaces were woken about their devices since the last call, and by whom.
    fn woken(&mut self) -> Vec<(NamespaceId, Option<DeviceId>)> {
        let mut list = Vec::new();
        while let Some(heard) = self.wakes.next_now() {
            if let Heard::Wake(Wake::Peers { namespace, by }) = heard {
                list.push((namespace, by));
            }
        }
        list
    }
}

struct Device {
    email: String,
    caller: Caller,
    tokens: TokenSet,
}

impl Device {
    fn id(&self) -> DeviceId {
        self.caller.device_id.unwrap()
    }
}

fn roles(grant: &Grant) -> BTreeMap<DeviceId, Role> {
    grant.members.iter().map(|m| (m.device, m.role)).collect()
}

on_each_store!(a_grant_lists_the_devices_of_all_members_with_their_roles);

async fn a_grant_lists_the_devices_of_all_members_with_their_roles(kind: Db) {
    let world = World::on(kind).await;
    let (ana, bob, mal) = (world.user(1).await, world.user(2).await, world.user(3).await);
    let phone = world.device(&ana.email, 4).await;
    let home = world.home(&ana).await;
    world.share(home, &bob, Role::Viewer).await;
    let grant = world.grant(&bob, home).await.unwrap();
    assert_eq!(roles(&grant), [(ana.id(), Role::Owner), (phone.id(), Role::Owner), (bob.id(), Role::Viewer)].into());
    assert_eq!(grant.member(phone.id()).unwrap().name, "device 4");
    assert_eq!((grant.issued_ms, grant.expires_ms), (T0, T0 + 7 * DAY_MS));
    let of_mal = world.announce(&mal, &[]).await;
    assert_eq!(of_mal.grants.iter().map(|g| g.0).collect::<Vec<_>>(), [world.home(&mal).await], "a stranger hears of nothing else");
}

on_each_store!(everybody_gets_the_same_bytes_until_they_are_renewed);

async fn everybody_gets_the_same_bytes_until_they_are_renewed(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user(1).await;
    let phone = world.device(&ana.email, 2).await;
    let first = world.announce(&ana, &[]).await.grants;
    assert_eq!(world.announce(&phone, &["10.0.0.1:1"]).await.grants, first);
    world.clock.advance_ms(7 * DAY_MS / 8 - 1);
    assert_eq!(world.announce(&phone, &[]).await.grants, first);
    world.clock.advance_ms(1);
    let (before, home) = (world.peers.clock.now_ms(), world.home(&ana).await);
    let renewed = world.grant(&phone, home).await.unwrap();
    assert_eq!((renewed.epoch, renewed.issued_ms), (T0 as u64, before));
    assert_eq!(renewed.expires_ms, before + 7 * DAY_MS);
}

on_each_store!(who_may_no_longer_take_part_is_not_in_the_next_grant);

async fn who_may_no_longer_take_part_is_not_in_the_next_grant(kind: Db) {
    let world = World::on(kind).await;
    let (ana, bob) = (world.user(1).await, world.user(2).await);
    let home = world.home(&ana).await;
    world.share(home, &bob, Role::Editor).await;
    let phone = world.device(&ana.email, 3).await;
    let tablet = world.device(&ana.email, 4).await;
    let mut last = world.grant(&ana, home).await.unwrap();
    assert_eq!(last.members.len(), 4);
    let mut shrinks = async |gone: DeviceId| {
        let next = world.grant(&ana, home).await.unwrap();
        assert!(next.epoch > last.epoch && next.member(gone).is_none() && next.members.len() + 1 == last.members.len());
        last = next;
    };
    world.accounts.revoke_device(ana.caller.user_id, phone.id()).await.unwrap();
    shrinks(phone.id()).await;
    let change = UserChange { disabled: Some(true), ..UserChange::default() };
    world.accounts.update_user(bob.caller.user_id, &change).await.unwrap();
    shrinks(bob.id()).await;
    world.accounts.logout(&tablet.caller).await.unwrap();
    shrinks(tablet.id()).await;
    let again = world.device(&ana.email, 4).await;
    let back = world.grant(&ana, home).await.unwrap();
    assert!(back.epoch > last.epoch && back.member(again.id()).is_some(), "logged in again");
}

#[tokio::test]
async fn a_restored_relay_goes_above_the_epochs_of_its_lost_life() {
    let world = World::on(Db::Sqlite).await;
    let ana = world.user(1).await;
    let home = world.home(&ana).await;
    world.grant(&ana, home).await.unwrap();
    for end in ["", "-wal"] {
        std::fs::copy(world.dir.path().join(format!("relay.db{end}")), world.dir.path().join(format!("backup{end}"))).unwrap();
    }
    let phone = world.device(&ana.email, 2).await;
    world.clock.advance_ms(1000);
    let lost = world.grant(&phone, home).await.unwrap();
    let restored = {
        let url = world.dir.path().join("backup").display().to_string();
        World::over(world.dir, Db::Sqlite, &url).await
    };
    assert!(restored.grant(&ana, home).await.unwrap().epoch <= lost.epoch);
    let answer = restored.announce_knowing(&ana, &[], &[(home, lost.epoch)].into()).await;
    let grant = answer.grants[0].1.open(|_, _| true).unwrap();
    assert_eq!(grant.epoch, lost.epoch + 1);
    assert_eq!(restored.grant(&ana, home).await.unwrap(), grant, "it is remembered");
    let stranger = restored.user(9).await;
    restored.announce_knowing(&stranger, &[], &[(home, grant.epoch + 7)].into()).await;
    assert_eq!(restored.grant(&ana, home).await.unwrap(), grant, "what a stranger claims changes nothing");
}

on_each_store!(devices_of_a_common_namespace_find_each_other);

async fn devices_of_a_common_namespace_find_each_other(kind: Db) {
    let world = World::on(kind).await;
    let (ana, bob, mal) = (world.user(1).await, world.user(2).await, world.user(3).await);
    world.share(world.home(&ana).await, &bob, Role::Viewer).await;
    assert!(world.announce(&ana, &["192.168.1.5:4711", "[fe80::1%eth0]:4711", "127.0.0.1:4711"]).await.peers.is_empty());
    let seen = world.announce(&bob, &["10.0.0.2:1"]).await.peers;
    assert_eq!((seen.len(), seen[0].device_id, seen[0].name.as_str()), (1, ana.id(), "device 1"));
    assert_eq!(seen[0].at.addresses, ["192.168.1.5:4711".parse().unwrap(), "[fe80::1]:4711".parse().unwrap()]);
    assert!(world.announce(&mal, &["10.0.0.3:1"]).await.peers.is_empty());
    assert_eq!(world.peers.peers(&ana.caller).await.unwrap()[0].device_id, bob.id());
    world.announce(&ana, &[]).await;
    assert!(world.peers.peers(&bob.caller).await.unwrap().is_empty(), "withdrawn");
    world.clock.advance_ms(FRESH_MS);
    assert!(world.peers.peers(&ana.caller).await.unwrap().is_empty(), "not heard of for long");
}

on_each_store!(the_others_hear_of_what_is_new_only);

async fn the_others_hear_of_what_is_new_only(kind: Db) {
    let mut world = World::on(kind).await;
    let ana = world.user(1).await;
    let (home, by) = (world.home(&ana).await, Some(ana.id()));
    world.woken();
    world.announce(&ana, &["10.0.0.1:1"]).await;
    assert_eq!(world.woken(), [(home, by)]);
    for _ in 0..20 {
        world.announce(&ana, &["10.0.0.1:1"]).await;
        world.clock.advance_ms(30_000);
    }
    assert_eq!(world.woken(), [], "it comes to rest");
    world.announce(&ana, &["10.0.0.2:1"]).await;
    assert_eq!(world.woken(), [(home, by)]);
    world.clock.advance_ms(FRESH_MS + 1);
    world.announce(&ana, &["10.0.0.2:1"]).await;
    assert_eq!(world.woken(), [(home, by)], "back after a while");
    world.announce(&ana, &[]).await;
    world.announce(&ana, &[]).await;
    assert_eq!(world.woken(), [(home, by)], "gone");
}

on_each_store!(the_others_hear_of_devices_that_come_and_go);

async fn the_others_hear_of_devices_that_come_and_go(kind: Db) {
    let mut world = World::on(kind).await;
    let (ana, bob) = (world.user(1).await, world.user(2).await);
    let home = world.home(&ana).await;
    world.share(home, &bob, Role::Editor).await;
    world.woken();
    let phone = world.device(&ana.email, 3).await;
    assert_eq!(world.woken(), [(home, None)]);
    world.accounts.rename_device(ana.caller.user_id, phone.id(), "new name").await.unwrap();
    assert_eq!(world.woken(), [(home, None)]);
    world.accounts.revoke_device(ana.caller.user_id, phone.id()).await.unwrap();
    assert_eq!(world.woken(), [(home, None)]);
    world.accounts.delete_user(bob.caller.user_id).await.unwrap();
    assert!(world.woken().contains(&(home, None)));
    world.accounts.login(&ana.email, PASSWORD, None, IP).await.unwrap();
    assert_eq!(world.woken(), [], "a browser is no device");
}

on_each_store!(too_much_is_refused);

async fn too_much_is_refused(kind: Db) {
    let world = World::on(kind).await;
    let ana = world.user(1).await;
    let announce = async |addresses: &[&str], known: &BTreeMap<NamespaceId, u64>| {
        let addresses: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
        world.peers.announce(&ana.caller, &addresses, known).await.err().map(|e| (e.kind(), e.code()))
    };
    assert_eq!(announce(&["10.0.0.1:1"; 33], &BTreeMap::new()).await, Some((Kind::Invalid, "too_many_addresses")));
    assert_eq!(announce(&["localhost:1"], &BTreeMap::new()).await, Some((Kind::Invalid, "invalid_address")));
    let many = (0..=NAMESPACES_MAX).map(|n| (NamespaceId::from_bytes(u128::from(n).to_be_bytes()), 1)).collect();
    assert_eq!(announce(&[], &many).await, Some((Kind::Invalid, "too_many_epochs")));
    while announce(&[], &BTreeMap::new()).await.is_none() {}
    assert_eq!(announce(&[], &BTreeMap::new()).await, Some((Kind::TooMany, "too_many_requests")));
    world.clock.advance_ms(60_000);
    assert_eq!(announce(&[], &BTreeMap::new()).await, None);
    let browser = Caller { device_id: None, ..ana.caller };
    assert_eq!(world.peers.announce(&browser, &[], &BTreeMap::new()).await.unwrap_err().kind(), Kind::Unauthenticated);
}

on_each_store!(the_key_stays_and_a_foreign_file_stops_the_start);

async fn the_key_stays_and_a_foreign_file_stops_the_start(kind: Db) {
    let world = World::on(kind).await;
    let key = world.peers.grant_key();
    let open = |dir: &Path| {
        Peers::open(dir, &Auth::default(), world.db.clone(), Shared::local([7; 32]), Arc::new(world.clock.clone())).map(|p| p.grant_key())
    };
    assert_eq!(open(world.dir.path()).unwrap(), key);
    keyfile::write(&world.dir.path().join("grant.key"), b"no key").unwrap();
    assert!(open(world.dir.path()).unwrap_err().to_string().contains("grant key"));
}
