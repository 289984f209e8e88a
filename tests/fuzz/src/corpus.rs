//! The kept corpus: each file through its target, with the stable compiler too.

use std::path::PathBuf;

fn each(target: &str, run: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).expect("a corpus").flatten().map(|entry| entry.path()).collect();
    assert!(!files.is_empty(), "the corpus of {target} is not empty");
    for file in files {
        run(&std::fs::read(&file).expect("a readable file"));
    }
}

#[test]
fn the_kept_corpus_is_handled() {
    each("frame_decode", crate::frame_decode);
    each("grant", crate::grant);
    each("page_apply", crate::page_apply);
    each("path_component", crate::path_component);
    each("peer_session", crate::peer_session);
}

/// A start for those who have no fuzzer at hand.
#[test]
fn bytes_that_look_random_are_handled() {
    let mut x = 0x2026_u64;
    for len in (0..400).chain([2000, 5000]) {
        let mut bytes = Vec::with_capacity(len);
        for _ in 0..len {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            bytes.push((x >> 32) as u8);
        }
        for run in [crate::frame_decode, crate::grant, crate::page_apply, crate::path_component, crate::peer_session] {
            run(&bytes);
        }
    }
}
