//! Parse, authenticate, answer: the relay's HTTP interface. No SQL and no rules here (R1).
//!
//! Reading order: [`routes`] (the one way to make a route), [`auth`] (who is calling), [`error`] (problem documents), then a router per role.

mod account;
mod activity;
mod admin;
mod app_passwords;
mod archives;
mod assets;
pub mod auth;
pub mod body;
mod browser;
mod chunks;
mod dav;
mod device;
mod download;
pub mod error;
mod factors;
mod files;
mod health;
mod html;
mod language;
mod layers;
mod links;
mod login;
mod measured;
mod metadata;
mod oauth;
mod oidc;
pub mod openapi;
mod patience;
mod peers;
mod plain;
mod previews;
mod retention;
mod rewind;
pub mod routes;
mod search;
mod server;
mod share;
mod shares;
mod sync;
mod thumbnails;
mod upload;
mod versions;
mod web;
mod wire;
mod ws;

#[cfg(test)]
mod abuse_tests;
#[cfg(test)]
mod app_password_tests;
#[cfg(all(test, feature = "cluster"))]
mod cluster_tests;
#[cfg(test)]
mod content_tests;
#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod injection_tests;
#[cfg(test)]
mod links_tests;
#[cfg(test)]
mod matrix_tests;
#[cfg(test)]
mod oidc_tests;
#[cfg(test)]
mod peers_tests;
#[cfg(test)]
mod previews_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod shares_tests;
#[cfg(test)]
mod signin_tests;
#[cfg(test)]
mod slow_tests;
#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod versions_tests;

pub use body::{Json, Maybe, Path, Query, RawBody};
pub use error::Problem;
pub use layers::ClientIp;
pub use patience::Patience;
pub use routes::{Access, Route, Routes};
pub use server::{Listener, listen, listen_to_operator};

use crate::App;
use crate::config::Role;
use axum::Router;
use std::ops::Deref;
use std::sync::Arc;

/// What every handler can reach; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<App>);

impl AppState {
    /// The state around an opened relay.
    pub fn new(app: App) -> Self {
        Self(Arc::new(app))
    }
}

impl Deref for AppState {
    type Target = App;
    fn deref(&self) -> &App {
        &self.0
    }
}

/// The public router for these roles, and the list of its routes.
pub fn router(app: &AppState, roles: &[Role]) -> (Router, Vec<Route>) {
    let mut routes = health::public_routes(app).of_service("health");
    for role in roles {
        let served = match role {
            Role::Auth => account::routes(app)
                .merge(factors::routes(app))
                .merge(app_passwords::routes(app))
                .merge(oauth::routes(app))
                .merge(oidc::routes(app)),
            Role::Web => web::routes(app).merge(login::routes(app)).merge(device::routes(app)).merge(share::routes(app)),
            Role::Upload => chunks::upload_routes(app).merge(upload::routes(app)),
            Role::Download => chunks::download_routes(app)
                .merge(download::routes(app))
                .merge(archives::routes(app))
                .merge(thumbnails::routes(app))
                .merge(previews::routes(app)),
            Role::Sync => sync::routes(app).merge(peers::routes(app)).merge(ws::routes(app)).merge(account::device_routes(app)),
            Role::Dav => dav::routes(app),
            Role::Metadata => metadata::routes(app)
                .merge(files::routes(app))
                .merge(versions::routes(app))
                .merge(rewind::routes(app))
                .merge(search::routes(app))
                .merge(activity::routes(app))
                .merge(retention::routes(app))
                .merge(shares::routes(app))
                .merge(links::routes(app)),
        };
        routes = routes.merge(served.of_service(role.name()));
    }
    finish(app, routes)
}

/// The operator's router: metrics and health.
pub fn admin_router(app: &AppState) -> (Router, Vec<Route>) {
    finish(app, health::admin_routes(app).of_service("operator"))
}

fn finish(app: &AppState, routes: Routes) -> (Router, Vec<Route>) {
    let (router, list) = routes.into_parts();
    let router = router.method_not_allowed_fallback(body::no_method).fallback(body::no_route);
    (layers::wrap(router, app).with_state(app.clone()), list)
}

/// A time for JSON: RFC 3339 in UTC.
pub(crate) fn time_text(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
