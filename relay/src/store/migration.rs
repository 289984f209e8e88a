//! Migrations inside the binary: what every SQL store does alike with them.

use super::StoreError;
use sha2::{Digest, Sha256};

/// A migration inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number; they are applied in this order.
    pub number: i64,
    /// Its name, for people.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// A migration as a database says that it was applied.
pub(super) struct Applied {
    pub(super) number: i64,
    pub(super) name: String,
    pub(super) checksum: String,
}

/// Refuses a database that a newer binary migrated, and one whose files were others.
pub(super) fn check_known(applied: &[Applied], migrations: &[Migration]) -> Result<(), StoreError> {
    let known = migrations.last().map_or(0, |m| m.number);
    for Applied { number, name, checksum } in applied {
        match migrations.iter().find(|m| m.number == *number) {
            Some(m) if checksum_of(m) == *checksum => {}
            Some(_) => {
                return Err(StoreError::Corrupt(format!(
                    "migration {number:04}_{name} is not the one that was applied; restore the file as it was released"
                )));
            }
            None => {
                return Err(StoreError::Unavailable(format!(
                    "the database has schema {number}, this ferry-relay knows {known}: start the newer ferry-relay, or restore the backup made before the upgrade"
                )));
            }
        }
    }
    Ok(())
}

pub(super) fn checksum_of(migration: &Migration) -> String {
    hex::encode(Sha256::digest(migration.sql.as_bytes()))
}
