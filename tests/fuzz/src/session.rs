//! A session against messages and times.

use crate::allocation::peak_of;
use crate::input::Input;
use ferry_protocol::grant::{Grant, Member, SignedGrant};
use ferry_protocol::lan::session::Opened;
use ferry_protocol::lan::{ChunkAsk, GrantBook, Message, Output, Session};
use ferry_protocol::wire::{self, Role};
use ferry_protocol::{ChunkId, ContentHash, DeviceId, Epoch, NamespaceId, ReplicaId, UserId};
use std::collections::BTreeMap;

const OWN: DeviceId = DeviceId::from_bytes([1; 16]);
const PEER: DeviceId = DeviceId::from_bytes([2; 16]);
const OTHER: DeviceId = DeviceId::from_bytes([3; 16]);
/// What a session, its book and its answers may hold at most in these small worlds, in bytes.
const HELD_MAX_BYTES: usize = 1 << 20;

fn namespace(n: u8) -> NamespaceId {
    NamespaceId::from_bytes([n; 16])
}

fn epoch(n: u8) -> Epoch {
    Epoch::from_bytes([n; 16])
}

/// Stands for the relay's signature: the other side cannot make one for bytes of its own.
fn signature(message: &[u8]) -> Vec<u8> {
    let half = ChunkId::of(&[b"the relay's key", message].concat());
    [half.as_bytes().as_slice(), half.as_bytes()].concat()
}

fn grant(input: &mut Input<'_>) -> SignedGrant {
    let (namespace, epoch) = (namespace(input.below(4)), u64::from(input.below(5)));
    let listed = input.byte();
    let mut members = Vec::new();
    for (bit, device) in [OWN, PEER, OTHER].into_iter().enumerate() {
        if listed & 1 << bit != 0 {
            let role = [Role::Viewer, Role::Editor, Role::Owner][usize::from(listed >> (2 + bit)) % 3];
            members.push(Member { device, user: UserId::default(), role, name: String::new() });
        }
    }
    let issued_ms = i64::from(input.below(8));
    let body = wire::encode(&Grant { namespace, epoch, issued_ms, expires_ms: issued_ms + 1 + i64::from(input.below(60)), members });
    let good = input.below(5) != 0;
    let signature = if good { signature(&SignedGrant::signed_bytes(&body)) } else { vec![9; 64] };
    SignedGrant { body, signature }
}

fn opened(input: &mut Input<'_>) -> Opened {
    Opened { replica: ReplicaId::from_bytes([input.below(3); 16]), run: epoch(input.below(3)), relays: input.flag() }
}

fn message(input: &mut Input<'_>) -> Message {
    let kind = input.below(14);
    if kind == 13 {
        // As it comes from the wire.
        if let Ok(message) = wire::decode(input.bytes(200)) {
            return message;
        }
    }
    let ns = namespace(input.below(5));
    match kind {
        0 | 12 => Message::Hello { min: u16::from(input.below(3)), max: 2 + u16::from(input.below(3)) },
        1 => Message::Grant(grant(input)),
        2 => Message::Ready { name: "x".into() },
        3 => {
            let side = opened(input);
            Message::Open { namespace: ns, replica: side.replica, run: side.run, relays: side.relays }
        }
        4 => Message::Close { namespace: ns },
        5 => Message::Relays { namespace: ns, relays: input.flag() },
        6 => Message::Subscribe { namespace: ns, cursor: input.flag().then(|| (epoch(input.below(3)), input.number())) },
        7 => Message::Heard { namespace: ns, cursor: (epoch(input.below(3)), input.number()) },
        8 => Message::Have { namespace: ns, contents: vec![ContentHash::of(b"x")] },
        9 => Message::Got { namespace: ns, chunks: vec![ChunkId::of(b"x")] },
        10 => Message::Offer { namespace: ns, file: input.number(), pieces: Vec::new() },
        _ => Message::OfferEnd { namespace: ns, file: input.number(), content: None },
    }
}

/// The namespace that an output to the driver is about.
fn about(output: &Output) -> Option<NamespaceId> {
    match output {
        Output::Opened { namespace, .. }
        | Output::Relays { namespace, .. }
        | Output::Subscribed { namespace, .. }
        | Output::Heard { namespace, .. }
        | Output::Have { namespace, .. }
        | Output::Got { namespace, .. }
        | Output::Offered { namespace, .. }
        | Output::OfferEnded { namespace, .. } => Some(*namespace),
        Output::Send(message) => message.namespace().filter(|_| !matches!(message, Message::Close { .. })),
        Output::Greeted { .. } | Output::Learned(_) | Output::Closed { .. } | Output::End(_) => None,
    }
}

struct World {
    session: Session,
    book: GrantBook,
    now_ms: i64,
    ended: bool,
    open: BTreeMap<NamespaceId, Opened>,
}

impl World {
    /// Takes what the session says: nothing of a namespace without a live grant for both, nothing after the end.
    fn check(&mut self, input: &[u8]) {
        let takes_part = |book: &GrantBook, n: NamespaceId, now: i64| book.role(n, OWN, now).is_some() && book.role(n, PEER, now).is_some();
        for output in self.session.take() {
            assert!(!self.ended, "{output:?} after the end: {input:?}");
            if let Some(namespace) = about(&output) {
                assert!(takes_part(&self.book, namespace, self.now_ms), "{output:?} without a grant: {input:?}");
            }
            match output {
                Output::Send(Message::Grant(signed)) => {
                    let grant = signed.open(|message, given| given == signature(message)).expect("a grant of the relay");
                    assert!(grant.member(OWN).is_some() && grant.member(PEER).is_some());
                }
                Output::Opened { namespace, folder, .. } => drop(self.open.insert(namespace, folder)),
                Output::Closed { namespace } => assert!(self.open.remove(&namespace).is_some(), "closed what was not open: {input:?}"),
                Output::Heard { namespace, .. } | Output::Subscribed { namespace, .. } => assert!(self.open.contains_key(&namespace)),
                Output::End(_) => {
                    self.ended = true;
                    assert!(self.open.is_empty(), "what is open is closed before the end: {input:?}");
                }
                _ => {}
            }
        }
        for n in 0..5 {
            let (namespace, ask) = (namespace(n), ChunkAsk { namespace: namespace(n), ids: Vec::new() });
            let both = takes_part(&self.book, namespace, self.now_ms);
            assert!(both || !self.session.may_answer(&self.book, self.now_ms, &ask));
            if self.session.may_hear(&self.book, self.now_ms, namespace) {
                assert!(self.book.role(namespace, PEER, self.now_ms).is_some_and(|role| role >= Role::Editor));
            }
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        if what & 0x80 != 0 {
            // The driver calls with the time as it is, not only when it calls for the sake of time. It may be set back.
            self.now_ms = (self.now_ms + i64::from(input.below(20)) - 4).max(0);
        }
        match what % 8 {
            0 => self.session.advance(&self.book, self.now_ms),
            1 => {
                let folders = (0..input.below(4)).map(|n| (namespace(n), opened(input))).collect();
                self.session.set_folders(&self.book, self.now_ms, folders);
            }
            2 => {
                // From the relay or another peer; the driver tells the session at once.
                self.book.offer(OWN, &grant(input));
                self.session.advance(&self.book, self.now_ms);
            }
            3 => {
                self.book.forget(namespace(input.below(4)));
                self.session.advance(&self.book, self.now_ms);
            }
            _ => self.session.handle(&mut self.book, self.now_ms, message(input)),
        }
    }
}

/// A list of messages and times.
pub fn peer_session(bytes: &[u8]) {
    let ((), peak) = peak_of(|| {
        let book = GrantBook::new(Box::new(|message, given| given == signature(message)));
        let session = Session::new(OWN, "this device", PEER);
        let mut world = World { session, book, now_ms: 0, ended: false, open: BTreeMap::new() };
        let mut input = Input(bytes);
        while !input.is_empty() {
            world.step(&mut input);
            world.check(bytes);
        }
    });
    assert!(peak < HELD_MAX_BYTES + 64 * bytes.len(), "{peak} bytes for an input of {}", bytes.len());
}
