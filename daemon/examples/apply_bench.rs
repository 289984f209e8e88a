//! How fast small files reach the disk and leave it: `cargo run --release -p ferry-daemon --example apply_bench [DIR]`.
//!
//! Stages and places 10,000 files of 4 KiB in 100 directories in batches of 500, replaces them, and moves them to the trash; each batch is
//! durable when it is answered.

use ferry_daemon::fs::{FolderMarker, InstanceId, Root, Staged, apply, stage::stage_small_batch};
use ferry_engine::{DiskAction, DiskOutcome, Stat};
use ferry_protocol::{Name, NamespaceId, RelPath, VerifiedChunk};
use std::time::Instant;

const FILES: usize = 10_000;
const DIRS: usize = 100;
const BATCH: usize = 500;

fn main() -> anyhow::Result<()> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let temp = base.join(format!("ferry-apply-bench-{}", std::process::id()));
    std::fs::create_dir_all(&temp)?;
    let outcome = measure(&temp);
    std::fs::remove_dir_all(&temp)?;
    outcome
}

fn measure(dir: &std::path::Path) -> anyhow::Result<()> {
    let root = Root::attach(dir, &FolderMarker { namespace: NamespaceId::from_bytes([1; 16]), instance: InstanceId([1; 16]) })?;
    let parents: Vec<RelPath> = (0..DIRS).map(|d| name(&RelPath::root(), d)).collect::<Result<_, _>>()?;
    let make: Vec<_> = parents.iter().map(|path| DiskAction::MakeDir { path: path.clone(), mode: 0o755 }).collect();
    carry_out("make 100 directories", &root, &make)?;
    let paths: Vec<RelPath> = (0..FILES).map(|i| name(&parents[i * DIRS / FILES], i)).collect::<Result<_, _>>()?;
    let staged = stage(&root, 1)?;
    let put = |staged: &[Staged], expect: &[Option<Stat>]| -> Vec<DiskAction> {
        let put = |i: usize| DiskAction::PutFile {
            path: paths[i].clone(),
            expect: expect[i],
            content: staged[i].content,
            mode: 0o644,
            mtime_ns: 1_700_000_000_123_456_789,
        };
        (0..FILES).map(put).collect()
    };
    let stats = carry_out("place 10000 files", &root, &put(&staged, &vec![None; FILES]))?;
    let staged = stage(&root, 2)?;
    let stats = carry_out("replace 10000 files", &root, &put(&staged, &stats))?;
    let pairs = paths.iter().zip(&stats);
    let remove: Vec<_> = pairs.filter_map(|(path, stat)| stat.map(|expect| DiskAction::Remove { path: path.clone(), expect })).collect();
    carry_out("remove 10000 files", &root, &remove)?;
    Ok(())
}

fn name(parent: &RelPath, number: usize) -> Result<RelPath, ferry_protocol::NameError> {
    Ok(parent.join(&Name::new(format!("n{number}"))?))
}

fn stage(root: &Root, round: u8) -> anyhow::Result<Vec<Staged>> {
    let chunks: Vec<_> = (0..FILES)
        .map(|i| {
            let mut bytes = vec![round; 4096];
            bytes[..8].copy_from_slice(&i.to_le_bytes());
            VerifiedChunk::of(bytes)
        })
        .collect();
    let begun = Instant::now();
    let (staged, obstacle) = stage_small_batch(root, chunks.iter().map(Some));
    println!("{:<24} {:>8.3} s", "stage 10000 files", begun.elapsed().as_secs_f64());
    anyhow::ensure!(obstacle.is_none(), "staging stopped: {obstacle:?}");
    Ok(staged)
}

fn carry_out(what: &str, root: &Root, actions: &[DiskAction]) -> anyhow::Result<Vec<Option<Stat>>> {
    let begun = Instant::now();
    let outcomes: Vec<DiskOutcome> = actions.chunks(BATCH).flat_map(|batch| apply(root, batch).expect("a sync")).collect();
    println!("{what:<24} {:>8.3} s", begun.elapsed().as_secs_f64());
    let stat = |outcome| match outcome {
        DiskOutcome::Done(stat) => Ok(stat),
        other => anyhow::bail!("{what}: {other:?}"),
    };
    outcomes.into_iter().map(stat).collect()
}
