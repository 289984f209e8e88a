//! Rules for the repository: words, migrations, documents, dependencies.

use super::source::Tree;
use std::collections::BTreeMap;

/// Most packages in `Cargo.lock`, our own five among them. Raise it with a reason in the commit.
/// Seventeen of them read and write pictures and Markdown.
pub const PACKAGES_MAX: usize = 680;

/// Words that mark unfinished work or one person's machine. Written apart so that this file does not break its own rule.
fn words() -> Vec<String> {
    let apart = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("to", "do!("),
        ("unimple", "mented!("),
        ("#[ign", "ore"),
        ("db", "g!("),
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("@nocom", "mit"),
        ("<<<<", "<<<"),
    ];
    apart.iter().map(|(a, b)| format!("{a}{b}")).collect()
}

/// No unfinished words, no path of one machine.
pub fn banned_words(tree: &Tree) -> Vec<String> {
    let words = words();
    let mut broken = Vec::new();
    for file in tree.files.iter().filter(|f| f.path != "Cargo.lock" && !f.path.ends_with(".jsonl")) {
        for (n, line) in file.text.lines().enumerate() {
            broken.extend(words.iter().filter(|w| line.contains(*w)).map(|w| format!("{}:{}: `{w}`", file.path, n + 1)));
        }
    }
    broken
}

/// Migrations of a database are numbered from 1 without gap or double; once there are two databases they have the same files.
pub fn migrations(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in &tree.files {
        let Some((database, name)) = file.path.strip_prefix("migrations/").and_then(|p| p.split_once('/')) else { continue };
        if name.ends_with(".sql") {
            names.entry(database).or_default().push(name);
        }
    }
    for (database, files) in &mut names {
        files.sort_unstable();
        for (i, name) in files.iter().enumerate() {
            let number = name.split('_').next().unwrap_or("");
            if number.len() != 4 || number.parse() != Ok(i + 1) {
                broken.push(format!("migrations/{database}/{name}: its number should be {:04}", i + 1));
            }
        }
    }
    let mut sets = names.iter();
    if let Some((first, files)) = sets.next() {
        for (other, others) in sets.filter(|(_, others)| *others != files) {
            broken.push(format!("migrations/{first} and migrations/{other} have different files: {files:?} and {others:?}"));
        }
    }
    broken
}

/// Documents name only files that exist: in backquotes below one of our folders, and in relative links.
pub fn documents(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (n, line) in file.text.lines().enumerate() {
            let quoted = line.split('`').skip(1).step_by(2).filter_map(as_path);
            for path in quoted.filter(|p| !tree.has(p)) {
                broken.push(format!("{}:{}: `{path}` does not exist", file.path, n + 1));
            }
            for target in links(line) {
                let target = target.split('#').next().unwrap_or("");
                if !target.is_empty() && !tree.has(&relative(folder, target)) {
                    broken.push(format!("{}:{}: link to {target}, which does not exist", file.path, n + 1));
                }
            }
        }
    }
    broken
}

/// The table of scenarios names tests that exist.
pub fn named_tests(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let Some(table) = tree.find("docs/TESTING.md") else { return broken };
    for (n, line) in table.text.lines().enumerate().filter(|(_, l)| l.starts_with("| ") && l.ends_with(" |")) {
        let Some(id) = line.split('|').nth(1).map(str::trim).filter(|id| is_scenario(id)) else { continue };
        let last = line.trim_end_matches('|').rsplit('|').next().unwrap_or("").trim();
        let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && last != "open" {
            broken.push(format!("docs/TESTING.md:{}: {id} names neither a test nor `open`", n + 1));
        }
        let unknown = names.iter().filter(|name| !tree.rust().any(|f| f.text.contains(&format!("fn {name}("))));
        broken.extend(unknown.map(|name| format!("docs/TESTING.md:{}: {id}: there is no test `{name}`", n + 1)));
    }
    broken
}

/// The tests that a relay of many processes leaves out are those of the list, and each of the list is a test that asks (`tests/src/relay/left_out.rs`).
pub fn left_out(tree: &Tree) -> Vec<String> {
    let list = "tests/src/relay/left_out.rs";
    let Some(file) = tree.find(list) else { return vec![format!("{list} is missing")] };
    let text = file.text.split("EMBEDDED_ONLY").nth(1).and_then(|rest| rest.split("];").next()).unwrap_or("");
    let listed: Vec<&str> = text.split('"').skip(1).step_by(2).filter(|word| !word.contains(' ')).collect();
    let asks = |name: &str| format!("embedded_only(\"{name}\")");
    let tests: Vec<_> = tree.rust().filter(|f| f.path.starts_with("tests/suite/") && !f.path.contains("/tidy")).collect();
    let mut broken = Vec::new();
    for name in &listed {
        let is_test = |text: &str| text.split(&format!("fn {name}()")).nth(1).is_some_and(|body| body.trim_start().starts_with('{'));
        if !tests.iter().any(|f| is_test(&f.text) && f.text.contains(&asks(name))) {
            broken.push(format!("{list}: {name} is no test that asks whether it is left out"));
        }
    }
    for file in tests {
        for name in file.text.split("embedded_only(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            if !listed.contains(&name) {
                broken.push(format!("{}: {name} is left out, and {list} does not say why", file.path));
            }
        }
    }
    broken
}

/// A letter and two digits.
fn is_scenario(id: &str) -> bool {
    id.len() == 3 && id.starts_with(|c: char| c.is_ascii_uppercase()) && id[1..].chars().all(|c| c.is_ascii_digit())
}

/// The text as a path of this repository, if it looks like one.
fn as_path(text: &str) -> Option<&str> {
    let path = text.split(':').next().unwrap_or("");
    let ours = ["protocol/", "daemon/", "relay/", "tests/", "docs/", "migrations/", "systemd/", ".ci/"];
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-@".contains(c));
    (plain && ours.iter().any(|o| path.starts_with(o)) && path == text.split(':').next()?).then_some(path)
}

/// Targets of Markdown links that stay in the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|t| !t.contains("://") && !t.starts_with("mailto:"))
}

fn relative(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The packages of a lock file with the names that each depends on.
fn packages(lock: &str) -> BTreeMap<String, Vec<String>> {
    let mut out = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field =
            |name: &str| package.lines().find_map(|l| l.strip_prefix(&format!("{name} = "))).unwrap_or("").trim_matches('"').to_string();
        let list = package.split_once("dependencies = [").map_or("", |(_, list)| list);
        let names = list.lines().filter_map(|l| l.trim().strip_prefix('"')).map(|l| l.split([' ', '"']).next().unwrap_or("").to_string());
        out.insert(format!("{} {}", field("name"), field("version")), names.collect());
    }
    out
}

/// The number of packages, and those that must not come in.
pub fn dependencies(tree: &Tree) -> Vec<String> {
    let Some(lock) = tree.find("Cargo.lock") else { return vec!["Cargo.lock is missing".into()] };
    let packages = packages(&lock.text);
    let mut broken = Vec::new();
    if packages.len() > PACKAGES_MAX {
        broken.push(format!("Cargo.lock has {} packages; the budget is {PACKAGES_MAX}", packages.len()));
    }
    for (package, depends) in &packages {
        let name = package.split(' ').next().unwrap_or("");
        if ["openssl", "openssl-sys", "native-tls"].contains(&name) {
            broken.push(format!("{package}: TLS is rustls, nothing of the system's"));
        }
        // quinn-proto and libp2p-tls always bring ring along for other work; what makes TLS is what rustls is built with.
        if ["rustls", "tokio-rustls", "jsonwebtoken"].contains(&name) && depends.iter().any(|d| d == "ring") {
            broken.push(format!("{package}: built with ring; the one provider is aws-lc-rs"));
        }
        if ["quinn", "rustls", "axum", "hyper", "tokio"].contains(&name) {
            let versions: Vec<&String> = packages.keys().filter(|p| p.split(' ').next() == Some(name)).collect();
            if versions.len() > 1 && versions[0] == package {
                broken.push(format!("several versions: {versions:?}"));
            }
        }
    }
    broken
}

/// A crate names a dependency; its version stands once, in the workspace.
pub fn versions(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    // The fuzz targets are a workspace of their own: they need another compiler.
    for file in tree.files.iter().filter(|f| f.path.ends_with("/Cargo.toml") && f.path != "tests/fuzz/Cargo.toml") {
        let mut in_dependencies = false;
        for (n, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && !line.trim().is_empty() && !line.starts_with('#') && !line.contains("workspace = true") {
                broken.push(format!("{}:{}: `{line}`: take it from the workspace", file.path, n + 1));
            }
        }
    }
    broken
}
