//! House rules as a test, so that `cargo test` is the only gate. Each rule is a function from a [`source::Tree`] to what breaks it; each has
//! a planted counter-example in [`planted`], so that a rule that can no longer fail is found.

mod code;
mod planted;
mod repository;
mod source;

use source::Tree;

fn check(rule: fn(&Tree) -> Vec<String>) {
    let broken = rule(&Tree::of_this_repository());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn layers_know_only_what_lies_below() {
    check(code::layers);
}

#[test]
fn each_outside_thing_has_one_door() {
    check(code::doors);
}

#[test]
fn files_are_short() {
    check(code::long_files);
    // Not a failure yet: what should be split next.
    let warnings = code::files_to_watch(&Tree::of_this_repository());
    if !warnings.is_empty() {
        eprintln!("above {} lines:\n{}", code::FILE_LINES_TARGET, warnings.join("\n"));
    }
}

#[test]
fn functions_are_short() {
    check(code::long_functions);
}

#[test]
fn every_file_says_what_it_is() {
    check(code::module_docs);
}

#[test]
fn no_source_file_is_forgotten() {
    check(code::forgotten_files);
}

#[test]
fn tests_wait_for_conditions_not_for_time() {
    check(code::sleeping_tests);
}

#[test]
fn no_unfinished_words() {
    check(repository::banned_words);
}

#[test]
fn migrations_are_numbered_and_paired() {
    check(repository::migrations);
}

#[test]
fn documents_speak_of_files_that_exist() {
    check(repository::documents);
}

#[test]
fn scenarios_name_tests_that_exist() {
    check(repository::named_tests);
}

#[test]
fn no_test_is_left_out_without_a_reason() {
    check(repository::left_out);
}

#[test]
fn dependencies_stay_within_budget() {
    check(repository::dependencies);
}

#[test]
fn crates_take_versions_from_the_workspace() {
    check(repository::versions);
}
