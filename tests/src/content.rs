//! Content that is unique and proves itself: a part of it, or a mixture of two, is told from the whole (I4).

use crate::tree;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const MARK: &str = "ferry-proof";
static NEXT: AtomicU64 = AtomicU64::new(1);

/// New content of about `size` bytes, unlike any other, that begins with `label`'s line and the hash of its own body.
pub fn unique(label: &str, size: usize) -> Vec<u8> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut body = format!("{label} number {number} of process {}\n", std::process::id()).into_bytes();
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while body.len() < size {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        body.extend_from_slice(format!("{x:016x}\n").as_bytes());
    }
    let mut out = format!("{MARK} {} {}\n", tree::hash(&body), body.len()).into_bytes();
    out.extend_from_slice(&body);
    out
}

/// Why these bytes are not one whole content made by [`unique`]; nothing if they are, or if they never claimed to be.
pub fn flaw(bytes: &[u8]) -> Option<String> {
    if !bytes.starts_with(MARK.as_bytes()) {
        return (!bytes.is_empty() && MARK.as_bytes().starts_with(bytes)).then(|| "cut in its mark".into());
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Some("cut in its first line".into()) };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let words: Vec<&str> = head.split(' ').collect();
    let body = &bytes[end + 1..];
    let whole = words.len() == 3 && words[1] == tree::hash(body) && words[2] == body.len().to_string();
    (!whole).then(|| format!("{} bytes that are not what their first line says: {head}", bytes.len()))
}

/// Reads every file below a folder in a tight loop, and remembers each one that was not whole (I4).
pub struct Sampler {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<u64>>,
}

impl Sampler {
    /// Starts to sample the folder of a device on which nobody writes but the daemon.
    pub fn start(root: &Path) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (root, stopped, found): (PathBuf, _, _) = (root.into(), stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let mut reads = 0;
            while !stopped.load(Ordering::Relaxed) {
                for path in tree::all_files(&root).iter().filter(|p| !p.starts_with(root.join(".ferry"))) {
                    let Ok(bytes) = std::fs::read(path) else { continue };
                    reads += 1;
                    if let Some(flaw) = flaw(&bytes) {
                        found.lock().expect("no holder panics").push(format!("{}: {flaw}", path.display()));
                    }
                }
                std::thread::yield_now();
            }
            reads
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// Ends the sampling: how many files were read. Panics if one was not whole.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let reads = self.thread.take().map_or(0, |t| t.join().expect("the sampler does not panic"));
        let seen = self.seen.lock().expect("no holder panics");
        assert!(seen.is_empty(), "I4: half files were seen:\n{}", seen.join("\n"));
        reads
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_or_a_mixture_is_found() {
        let (a, b) = (unique("a", 300), unique("b", 300));
        assert_ne!(a, b);
        assert_eq!(flaw(&a), None);
        assert_eq!(flaw(b"of somebody else"), None);
        assert!((1..a.len()).all(|cut| flaw(&a[..cut]).is_some()));
        let mixed = [&a[..200], &b[200..]].concat();
        assert!(flaw(&mixed).is_some());
    }

    #[test]
    fn the_sampler_finds_a_half_file() {
        let folder = tempfile::tempdir().unwrap();
        let sampler = Sampler::start(folder.path());
        let whole = unique("x", 200);
        std::fs::write(folder.path().join("f"), &whole[..150]).unwrap();
        crate::poll::until_true("the half file is seen", std::time::Duration::from_secs(20), || !sampler.seen.lock().unwrap().is_empty());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sampler.finish())).is_err());
    }
}
