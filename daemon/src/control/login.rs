//! The account over the control socket. Secrets come in and never go out.

use super::files::body;
use crate::problem::Problem;
use crate::supervisor::{self, Daemon, Enter};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = Result<Json<Value>, Problem>;

/// `POST /v1/login/start` with `{"relay", "name"?}`: asks the relay to let this device in.
pub async fn start(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    Ok(Json(supervisor::begin_login(&daemon.paths, body(&bytes)?).await?))
}

/// `POST /v1/login` with `{"relay", "email", "password", "mfa_code"?, "name"?}` or `{"relay", "device_code", "name"?}`, and `POST /v1/join` with
/// `{"code", "name"?}`
pub async fn login(State(daemon): State<Arc<Daemon>>, bytes: Bytes) -> Answer {
    let request: Enter = body(&bytes)?;
    Ok(Json(daemon.enter(request).await?))
}

/// `POST /v1/logout`
pub async fn logout(State(daemon): State<Arc<Daemon>>) -> Answer {
    Ok(Json(daemon.logout().await?))
}

/// `GET /v1/whoami`
pub async fn whoami(State(daemon): State<Arc<Daemon>>) -> Answer {
    Ok(Json(supervisor::whoami(&daemon.paths)?))
}

/// `POST /v1/join-code`: a code for another device.
pub async fn join_code(State(daemon): State<Arc<Daemon>>) -> Answer {
    Ok(Json(daemon.join_code().await?))
}

/// `GET /v1/relay/folders`: the account's folders, and where they are on this device.
pub async fn remote_folders(State(daemon): State<Arc<Daemon>>) -> Answer {
    let here = daemon.folders();
    let namespaces = daemon.relay_client().await?.namespaces().await?;
    let folders: Vec<Value> = namespaces
        .iter()
        .map(|n| {
            let path = here.iter().find(|r| r.record.config.id == n.id).map(|r| crate::config::shown(&r.record.config.path));
            json!({"id": n.id, "name": n.name, "role": n.role, "owner": n.owner, "head_seq": n.head_seq, "path": path})
        })
        .collect();
    Ok(Json(json!({"type": "remote_folders", "folders": folders})))
}
