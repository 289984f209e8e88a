//! Which paths are not synced: `.ferryignore` files in gitignore syntax, and a few built-in rules.
//!
//! As in git: the last rule that matches decides, rules of deeper files before those of higher ones, `!` takes a path back in, and what
//! lies in an ignored directory is ignored. The built-in rules come last, so that a file can take them back; `.ferry` at the root is
//! always left out.

use super::handle::PathError;
use super::hash::read_full;
use super::list::open_file;
use super::root::Root;
use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};
use ferry_engine::disk::Obstacle;
use ferry_protocol::{Name, RelPath};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of the files that hold ignore rules.
pub const IGNORE_FILE: &str = ".ferryignore";
/// More of an ignore file is not read, in bytes.
pub const IGNORE_FILE_MAX_BYTES: usize = 1 << 20;

/// The built-in rules: files that belong to one program on one machine while it runs, and directories of the filesystem itself.
///
/// Deliberately absent, since they may be somebody's work: `4913` (vim's probe lives for a millisecond), `*~` and `#*#` (backups and
/// autosaves), `*.part`, `*.tmp`.
pub(crate) const BUILT_IN: [&str; 9] = [
    // LibreOffice and Microsoft Office: who has this document open.
    ".~lock.*#",
    "~$*",
    // Emacs: the same, as a dangling link.
    ".#*",
    // Vim's swap files.
    ".*.sw[a-p]",
    // GLib, NFS and FUSE: files that are being replaced or were deleted while open.
    ".goutputstream-*",
    ".nfs0000*",
    ".fuse_hidden*",
    // Made by the system at the top of a disk.
    "/.Trash-*/",
    "/lost+found/",
];

/// What the rules say of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is synced.
    Included,
    /// It is not synced.
    Ignored {
        /// The rule as it is written.
        rule: String,
        /// The file that holds the rule; nothing for a built-in rule.
        source: Option<RelPath>,
        /// The line of that file, counted from 1; 0 for a built-in rule.
        line: usize,
    },
}

impl Verdict {
    /// Whether the path is not synced.
    pub fn is_ignored(&self) -> bool {
        matches!(self, Self::Ignored { .. })
    }
}

/// A line that is not a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRule {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// All ignore rules of a folder.
#[derive(Debug, Clone)]
pub struct IgnoreRules {
    built_in: Gitignore,
    files: BTreeMap<RelPath, Gitignore>,
}

impl Default for IgnoreRules {
    fn default() -> Self {
        Self::new()
    }
}

impl IgnoreRules {
    /// The built-in rules alone.
    pub fn new() -> Self {
        let (built_in, _) = compile(BUILT_IN.join("\n").as_bytes());
        Self { built_in, files: BTreeMap::new() }
    }

    /// Turns the built-in rules on or off; Ferry's own directory is never synced. Whether that changed anything.
    pub fn set_defaults(&mut self, on: bool) -> bool {
        let changed = on == self.built_in.is_empty();
        if changed {
            self.built_in = if on { Self::new().built_in } else { Gitignore::empty() };
        }
        changed
    }

    /// Whether a path is an ignore file, whose change changes the rules.
    pub fn is_ignore_file(path: &RelPath) -> bool {
        path.names().last().is_some_and(|name| name.as_bytes() == IGNORE_FILE.as_bytes())
    }

    /// Sets the rules of the ignore file in a directory; nothing when there is none (any more). Lines that are no rules are left out and
    /// told.
    pub fn set_file(&mut self, dir: &RelPath, text: Option<&[u8]>) -> Vec<BadRule> {
        let Some(text) = text else {
            self.files.remove(dir);
            return Vec::new();
        };
        let (rules, bad) = compile(text);
        if rules.is_empty() {
            self.files.remove(dir);
        } else {
            self.files.insert(dir.clone(), rules);
        }
        bad
    }

    /// Forgets the ignore files in a directory and below it.
    pub fn forget_below(&mut self, dir: &RelPath) {
        self.files.retain(|known, _| !known.starts_with(dir));
    }

    /// Reads the ignore file in a directory of a folder anew.
    pub fn load(&mut self, root: &Root, dir: &RelPath) -> Result<Vec<BadRule>, PathError> {
        let text = read_ignore_file(root, dir)?;
        Ok(self.set_file(dir, text.as_deref()))
    }

    /// What the rules say of a path, with all directories above it.
    pub fn check(&self, path: &RelPath, is_dir: bool) -> Verdict {
        let names = path.names();
        (1..=names.len())
            .map(|depth| self.check_names(&names[..depth], is_dir || depth < names.len()))
            .find(Verdict::is_ignored)
            .unwrap_or(Verdict::Included)
    }

    /// The same for an entry of a directory that is known not to be ignored: one look, for walks from the top.
    pub fn check_entry(&self, path: &RelPath, is_dir: bool) -> Verdict {
        self.check_names(path.names(), is_dir)
    }

    fn check_names(&self, names: &[Name], is_dir: bool) -> Verdict {
        if names.first().is_some_and(Name::is_bookkeeping) {
            return Verdict::Ignored { rule: "/.ferry/".into(), source: None, line: 0 };
        }
        let bytes = join(names);
        // Where the path below each directory begins in these bytes, deepest first.
        let starts: Vec<usize> = names.iter().scan(0, |at, name| Some(std::mem::replace(at, *at + name.as_bytes().len() + 1))).collect();
        if !self.files.is_empty() {
            for depth in (0..names.len()).rev() {
                let Some((dir, rules)) = self.rules_of(&names[..depth]) else { continue };
                let below = &bytes[starts[depth]..];
                if let Some(verdict) = verdict(rules, below, is_dir, Some(dir)) {
                    return verdict;
                }
            }
        }
        verdict(&self.built_in, &bytes, is_dir, None).unwrap_or(Verdict::Included)
    }

    fn rules_of(&self, dir: &[Name]) -> Option<(&RelPath, &Gitignore)> {
        if dir.is_empty() {
            return self.files.get_key_value(&RelPath::root());
        }
        self.files.get_key_value(&RelPath::from_names(dir.to_vec()))
    }
}

fn verdict(rules: &Gitignore, path: &[u8], is_dir: bool, dir: Option<&RelPath>) -> Option<Verdict> {
    match rules.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
        Match::None => None,
        Match::Whitelist(_) => Some(Verdict::Included),
        Match::Ignore(glob) => {
            let line = glob.from().and_then(Path::to_str).and_then(|line| line.parse().ok()).unwrap_or(0);
            let source = dir.and_then(|dir| Name::new(IGNORE_FILE).ok().map(|name| dir.join(&name)));
            let line = if source.is_some() { line } else { 0 };
            Some(Verdict::Ignored { rule: glob.original().to_owned(), source, line })
        }
    }
}

fn join(names: &[Name]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

/// The rules of a text. Each remembers its line in the place where the library keeps a rule's file.
fn compile(text: &[u8]) -> (Gitignore, Vec<BadRule>) {
    let mut builder = GitignoreBuilder::new("");
    let mut bad = Vec::new();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        let line_number = index + 1;
        let Ok(line) = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) else {
            bad.push(BadRule { line: line_number, reason: "not UTF-8".into() });
            continue;
        };
        if let Err(error) = builder.add_line(Some(PathBuf::from(line_number.to_string())), line) {
            bad.push(BadRule { line: line_number, reason: error.to_string() });
        }
    }
    match builder.build() {
        Ok(rules) => (rules, bad),
        Err(error) => {
            bad.push(BadRule { line: 0, reason: error.to_string() });
            (Gitignore::empty(), bad)
        }
    }
}

pub(crate) fn read_ignore_file(root: &Root, dir: &RelPath) -> Result<Option<Vec<u8>>, PathError> {
    let name = Name::new(IGNORE_FILE).map_err(|_| PathError::Blocked(Obstacle::Unrepresentable))?;
    let open = root.enter().map_err(|e| PathError::Blocked(e.obstacle()))?;
    let (file, stat) = match open_file(&open, &dir.join(&name)) {
        Ok(found) => found,
        Err(PathError::Gone) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = vec![0; usize::try_from(stat.size).unwrap_or(usize::MAX).min(IGNORE_FILE_MAX_BYTES)];
    let got = read_full(&file, &mut text, 0)?;
    text.truncate(got);
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::fixture::{Folder, rel};

    fn rules(files: &[(&str, &str)]) -> IgnoreRules {
        let mut rules = IgnoreRules::new();
        for (dir, text) in files {
            assert_eq!(rules.set_file(&rel(dir), Some(text.as_bytes())), []);
        }
        rules
    }

    #[test]
    fn the_built_in_rules_can_be_turned_off() {
        let mut rules = IgnoreRules::new();
        assert!(rules.check(&rel(".a.txt.swp"), false).is_ignored());
        assert!(rules.set_defaults(false) && !rules.set_defaults(false));
        assert!(!rules.check(&rel(".a.txt.swp"), false).is_ignored());
        assert!(rules.check(&rel(".ferry/tmp/x"), false).is_ignored());
        assert!(rules.set_defaults(true) && rules.check(&rel(".a.txt.swp"), false).is_ignored());
    }

    #[test]
    fn rules_decide_as_in_git() {
        let rules = rules(&[
            ("", "# comment\n*.log\n/top\nbuild/\n!keep.log\na/**/z\n\\#odd\ntrail\\ \n"),
            ("sub", "!special.log\nlocal\n/anchored/x\n"),
        ]);
        let ignored = |path: &str, is_dir| rules.check(&rel(path), is_dir).is_ignored();
        for path in ["x.log", "d/x.log", "top", "a/z", "a/b/c/z", "#odd", "sub/local", "sub/d/local", "sub/anchored/x", "trail "] {
            assert!(ignored(path, false), "{path}");
        }
        for path in ["keep.log", "d/keep.log", "d/top", "build", "sub/special.log", "local", "anchored/x", "sub/d/anchored/x", "a"] {
            assert!(!ignored(path, false), "{path}");
        }
        assert!(ignored("build", true) && ignored("d/build", true));
        // Not even a rule of its own takes back what lies in an ignored directory.
        assert!(ignored("build/keep.log", false) && ignored("d/build/x/y", false));
        assert!(!rules.check_entry(&rel("build/keep.log"), false).is_ignored());
    }

    #[test]
    fn a_verdict_names_its_rule() {
        let rules = rules(&[("sub", "\n\n*.o\n")]);
        let wanted = Verdict::Ignored { rule: "*.o".into(), source: Some(rel("sub/.ferryignore")), line: 3 };
        assert_eq!(rules.check(&rel("sub/d/x.o"), false), wanted);
        assert_eq!(rules.check(&rel("x.o"), false), Verdict::Included);
        let built_in = Verdict::Ignored { rule: "~$*".into(), source: None, line: 0 };
        assert_eq!(rules.check(&rel("d/~$doc.docx"), false), built_in);
    }

    #[test]
    fn built_in_rules_hit_locks_only_and_can_be_taken_back() {
        let none = IgnoreRules::new();
        for path in [".~lock.a.odt#", "d/.#a", ".a.txt.swp", "d/.goutputstream-ABC", ".nfs000012ab", ".ferry/tmp/x", ".ferry"] {
            assert!(none.check(&rel(path), false).is_ignored(), "{path}");
        }
        assert!(none.check(&rel("lost+found"), true).is_ignored());
        for path in ["4913", "a~", "#a#", "a.swp", "a.part", "d/lost+found/x", ".ferryignore", "d/.ferry", ".git/config", ".DS_Store"] {
            assert!(!none.check(&rel(path), false).is_ignored(), "{path}");
        }
        let mut back = rules(&[("", "!.a.txt.swp\n!.ferry\n")]);
        assert!(!back.check(&rel(".a.txt.swp"), false).is_ignored());
        assert!(back.check(&rel(".ferry/tmp"), true).is_ignored());
        back.set_file(&rel(""), None);
        assert!(back.check(&rel(".a.txt.swp"), false).is_ignored());
    }

    #[test]
    fn bad_lines_are_told_and_the_others_count() {
        let mut rules = IgnoreRules::new();
        let bad = rules.set_file(&rel(""), Some(b"good\n\xff\n[z-a]\nalso\r\n"));
        assert_eq!(bad.iter().map(|b| b.line).collect::<Vec<_>>(), [2, 3]);
        assert!(rules.check(&rel("good"), false).is_ignored() && rules.check(&rel("also"), false).is_ignored());
        let odd = RelPath::root().join(&Name::new(b"\xff").unwrap());
        assert_eq!(rules.check(&odd, false), Verdict::Included);
    }

    #[test]
    fn files_are_read_from_the_folder_and_links_are_not_followed() {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("d")).unwrap();
        folder.write("d/.ferryignore", "x");
        std::os::unix::fs::symlink(folder.path("d/.ferryignore"), folder.path(".ferryignore")).unwrap();
        let mut rules = IgnoreRules::new();
        assert_eq!(rules.load(&folder.root, &rel("d")), Ok(vec![]));
        assert_eq!(rules.load(&folder.root, &rel("")), Ok(vec![]));
        assert!(rules.check(&rel("d/x"), false).is_ignored() && !rules.check(&rel("x"), false).is_ignored());
        rules.forget_below(&rel("d"));
        assert!(!rules.check(&rel("d/x"), false).is_ignored());
    }
}
