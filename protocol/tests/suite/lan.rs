//! The session between two devices: what a stranger, a revoked device and a viewer get, how grants spread, and that nothing from outside can
//! break it.

use ferry_protocol::grant::{Grant, Member, SignedGrant};
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::session::Opened;
use ferry_protocol::lan::{ChunkAsk, End, GrantBook, Message, Offered, Output, Session};
use ferry_protocol::wire::{self, Role};
use ferry_protocol::{ChunkId, DeviceId, Epoch, NamespaceId, ReplicaId, UserId};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 16])
}

fn namespace(n: u8) -> NamespaceId {
    NamespaceId::from_bytes([n; 16])
}

/// A stand-in for Ed25519: only who knows the key can make it, which is all that matters here.
fn signature(message: &[u8]) -> Vec<u8> {
    let half = ChunkId::of(&[b"the relay's key", message].concat());
    [half.as_bytes().as_slice(), half.as_bytes()].concat()
}

fn grant(n: u8, epoch: u64, members: &[(u8, Role)]) -> SignedGrant {
    let mut members: Vec<Member> = members
        .iter()
        .map(|(d, role)| Member { device: device(*d), user: UserId::from_bytes([1; 16]), role: *role, name: format!("device {d}") })
        .collect();
    members.sort_by_key(|m| m.device);
    let body = wire::encode(&Grant { namespace: namespace(n), epoch, issued_ms: 1000, expires_ms: 10_000, members });
    let signature = signature(&SignedGrant::signed_bytes(&body));
    SignedGrant { body, signature }
}

fn book(own: u8, grants: &[SignedGrant]) -> GrantBook {
    let mut book = GrantBook::new(Box::new(|message, given| given == signature(message)));
    for grant in grants {
        book.offer(device(own), grant);
    }
    book
}

fn opened(n: u8) -> Opened {
    Opened { replica: ReplicaId::from_bytes([n; 16]), run: Epoch::from_bytes([n; 16]), relays: false }
}

const EDIT: Role = Role::Editor;
const NOW: i64 = 2000;

/// One side of a connection, and what its driver was told.
struct Side {
    session: Session,
    book: GrantBook,
    heard: Vec<Output>,
}

impl Side {
    fn new(own: u8, peer: u8, grants: &[SignedGrant], folders: &[u8]) -> Self {
        let mut side =
            Self { session: Session::new(device(own), &format!("device {own}"), device(peer)), book: book(own, grants), heard: Vec::new() };
        side.set_folders(own, folders);
        side
    }

    fn set_folders(&mut self, own: u8, folders: &[u8]) {
        let folders: BTreeMap<NamespaceId, Opened> = folders.iter().map(|n| (namespace(*n), opened(own))).collect();
        self.session.set_folders(&self.book, NOW, folders);
    }

    /// What goes to the other side now.
    fn sends(&mut self) -> VecDeque<Message> {
        let mut out = VecDeque::new();
        for output in self.session.take() {
            match output {
                Output::Send(message) => out.push_back(message),
                other => self.heard.push(other),
            }
        }
        out
    }

    fn opened(&self) -> Vec<NamespaceId> {
        let mut open = Vec::new();
        for output in &self.heard {
            match output {
                Output::Opened { namespace, .. } => open.push(*namespace),
                Output::Closed { namespace } => open.retain(|n| n != namespace),
                _ => {}
            }
        }
        open.sort();
        open
    }

    fn end(&self) -> Option<End> {
        self.heard.iter().find_map(|o| if let Output::End(end) = o { Some(*end) } else { None })
    }
}

/// Carries messages between two sides until nothing is left to say; everything that was said.
fn talk(a: &mut Side, b: &mut Side) -> Vec<Message> {
    let mut said = Vec::new();
    loop {
        let (from_a, from_b) = (a.sends(), b.sends());
        if from_a.is_empty() && from_b.is_empty() {
            return said;
        }
        for message in from_a {
            said.push(message.clone());
            b.session.handle(&mut b.book, NOW, message);
        }
        for message in from_b {
            said.push(message.clone());
            a.session.handle(&mut a.book, NOW, message);
        }
    }
}

#[test]
fn two_members_open_what_both_sync() {
    let grants = [grant(1, 1, &[(1, EDIT), (2, EDIT)]), grant(2, 1, &[(1, EDIT), (2, EDIT)])];
    let (mut a, mut b) = (Side::new(1, 2, &grants, &[1, 2]), Side::new(2, 1, &grants, &[2, 3]));
    talk(&mut a, &mut b);
    assert_eq!((a.opened(), b.opened()), (vec![namespace(2)], vec![namespace(2)]));
    b.set_folders(2, &[1, 2]);
    talk(&mut a, &mut b);
    assert_eq!(a.opened(), [namespace(1), namespace(2)]);
    a.set_folders(1, &[]);
    talk(&mut a, &mut b);
    assert!(b.opened().is_empty() && a.opened().is_empty() && b.end().is_none());
}

#[test]
fn a_stranger_hears_nothing_at_all() {
    let grants = [grant(1, 1, &[(1, EDIT), (2, EDIT)])];
    let (mut a, mut stranger) = (Side::new(1, 9, &grants, &[1]), Side::new(9, 1, &[], &[1]));
    assert_eq!(talk(&mut a, &mut stranger), []);
    for message in [
        Message::Hello { min: 1, max: 1 },
        Message::Grant(grant(1, 0, &[(9, EDIT)])),
        Message::Grant(SignedGrant { body: vec![1; 99], signature: vec![0; 64] }),
        Message::Ready { name: "friend".into() },
        Message::Open { namespace: namespace(1), replica: ReplicaId::default(), run: Epoch::default(), relays: false },
    ] {
        a.session.handle(&mut a.book, NOW, message);
        assert!(a.sends().is_empty(), "nothing is said");
    }
    assert_eq!(a.end(), Some(End::Stranger));
}

#[test]
fn who_came_while_we_were_away_shows_the_newer_grant() {
    let (old, new) = (grant(1, 1, &[(1, EDIT), (2, EDIT)]), grant(1, 2, &[(1, EDIT), (2, EDIT), (3, EDIT)]));
    let (mut a, mut c) = (Side::new(1, 3, &[old], &[1]), Side::new(3, 1, &[new], &[1]));
    assert!(a.sends().is_empty(), "A does not know C and waits");
    talk(&mut a, &mut c);
    assert_eq!((a.opened(), c.opened()), (vec![namespace(1)], vec![namespace(1)]));
    assert_eq!(a.book.get(namespace(1)).unwrap().1.epoch, 2);
}

#[test]
fn a_revocation_ends_what_is_open_and_says_nothing_more() {
    let (old, new) = (grant(1, 1, &[(1, EDIT), (2, EDIT)]), grant(1, 2, &[(1, EDIT), (3, EDIT)]));
    let (mut a, mut b) = (Side::new(1, 2, std::slice::from_ref(&old), &[1]), Side::new(2, 1, &[old], &[1]));
    talk(&mut a, &mut b);
    assert_eq!(a.opened(), [namespace(1)]);
    let ask = ChunkAsk { namespace: namespace(1), ids: vec![ChunkId::of(b"x")] };
    assert!(a.session.may_answer(&a.book, NOW, &ask) && a.session.may_hear(&a.book, NOW, namespace(1)));
    assert_eq!(a.book.offer(device(1), &new), Offered::Learned(namespace(1)));
    assert!(!a.session.may_answer(&a.book, NOW, &ask) && !a.session.may_hear(&a.book, NOW, namespace(1)), "at once, before any message");
    a.session.advance(&a.book, NOW);
    assert!(a.sends().is_empty(), "not even that there is a newer grant");
    assert_eq!((a.end(), a.opened()), (Some(End::Stranger), Vec::new()));
}

#[test]
fn a_revocation_spreads_from_peer_to_peer() {
    let (old, new) = (grant(1, 1, &[(1, EDIT), (2, EDIT), (3, EDIT)]), grant(1, 2, &[(1, EDIT), (3, EDIT)]));
    let (mut a, mut c) = (Side::new(1, 3, &[new], &[1]), Side::new(3, 1, std::slice::from_ref(&old), &[1]));
    talk(&mut a, &mut c);
    assert_eq!(c.opened(), [namespace(1)]);
    assert_eq!(c.book.role(namespace(1), device(2), NOW), None, "C refuses B now, without having asked the relay");
    assert_eq!(c.book.offer(device(3), &old), Offered::Known(namespace(1)), "the older grant does not come back");
}

#[test]
fn a_grant_counts_until_it_expires_also_if_the_clock_is_set_back() {
    let live = grant(1, 1, &[(1, EDIT), (2, EDIT)]);
    let mut book = book(1, &[live]);
    assert_eq!(book.role(namespace(1), device(2), 9999), Some(EDIT));
    assert_eq!(book.role(namespace(1), device(2), 10_000), None);
    let body = wire::encode(&Grant {
        namespace: namespace(2),
        epoch: 1,
        issued_ms: 20_000,
        expires_ms: 30_000,
        members: vec![Member { device: device(1), user: UserId::default(), role: EDIT, name: String::new() }],
    });
    let signature = signature(&SignedGrant::signed_bytes(&body));
    assert_eq!(book.offer(device(1), &SignedGrant { body, signature }), Offered::Learned(namespace(2)));
    assert_eq!(book.role(namespace(1), device(2), 5), None, "a grant of 20,000 shows that it is later than the clock says");
}

#[test]
fn a_viewer_is_not_heard_and_is_answered() {
    let grants = [grant(1, 1, &[(1, EDIT), (2, Role::Viewer)])];
    let (mut a, mut b) = (Side::new(1, 2, &grants, &[1]), Side::new(2, 1, &grants, &[1]));
    talk(&mut a, &mut b);
    assert!(!a.session.may_hear(&a.book, NOW, namespace(1)) && b.session.may_hear(&b.book, NOW, namespace(1)));
    assert!(a.session.may_answer(&a.book, NOW, &ChunkAsk { namespace: namespace(1), ids: Vec::new() }));
    let other = ChunkAsk { namespace: namespace(2), ids: Vec::new() };
    assert!(!a.session.may_answer(&a.book, NOW, &other), "of another namespace nothing is known");
}

/// Found by the fuzzer: a folder that was closed after the end was still spoken of.
#[test]
fn after_the_end_nothing_is_said_of_folders() {
    let (old, new) = (grant(1, 1, &[(1, EDIT), (2, EDIT)]), grant(1, 2, &[(1, EDIT), (3, EDIT)]));
    let (mut a, mut b) = (Side::new(1, 2, std::slice::from_ref(&old), &[1]), Side::new(2, 1, &[old], &[1]));
    talk(&mut a, &mut b);
    a.book.offer(device(1), &new);
    b.session.handle(&mut b.book, NOW, Message::Hello { min: 1, max: 1 });
    assert_eq!((b.sends().len(), b.end()), (0, Some(End::Broken)));
    b.set_folders(2, &[]);
    assert!(b.session.take().is_empty());
    a.session.advance(&a.book, NOW);
    assert_eq!((a.sends().len(), a.end()), (0, Some(End::Stranger)));
    a.set_folders(1, &[]);
    assert!(a.session.take().is_empty(), "not even that the folder is closed");
}

/// Found by the fuzzer: between the expiry and the next look at the clock, the relay's coming and going was still told.
#[test]
fn an_expired_grant_ends_what_is_said_at_once() {
    let grants = [grant(1, 1, &[(1, EDIT), (2, EDIT)])];
    let (mut a, mut b) = (Side::new(1, 2, &grants, &[1]), Side::new(2, 1, &grants, &[1]));
    talk(&mut a, &mut b);
    let relays = [(namespace(1), Opened { relays: true, ..opened(1) })];
    a.session.set_folders(&a.book, 10_000, relays.into());
    assert!(a.sends().is_empty());
    assert_eq!(a.end(), Some(End::Stranger));
}

#[test]
fn a_role_that_changes_is_told_and_what_ended_does_not_come_back() {
    let (old, new) = (grant(1, 1, &[(1, EDIT), (2, Role::Viewer)]), grant(1, 2, &[(1, EDIT), (2, EDIT)]));
    let (mut a, mut b) = (Side::new(1, 2, std::slice::from_ref(&old), &[1]), Side::new(2, 1, std::slice::from_ref(&old), &[1]));
    talk(&mut a, &mut b);
    a.book.offer(device(1), &new);
    a.session.advance(&a.book, NOW);
    talk(&mut a, &mut b);
    let roles: Vec<Role> = a.heard.iter().filter_map(|o| if let Output::Opened { role, .. } = o { Some(*role) } else { None }).collect();
    assert_eq!(roles, [Role::Viewer, EDIT]);
    a.book.forget(namespace(1));
    assert_eq!([a.book.offer(device(1), &old), a.book.offer(device(1), &new)], [Offered::Refused; 2]);
    assert_eq!(a.book.offer(device(1), &grant(1, 3, &[(1, EDIT)])), Offered::Learned(namespace(1)));
}

#[test]
fn versions_that_do_not_overlap_end_the_connection() {
    let grants = [grant(1, 1, &[(1, EDIT), (2, EDIT)])];
    for (min, max, ends) in [(0, 0, true), (2, 9, true), (1, 9, false), (0, 1, false)] {
        let mut a = Side::new(1, 2, &grants, &[1]);
        a.session.handle(&mut a.book, NOW, Message::Hello { min, max });
        a.sends();
        assert_eq!(a.end(), ends.then_some(End::Version), "{min} to {max}");
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let ns = (0u8..4).prop_map(namespace);
    let epoch = (0u8..3).prop_map(|n| Epoch::from_bytes([n; 16]));
    prop_oneof![
        (0u16..3, 1u16..3).prop_map(|(min, more)| Message::Hello { min, max: min + more }),
        (0u8..4, 0u64..4, any::<bool>()).prop_map(|(n, epoch, lists)| Message::Grant(grant(
            n,
            epoch,
            if lists { &[(1, EDIT), (2, EDIT)] } else { &[(1, EDIT), (3, EDIT)] }
        ))),
        Just(Message::Grant(SignedGrant { body: vec![1, 2, 3], signature: vec![7; 64] })),
        Just(Message::Ready { name: "x".into() }),
        (ns.clone(), any::<bool>()).prop_map(|(namespace, relays)| Message::Open {
            namespace,
            replica: ReplicaId::default(),
            run: Epoch::default(),
            relays
        }),
        ns.clone().prop_map(|namespace| Message::Close { namespace }),
        (ns.clone(), any::<bool>()).prop_map(|(namespace, relays)| Message::Relays { namespace, relays }),
        (ns.clone(), proptest::option::of((epoch.clone(), any::<u64>())))
            .prop_map(|(namespace, cursor)| Message::Subscribe { namespace, cursor }),
        (ns.clone(), epoch, any::<u64>()).prop_map(|(namespace, run, seq)| Message::Heard { namespace, cursor: (run, seq) }),
        ns.clone().prop_map(|namespace| Message::Got { namespace, chunks: vec![ChunkId::of(b"c")] }),
        ns.prop_map(|namespace| Message::OfferEnd { namespace, file: 3, content: None }),
    ]
}

proptest! {
    /// Whatever a peer sends, in whatever order: nothing of a namespace reaches the driver, and nothing is said, unless the newest grant known
    /// at that moment lists the peer; and after the end nothing happens.
    #[test]
    fn no_message_opens_what_no_grant_allows(messages in proptest::collection::vec(any_message(), 0..40), knows in any::<bool>()) {
        let known = [grant(1, 2, &[(1, EDIT), (2, EDIT)])];
        let mut a = Side::new(1, 2, if knows { &known } else { &[] }, &[1, 2]);
        for message in messages {
            let ended = a.end().is_some();
            let before = a.heard.len();
            a.session.handle(&mut a.book, NOW, message);
            let said = a.sends();
            prop_assert!(!ended || (said.is_empty() && a.heard.len() == before));
            for output in &a.heard[before..] {
                if let Output::Opened { namespace, .. } | Output::Subscribed { namespace, .. } | Output::Heard { namespace, .. } | Output::Got { namespace, .. } = output {
                    prop_assert!(a.book.role(*namespace, device(2), NOW).is_some());
                }
            }
            for message in said {
                match message {
                    Message::Grant(signed) => {
                        let grant = signed.open(|_, _| true).unwrap();
                        prop_assert!(grant.member(device(2)).is_some());
                    }
                    other => if let Some(namespace) = other.namespace() {
                        let may = a.book.role(namespace, device(2), NOW).is_some();
                        prop_assert!(may);
                    }
                }
            }
        }
    }

    /// Frames come back as they were, from any cut; what is cut or longer than the limit is waited for or refused.
    #[test]
    fn frames_come_back(message in any_message(), cut in any::<prop::sample::Index>()) {
        let bytes = frame::frame(&message);
        prop_assert_eq!(frame::parse::<Message>(&bytes, StreamKind::Control).unwrap(), Some((message, bytes.len())));
        prop_assert_eq!(frame::parse::<Message>(&bytes[..cut.index(bytes.len())], StreamKind::Control).unwrap(), None);
    }

    /// Random bytes are refused or waited for, never a panic.
    #[test]
    fn random_bytes_are_no_danger(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = frame::parse::<Message>(&bytes, StreamKind::Control);
        let _ = frame::parse::<ferry_protocol::lan::PeerPage>(&bytes, StreamKind::Feed);
        let _ = frame::parse::<ChunkAsk>(&bytes, StreamKind::Chunks);
        let _ = ferry_protocol::lan::ChunkAnswer::parse(&bytes);
    }
}
