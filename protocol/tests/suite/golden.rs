//! The bytes of every format. docs/PROTOCOL.md explains them field by field; a change here is a change of the format's version.

use ferry_protocol::grant::{Grant, Member, SignedGrant};
use ferry_protocol::lan::frame::{self, StreamKind};
use ferry_protocol::lan::{ALPN, ChunkAnswer, ChunkAsk, End, Message, PeerPage, Piece};
use ferry_protocol::limits::BASES_MAX;
use ferry_protocol::node::{Attributes, Author, Base, Content, Dot, FileContent, NodeState, Place, Stamp, Stamped, Value};
use ferry_protocol::wire::{
    Body, ChunkFrame, ChunkIds, CommitReply, CommitRequest, FeedPage, InlineChunk, NodeUpdate, Role, decode, encode,
};
use ferry_protocol::{
    ChunkId, ChunkRef, CommitId, ContentHash, DeviceId, Epoch, Manifest, Name, NamespaceId, NodeId, ReplicaId, UserId, VerifiedChunk,
};

fn unhex(annotated: &str) -> Vec<u8> {
    let digits: String = annotated.lines().map(|l| l.split('|').next().unwrap_or("")).collect::<String>();
    hex::decode(digits.replace(char::is_whitespace, "")).unwrap()
}

fn check<B: Body + PartialEq + std::fmt::Debug>(body: &B, annotated: &str) {
    assert_eq!(hex::encode(encode(body)), hex::encode(unhex(annotated)));
    assert_eq!(decode::<B>(&unhex(annotated)).as_ref(), Ok(body));
}

const REPLICA: ReplicaId = ReplicaId::from_bytes([0xaa; 16]);

fn stamp(counter: u64) -> Stamp {
    Stamp { counter, replica: REPLICA }
}

fn value(counter: u64, content: Content) -> Value {
    let author = Author { device: DeviceId::from_bytes([0xdd; 16]), name: "LAPTOP".into() };
    Value { dot: Dot { replica: REPLICA, counter }, stamp: stamp(300), content, author, wall_ms: 1_795_343_400_000 }
}

fn update(places: Vec<Place>, values: Vec<Value>, attributes: Attributes) -> NodeUpdate {
    let context = vec![(REPLICA, values.len() as u64)];
    NodeUpdate { id: NodeId::from_bytes([0x11; 16]), state: NodeState::from_parts(places, values, context, attributes).unwrap() }
}

/// A file `a.txt` of two chunks that was moved once, with a mode and a touched time.
fn file() -> NodeUpdate {
    let chunks = [&b"first "[..], b"second"].map(|b| ChunkRef { id: VerifiedChunk::of(b).id(), len: b.len() as u32 });
    let manifest = Manifest::new(ContentHash::of(b"first second"), chunks.into()).unwrap();
    let place = |counter, parent, name: &str| Place { stamp: stamp(counter), parent, name: Name::new(name).unwrap() };
    let places = vec![place(301, NodeId::from_bytes([0x22; 16]), "a.txt"), place(1, NodeId::ROOT, "b")];
    let attributes =
        Attributes { mode: Some(Stamped { stamp: stamp(2), value: 0o644 }), mtime_ns: Some(Stamped { stamp: stamp(3), value: -1 }) };
    update(places, vec![value(1, Content::File(FileContent::new(manifest, 1)))], attributes)
}

fn page(nodes: Vec<NodeUpdate>) -> FeedPage {
    FeedPage { epoch: Epoch::from_bytes([0xee; 16]), replica: REPLICA, cursor: 7, head: 200, has_more: true, nodes }
}

#[test]
fn a_page_with_a_file() {
    check(&page(vec![file()]), &format!("{PAGE_HEAD}{FILE_STATE}"));
}

#[test]
fn a_page_with_the_other_kinds_of_content() {
    let place = vec![Place { stamp: stamp(1), parent: NodeId::ROOT, name: Name::new(b"\xff").unwrap() }];
    let values = vec![value(1, Content::Dir), value(2, Content::Symlink(b"to".as_slice().into())), value(3, Content::Tombstone)];
    check(&page(vec![update(place, values, Attributes::default())]), &format!("{PAGE_HEAD}{OTHER_KINDS}"));
}

#[test]
fn an_edited_file() {
    let one = |bytes: &[u8]| Manifest::new(ContentHash::of(bytes), vec![ChunkRef { id: ChunkId::of(bytes), len: 6 }]).unwrap();
    let base = Base { dot: Dot { replica: REPLICA, counter: 1 }, manifest: one(b"second") };
    let edited = |bases: usize| Content::File(FileContent { bases: vec![base.clone(); bases], ..FileContent::new(one(b"first "), 1) });
    let bytes = postcard::to_stdvec(&edited(1)).unwrap();
    assert_eq!(hex::encode(&bytes), hex::encode(unhex(EDITED_FILE)));
    let Content::File(again) = postcard::from_bytes(&bytes).unwrap() else { panic!("a file") };
    assert_eq!(again.bases, std::slice::from_ref(&base));
    // One state has one encoding, and lists have bounds.
    let without = postcard::to_stdvec(&edited(0)).unwrap();
    assert!(postcard::from_bytes::<Content>(&[&[4], &without[1..], &[0]].concat()).is_err(), "an empty list");
    assert!(postcard::from_bytes::<Content>(&postcard::to_stdvec(&edited(BASES_MAX)).unwrap()).is_ok());
    assert!(postcard::from_bytes::<Content>(&postcard::to_stdvec(&edited(BASES_MAX + 1)).unwrap()).is_err(), "too many");
}

#[test]
fn a_commit() {
    let commit = CommitRequest {
        commit: CommitId::from_bytes([0xcc; 16]),
        epoch: Epoch::from_bytes([0xee; 16]),
        base_seq: 199,
        replica: REPLICA,
        nodes: Vec::new(),
        chunks: vec![InlineChunk { id: ChunkId::of(b"first "), bytes: b"first ".to_vec() }],
    };
    check(&commit, COMMIT);
}

#[test]
fn replies() {
    check(&CommitReply::Accepted { head_seq: 200, gapless: true }, "01 | format 1\n 00 | accepted\n c801 | head: 200\n 01 | gapless");
    let missing =
        "01 | format 1\n 01 | chunks are missing\n 01 | one\n 1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | its id";
    check(&CommitReply::MissingChunks(vec![ChunkId::of(b"first ")]), missing);
    let stale = "01 | format 1\n 02 | stale\n 01 | one node\n 11111111111111111111111111111111 | its id";
    check(&CommitReply::Stale(vec![NodeId::from_bytes([0x11; 16])]), stale);
    let epoch = "01 | format 1\n 03 | another epoch\n eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee | it";
    check(&CommitReply::EpochChanged(Epoch::from_bytes([0xee; 16])), epoch);
}

#[test]
fn questions_about_chunks() {
    check(
        &ChunkIds { ids: vec![ChunkId::of(b"first "), ChunkId::of(b"second")] },
        "01 | format 1\n 02 | two\n 1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | first\n 16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 | second",
    );
}

#[test]
fn chunk_frames() {
    let id = ChunkId::of(b"first ");
    let mut stream = ChunkFrame::header(id, 6).to_vec();
    stream.extend_from_slice(b"first ");
    stream.extend_from_slice(&ChunkFrame::absent(ChunkId::of(b"second")));
    assert_eq!(hex::encode(&stream), hex::encode(unhex(FRAMES)));
}

#[test]
fn a_grant() {
    let member = |device, user, role, name: &str| Member {
        device: DeviceId::from_bytes([device; 16]),
        user: UserId::from_bytes([user; 16]),
        role,
        name: name.into(),
    };
    let grant = Grant {
        namespace: NamespaceId::from_bytes([0x77; 16]),
        epoch: 1_795_343_400_000,
        issued_ms: 1_795_343_400_000,
        expires_ms: 1_795_948_200_000,
        members: vec![
            member(0xd1, 0x01, Role::Owner, "LAPTOP"),
            member(0xd2, 0x02, Role::Viewer, "TV"),
            member(0xd3, 0x02, Role::Editor, ""),
        ],
    };
    check(&grant, GRANT);
    let signed = SignedGrant { body: encode(&grant)[..3].to_vec(), signature: vec![0x55; 64] };
    check(&signed, &format!("01 | format 1\n 03 017777 | the body, cut short here\n 40 | 64 bytes\n {} | signature", "55".repeat(64)));
    assert_eq!(SignedGrant::signed_bytes(b"body"), b"ferry grant 1\0body");
}

/// The form at rest: an index stores node states without a version byte of their own; the index has one.
#[test]
fn a_node_state_at_rest() {
    assert_eq!(hex::encode(postcard::to_stdvec(&file().state).unwrap()), hex::encode(unhex(FILE_STATE)));
}

const NS: NamespaceId = NamespaceId::from_bytes([0x77; 16]);
const RUN: Epoch = Epoch::from_bytes([0xee; 16]);

/// A message of the control stream: these bytes, and these with their length before them.
fn message(message: &Message, annotated: &str) {
    check(message, annotated);
    let body = unhex(annotated);
    let framed = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
    assert_eq!(hex::encode(frame::frame(message)), hex::encode(&framed));
    assert_eq!(frame::parse::<Message>(&framed, StreamKind::Control), Ok(Some((message.clone(), framed.len()))));
}

#[test]
fn the_first_messages_between_devices() {
    message(&Message::Hello { min: 1, max: 1 }, "01 | format 1\n 00 | hello\n 01 01 | from version 1 to version 1");
    message(&Message::Hello { min: 1, max: 300 }, "01 | format 1\n 00 | hello\n 01 ac02 | from version 1 to version 300");
    let grant = SignedGrant { body: vec![1, 0x77], signature: vec![0x55; 64] };
    let signature = "55".repeat(64);
    message(
        &Message::Grant(grant),
        &format!("01 | format 1\n 01 | grant\n 02 0177 | the body, cut short here\n 40 | 64 bytes\n {signature} | signature"),
    );
    message(&Message::Ready { name: "LAPTOP".into() }, "01 | format 1\n 02 | ready\n 06 4c4150544f50 | LAPTOP");
}

#[test]
fn messages_about_a_folder() {
    let of = |kind: &str, rest: &str| format!("01 | format 1\n {kind} | kind\n 77777777777777777777777777777777 | namespace\n {rest}");
    let cursor = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee | run\n c801 | 200";
    let open = Message::Open { namespace: NS, replica: REPLICA, run: RUN, relays: true };
    let sides = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | replica\n eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee | run\n 01 | reaches a relay";
    message(&open, &of("03", sides));
    message(&Message::Close { namespace: NS }, &of("04", ""));
    message(&Message::Relays { namespace: NS, relays: false }, &of("05", "00 | reaches none"));
    message(&Message::Subscribe { namespace: NS, cursor: None }, &of("06", "00 | from the start"));
    message(&Message::Subscribe { namespace: NS, cursor: Some((RUN, 200)) }, &of("06", &format!("01 | from a cursor\n {cursor}")));
    message(&Message::Heard { namespace: NS, cursor: (RUN, 200) }, &of("07", cursor));
}

#[test]
fn messages_about_contents() {
    let of = |kind: &str, rest: &str| format!("01 | format 1\n {kind} | kind\n 77777777777777777777777777777777 | namespace\n {rest}");
    let whole = "92088ec140fc553e4b1ede202edccb65a807bbf8a38d765a3ad38013c0f13688 | SHA-256 of the whole";
    let first = "1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f";
    let content = ContentHash::of(b"first second");
    message(&Message::Have { namespace: NS, contents: vec![content] }, &of("08", &format!("01 | one\n {whole}")));
    message(&Message::Got { namespace: NS, chunks: vec![ChunkId::of(b"first ")] }, &of("09", &format!("01 | one\n {first} | chunk")));
    let pieces = vec![Piece { offset: 300, chunk: ChunkRef { id: ChunkId::of(b"first "), len: 6 } }];
    let offer = format!("05 | file number 5\n 01 | one piece\n ac02 | at offset 300\n {first} 06 | chunk and length");
    message(&Message::Offer { namespace: NS, file: 5, pieces }, &of("0a", &offer));
    message(&Message::OfferEnd { namespace: NS, file: 5, content: None }, &of("0b", "05 | file number 5\n 00 | came to nothing"));
    let end = Message::OfferEnd { namespace: NS, file: 5, content: Some(content) };
    message(&end, &of("0b", &format!("05 | file number 5\n 01 | it is\n {whole}")));
}

#[test]
fn pages_and_questions_between_devices() {
    let empty = FeedPage { epoch: RUN, replica: REPLICA, cursor: 7, head: 200, has_more: true, nodes: Vec::new() };
    let tail = PAGE_HEAD.split_once("| format 1").unwrap().1.split_once("01                                 | 1 node").unwrap().0;
    check(&PeerPage { since: None, page: empty.clone() }, &format!("01 | format 1\n 00 | from the start\n {tail}\n 00 | no nodes"));
    let since = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee | run\n 06 | after 6";
    check(&PeerPage { since: Some((RUN, 6)), page: empty }, &format!("01 | format 1\n 01 | from\n {since}\n {tail}\n 00 | no nodes"));
    let page = PeerPage { since: None, page: page(vec![file()]) };
    let head = PAGE_HEAD.split_once("| format 1").unwrap().1;
    check(&page, &format!("01 | format 1\n 00 | from the start\n {head}{FILE_STATE}"));
    check(
        &ChunkAsk { namespace: NS, ids: vec![ChunkId::of(b"first ")] },
        "01 | format 1\n 77777777777777777777777777777777 | namespace\n 01 | one\n 1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | chunk",
    );
}

#[test]
fn answers_between_devices() {
    let id = ChunkId::of(b"first ");
    let mut stream = ChunkFrame::header(id, 6).to_vec();
    stream.extend_from_slice(b"first ");
    stream.extend_from_slice(&ChunkAnswer::packed_header(id, 300, 3));
    stream.extend_from_slice(b"zst");
    stream.extend_from_slice(&ChunkFrame::absent(ChunkId::of(b"second")));
    assert_eq!(hex::encode(&stream), hex::encode(unhex(ANSWERS)));
    let (plain, first) = ChunkAnswer::parse(&stream).unwrap().unwrap();
    assert_eq!(plain, ChunkAnswer::Plain(id, b"first "));
    let (packed, second) = ChunkAnswer::parse(&stream[first..]).unwrap().unwrap();
    assert_eq!(packed, ChunkAnswer::Packed { id, len: 300, bytes: b"zst" });
    let (absent, last) = ChunkAnswer::parse(&stream[first + second..]).unwrap().unwrap();
    assert_eq!((absent, first + second + last), (ChunkAnswer::Absent(ChunkId::of(b"second")), stream.len()));
}

#[test]
fn names_and_numbers_between_devices() {
    assert_eq!(ALPN, b"ferry/1");
    assert_eq!([StreamKind::Control, StreamKind::Feed, StreamKind::Chunks].map(|kind| kind as u8), [0, 1, 2]);
    assert_eq!([End::Stranger, End::Version, End::Broken].map(End::code), [1, 2, 3]);
}

/// A page of a feed up to its only node.
const PAGE_HEAD: &str = r#"
    01                                 | format 1
    eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee   | epoch
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa   | replica whose feed it is
    07                                 | cursor
    c801                               | head: 200
    01                                 | more follows
    01                                 | 1 node
    11111111111111111111111111111111   | its id
"#;

/// The state of a file.
const FILE_STATE: &str = r#"
    02                                 | 2 places, newest first
    ad02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa      | moved at 301 by replica aa..
    22222222222222222222222222222222      | into directory 22..
    05 612e747874                         | as "a.txt"
    01 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa        | made at 1 by replica aa..
    00000000000000000000000000000000      | in the root
    01 62                                 | as "b"
    01                                 | 1 value
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 01        | dot: the first event of replica aa..
    ac02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa      | stamp: 300 by replica aa..
    01                                    | a file
    92088ec140fc553e4b1ede202edccb65a807bbf8a38d765a3ad38013c0f13688 | SHA-256 of the whole
    02                                    | 2 chunks
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f 06 | SHA-256 and length
    16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 06 | SHA-256 and length
    02                                    | its mtime: 1 ns after 1970
    dddddddddddddddddddddddddddddddd 06 4c4150544f50 | author: device dd.., "LAPTOP"
    80f1f1acc068                          | wall clock: 1795343400000 ms
    01 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 01     | context: 1 event of replica aa..
    01 02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa a403 | mode 0644, set at 2 by replica aa..
    01 03 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 01  | mtime -1 ns, touched at 3 by replica aa..
"#;

/// A content that says what it was edited from.
const EDITED_FILE: &str = r#"
    04                                    | an edited file
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | SHA-256 of the whole
    01                                    | 1 chunk
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f 06 | SHA-256 and length
    02                                    | its mtime: 1 ns after 1970
    01                                    | 1 base
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 01        | written by the first event of replica aa..
    16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 | SHA-256 of its whole
    01                                    | 1 chunk
    16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 06 | SHA-256 and length
"#;

/// The state of a node with three concurrent values.
const OTHER_KINDS: &str = r#"
    01 01 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa     | 1 place: made at 1
    00000000000000000000000000000000      | in the root
    01 ff                                 | as the one byte FF, which is not UTF-8
    03                                 | 3 values
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 01        | dot 1 of replica aa..
    ac02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa      | stamp: 300
    00                                    | a directory
    dddddddddddddddddddddddddddddddd 06 4c4150544f50 | author
    80f1f1acc068                          | wall clock
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 02        | dot 2 of replica aa..
    ac02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa      | stamp: 300
    02 02 746f                            | a symbolic link to "to"
    dddddddddddddddddddddddddddddddd 06 4c4150544f50 | author
    80f1f1acc068                          | wall clock
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 03        | dot 3 of replica aa..
    ac02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa      | stamp: 300
    03                                    | a tombstone
    dddddddddddddddddddddddddddddddd 06 4c4150544f50 | author
    80f1f1acc068                          | wall clock
    01 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 03     | context: 3 events of replica aa..
    00 00                                 | neither mode nor touched mtime
"#;

/// A commit.
const COMMIT: &str = r#"
    01                                 | format 1
    cccccccccccccccccccccccccccccccc   | commit id
    eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee   | the relay's epoch as the device knows it
    c701                               | base: 199
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa   | replica that sends
    00                                 | no nodes
    01                                 | 1 chunk inside
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | its id
    06 666972737420                    | its bytes: "first "
"#;

/// Two chunk frames.
const FRAMES: &str = r#"
    00                                 | kind 0: a chunk
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | its id
    06000000                           | 6 bytes, little endian
    666972737420                       | "first "
    01                                 | kind 1: no good copy
    16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 | of this chunk
    00000000                           | no bytes
"#;

/// A grant of three devices of two users.
const GRANT: &str = r#"
    01                                 | format 1
    77777777777777777777777777777777   | namespace
    c0f8b896a034                       | epoch: 1795343400000
    80f1f1acc068                       | issued: 1795343400000 ms
    8081d6edc468                       | expires: 7 days later
    03                                 | 3 devices, by rising id
    d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1      | device
    01010101010101010101010101010101      | its user
    02 06 4c4150544f50                    | owner, "LAPTOP"
    d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2      | device
    02020202020202020202020202020202      | its user
    00 02 5456                            | viewer, "TV"
    d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3      | device
    02020202020202020202020202020202      | its user
    01 00                                 | editor, without a name
"#;

/// Three answers on one stream.
const ANSWERS: &str = r#"
    00                                 | kind 0: a chunk
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | its id
    06000000                           | 6 bytes
    666972737420                       | "first "
    02                                 | kind 2: a chunk compressed with zstd
    1f9ee9ef8f51c403d969eec342a084bbbd126dfe6915c9594b83873ca0c1699f | its id
    07000000                           | 7 bytes follow
    2c010000                           | its own length: 300
    7a7374                             | the compressed bytes, cut short here
    01                                 | kind 1: no good copy
    16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 | of this chunk
    00000000                           | no bytes
"#;
