//! The command line of `ferry-relay`.

use crate::config::Config;
use crate::{StartError, embedded, http, open_locked};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "ferry-relay", version, about = "The relay of Ferry: accounts, sharing, versions and storage.")]
struct Cli {
    /// The configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until told to stop.
    Serve(Settings),
}

/// Settings on the command line; they win over file and environment.
#[derive(clap::Args, Default)]
struct Settings {
    /// The directory of the database, the chunks and the keys.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Which parts to serve: all, or a list of auth,metadata,upload,download,sync,web.
    #[arg(long, value_name = "ROLES")]
    role: Option<String>,
    /// sqlite://PATH
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// file:///PATH
    #[arg(long, value_name = "URL")]
    blobs: Option<String>,
    /// The certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::from(1);
        }
    };
    let Command::Serve(settings) = cli.command;
    match runtime.block_on(serve(cli.config, settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(1)
        }
    }
}

async fn serve(file: Option<PathBuf>, settings: Settings) -> Result<(), StartError> {
    let mut config = Config::load(file.as_deref(), std::env::vars())?;
    if let Some(data) = settings.data {
        config.data = data;
    }
    if let Some(listen) = settings.listen {
        config.listen = listen;
    }
    config.check()?;
    let (app, _lock) = open_locked(&config).await?;
    let socket = embedded::bind(config.listen_addr()?).await?;
    let (router, _) = http::router(&app, &app.roles);
    println!("listening {}", socket.local_addr().map_err(|e| StartError::Listen(e.to_string()))?);
    http::listen(&app, http::Listener { socket, tls: None }, router);
    let _ = tokio::signal::ctrl_c().await;
    embedded::drain(&app).await;
    Ok(())
}
