//! A planted counter-example for every rule: it must be found, and its innocent twin must not.

use super::source::{Function, Tree, blank, functions};
use super::{code, repository};

/// The rule finds `guilty` and lets `innocent` pass.
fn proves(rule: fn(&Tree) -> Vec<String>, guilty: &[(&str, &str)], innocent: &[(&str, &str)]) {
    assert!(!rule(&Tree::planted(guilty)).is_empty(), "not found: {guilty:?}");
    let broken = rule(&Tree::planted(innocent));
    assert!(broken.is_empty(), "found in an innocent file: {broken:?}");
}

#[test]
fn literals_and_comments_are_no_code() {
    let text = "a // tokio\nb /* x /* y */ z */ c \"s\\\"t\" 'x' '\\'' r#\"raw \"quoted\" \"# d<'life> b\"bytes\" 'é' e";
    let expected = ["a", "b", "c", "d<'life>", "b", "e"];
    assert_eq!(blank(text).split_whitespace().collect::<Vec<_>>(), expected);
    assert_eq!(blank(text).lines().count(), text.lines().count());
}

#[test]
fn functions_are_measured() {
    let code = "trait T { fn declared(&self); }\nfn one() {}\nfn two<F: Fn() -> u8>(f: F) -> [u8; 2] {\n    fn inner() {\n    }\n    if x { y }\n}\n";
    let found = functions(code);
    let named = |name: &str, line, lines| Function { name: name.into(), line, lines };
    assert_eq!(found, [named("one", 2, 1), named("two", 3, 5), named("inner", 4, 2)]);
}

#[test]
fn layering() {
    let innocent =
        [("protocol/src/a.rs", "//! No tokio.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), ("daemon/src/b.rs", "use tokio::fs;\n")];
    proves(code::layers, &[("protocol/src/a.rs", "use std::fs;\n")], &innocent);
    proves(code::layers, &[("daemon/engine/src/a.rs", "fn f() -> std::time::Instant {}\n")], &innocent);
    proves(code::layers, &[("relay/src/http/a.rs", "use sqlx::Row;\n")], &[("relay/src/store/sqlite/a.rs", "use sqlx::Row;\n")]);
    proves(code::layers, &[("relay/src/service/a.rs", "use axum::Json;\n")], &[("relay/src/http/a.rs", "use axum::Json;\n")]);
    let optional = "ferry-relay = { workspace = true, optional = true }\n";
    proves(code::layers, &[("daemon/Cargo.toml", "ferry-relay.workspace = true\n")], &[("daemon/Cargo.toml", optional)]);
}

#[test]
fn doors() {
    proves(code::doors, &[("daemon/src/scan.rs", "use notify::Watcher;\n")], &[("daemon/src/fs/watch.rs", "use notify::Watcher;\n")]);
    proves(code::doors, &[("relay/src/http/a.rs", "sqlx::query()\n")], &[("relay/src/store/sqlite/a.rs", "sqlx::query()\n")]);
    proves(
        code::doors,
        &[("daemon/src/a.rs", "sled::open()\n")],
        &[("daemon/src/a.rs", "unsled::open(super::sled::Ours) // sled::open\n"), ("daemon/src/index/sled.rs", "::sled::open()\n")],
    );
}

#[test]
fn sizes() {
    let lines = |n: usize| "x\n".repeat(n);
    let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(600), lines(300));
    proves(code::long_files, &[("daemon/src/a.rs", &lines(701))], &[("daemon/src/a.rs", &lines(700)), ("daemon/src/b.rs", &with_tests)]);
    assert_eq!(code::files_to_watch(&Tree::planted(&[("daemon/src/a.rs", &lines(501))])).len(), 1);
    let function = |n: usize| format!("fn f() {{\n{}}}\n", "    x;\n".repeat(n - 2));
    proves(code::long_functions, &[("daemon/src/a.rs", &function(71))], &[("daemon/src/a.rs", &function(70))]);
}

#[test]
fn docs_and_forgotten_files() {
    proves(code::module_docs, &[("a/src/b.rs", "use c;\n")], &[("a/src/b.rs", "//! What it is.\n")]);
    let lib = ("a/src/lib.rs", "pub mod b;\n// mod d;\n");
    proves(
        code::forgotten_files,
        &[lib, ("a/src/d.rs", "")],
        &[lib, ("a/src/b.rs", "mod c;\n"), ("a/src/b/c.rs", ""), ("a/src/bin/x.rs", "")],
    );
    proves(
        code::forgotten_files,
        &[("tests/suite/main.rs", "mod a;\n"), ("tests/suite/b.rs", "")],
        &[("tests/suite/main.rs", "mod a;\n"), ("tests/suite/a.rs", "")],
    );
}

#[test]
fn sleeping() {
    proves(code::sleeping_tests, &[("tests/suite/a.rs", "std::thread::sleep(x);\n")], &[("tests/src/poll.rs", "std::thread::sleep(x);\n")]);
}

#[test]
fn words() {
    let planted = format!("// {}{} later\n", "TO", "DO");
    proves(repository::banned_words, &[("a/src/b.rs", &planted)], &[("a/src/b.rs", "// what is to do\n")]);
    let planted = format!("see {}{}x\n", "/wo", "rk/");
    proves(repository::banned_words, &[("docs/a.md", &planted)], &[("docs/a.md", "see /home/anna/work\n")]);
}

#[test]
fn migration_numbers() {
    let (one, two, three) = ("migrations/sqlite/0001_a.sql", "migrations/sqlite/0002_b.sql", "migrations/sqlite/0003_c.sql");
    proves(repository::migrations, &[(one, ""), (three, "")], &[(one, ""), (two, ""), (three, "")]);
    proves(repository::migrations, &[(one, ""), ("migrations/sqlite/0001_b.sql", "")], &[(one, ""), ("migrations/README.md", "")]);
    proves(
        repository::migrations,
        &[(one, ""), ("migrations/postgres/0001_b.sql", "")],
        &[(one, ""), ("migrations/postgres/0001_a.sql", "")],
    );
}

#[test]
fn documents() {
    let there = ("daemon/src/a.rs", "");
    proves(
        repository::documents,
        &[("README.md", "see `daemon/src/b.rs`")],
        &[("README.md", "see `daemon/src/a.rs:12`, `daemon/src` and `GET daemon/x y`"), there],
    );
    proves(
        repository::documents,
        &[("docs/x.md", "[a](../README.md)")],
        &[("docs/x.md", "[a](../README.md#top) [b](https://x.org/y)"), ("README.md", "")],
    );
}

#[test]
fn named_tests() {
    let test = ("tests/suite/a.rs", "#[test]\nfn b01_it() {}\n");
    let table = ("docs/TESTING.md", "| id | what | by |\n|---|---|---|\n| B01 | x | `b01_it` |\n| B02 | y | open |\n");
    proves(repository::named_tests, &[test, ("docs/TESTING.md", "| B01 | x | `b02_it` |\n")], &[test, table]);
    proves(repository::named_tests, &[test, ("docs/TESTING.md", "| B01 | x | yes |\n")], &[test, table]);
}

#[test]
fn tests_that_are_left_out() {
    let list = |name: &str| format!("pub const EMBEDDED_ONLY: &[(&str, &str)] = &[(\n    \"{name}\",\n    \"it has a reason\",\n)];\n");
    let (right, other) = (list("k30_it"), list("k31_it"));
    let asks = ("tests/suite/a.rs", "fn k30_it() {\n    if embedded_only(\"k30_it\") {\n        return;\n    }\n}\n");
    let (there, wrong) = (("tests/src/relay/left_out.rs", right.as_str()), ("tests/src/relay/left_out.rs", other.as_str()));
    proves(repository::left_out, &[asks, wrong], &[asks, there]);
    proves(repository::left_out, &[there], &[asks, there]);
}

#[test]
fn dependencies() {
    let package =
        |name: &str, depends: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\ndependencies = [\n \"{depends}\",\n]\n");
    let good = package("rustls", "aws-lc-rs 1.0.0") + &package("other", "ring");
    proves(repository::dependencies, &[("Cargo.lock", &package("rustls", "ring"))], &[("Cargo.lock", &good)]);
    proves(repository::dependencies, &[("Cargo.lock", &package("openssl-sys", "libc"))], &[("Cargo.lock", &good)]);
    let twice = package("tokio", "a") + &package("tokio", "b").replace("version = \"1\"", "version = \"2\"");
    proves(repository::dependencies, &[("Cargo.lock", &twice)], &[("Cargo.lock", &good)]);
    let many: String = (0..=repository::PACKAGES_MAX).map(|n| package(&format!("p{n}"), "x")).collect();
    proves(repository::dependencies, &[("Cargo.lock", &many)], &[("Cargo.lock", &good)]);
    proves(
        repository::versions,
        &[("a/Cargo.toml", "[dependencies]\nb = \"1\"\n")],
        &[("a/Cargo.toml", "[features]\nb = []\n[dependencies]\nb.workspace = true\n")],
    );
}
