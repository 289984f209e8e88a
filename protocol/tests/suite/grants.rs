//! Grants that lie, are too large or are not signed are refused as a whole (P2, P4, I13).

use crate::allocation::peak_of;
use ferry_protocol::grant::{Grant, GrantError, Member, SIGNATURE_BYTES, SignedGrant};
use ferry_protocol::limits::{DEVICE_NAME_MAX_BYTES, GRANT_MAX_BYTES, GRANT_MEMBERS_MAX};
use ferry_protocol::wire::{DecodeError, FORMAT, Role, decode, encode};
use ferry_protocol::{DeviceId, NamespaceId, UserId};
use proptest::prelude::*;

fn member(n: u64) -> Member {
    let mut device = [0; 16];
    device[..8].copy_from_slice(&n.to_be_bytes());
    Member { device: DeviceId::from_bytes(device), user: UserId::from_bytes([5; 16]), role: Role::Editor, name: format!("device {n}") }
}

fn grant(members: Vec<Member>) -> Grant {
    Grant { namespace: NamespaceId::from_bytes([1; 16]), epoch: 3, issued_ms: 10, expires_ms: 20, members }
}

fn signed(grant: &Grant) -> SignedGrant {
    SignedGrant { body: encode(grant), signature: vec![7; SIGNATURE_BYTES] }
}

fn believing(_: &[u8], _: &[u8]) -> bool {
    true
}

#[test]
fn the_largest_grant_fits() {
    let longest = |n| Member { name: "n".repeat(DEVICE_NAME_MAX_BYTES), ..member(n) };
    let largest = grant((0..GRANT_MEMBERS_MAX as u64).map(longest).collect());
    assert!(encode(&largest).len() <= GRANT_MAX_BYTES);
    assert_eq!(signed(&largest).open(believing), Ok(largest));
}

#[test]
fn grants_that_cannot_be_are_refused() {
    let refused = |grant: &Grant| signed(grant).open(believing).is_err() && decode::<Grant>(&encode(grant)).is_err();
    assert!(refused(&grant((0..=GRANT_MEMBERS_MAX as u64).map(member).collect())), "too many devices");
    assert!(refused(&grant(vec![member(2), member(1)])), "not by rising id");
    assert!(refused(&grant(vec![member(1), member(1)])), "a device twice");
    let long = Member { name: "n".repeat(DEVICE_NAME_MAX_BYTES + 1), ..member(1) };
    assert!(refused(&grant(vec![long])), "a name that is too long");
    assert!(refused(&Grant { issued_ms: 20, ..grant(vec![]) }), "never good");
    assert!(!refused(&grant(vec![])), "nobody may take part: that is a grant");
}

#[test]
fn bytes_that_are_not_a_grant_are_refused() {
    let good = encode(&grant(vec![member(1)]));
    let open = |body: Vec<u8>| SignedGrant { body, signature: vec![7; SIGNATURE_BYTES] }.open(believing);
    assert!(open(good.clone()).is_ok());
    assert!(matches!(open([&good[..], &[0]].concat()), Err(GrantError::Body(DecodeError::Malformed(_)))), "trailing bytes");
    assert_eq!(open(Vec::new()), Err(GrantError::Body(DecodeError::Empty)));
    assert_eq!(open([&[FORMAT + 1], &good[1..]].concat()), Err(GrantError::Body(DecodeError::Format(FORMAT + 1))));
    assert_eq!(open(vec![FORMAT; GRANT_MAX_BYTES + 1]), Err(GrantError::TooLong(GRANT_MAX_BYTES + 1)));
    for end in 0..good.len() {
        assert!(open(good[..end].to_vec()).is_err(), "cut at {end}");
    }
    let role = good.iter().rposition(|b| *b == 1).unwrap();
    let unknown = [&good[..role], &[9], &good[role + 1..]].concat();
    assert!(open(unknown).is_err(), "a role that nobody knows");
}

#[test]
fn a_bad_signature_is_refused_whatever_the_body_says() {
    let one = signed(&grant(vec![member(1)]));
    assert_eq!(one.open(|_, _| false), Err(GrantError::Signature));
    for len in [0, SIGNATURE_BYTES - 1, SIGNATURE_BYTES + 1] {
        let wrong = SignedGrant { signature: vec![7; len], ..one.clone() };
        assert_eq!(wrong.open(believing), Err(GrantError::Signature), "{len} bytes");
        assert!(decode::<SignedGrant>(&encode(&wrong)).is_err(), "{len} bytes");
    }
    assert_eq!(decode::<SignedGrant>(&encode(&one)), Ok(one));
}

/// What states more than its limit is refused before it takes memory.
#[test]
fn a_stated_length_over_the_limit_takes_no_memory() {
    let large = encode(&SignedGrant { body: vec![1; 40 * GRANT_MAX_BYTES], signature: vec![7; SIGNATURE_BYTES] });
    let (refused, peak) = peak_of(|| decode::<SignedGrant>(&large).is_err());
    assert!(refused && peak < GRANT_MAX_BYTES, "{peak} bytes of memory for {} bytes", large.len());
    let many = encode(&grant((0..40 * GRANT_MEMBERS_MAX as u64).map(member).collect()));
    let (refused, peak) = peak_of(|| decode::<Grant>(&many).is_err());
    assert!(refused && peak < GRANT_MAX_BYTES, "{peak} bytes of memory for {} bytes", many.len());
}

proptest! {
    #[test]
    fn damaged_grants_never_panic(count in 0..20u64, at: prop::sample::Index, byte: u8, random in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut body = encode(&grant((0..count).map(member).collect()));
        *at.get_mut(&mut body) = byte;
        if let Ok(opened) = (SignedGrant { body, signature: vec![7; SIGNATURE_BYTES] }).open(believing) {
            prop_assert_eq!(decode::<Grant>(&encode(&opened)), Ok(opened));
        }
        let _ = decode::<SignedGrant>(&[&[FORMAT][..], &random].concat());
    }
}
