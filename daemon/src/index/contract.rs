//! The contract suite: every kind of index behaves the same, and none is silently wrong after damage.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Numbers that a seed repeats.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Where a suite opens its index again and again.
enum Place {
    Disk(tempfile::TempDir, Kind),
    Memory(MemoryDisk),
}

impl Place {
    fn open(&self) -> (Arc<dyn IndexStore>, Option<OpenedIndex>) {
        match self {
            Self::Disk(dir, kind) => {
                let opened = open(dir.path(), *kind).unwrap();
                (Arc::clone(&opened.store), Some(opened))
            }
            Self::Memory(disk) => (open_memory(disk).unwrap(), None),
        }
    }
}

fn on_every_kind(suite: impl Fn(&Place)) {
    suite(&Place::Memory(MemoryDisk::new()));
    for kind in [Kind::Redb, Kind::Sled] {
        suite(&Place::Disk(tempfile::tempdir().unwrap(), kind));
    }
}

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn random_batch(numbers: &mut Numbers, model: &mut Model) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..numbers.below(20) {
        let table = Table::ALL[numbers.below(Table::ALL.len() as u64) as usize];
        let key: Vec<u8> = (0..numbers.below(4)).map(|_| [0, 1, 127, 255][numbers.below(4) as usize]).collect();
        if numbers.below(4) == 0 {
            model.remove(&(table, key.clone()));
            batch.delete(table, key);
        } else {
            let value: Vec<u8> = (0..numbers.below(40)).map(|_| numbers.below(256) as u8).collect();
            model.insert((table, key.clone()), value.clone());
            batch.put(table, key, value);
        }
    }
    batch
}

fn all_rows(store: &dyn IndexStore) -> Result<Model, IndexError> {
    let mut rows = Model::new();
    for table in Table::ALL {
        rows.extend(store.range(table, b"", None, usize::MAX)?.into_iter().map(|(key, value)| ((table, key), value)));
    }
    Ok(rows)
}

#[test]
fn it_is_an_ordered_map_and_stays_one_when_opened_again() {
    on_every_kind(|place| {
        let (mut numbers, mut model) = (Numbers(7), Model::new());
        for _ in 0..5 {
            let (store, _opened) = place.open();
            for i in 0..40 {
                let batch = random_batch(&mut numbers, &mut model);
                store.commit(&batch, if i % 7 == 0 { Durability::Durable } else { Durability::Relaxed }).unwrap();
                let (table, key) = (Table::ALL[numbers.below(14) as usize], vec![[0, 1, 127, 255][numbers.below(4) as usize]]);
                assert_eq!(store.get(table, &key).unwrap(), model.get(&(table, key)).cloned());
            }
            assert_eq!(all_rows(&*store).unwrap(), model);
        }
        let (store, _opened) = place.open();
        assert_eq!(all_rows(&*store).unwrap(), model);
        assert!(store.size_bytes().unwrap() > 0);
    });
}

#[test]
fn ranges_keep_their_bounds_their_limit_and_their_table() {
    on_every_kind(|place| {
        let (store, _opened) = place.open();
        let mut batch = WriteBatch::new();
        for key in [&b""[..], b"a", b"ab", b"b", b"\xff", b"\xff\xff"] {
            batch.put(Table::Items, key, b"items");
            batch.put(Table::Names, key, b"names");
        }
        store.commit(&batch, Durability::Durable).unwrap();
        let keys = |from: &[u8], until: Option<&[u8]>, limit| {
            let rows = store.range(Table::Items, from, until, limit).unwrap();
            assert!(rows.iter().all(|(_, value)| value == b"items"));
            rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(b"", None, 10), [&b""[..], b"a", b"ab", b"b", b"\xff", b"\xff\xff"]);
        assert_eq!(keys(b"a", Some(b"b"), 10), [b"a".to_vec(), b"ab".to_vec()]);
        assert_eq!(keys(b"aa", None, 2), [b"ab".to_vec(), b"b".to_vec()]);
        assert_eq!(keys(b"\xff", None, 10), [&b"\xff"[..], b"\xff\xff"]);
        assert_eq!(keys(b"b", Some(b"a"), 10), Vec::<Vec<u8>>::new());
        assert_eq!(keys(b"b", Some(b"b"), 10), Vec::<Vec<u8>>::new());
        assert_eq!(keys(b"", None, 0), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn empty_and_large_values_are_values() {
    on_every_kind(|place| {
        let (store, opened) = place.open();
        let large = vec![0xa5; 3_000_000];
        let mut batch = WriteBatch::new();
        batch.put(Table::Nodes, b"large", large.clone());
        batch.put(Table::Nodes, b"empty", b"");
        store.commit(&batch, Durability::Relaxed).unwrap();
        drop((store, opened));
        let (store, _opened) = place.open();
        assert_eq!(store.get(Table::Nodes, b"large").unwrap(), Some(large));
        assert_eq!(store.get(Table::Nodes, b"empty").unwrap(), Some(Vec::new()));
        assert_eq!(store.get(Table::Nodes, b"none").unwrap(), None);
    });
}

#[test]
fn readers_see_whole_batches_only() {
    on_every_kind(|place| {
        let (store, _opened) = place.open();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for i in 0..200u32 {
                    let mut batch = WriteBatch::new();
                    for key in 0..5u8 {
                        batch.put(Table::Kids, [key], i.to_le_bytes());
                    }
                    store.commit(&batch, Durability::Relaxed).unwrap();
                }
            });
            let mut before = 0;
            while !writer.is_finished() {
                if let Some(value) = store.get(Table::Kids, &[0]).unwrap() {
                    let now = u32::from_le_bytes(value.try_into().unwrap());
                    assert!(now >= before);
                    before = now;
                }
            }
        });
        let rows = store.range(Table::Kids, b"", None, 10).unwrap();
        assert_eq!(rows.len(), 5);
        assert!(rows.iter().all(|(_, value)| value[..] == 199u32.to_le_bytes()));
    });
}

#[test]
fn a_crash_of_the_memory_disk_loses_a_suffix_of_the_relaxed_batches() {
    let disk = MemoryDisk::new();
    let store = open_memory(&disk).unwrap();
    let put = |n: u8, durability| {
        let mut batch = WriteBatch::new();
        batch.put(Table::Meta, [n], [n]);
        store.commit(&batch, durability).unwrap();
    };
    put(1, Durability::Durable);
    put(2, Durability::Relaxed);
    put(3, Durability::Relaxed);
    assert_eq!(disk.pending_batches(), 2);
    disk.crash(1);
    let again = open_memory(&disk).unwrap();
    let keys: Vec<_> = again.range(Table::Meta, b"", None, 10).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [[1], [2]]);
}

#[test]
fn a_flipped_bit_is_damage_and_never_a_row() {
    let disk = MemoryDisk::new();
    let store = open_memory(&disk).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(Table::Meta, b"key", b"value");
    store.commit(&batch, Durability::Durable).unwrap();
    assert!(disk.flip_bit(2));
    assert!(store.get(Table::Meta, b"key").unwrap_err().is_damage());
    assert!(store.range(Table::Meta, b"", None, 1).unwrap_err().is_damage());
    assert!(matches!(store.commit(&batch, Durability::Durable), Err(IndexError::Stopped)));
}

#[test]
fn after_a_failed_commit_the_index_stops_and_opens_again_as_it_was() {
    let disk = MemoryDisk::new();
    let store = open_memory(&disk).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(Table::Meta, b"key", b"1");
    store.commit(&batch, Durability::Durable).unwrap();
    let mut next = WriteBatch::new();
    next.put(Table::Meta, b"key", b"2");
    disk.set_full(true);
    let error = store.commit(&next, Durability::Durable).unwrap_err();
    assert!(matches!(error, IndexError::Io { .. }) && error.to_string().contains("space"), "{error}");
    disk.set_full(false);
    assert!(matches!(store.commit(&next, Durability::Durable), Err(IndexError::Stopped)));
    let again = open_memory(&disk).unwrap();
    assert_eq!(again.get(Table::Meta, b"key").unwrap().unwrap(), b"1");
    again.commit(&next, Durability::Durable).unwrap();
    assert_eq!(again.get(Table::Meta, b"key").unwrap().unwrap(), b"2");
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), DEFAULT_KIND).unwrap();
    assert!(matches!(open(dir.path(), DEFAULT_KIND), Err(IndexError::Locked { .. })));
    drop(opened);
    assert_eq!(open(dir.path(), DEFAULT_KIND).unwrap().origin, Origin::Existing);
}

#[test]
fn an_index_keeps_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Kind::Sled).unwrap());
    let opened = open(dir.path(), Kind::Redb).unwrap();
    assert_eq!((opened.kind, &opened.origin), (Kind::Sled, &Origin::Existing));
}

/// Fills an index with durable batches and gives its rows.
fn filled(dir: &Path, kind: Kind) -> Model {
    let opened = open(dir, kind).unwrap();
    let (mut numbers, mut model) = (Numbers(11), Model::new());
    for i in 0..30u32 {
        let mut batch = random_batch(&mut numbers, &mut model);
        let value = vec![i as u8; 700];
        model.insert((Table::Items, i.to_be_bytes().to_vec()), value.clone());
        batch.put(Table::Items, i.to_be_bytes(), value);
        opened.store.commit(&batch, Durability::Durable).unwrap();
    }
    model
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_of(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_tree(&path, &target) } else { assert!(fs::copy(&path, &target).is_ok()) }
    }
}

/// Damages one file of the index: flips bits, zeroes a page, or cuts it. Gives what it did.
fn damage(dir: &Path, numbers: &mut Numbers) -> String {
    let files: Vec<_> = files_of(dir).into_iter().filter(|f| f.metadata().unwrap().len() > 64).collect();
    let file = &files[numbers.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).unwrap();
    // Stores keep empty space at the end: aim at the part that holds something.
    let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0) as u64 + 1;
    let at = numbers.below(used) as usize;
    let how = match numbers.below(4) {
        0 => {
            bytes.truncate(at);
            "cut"
        }
        1 => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
            "zeroed"
        }
        _ => {
            bytes[at] ^= 1 << numbers.below(8);
            "flipped"
        }
    };
    fs::write(file, &bytes).unwrap();
    format!("{how} at {at} of {}", file.display())
}

fn damaged_index_is_right_or_set_aside(kind: Kind, rounds: u64, exact: bool) -> usize {
    let whole = tempfile::tempdir().unwrap();
    let model = filled(whole.path(), kind);
    let mut noticed = 0;
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(whole.path(), dir.path());
        let what = damage(&dir.path().join("index"), &mut Numbers(round * 7919 + 1));
        let opened = open(dir.path(), kind).unwrap_or_else(|e| panic!("{what}: {e}"));
        let rows = all_rows(&*opened.store);
        if let Origin::Rebuilt { set_aside, .. } = &opened.origin {
            noticed += 1;
            assert!(rows.unwrap().is_empty(), "{what}: a rebuilt index is new");
            assert!(!files_of(set_aside).is_empty(), "{what}: nothing is deleted");
            continue;
        }
        match rows {
            Ok(rows) if exact => assert_eq!(rows, model, "{what}"),
            Ok(rows) => assert!(rows.iter().all(|(key, value)| model.get(key) == Some(value)), "{what}: a wrong row"),
            Err(error) => {
                assert!(error.is_damage(), "{what}: {error}");
                noticed += 1;
                drop((error, opened));
                assert!(open(dir.path(), kind).unwrap().rebuilt(), "{what}: damage that was seen is remembered");
            }
        }
    }
    noticed
}

#[test]
fn a_damaged_redb_index_is_right_or_set_aside() {
    let noticed = damaged_index_is_right_or_set_aside(Kind::Redb, 60, true);
    assert!(noticed > 10, "only {noticed} damages noticed");
}

#[test]
fn a_damaged_sled_index_has_no_wrong_row() {
    let noticed = damaged_index_is_right_or_set_aside(Kind::Sled, 40, false);
    assert!(noticed > 5, "only {noticed} damages noticed");
}

#[test]
fn a_store_that_is_behind_its_seal_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), Kind::Redb);
    let store = dir.path().join("index/store.redb");
    let old = fs::read(&store).unwrap();
    let opened = open(dir.path(), Kind::Redb).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(Table::Meta, b"counter", b"1");
    opened.store.commit(&batch, Durability::Durable).unwrap();
    drop(opened);
    fs::write(&store, old).unwrap();
    let opened = open(dir.path(), Kind::Redb).unwrap();
    assert!(opened.rebuilt());
    assert_eq!(all_rows(&*opened.store).unwrap(), Model::new());
    let Origin::Rebuilt { reason, .. } = opened.origin else { panic!() };
    assert!(reason.contains("batch"), "{reason}");
}

#[test]
fn a_store_file_that_is_gone_or_foreign_is_set_aside() {
    for kind in [Kind::Redb, Kind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), kind);
        let store = dir.path().join("index").join(if kind == Kind::Redb { "store.redb" } else { "store.sled" });
        if store.is_dir() {
            fs::remove_dir_all(&store).unwrap()
        } else {
            fs::remove_file(&store).unwrap()
        }
        assert!(open(dir.path(), kind).unwrap().rebuilt());
        let again = open(dir.path(), kind).unwrap();
        assert_eq!(again.origin, Origin::Existing);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("index")).unwrap();
    fs::write(dir.path().join("index/store.redb"), b"not a database, but some text that is long enough to look like one").unwrap();
    let opened = open(dir.path(), Kind::Redb).unwrap();
    assert!(opened.rebuilt());
    assert!(dir.path().join("index.damaged-1/store.redb").exists());
}

#[test]
fn a_lost_index_is_new_and_not_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), DEFAULT_KIND);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(open(dir.path(), DEFAULT_KIND).unwrap().origin, Origin::New);
}

#[test]
fn a_newer_format_is_refused_and_left() {
    let disk = MemoryDisk::new();
    drop(open_memory(&disk).unwrap());
    super::checked::write_format(&disk, 2);
    assert!(matches!(open_memory(&disk), Err(IndexError::Newer { found: 2, known: 1 })));
    assert!(matches!(open_memory(&disk), Err(IndexError::Newer { .. })));
}

#[test]
fn prefix_scans_meet_exactly_the_prefix() {
    let disk = MemoryDisk::new();
    let store = open_memory(&disk).unwrap();
    let mut batch = WriteBatch::new();
    for key in [&b"a"[..], b"ab", b"ab\xff", b"ac"] {
        batch.put(Table::Names, key, b"");
    }
    store.commit(&batch, Durability::Durable).unwrap();
    let until = prefix_end(b"ab");
    let rows = store.range(Table::Names, b"ab", until.as_deref(), 10).unwrap();
    assert_eq!(rows.len(), 2);
}
