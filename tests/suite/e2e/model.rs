//! C41: the black-box model, after Hughes, Pierce, Arts and Norell, "Mysteries of Dropbox" (2014), for our rules.
//!
//! Every write swaps the file atomically and looks at what came out, so that it is known what the writer replaced: a write or delete
//! supersedes exactly the value that it displaced. Then the rule is short. When all is quiet, what is shown (under the name or as a
//! conflicted copy) is on every device the same, and it is exactly the values that nothing superseded: less would be a loss, more a
//! resurrection or a needless conflict.

use super::crashes::Dice;
use ferry_tests::cluster::Cluster;
use ferry_tests::content::{flaw, unique};
use ferry_tests::poll::pause;
use ferry_tests::tree;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAMES: [&str; 2] = ["one.txt", "two.txt"];

/// What was written, and what was superseded, by the hash of the content.
#[derive(Default)]
struct Truth {
    written: BTreeMap<String, String>,
    superseded: BTreeSet<String>,
    log: Vec<String>,
}

impl Truth {
    fn maximal(&self) -> BTreeSet<String> {
        self.written.keys().filter(|h| !self.superseded.contains(*h)).cloned().collect()
    }

    fn name(&self, hash: &str) -> String {
        self.written.get(hash).cloned().unwrap_or_else(|| format!("never written: {hash}"))
    }

    fn displaced(&mut self, path: &Path) -> String {
        let bytes = fs::read(path).expect("what came out");
        assert_eq!(flaw(&bytes), None, "I4: what came out is whole");
        let hash = tree::hash(&bytes);
        assert!(self.written.contains_key(&hash), "what came out was written by somebody");
        self.superseded.insert(hash.clone());
        fs::remove_file(path).expect("our own file");
        self.name(&hash)
    }

    fn write(&mut self, spare: &Path, device: &str, path: &Path) {
        let label = format!("W{} by {device} to {}", self.written.len(), path.file_name().expect("a name").to_string_lossy());
        let bytes = unique(&label, 300);
        fs::write(spare, &bytes).expect("room");
        self.written.insert(tree::hash(&bytes), label.clone());
        loop {
            match renameat_with(CWD, spare, CWD, path, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    let old = self.displaced(spare);
                    self.log.push(format!("{label}, replacing {old}"));
                    return;
                }
                Err(Errno::NOENT) => match renameat_with(CWD, spare, CWD, path, RenameFlags::NOREPLACE) {
                    Ok(()) => {
                        self.log.push(format!("{label}, new"));
                        return;
                    }
                    Err(Errno::EXIST) => {}
                    Err(e) => panic!("{e}"),
                },
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn delete(&mut self, spare: &Path, device: &str, path: &Path) {
        if fs::rename(path, spare).is_ok() {
            let old = self.displaced(spare);
            self.log.push(format!("delete by {device} of {old}"));
        }
    }

    fn check(&self, cluster: &Cluster) {
        let shown: BTreeSet<String> =
            tree::all_files(&cluster.devices[0].path("d")).iter().map(|p| tree::hash(&fs::read(p).expect("readable"))).collect();
        let named = |set: Vec<&String>| set.iter().map(|h| self.name(h)).collect::<Vec<_>>();
        let maximal = self.maximal();
        let (lost, risen) = (named(maximal.difference(&shown).collect()), named(shown.difference(&maximal).collect()));
        assert!(lost.is_empty() && risen.is_empty(), "lost: {lost:?}\nrisen: {risen:?}\n{}", self.log.join("\n"));
    }
}

fn spare_of(cluster: &Cluster, device: usize) -> PathBuf {
    cluster.folder().join(format!("spare {device}"))
}

#[test]
fn c41_every_observation_is_explained() {
    let mut dice = Dice::of_this_run("c41");
    let mut cluster = Cluster::new(3);
    fs::create_dir(cluster.devices[0].path("d")).expect("a folder");
    cluster.settle();
    let mut truth = Truth::default();
    for _round in 0..7 {
        for _step in 0..4 + dice.below(10) {
            let device = dice.below(3) as usize;
            let path = cluster.devices[device].path("d").join(NAMES[dice.below(2) as usize]);
            let (spare, name) = (spare_of(&cluster, device), cluster.devices[device].name().to_string());
            match dice.below(10) {
                0..=5 => truth.write(&spare, &name, &path),
                6 => truth.delete(&spare, &name, &path),
                7 => cluster.links[device].drop_connections(),
                8 => {
                    if let Ok(bytes) = fs::read(&path) {
                        assert_eq!(flaw(&bytes), None, "I4: {name} shows a whole file");
                    }
                }
                _ => pause(Duration::from_millis(dice.below(900))),
            }
        }
        cluster.settle();
        truth.check(&cluster);
    }
    cluster.finish();
}
