//! Whether a disk takes two spellings for one name (CR11).

use super::handle::{PathError, statx_at};
use super::root::{Root, TMP};
use super::stage::remove_own;
use rustix::fs::{Mode, OFlags};

/// Which spellings a disk takes for one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Folding {
    /// `Name` and `name` are one entry.
    pub case: bool,
    /// A composed character and its decomposed form are one entry.
    pub normal_form: bool,
}

/// Finds out with temporary names in Ferry's own directory, and notes it in the root. A directory of its own kind deeper in the folder is
/// not seen by this; there the kernel's refusal to create the second name is what counts.
pub fn probe(root: &Root) -> Result<Folding, PathError> {
    let open = root.enter().map_err(|e| PathError::Blocked(e.obstacle()))?;
    let tmp = open.own_dir(TMP)?;
    let is_one = |made: &str, other: &str| -> Result<bool, PathError> {
        remove_own(&tmp, made.as_bytes());
        remove_own(&tmp, other.as_bytes());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        drop(rustix::fs::openat(&tmp, made, flags, Mode::RUSR | Mode::WUSR)?);
        let one = statx_at(&tmp, other.as_bytes()).is_ok();
        remove_own(&tmp, made.as_bytes());
        Ok(one)
    };
    let folding = Folding { case: is_one("probe-case", "PROBE-CASE")?, normal_form: is_one("probe-\u{e9}", "probe-e\u{301}")? };
    root.set_folds_names(folding.case || folding.normal_form);
    Ok(folding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::fixture::Folder;

    #[test]
    fn an_ordinary_disk_keeps_spellings_apart_and_nothing_is_left() {
        let folder = Folder::new();
        assert_eq!(probe(&folder.root), Ok(Folding::default()));
        assert!(!folder.root.folds_names() && folder.own("tmp").is_empty());
    }
}
