//! The files of the repository, and Rust code without its comments and literals.

use std::path::Path;

/// One text file.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The repository: what the rules look at.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub files: Vec<File>,
}

/// Folders that hold nothing written by us.
const SKIPPED: &[&str] = &["target", ".git", "node_modules", "proptest-regressions"];

impl Tree {
    /// All text files of this repository.
    pub fn of_this_repository() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
        let mut tree = Tree::default();
        tree.read(root, "");
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(tree.files.len() > 30 && tree.find("Cargo.toml").is_some(), "the repository is there");
        tree
    }

    /// A repository of these files.
    pub fn planted(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File { path: (*path).into(), text: (*text).into() };
        Self { files: files.iter().map(file).collect() }
    }

    fn read(&mut self, directory: &Path, prefix: &str) {
        for entry in std::fs::read_dir(directory).expect("a readable directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                self.read(&entry.path(), &path);
            } else if kind.is_file()
                // In a linked work tree `.git` is a file that names a path of this machine.
                && name != ".git"
                && let Ok(text) = std::fs::read_to_string(entry.path())
            {
                self.files.push(File { path, text });
            }
        }
    }

    /// The file at this path.
    pub fn find(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Whether this is a file, or a directory that holds one.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|f| f.path == path || f.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|f| f.path.ends_with(".rs"))
    }
}

impl File {
    /// Whether all of it is test code.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        let named = name == "tests.rs" || name == "contract.rs" || name.ends_with("_test.rs") || name.ends_with("_tests.rs");
        named || self.path.starts_with("tests/suite/") || self.path.contains("/tests/")
    }

    /// The code before the file's test module, comments and literals blanked.
    pub fn code(&self) -> String {
        let blank = blank(&self.text);
        let end = blank.find("#[cfg(test)]\nmod ").or_else(|| blank.find("#[cfg(test)]\npub(crate) mod "));
        // Further declarations after `#[cfg(test)] mod name;` are code again.
        match end {
            Some(end) if blank[end..].lines().nth(1).is_some_and(|l| l.trim_end().ends_with('{')) => blank[..end].to_string(),
            _ => blank,
        }
    }
}

/// The same text with comments, string and character literals replaced by spaces; line breaks stay.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let len = if rest.starts_with(b"//") {
            rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(len) = raw_string(rest, i.checked_sub(1).map(|j| bytes[j])) {
            len
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            0
        };
        if len == 0 {
            out.push(bytes[i]);
            i += 1;
        } else {
            out.extend(rest[..len].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            i += len;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    if before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let start = rest.strip_prefix(b"br").or_else(|| rest.strip_prefix(b"r"))?;
    let hashes = start.iter().take_while(|b| **b == b'#').count();
    if start.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let body = &start[hashes + 1..];
    let close = body.windows(end.len()).position(|w| w == end).map_or(body.len(), |at| at + end.len());
    Some(rest.len() - body.len() + close)
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            b'\\' => i += 2,
            b if b == quote => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

/// A quote begins a character, not a lifetime, if it closes after one character or an escape.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(b) if *b < 0x80 => rest.get(2) == Some(&b'\''),
        Some(_) => rest[1..].iter().take(5).any(|b| *b == b'\''),
        None => false,
    }
}

/// One function: its name, its first line (from 1) and how many lines it takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// The functions of blanked code, nested ones too.
pub fn functions(blanked: &str) -> Vec<Function> {
    let mut out = Vec::new();
    let bytes = blanked.as_bytes();
    for (at, _) in blanked.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let name: String = blanked[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = body_of(&bytes[at..]) else { continue };
        if name.is_empty() {
            continue;
        }
        let (mut depth, mut end) = (0, bytes.len());
        for (i, b) in bytes.iter().enumerate().skip(at + open) {
            depth += i32::from(*b == b'{') - i32::from(*b == b'}');
            if depth == 0 {
                end = i;
                break;
            }
        }
        let lines = |slice: &[u8]| slice.iter().filter(|b| **b == b'\n').count() + 1;
        out.push(Function { name, line: lines(&bytes[..at]), lines: lines(&bytes[at..end]) });
    }
    out
}

/// Where the body of the function at the beginning opens; nothing for a declaration.
fn body_of(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0;
    for (i, b) in bytes.iter().enumerate() {
        match b {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(i),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}
