//! What is on a disk, read from the disk: the canonical digest of a folder (`faults.md` 3.1).

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One thing on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// SHA-256 of its bytes, hexadecimal.
        hash: String,
        /// Size in bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Modification time, nanoseconds since 1970.
        mtime_ns: i128,
    },
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// Something else: a FIFO, a socket, a device.
    Other,
    /// It could not be read.
    Unreadable(String),
}

/// A folder: everything in it by relative path, without Ferry's own `.ferry` at the root.
pub type Tree = BTreeMap<Vec<u8>, Item>;

/// Reads a folder. What vanishes while it is read is left out.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let relative = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec();
        if relative == b".ferry" {
            continue;
        }
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let item = if meta.is_dir() {
            walk(root, &path, tree);
            Item::Dir
        } else if meta.is_symlink() {
            Item::Link(fs::read_link(&path).map(|t| t.into_os_string().into_vec()).unwrap_or_default())
        } else if meta.is_file() {
            match fs::read(&path) {
                Ok(bytes) => Item::File {
                    hash: hash(&bytes),
                    size: bytes.len() as u64,
                    mode: meta.permissions().mode() & 0o7777,
                    mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
                },
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => Item::Unreadable(e.to_string()),
            }
        } else {
            Item::Other
        };
        tree.insert(relative, item);
    }
}

/// SHA-256 in hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The differences of two folders, one a line; empty when they are the same.
pub fn differences(a: &Tree, b: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, item) in a {
        let shown = String::from_utf8_lossy(path);
        match b.get(path) {
            None => out.push(format!("only in the first: {shown}: {item:?}")),
            Some(other) if other != item => out.push(format!("differs: {shown}: {item:?} and {other:?}")),
            Some(_) => {}
        }
    }
    out.extend(
        b.iter().filter(|(p, _)| !a.contains_key(*p)).map(|(p, i)| format!("only in the second: {}: {i:?}", String::from_utf8_lossy(p))),
    );
    out
}

/// Every regular file below a folder, `.ferry` included: where lost content is looked for.
pub fn all_files(root: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => out.push(entry.path()),
                _ => {}
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_any_kind_is_seen() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [a.path(), b.path()] {
            fs::create_dir_all(root.join("d/.ferry")).unwrap();
            fs::create_dir(root.join(".ferry")).unwrap();
            fs::write(root.join("d/f"), root.as_os_str().as_bytes().len().to_string()).unwrap();
            std::os::unix::fs::symlink("to", root.join("l")).unwrap();
            let file = fs::File::options().write(true).open(root.join("d/f")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        fs::write(a.path().join(".ferry/own"), "").unwrap();
        let same = |a: &Path, b: &Path| differences(&read(a), &read(b)).is_empty();
        assert!(same(a.path(), b.path()));
        fs::set_permissions(a.path().join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(differences(&read(a.path()), &read(b.path())).len(), 1);
        fs::remove_file(b.path().join("d/f")).unwrap();
        fs::remove_dir(a.path().join("d/.ferry")).unwrap();
        assert_eq!(differences(&read(a.path()), &read(b.path())).len(), 2);
    }
}
