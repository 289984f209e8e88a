//! The control socket: HTTP/JSON and SSE over a Unix socket, for the command line and whatever else the user runs.
//!
//! * **T1** The socket's directory has mode 0700 and the socket 0600; besides, the peer's uid is checked: this user and root may do everything,
//!   the uids of `control.allow_uids` may read, all others are refused.
//! * **T2** There is no TCP listener.
//! * **T3** Every error is a problem document with the same code that the command line prints.

mod answers;
mod events;
mod files;
mod folders;
mod history;
mod login;
mod nearby;
mod peer;
mod relay_trash;
mod retention;
mod rewind;
mod search;
mod settings;
mod share_link;
mod shares;
mod wait;

pub use settings::document as settings_document;

use crate::durable;
use crate::paths::Paths;
use crate::problem::{Outcome, Problem};
use crate::supervisor::Daemon;
use axum::Router;
use axum::routing::{get, patch, post};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;

/// Version of the API: the first part of every path.
pub const API: &str = "v1";

/// Binds the socket. One that a dead daemon left is replaced; the instance lock has already told that no daemon lives.
pub fn bind(paths: &Paths) -> Outcome<UnixListener> {
    let dir = paths.socket.parent().unwrap_or(Path::new("/"));
    let failed = |e: std::io::Error| {
        Problem::from(std::io::Error::new(e.kind(), format!("cannot bind the control socket {}: {e}", paths.socket.display())))
    };
    durable::private_dir(dir).map_err(failed)?;
    let address = paths.socket_address().map_err(failed)?;
    if std::os::unix::net::UnixStream::connect(&address.path).is_ok() {
        return Err(Problem::conflict("already_running", format!("another program answers on {}", paths.socket.display()))
            .hint("give this daemon another socket with --socket, or another FERRY_HOME"));
    }
    if let Err(e) = std::fs::remove_file(&paths.socket)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed(e));
    }
    let listener = UnixListener::bind(&address.path).map_err(failed)?;
    std::fs::set_permissions(&paths.socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves until the daemon stops.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener) {
    let stop = daemon.stop.clone();
    let router = router(daemon.clone());
    let service = router.into_make_service_with_connect_info::<peer::Peer>();
    let served =
        axum::serve(peer::PeerListener::new(listener, daemon), service).with_graceful_shutdown(async move { stop.cancelled().await });
    if let Err(e) = served.await {
        tracing::error!("the control socket failed: {e}");
    }
}

fn router(daemon: Arc<Daemon>) -> Router {
    let v1 = Router::new()
        .route("/version", get(answers::version))
        .route("/status", get(answers::status))
        .route("/status/path", get(files::why))
        .route("/events", get(events::stream))
        .route("/activity", get(events::activity))
        .route("/search", get(search::search))
        .route("/folders", get(folders::list).post(folders::add))
        .route("/folders/{folder}", get(folders::show).patch(folders::change).delete(folders::remove))
        .route("/folders/{folder}/rewind", post(rewind::rewind))
        .route("/folders/{folder}/{action}", post(folders::act))
        .route("/folders/{folder}/ignores", get(folders::ignores))
        .route("/folders/{folder}/ignores/check", post(folders::ignores_check))
        .route("/pause", post(folders::pause_all))
        .route("/resume", post(folders::resume_all))
        .route("/transfers", get(files::transfers))
        .route("/issues", get(files::issues))
        .route("/conflicts", get(files::conflicts))
        .route("/conflicts/{id}/resolve", post(files::resolve))
        .route("/trash", get(files::trash))
        .route("/trash/restore", post(files::restore))
        .route("/trash/purge", post(files::purge))
        .route("/peers", get(nearby::list))
        .route("/peers/{peer}", get(nearby::show))
        .route("/peers/{peer}/ping", post(nearby::ping))
        .route("/peers/{peer}/forget", post(nearby::forget))
        .route("/limits", get(settings::limits).patch(settings::set_limits))
        .route("/config", get(settings::list).patch(settings::change))
        .route("/reload", post(settings::reload))
        .route("/login", post(login::login))
        .route("/login/start", post(login::start))
        .route("/join", post(login::login))
        .route("/logout", post(login::logout))
        .route("/whoami", get(login::whoami))
        .route("/join-code", post(login::join_code))
        .route("/relay/trash", get(relay_trash::list))
        .route("/relay/trash/restore", post(relay_trash::restore))
        .route("/relay/trash/purge", post(relay_trash::purge))
        .route("/relay/history", get(history::history))
        .route("/relay/diff", post(history::diff))
        .route("/relay/versions/restore", post(history::restore))
        .route("/relay/versions/label", post(history::label))
        .route("/relay/versions/content", get(history::content))
        .route("/relay/retention", get(retention::show).post(retention::set))
        .route("/relay/links", get(share_link::list).post(share_link::create))
        .route("/relay/links/{id}", patch(share_link::change).delete(share_link::revoke))
        .route("/relay/folders", get(login::remote_folders))
        .route("/relay/shares", get(shares::list).post(shares::invite))
        .route("/relay/shares/people", post(shares::people))
        .route("/relay/shares/remove", post(shares::remove))
        .route("/relay/shares/leave", post(shares::leave))
        .route("/relay/shares/{share}/{answer}", post(shares::answer))
        .route("/wait", post(wait::wait))
        .route("/metrics", get(answers::metrics));
    Router::new()
        .nest(&format!("/{API}"), v1)
        .fallback(answers::unknown)
        .method_not_allowed_fallback(answers::wrong_method)
        .layer(axum::middleware::from_fn(peer::authorise))
        .with_state(daemon)
}
