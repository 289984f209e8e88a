//! What rows are made of: short words for what a person does on a disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a row expects: nothing, or what is wrong.
pub type Verdict = Result<(), String>;

/// Content number `k` of this row's folder: unlike every other, the same whenever asked.
pub fn bytes(dir: &Path, k: u32) -> Vec<u8> {
    sized(dir, k, 0)
}

/// [`bytes`] with at least this size, without repetition.
pub fn sized(dir: &Path, k: u32, size: usize) -> Vec<u8> {
    let name = dir.file_name().expect("a row has a folder").to_string_lossy().into_owned();
    let mut out = format!("content {k} of {name}\n").into_bytes();
    let mut x = name.bytes().fold(u64::from(k) | 1 << 40, |x, b| x.wrapping_mul(0x100_0000_01b3) ^ u64::from(b)) | 1;
    while out.len() < size {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out
}

/// Writes content `k` to this file of the row's folder, making the folders on its way.
pub fn put(dir: &Path, name: &str, k: u32) {
    put_bytes(dir, name, &bytes(dir, k));
}

/// Writes these bytes.
pub fn put_bytes(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("below the row's folder")).expect("folders");
    fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Writes content `k` beside the file, syncs, and renames it into place, as careful programs do.
pub fn save(dir: &Path, name: &str, k: u32) {
    let temporary = dir.join(format!(".{name}.saving"));
    let file = fs::File::create(&temporary).expect("a new file");
    std::io::Write::write_all(&mut &file, &bytes(dir, k)).expect("room");
    file.sync_all().expect("a sync");
    fs::rename(&temporary, dir.join(name)).expect("a rename");
}

/// Renames within the row's folder.
pub fn mv(dir: &Path, from: &str, to: &str) {
    fs::rename(dir.join(from), dir.join(to)).unwrap_or_else(|e| panic!("{}: {from} to {to}: {e}", dir.display()));
}

/// Deletes a file or a folder with all in it.
pub fn rm(dir: &Path, name: &str) {
    let path = dir.join(name);
    let done = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    done.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Makes a folder.
pub fn mkdir(dir: &Path, name: &str) {
    fs::create_dir_all(dir.join(name)).expect("a folder");
}

/// Sets permission bits.
pub fn chmod(dir: &Path, name: &str, mode: u32) {
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
}

/// The names in the row's folder (or one below), sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n != ".ferry").collect();
    names.sort();
    names
}

/// The file holds content `k` of the row's folder.
pub fn holds(dir: &Path, name: &str, k: u32) -> Verdict {
    holds_bytes(dir, name, &bytes(dir, k))
}

/// The file holds these bytes.
pub fn holds_bytes(dir: &Path, name: &str, wanted: &[u8]) -> Verdict {
    match fs::read(dir.join(name)) {
        Ok(got) if got == wanted => Ok(()),
        Ok(got) => Err(format!("{name} holds other bytes: {:?}", String::from_utf8_lossy(&got[..got.len().min(60)]))),
        Err(e) => Err(format!("{name}: {e}; there are {:?}", names(dir))),
    }
}

/// The row's folder holds exactly these names.
pub fn only(dir: &Path, wanted: &[&str]) -> Verdict {
    let got = names(dir);
    if got == wanted { Ok(()) } else { Err(format!("there are {got:?}, not {wanted:?}")) }
}

/// There is nothing under this name.
pub fn gone(dir: &Path, name: &str) -> Verdict {
    if dir.join(name).symlink_metadata().is_err() { Ok(()) } else { Err(format!("{name} is still there")) }
}

/// The condition holds.
pub fn is(what: &str, condition: bool) -> Verdict {
    if condition { Ok(()) } else { Err(format!("not so: {what}")) }
}

/// Of these contents, one stands under `name` and the others in conflicted copies beside it; nothing else begins like it.
pub fn kept_beside(dir: &Path, name: &str, contents: &[u32]) -> Verdict {
    let stem = name.split('.').next().unwrap_or(name);
    let family: Vec<String> =
        names(dir).into_iter().filter(|n| n == name || (n.starts_with(stem) && n.contains("(conflicted copy, "))).collect();
    is(
        &format!("{name} and {} copies: {family:?}", contents.len() - 1),
        family.len() == contents.len() && family.iter().any(|n| n == name),
    )?;
    let mut got: Vec<Vec<u8>> = family.iter().map(|n| fs::read(dir.join(n)).unwrap_or_default()).collect();
    let mut wanted: Vec<Vec<u8>> = contents.iter().map(|k| bytes(dir, *k)).collect();
    got.sort();
    wanted.sort();
    is(&format!("each content once in {family:?}"), got == wanted)
}
