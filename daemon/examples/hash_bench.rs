//! How fast files are chunked and hashed: `cargo run --release -p ferry-daemon --example hash_bench [DIR]`.
//!
//! Makes one file of 1 GiB, 1,000 files of 1 MiB and 20,000 files of 4 KiB in a temporary directory below DIR (by default the system's),
//! reads each set once so that it is cached, then hashes it with one worker and with two.

use ferry_daemon::fs::{FolderMarker, HashOutcome, InstanceId, Root, hash_file, list};
use ferry_engine::Stat;
use ferry_protocol::{NamespaceId, RelPath};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let temp = base.join(format!("ferry-hash-bench-{}", std::process::id()));
    println!("{:<24} {:>8} {:>10} {:>10}", "files", "workers", "MB/s", "files/s");
    for (count, size) in [(1usize, 1u64 << 30), (1_000, 1 << 20), (20_000, 4 << 10)] {
        let dir = temp.join("folder");
        std::fs::create_dir_all(&dir)?;
        let outcome = measure(&dir, count, size);
        std::fs::remove_dir_all(&temp)?;
        outcome?;
    }
    Ok(())
}

fn measure(dir: &Path, count: usize, size: u64) -> anyhow::Result<()> {
    for i in 0..count {
        write_noise(&dir.join(format!("f{i}")), size, i as u64)?;
    }
    let marker = FolderMarker { namespace: NamespaceId::from_bytes([1; 16]), instance: InstanceId([1; 16]) };
    let root = Root::attach(dir, &marker)?;
    let files: Vec<(RelPath, Stat)> = list(&root, &RelPath::root())?
        .into_iter()
        .filter_map(|entry| entry.stat.ok().map(|stat| (RelPath::root().join(&entry.name), stat)))
        .collect();
    for workers in [1, 1, 2] {
        let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((path, stat)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let HashOutcome::Hashed { manifest, .. } = hash_file(&root, path, stat, &mut |_, _| ()) {
                            bytes.fetch_add(manifest.size(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        let rate = bytes.load(Ordering::Relaxed) as f64 / 1e6 / seconds;
        println!("{:<24} {workers:>8} {rate:>10.0} {:>10.0}", format!("{count} x {size} bytes"), count as f64 / seconds);
    }
    Ok(())
}

fn write_noise(path: &Path, size: u64, seed: u64) -> std::io::Result<()> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut block = vec![0u8; usize::try_from(size.min(1 << 20)).unwrap_or(1 << 20)];
    let mut file = std::fs::File::create(path)?;
    let mut left = size;
    while left > 0 {
        for word in block.chunks_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.copy_from_slice(&x.to_le_bytes()[..word.len()]);
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    Ok(())
}
