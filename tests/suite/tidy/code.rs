//! Rules for Rust code: layers, doors, sizes, module docs, forgotten files.

use super::source::{File, Tree, functions};

/// Most lines of code in a file, its test module not counted.
pub const FILE_LINES_MAX: usize = 700;
/// What a file should stay below.
pub const FILE_LINES_TARGET: usize = 500;
/// Most lines of a test file.
pub const TEST_FILE_LINES_MAX: usize = 1000;
/// Most lines of a function.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, each with the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Words that code below these folders does not use, and why.
const LAYERS: &[(&str, &[&str], &str)] = &[
    (
        "protocol/src/",
        &[
            "tokio",
            "tracing",
            "std::fs",
            "std::net",
            "std::env",
            "std::thread",
            "std::process",
            "SystemTime",
            "Instant",
            "rand::",
            "getrandom",
            "HashMap",
            "HashSet",
            "println!",
            "async ",
        ],
        "the protocol neither reads a clock nor touches a disk, a socket or a random source, and iterates in order",
    ),
    (
        "daemon/engine/src/",
        &[
            "tokio",
            "tracing",
            "std::fs",
            "std::net",
            "std::env",
            "std::thread",
            "std::process",
            "SystemTime",
            "Instant",
            "rand::",
            "getrandom",
            "HashMap",
            "HashSet",
            "println!",
            "async ",
        ],
        "the engine is pure: same inputs, same outputs (E1)",
    ),
    ("relay/src/http/", &["sqlx", "aws_sdk_s3", "std::fs", "tokio::fs"], "http has no SQL, no storage and no rules (R1)"),
    ("relay/src/service/", &["axum", "sqlx", "aws_sdk_s3", "StatusCode", "HeaderMap"], "service has rules only (R1)"),
    ("relay/src/store/", &["axum", "StatusCode", "HeaderMap"], "store knows nothing of HTTP (R1)"),
];

/// Libraries with one door: only these files name them.
const DOORS: &[(&str, &[&str])] = &[
    ("use notify::", &["daemon/src/fs/watch"]),
    ("::notify::", &["daemon/src/fs/watch"]),
    ("sled::", &["daemon/src/index/sled.rs"]),
    ("redb::", &["daemon/src/index/redb.rs"]),
    (
        "reqwest::",
        &[
            "daemon/src/relay/",
            "daemon/src/cli/",
            "relay/src/cli/doctor.rs",
            "relay/src/oidc.rs",
            "relay/tests/topology.rs",
            "tests/",
            "relay/src/store/blob_s3/tests.rs",
            "relay/src/service/content/tests/chunks.rs",
        ],
    ),
    ("sqlx::", &["relay/src/store/sqlite", "relay/src/store/postgres"]),
    ("aws_sdk_s3::", &["relay/src/store/blob_s3"]),
    ("argon2::", &["relay/src/"]),
    ("fastcdc::", &["protocol/src/chunker.rs"]),
    ("renameat_with", &["daemon/src/fs/", "relay/src/store/", "tests/"]),
    ("unlinkat", &["daemon/src/fs/", "relay/src/store/"]),
];

fn numbered<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| holds(line, word)).map(|(n, _)| n + 1)
}

/// Whether the line holds the word, not as the end of a longer one nor as a module of ours.
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = &line[..at];
        let ours = ["super::", "self::", "crate::"].iter().any(|p| before.ends_with(p));
        !ours && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

/// A crate or module uses only what its layer may.
pub fn layers(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.rust().filter(|f| !f.is_test()) {
        for (folder, words, why) in LAYERS.iter().filter(|(folder, _, _)| file.path.starts_with(folder)) {
            let code = file.code();
            for word in *words {
                broken.extend(numbered(&code, word).map(|n| format!("{}:{n}: `{word}` below {folder}: {why}", file.path)));
            }
        }
    }
    let depends = |crate_file: &str, on: &str| {
        tree.find(crate_file).is_some_and(|f| f.text.lines().any(|l| l.starts_with(on) && !l.contains("optional = true")))
    };
    let arrows = [
        ("protocol/Cargo.toml", &["ferry-", "tokio", "tracing", "getrandom"][..]),
        ("daemon/engine/Cargo.toml", &["ferry-daemon", "ferry-relay", "tokio", "tracing", "getrandom"]),
        ("daemon/Cargo.toml", &["ferry-relay"]),
        ("relay/Cargo.toml", &["ferry-daemon", "ferry-engine"]),
    ];
    for (file, forbidden) in arrows {
        broken.extend(forbidden.iter().filter(|d| depends(file, d)).map(|d| format!("{file}: depends on {d}: dependencies point one way")));
    }
    broken
}

/// Each library that touches the world is named in one place.
pub fn doors(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.rust().filter(|f| !f.path.starts_with("tests/suite/tidy")) {
        let code = file.code();
        for (word, doors) in DOORS {
            if !doors.iter().any(|d| file.path.starts_with(d)) {
                broken.extend(numbered(&code, word).map(|n| format!("{}:{n}: `{word}` belongs in {}", file.path, doors.join(" or "))));
            }
        }
    }
    broken
}

fn lines(file: &File) -> (usize, usize) {
    if file.is_test() { (file.text.lines().count(), TEST_FILE_LINES_MAX) } else { (file.code().lines().count(), FILE_LINES_MAX) }
}

/// Files above the limit.
pub fn long_files(tree: &Tree) -> Vec<String> {
    let counted = tree.rust().map(|f| (f, lines(f)));
    counted.filter(|(_, (n, max))| n > max).map(|(f, (n, max))| format!("{}: {n} lines; at most {max}: split it", f.path)).collect()
}

/// Files above the target, not yet above the limit.
pub fn files_to_watch(tree: &Tree) -> Vec<String> {
    let code = tree.rust().filter(|f| !f.is_test()).map(|f| (f, f.code().lines().count()));
    code.filter(|(_, n)| *n > FILE_LINES_TARGET).map(|(f, n)| format!("{}: {n} lines", f.path)).collect()
}

/// Functions above the limit, test code aside.
pub fn long_functions(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.rust().filter(|f| !f.is_test()) {
        for function in functions(&file.code()).iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            let excused = LONG_FUNCTIONS.iter().any(|(path, name, _)| *path == file.path && *name == function.name);
            if !excused {
                let (path, name, n) = (&file.path, &function.name, function.lines);
                broken.push(format!("{path}:{}: `{name}` has {n} lines; at most {FUNCTION_LINES_MAX}", function.line));
            }
        }
    }
    broken
}

/// Every Rust file begins with a module doc.
pub fn module_docs(tree: &Tree) -> Vec<String> {
    let silent = tree.rust().filter(|f| !f.text.starts_with("//!"));
    silent.map(|f| format!("{}: does not begin with `//!`", f.path)).collect()
}

/// Every Rust file below a `src` or `suite` folder is declared by its parent.
pub fn forgotten_files(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.rust() {
        let Some((folder, name)) = file.path.rsplit_once('/') else { continue };
        let is_root = ["main.rs", "lib.rs", "build.rs"].contains(&name) || folder.ends_with("/bin") || folder.ends_with("/examples");
        if is_root || !(file.path.contains("/src/") || file.path.contains("/suite/")) {
            continue;
        }
        let (module, around) = match name {
            "mod.rs" => folder.rsplit_once('/').map(|(up, module)| (module, up)).unwrap_or((folder, "")),
            _ => (name.trim_end_matches(".rs"), folder),
        };
        let parents = [format!("{around}/mod.rs"), format!("{around}/lib.rs"), format!("{around}/main.rs"), format!("{around}.rs")];
        let declared = parents.iter().filter_map(|p| tree.find(p)).any(|p| {
            let wanted = format!("mod {module};");
            p.text.lines().any(|l| l.trim_end().ends_with(&wanted) && !l.trim_start().starts_with("//"))
        });
        if !declared {
            broken.push(format!("{}: no `mod {module};` in its parent: it is never compiled", file.path));
        }
    }
    broken
}

/// Where tests may sleep: the one loop that polls a condition, and what plays a person or a slow writer.
const SLEEPERS: &[(&str, &str)] = &[
    ("tests/src/poll.rs", "the loop that polls a condition until a deadline"),
    ("tests/src/bin/", "benches measure time"),
    ("tests/src/postgres.rs", "stands alone; waits until the processes of a killed server have ended"),
];

/// Tests poll a condition with a deadline; none sleeps.
pub fn sleeping_tests(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let tests = tree.rust().filter(|f| f.path.starts_with("tests/") && !f.path.starts_with("tests/suite/tidy"));
    for file in tests.filter(|f| !SLEEPERS.iter().any(|(path, _)| f.path.starts_with(path))) {
        let code = super::source::blank(&file.text);
        broken.extend(numbered(&code, "sleep(").map(|n| format!("{}:{n}: sleeps; poll a condition with a deadline", file.path)));
    }
    broken
}
