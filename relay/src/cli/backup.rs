//! Commands for backups. `create` works beside a running relay; `restore` wants an empty place and no relay in it.

use super::accounts::open;
use super::{Failure, Global, Outcome, show};
use crate::backup::create::create;
use crate::backup::restore::restore;
use crate::backup::verify::verify;
use crate::backup::{BackupError, manifest::Manifest};
use crate::lock::DataLock;
use crate::prepare_data_dir;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum BackupCommand {
    /// Make a backup while the relay serves; into a directory of earlier ones of the same relay only what is new is copied
    Create {
        /// The directory of the backup
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Whether a backup is whole and can be restored; needs no relay
    Verify {
        /// The directory of the backup
        backup: PathBuf,
    },
    /// Bring a relay back from a backup, into an empty data directory and an empty database
    Restore {
        /// The directory of the backup
        backup: PathBuf,
    },
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Service(e) => e.into(),
            BackupError::Start(e) => e.into(),
            BackupError::File(..) => Self::new(1, "file", error.to_string()),
            BackupError::InTheWay(_) => Self::new(8, "in_the_way", error.to_string()),
            BackupError::Damaged(_) => Self::new(6, "damaged", error.to_string()),
            BackupError::Program(_) => Self::new(1, "program", error.to_string()),
            BackupError::Store(_) => Self::new(1, "store", error.to_string()),
        }
    }
}

pub(super) async fn backup(global: &Global, command: BackupCommand) -> Outcome {
    match command {
        BackupCommand::Create { output } => {
            let config = global.load_beside()?;
            let app = open(global).await?;
            let done = create(&config, &app, &output).await;
            app.close().await;
            let report = done?;
            let human = format!(
                "backed up to {}: {} packs of {} bytes, {} of them ({} bytes) copied now, and a database of {} bytes\n\
                 check it with: ferry-relay backup verify {}",
                output.display(),
                report.packs,
                report.pack_bytes,
                report.packs_copied,
                report.bytes_copied,
                report.database_bytes,
                output.display()
            );
            show(global, human, &serde_json::to_value(report).unwrap_or_default());
            Ok(())
        }
        BackupCommand::Verify { backup } => {
            let report = verify(&backup).await?;
            let state = if report.is_sound() { "the backup is whole" } else { "THE BACKUP IS DAMAGED" };
            let mut human = format!("{state}: made {}, {} files of {} bytes read", report.made_at, report.files, report.bytes_read);
            for fault in &report.listed {
                human.push_str("\n  ");
                human.push_str(fault);
            }
            show(global, human, &serde_json::to_value(&report).unwrap_or_default());
            if report.is_sound() {
                return Ok(());
            }
            Err(Failure::new(6, "damaged", format!("{} faults in {}", report.faults, backup.display()))
                .hint("make a new backup; where there is no relay any more, restore an older one"))
        }
        BackupCommand::Restore { backup } => {
            let config = global.load_beside()?;
            // Looked at before anything is made for it.
            Manifest::must_read(&backup)?;
            prepare_data_dir(&config.data)?;
            let _lock = DataLock::take(&config.data)?;
            let report = restore(&config, &backup).await?;
            let human = format!(
                "restored the backup of {}: {} packs of {} bytes; the feeds have the new epoch {}\n\
                 start the relay; devices send again what the backup lacks, and delete nothing\n\
                 then check it with: ferry-relay storage verify",
                report.made_at, report.packs, report.pack_bytes, report.epoch
            );
            show(global, human, &serde_json::to_value(&report).unwrap_or_default());
            Ok(())
        }
    }
}
