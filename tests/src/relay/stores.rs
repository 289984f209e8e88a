//! The stores of a relay as a test sees them behind its back: where the chunks rest, what the database answers, copies to go back to.

use super::Relay;
use super::topology::Topology;
use crate::tree;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of all that a stopped relay holds.
pub struct Copy {
    folder: PathBuf,
    /// The database's copy, where the database is not in the folder.
    database: Option<String>,
}

impl Relay {
    /// The folder that chunks rest in: of the relay itself, or of its S3 server.
    pub fn blobs(&self) -> PathBuf {
        self.topology.as_ref().map_or_else(|| self.data.join("blobs"), |t| t.objects())
    }

    /// The folder that could be a disk of its own for chunks: of the relay itself, or of its S3 server.
    pub fn blobs_disk(&self) -> PathBuf {
        self.topology.as_ref().map_or_else(|| self.data.join("blobs"), |t| t.disk())
    }

    /// All stored chunk bytes, to look for content in.
    pub fn stored_bytes(&self) -> Vec<u8> {
        tree::all_files(&self.blobs()).iter().filter_map(|p| std::fs::read(p).ok()).flatten().collect()
    }

    /// What the relay's database answers, without headers.
    pub fn asked(&self, sql: &str) -> String {
        if let Some(topology) = &self.topology {
            return topology.sql(sql).trim().to_owned();
        }
        run(Command::new("sqlite3").arg(database(&self.data)).arg(sql))
    }

    /// Everything that the relay's database holds, to look for what must not be in it.
    pub fn database_bytes(&self) -> Vec<u8> {
        match &self.topology {
            Some(topology) => topology.sql("SELECT database_to_xml(false, false, '')").into_bytes(),
            None => {
                let files = std::fs::read_dir(&self.data).expect("the relay's data").flatten().map(|e| e.path());
                files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).expect("a file")).collect()
            }
        }
    }

    /// Copies everything that the relay holds into the new folder `to`. The relay does not run.
    pub fn copy_stores(&self, to: &Path) -> Copy {
        assert!(self.children.is_empty(), "a running relay is not copied");
        std::fs::create_dir_all(to).expect("a folder");
        copy(&self.data, &to.join("data"));
        if let Some(topology) = &self.topology {
            copy_blobs(&topology.objects(), &to.join("objects"));
        }
        Copy { folder: to.to_owned(), database: self.topology.as_ref().map(Topology::copy_database) }
    }

    /// Puts everything back as it was copied, as from a backup.
    pub fn restore(&mut self, from: &Copy) {
        self.restore_database(from);
        let copied = if self.topology.is_some() { from.folder.join("objects") } else { from.folder.join("data/blobs") };
        self.restore_blobs(&copied);
    }

    /// Puts the database back and leaves the chunks as they are.
    pub fn restore_database(&mut self, from: &Copy) {
        assert!(self.children.is_empty(), "a running relay is not restored");
        match (&mut self.topology, &from.database) {
            (Some(topology), Some(database)) => topology.restore_database(database),
            _ => {
                let (today, blobs) = (self.data.with_extension("today"), self.data.join("blobs"));
                std::fs::rename(&blobs, &today).expect("the chunks");
                std::fs::remove_dir_all(&self.data).expect("the relay's data");
                copy(&from.folder.join("data"), &self.data);
                std::fs::remove_dir_all(&blobs).expect("the older chunks");
                std::fs::rename(&today, &blobs).expect("the chunks");
            }
        }
    }

    /// Copies the chunks alone into the new folder `to`.
    pub fn copy_chunks(&self, to: &Path) {
        copy_blobs(&self.blobs(), to);
    }

    /// Puts chunks in the place of all that are there.
    pub fn restore_blobs(&mut self, from: &Path) {
        let blobs = self.blobs();
        std::fs::remove_dir_all(&blobs).expect("the chunks");
        copy_blobs(from, &blobs);
    }
}

/// The database of a data directory.
fn database(data: &Path) -> PathBuf {
    let is_database = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3"));
    let mut found = std::fs::read_dir(data).expect("the relay's data").flatten().map(|e| e.path()).filter(is_database);
    found.next().expect("the relay has a database")
}

/// Copies a folder of chunks, which may not be there before the first one came.
fn copy_blobs(from: &Path, to: &Path) {
    std::fs::create_dir_all(from).expect("a folder for chunks");
    copy(from, to);
}

/// Copies a folder with all in it.
fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
