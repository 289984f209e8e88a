//! Commands for what is stored: totals, verification, the sweep. They work beside a running relay.

use super::{Failure, Global, Outcome, accounts, show};
use crate::App;
use crate::lock::DataLock;
use crate::service::content::{MigrateReport, Migration};
use clap::Subcommand;
use serde_json::json;
use std::fmt::Write;

#[derive(Subcommand)]
pub(super) enum StorageCommand {
    /// How much is stored
    Stats,
    /// Whether everything that is referred to is there and whole
    Verify {
        /// Read and hash every chunk, not only compare lengths
        #[arg(long)]
        read_data: bool,
    },
    /// Remove what nothing refers to and what is older than the grace period
    Gc {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Set right what `verify` found, as far as no bytes are missing: counts, and marks of damage on chunks that are whole again
    Repair {
        /// Only say what would be set right
        #[arg(long)]
        dry_run: bool,
    },
    /// Move every pack from one region to another; may be stopped and begun again, beside a relay that serves
    Migrate {
        /// The region to empty
        #[arg(long, value_name = "REGION")]
        from: String,
        /// The region to fill
        #[arg(long, value_name = "REGION")]
        to: String,
        /// Keep the old copies: each pack is in both regions then
        #[arg(long)]
        keep: bool,
        /// Only say what would be moved
        #[arg(long)]
        dry_run: bool,
    },
    /// Begin a new life of the feeds: run this once after the database was restored from a backup, before serving
    NewEpoch,
}

pub(super) async fn storage(global: &Global, command: StorageCommand) -> Outcome {
    if matches!(command, StorageCommand::NewEpoch) {
        return new_epoch(global).await;
    }
    let app = accounts::open(global).await?;
    let result = match command {
        StorageCommand::NewEpoch => Ok(()),
        StorageCommand::Migrate { from, to, keep, dry_run } => {
            migrate(global, &app, Migration { from: &from, to: &to, keep, dry_run }).await
        }
        StorageCommand::Stats => stats(global, &app).await,
        StorageCommand::Verify { read_data } => verify(global, &app, read_data).await,
        StorageCommand::Repair { dry_run } => repair(global, &app, dry_run).await,
        StorageCommand::Gc { dry_run } => gc(global, &app, dry_run).await,
    };
    app.close().await;
    result
}

async fn gc(global: &Global, app: &App, dry_run: bool) -> Outcome {
    let report = app.content.sweep(dry_run).await?;
    let verb = if dry_run { "would be removed" } else { "removed" };
    let human = format!(
        "{} chunks of {} bytes {verb}, {} packs, {} stray blobs; {} mostly dead packs rewritten and {} small ones merged ({} bytes); {} chunks newly marked, {} leases ended",
        report.chunks_deleted,
        report.bytes_deleted,
        report.packs_deleted,
        report.stray_blobs_deleted,
        report.packs_rewritten,
        report.packs_merged,
        report.bytes_rewritten,
        report.chunks_marked,
        report.leases_dropped
    );
    show(global, human, &serde_json::to_value(report).unwrap_or_default());
    Ok(())
}

async fn repair(global: &Global, app: &App, dry_run: bool) -> Outcome {
    let report = app.content.repair(dry_run).await?;
    if !dry_run {
        app.accounts.note_operation("storage.repaired", "").await;
    }
    let verb = if dry_run { "would be set right" } else { "set right" };
    let human = format!(
        "{verb}: {} counts of references, the usage of {} users, {} chunks that are whole again; {} chunks stay damaged until a device sends them",
        report.refs_corrected, report.usage_corrected, report.chunks_sound_again, report.chunks_still_damaged
    );
    show(global, human, &serde_json::to_value(report).unwrap_or_default());
    Ok(())
}

async fn verify(global: &Global, app: &App, read_data: bool) -> Outcome {
    let report = app.content.verify(read_data).await?;
    let machine = serde_json::to_value(&report).unwrap_or_default();
    let state = if report.is_sound() { "everything is there and whole" } else { "DAMAGE FOUND" };
    let mut human = format!(
        "{state}\n  {} chunks looked at, {} bytes read\n  {} damaged chunks, {} wrong packs, {} wrong node states, {} stray blobs\n  rows: {:?}",
        report.chunks, report.bytes_read, report.damaged, report.packs_wrong, report.states_wrong, report.stray_blobs, report.rows
    );
    if report.packs_unknown > 0 {
        let _ = write!(
            human,
            "\n  {} packs could not be looked for: their region does not answer, or is not in blobs.regions",
            report.packs_unknown
        );
    }
    if report.versions_degraded > 0 {
        let _ = write!(human, "\n  {} versions cannot be served until a device sends their bytes again:", report.versions_degraded);
    }
    for version in &report.degraded_versions {
        let _ = write!(human, "\n    version {} of '{}' ({})", version.version_number, version.file_name, version.file_id);
    }
    for chunk in &report.damaged_chunks {
        let _ = write!(human, "\n  damaged chunk {chunk}");
    }
    show(global, human, &machine);
    if report.is_sound() {
        Ok(())
    } else {
        let first = report.damaged_chunks.first().map_or(String::new(), |c| format!(", first {c}"));
        Err(Failure::new(6, "damaged", format!("the store is damaged: {} chunks{first}", report.damaged))
            .hint("start the relay: devices that have the files are asked for the bytes; or restore a newer backup of the chunk directory"))
    }
}

async fn stats(global: &Global, app: &App) -> Outcome {
    let t = app.content.storage_totals().await?;
    let human = format!(
        "{} namespaces, {} nodes, {} versions of {} bytes\n{} chunks of {} bytes in {} packs of {} bytes\n\
                 {} chunks wait for their removal, {} are damaged",
        t.namespaces,
        t.nodes,
        t.versions,
        t.version_bytes,
        t.chunks,
        t.chunk_bytes,
        t.packs,
        t.pack_bytes,
        t.orphaned_chunks,
        t.damaged_chunks
    );
    let machine = json!({
        "namespaces": t.namespaces, "nodes": t.nodes, "versions": t.versions, "version_bytes": t.version_bytes, "chunks": t.chunks,
        "chunk_bytes": t.chunk_bytes, "packs": t.packs, "pack_bytes": t.pack_bytes, "orphaned_chunks": t.orphaned_chunks,
        "damaged_chunks": t.damaged_chunks, "uploads_open": t.uploads_open,
    });
    show(global, human, &machine);
    Ok(())
}

async fn migrate(global: &Global, app: &App, migration: Migration<'_>) -> Outcome {
    let progress = |r: &MigrateReport| {
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            eprint!("\r{} packs, {} bytes ", r.packs_moved, r.bytes_moved);
        }
    };
    let report = app.content.migrate_packs(migration, progress).await?;
    let verb = match migration {
        Migration { dry_run: true, .. } => "would be moved",
        Migration { keep: true, .. } => "copied",
        _ => "moved",
    };
    let Migration { from, to, .. } = migration;
    let mut human =
        format!("{} packs {verb} from {from} to {to}, {} bytes copied; {} left", report.packs_moved, report.bytes_moved, report.packs_left);
    if report.old_copies_removed > 0 {
        let _ = write!(human, "; {} old copies removed that an earlier run had left in {from}", report.old_copies_removed);
    }
    show(global, human, &serde_json::to_value(&report).unwrap_or_default());
    match report.left.first() {
        None => Ok(()),
        Some(first) => {
            let message = format!("{} packs are damaged or missing and stay in {from}, first {first}", report.packs_left);
            Err(Failure::new(6, "left", message).hint("see: ferry-relay storage verify --read-data"))
        }
    }
}

async fn new_epoch(global: &Global) -> Outcome {
    let config = global.load()?;
    // Relays that share a database take the new epoch up while they run.
    if !config.database()?.is_shared() && DataLock::is_held(&config.data) {
        let failure = Failure::new(8, "busy", "a relay is serving this data directory and would go on with the old epoch");
        return Err(failure.hint("Stop the relay, run this, and start it again."));
    }
    let app = accounts::open(global).await?;
    let epoch = app.content.renew_identity().await?;
    let human = format!("the feeds have the new epoch {epoch}; devices send again what this database lacks, and delete nothing");
    show(global, human, &json!({ "epoch": epoch }));
    app.close().await;
    Ok(())
}
