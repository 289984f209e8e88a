//! What every [`ShareStore`] must do, run against each implementation (R6).

use super::*;
use crate::service::UserRole;
use crate::store::MetaStore;
use crate::store::accounts::User;
use crate::store::content::{NamespaceRow, Scope};
use crate::store::testing::{Db, on_each_kind};
use ferry_protocol::{DeviceId, ReplicaId};

const T0: i64 = 1_800_000_000_000;
const MANY: InviteBounds = InviteBounds { here: 100, open: 100 };

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn namespace(n: u8) -> NamespaceId {
    NamespaceId::from_bytes([n; 16])
}

fn file(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

/// Users 1 to 3, each with a home namespace of its own number.
async fn filled(store: &dyn MetaStore) {
    for n in 1..=3u8 {
        let email = format!("u{n}@example.org");
        let row = User {
            user_id: user(n),
            email: email.clone(),
            email_key: email,
            name: format!("name {n}"),
            password_hash: "!".into(),
            role: UserRole::User,
            storage_used_bytes: 0,
            storage_limit_bytes: None,
            disabled: false,
            created_at_ms: T0,
        };
        assert!(store.insert_user(&row).await.unwrap());
        let run = Some(ReplicaId::from_bytes([3; 16]));
        let (id, owner, name) = (namespace(n), user(n), format!("N{n}"));
        let row = NamespaceRow { id, owner, name, is_home: true, head_seq: 0, settled_seq: 0, max_counter: 0, run, role: Role::Owner };
        let mut tx = store.begin(Scope::Owner(owner)).await.unwrap();
        tx.create_namespace(&row, T0).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// An invitation of user 1 into namespace 1, or to a file of it.
fn invitation(id: u8, file: Option<NodeId>, email: &str, role: Role) -> Invitation {
    Invitation {
        share_id: [id; 16],
        namespace: namespace(1),
        file,
        email: email.to_uppercase(),
        email_key: email.into(),
        role,
        invited_by: user(1),
        created_at_ms: T0 + i64::from(id),
    }
}

on_each_kind!(invitations_wait_for_an_address);

async fn invitations_wait_for_an_address(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let store = kind.store(&dir).await;
    filled(&*store).await;
    let (bob, nobody) = (invitation(1, None, "u2@example.org", Role::Viewer), invitation(2, None, "nobody@example.org", Role::Editor));
    for one in [&bob, &nobody] {
        assert_eq!(store.invite(one, MANY).await.unwrap(), Invited::Stored(one.share_id));
        assert_eq!(store.invitation(one.share_id).await.unwrap().as_ref(), Some(one));
    }
    // The same again, under another id: one invitation, with the new role.
    let again = invitation(3, None, "u2@example.org", Role::Editor);
    assert_eq!(store.invite(&again, MANY).await.unwrap(), Invited::Stored(bob.share_id));
    let bob = Invitation { role: Role::Editor, ..bob };
    assert_eq!(store.invitations_to("u2@example.org", 10).await.unwrap(), std::slice::from_ref(&bob));
    let of_file = invitation(4, Some(file(9)), "u2@example.org", Role::Viewer);
    assert_eq!(store.invite(&of_file, MANY).await.unwrap(), Invited::Stored(of_file.share_id), "a file is something else");
    let all = [bob.clone(), nobody.clone(), of_file];
    assert_eq!(store.invitations_of(Of::Namespace(namespace(1)), 10).await.unwrap(), all);
    assert_eq!(store.invitations_of(Of::Owner(user(1)), 2).await.unwrap(), all[..2]);
    assert_eq!(store.invitations_of(Of::Owner(user(2)), 10).await.unwrap(), []);
    assert!(store.set_invitation_role(bob.share_id, Role::Viewer).await.unwrap());
    assert_eq!(store.invitation(bob.share_id).await.unwrap().unwrap().role, Role::Viewer);
    assert!(store.drop_invitation(bob.share_id).await.unwrap());
    assert!(!store.drop_invitation(bob.share_id).await.unwrap() && !store.set_invitation_role(bob.share_id, Role::Editor).await.unwrap());
    assert_eq!(store.take_invitation(bob.share_id, user(2), T0).await.unwrap(), None, "what was withdrawn gives nothing");
    assert_eq!(store.members(namespace(1)).await.unwrap(), [(user(1), Role::Owner)]);
    // With its inviter an invitation goes.
    assert!(store.delete_user(user(1)).await.unwrap());
    assert_eq!(store.invitation(nobody.share_id).await.unwrap(), None);
    assert_eq!(store.invitations_to("u2@example.org", 10).await.unwrap(), []);
}

on_each_kind!(invitations_have_bounds);

async fn invitations_have_bounds(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let store = kind.store(&dir).await;
    filled(&*store).await;
    let here = InviteBounds { here: 3, open: 100 };
    let one = |n: u8, file| invitation(n, file, &format!("p{n}@example.org"), Role::Viewer);
    // The owner is one of them.
    for n in [1, 2] {
        assert_eq!(store.invite(&one(n, None), here).await.unwrap(), Invited::Stored([n; 16]));
    }
    assert_eq!(store.invite(&one(3, None), here).await.unwrap(), Invited::FullHere);
    assert_eq!(store.invite(&one(2, None), here).await.unwrap(), Invited::Stored([2; 16]), "that is there already");
    for n in [4, 5, 6] {
        assert_eq!(store.invite(&one(n, Some(file(1))), here).await.unwrap(), Invited::Stored([n; 16]));
    }
    assert_eq!(store.invite(&one(7, Some(file(1))), here).await.unwrap(), Invited::FullHere);
    assert_eq!(store.invite(&one(7, Some(file(2))), here).await.unwrap(), Invited::Stored([7; 16]));
    let open = InviteBounds { here: 100, open: 6 };
    assert_eq!(store.invite(&one(8, Some(file(3))), open).await.unwrap(), Invited::FullForUser);
    assert!(store.drop_invitation([7; 16]).await.unwrap());
    assert_eq!(store.invite(&one(8, Some(file(3))), open).await.unwrap(), Invited::Stored([8; 16]));
}

on_each_kind!(what_is_taken_is_a_membership);

async fn what_is_taken_is_a_membership(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let store = kind.store(&dir).await;
    filled(&*store).await;
    let ns = namespace(1);
    let open = invitation(1, None, "u2@example.org", Role::Editor);
    store.invite(&open, MANY).await.unwrap();
    assert_eq!(store.take_invitation(open.share_id, user(2), T0 + 50).await.unwrap().as_ref(), Some(&open));
    assert_eq!(store.take_invitation(open.share_id, user(3), T0 + 50).await.unwrap(), None, "once");
    let rows = store.members_of(Of::Namespace(ns), 10).await.unwrap();
    let short: Vec<_> = rows.iter().map(|m| (m.user, m.email.as_str(), m.name.as_str(), m.role, m.created_at_ms)).collect();
    let expected = [(user(1), "u1@example.org", "name 1", Role::Owner, T0), (user(2), "u2@example.org", "name 2", Role::Editor, T0 + 50)];
    assert_eq!(short, expected);
    assert_eq!(store.members_of(Of::Owner(user(1)), 10).await.unwrap(), rows);
    assert_eq!(store.members_of(Of::Owner(user(2)), 10).await.unwrap().len(), 1, "another's folder is not the member's own");
    assert_eq!(store.members_of(Of::Namespace(ns), 1).await.unwrap().len(), 1);
    // A second invitation takes no role away, from a member or the owner.
    for (id, user_id) in [(2, user(2)), (3, user(1))] {
        store.invite(&invitation(id, None, "x@example.org", Role::Viewer), MANY).await.unwrap();
        assert!(store.take_invitation([id; 16], user_id, T0 + 60).await.unwrap().is_some());
    }
    assert_eq!(store.members(ns).await.unwrap(), [(user(1), Role::Owner), (user(2), Role::Editor)]);
    assert!(store.change_member(ns, user(2), Role::Viewer).await.unwrap());
    assert_eq!(store.namespace_for(ns, user(2)).await.unwrap().unwrap().role, Role::Viewer);
    for nobody in [user(1), user(3)] {
        assert!(!store.change_member(ns, nobody, Role::Editor).await.unwrap(), "the owner stays, strangers come by invitation");
        assert!(!store.end_membership(ns, nobody).await.unwrap());
    }
    let writers = async || {
        let mut tx = store.begin(Scope::Namespace(ns)).await.unwrap();
        let asked = [DeviceId::from_bytes([2; 16]), DeviceId::from_bytes([3; 16])];
        tx.devices_of_members(ns, &asked).await.unwrap().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(writers().await, []);
    assert!(store.end_membership(ns, user(2)).await.unwrap());
    assert_eq!(writers().await, [DeviceId::from_bytes([2; 16])], "what was written on the web stays good; its device has the user's id");
    assert!(!store.end_membership(ns, user(2)).await.unwrap());
    assert_eq!(store.members(ns).await.unwrap(), [(user(1), Role::Owner)]);
}

on_each_kind!(a_file_is_shared_with_one_user);

async fn a_file_is_shared_with_one_user(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let store = kind.store(&dir).await;
    filled(&*store).await;
    let (ns, id) = (namespace(1), [1; 16]);
    store.invite(&invitation(1, Some(file(9)), "u2@example.org", Role::Viewer), MANY).await.unwrap();
    assert_eq!(store.locate_shared(user(2), file(9)).await.unwrap(), [], "an invitation opens nothing");
    store.take_invitation(id, user(2), T0 + 5).await.unwrap().unwrap();
    let shared = SharedFile {
        share_id: id,
        namespace: ns,
        file: file(9),
        owner: user(1),
        with: user(2),
        email: "u2@example.org".into(),
        name: "name 2".into(),
        role: Role::Viewer,
        created_at_ms: T0 + 5,
    };
    assert_eq!(store.shared_file(id).await.unwrap().as_ref(), Some(&shared));
    assert_eq!(store.files_shared_with(user(2), 10).await.unwrap(), std::slice::from_ref(&shared));
    assert_eq!(store.files_shared_with(user(1), 10).await.unwrap(), []);
    for of in [Of::Namespace(ns), Of::Owner(user(1))] {
        assert_eq!(store.files_shared_of(of, 10).await.unwrap(), std::slice::from_ref(&shared));
    }
    let found = store.locate_shared(user(2), file(9)).await.unwrap();
    assert_eq!((found.len(), found[0].id, found[0].owner, found[0].role), (1, ns, user(1), Role::Viewer));
    assert_eq!(store.locate_shared(user(3), file(9)).await.unwrap(), []);
    assert_eq!(store.locate_shared(user(2), file(8)).await.unwrap(), []);
    assert_eq!(store.namespace_for(ns, user(2)).await.unwrap(), None, "the folder is not shared with it");
    // Again, to write: one share, and never less than before.
    for role in [Role::Editor, Role::Viewer] {
        store.invite(&invitation(2, Some(file(9)), "u2@example.org", role), MANY).await.unwrap();
        store.take_invitation([2; 16], user(2), T0 + 6).await.unwrap().unwrap();
        assert_eq!(store.shared_file(id).await.unwrap().unwrap().role, Role::Editor);
    }
    let mut tx = store.begin(Scope::Namespace(ns)).await.unwrap();
    assert_eq!(tx.shared_namespace(ns, file(9), user(2)).await.unwrap().unwrap().role, Role::Editor);
    assert_eq!(tx.shared_namespace(ns, file(9), user(3)).await.unwrap(), None);
    assert_eq!(tx.shared_namespace(namespace(2), file(9), user(2)).await.unwrap(), None);
    drop(tx);
    assert!(store.set_shared_file_role(id, Role::Viewer).await.unwrap());
    assert_eq!(store.locate_shared(user(2), file(9)).await.unwrap()[0].role, Role::Viewer);
    assert!(store.drop_shared_file(id).await.unwrap());
    assert!(!store.drop_shared_file(id).await.unwrap() && !store.set_shared_file_role(id, Role::Editor).await.unwrap());
    assert_eq!(store.locate_shared(user(2), file(9)).await.unwrap(), []);
}
