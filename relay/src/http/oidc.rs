//! The way of a browser to another provider and back (OpenID Connect, code flow).

use super::browser::Cookie;
use super::login::{Page, after, place, see_other};
use super::{Access, AppState, ClientIp, Path, Problem, Query, Route, Routes};
use crate::oidc::{OidcError, Provider};
use crate::service::accounts::FLOW_TTL_MS;
use crate::service::{Kind, ServiceError};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use std::sync::Arc;
use subtle::ConstantTimeEq;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Public;
    Routes::new(app)
        .add(Route::get("/auth/oidc/{provider}/start", Public, "Log a browser in through another provider").page(), start)
        .add(Route::get("/auth/oidc/{provider}/callback", Public, "Where the provider sends the browser back").page(), callback)
}

#[derive(Deserialize)]
struct StartQuery {
    next: Option<String>,
}

#[derive(Deserialize)]
struct CallbackQuery {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

fn find(app: &AppState, name: &str) -> Result<Arc<Provider>, ServiceError> {
    app.oidc.iter().find(|p| p.name() == name).cloned().ok_or_else(ServiceError::not_found)
}

fn problem(error: OidcError) -> ServiceError {
    match error {
        OidcError::Unavailable(source) => ServiceError::unavailable("The other provider does not answer now. Try again.").source(source),
        // What was wrong with a token is for the operator: whoever made it need not be told.
        OidcError::Refused(source) => {
            tracing::warn!(source, "a login through another provider was refused");
            ServiceError::new(Kind::Forbidden, "identity_refused", "The login through the other provider did not work.")
                .hint("Begin again.")
        }
    }
}

async fn start(State(app): State<AppState>, path: Result<Path<String>, Problem>, query: Result<Query<StartQuery>, Problem>) -> Page {
    let (Path(name), Query(query)) = (path.map_err(|p| p.0)?, query.map_err(|p| p.0)?);
    let provider = find(&app, &name)?;
    let started = provider.start(place(query.next.as_deref().unwrap_or(""))).await.map_err(problem)?;
    let cookie = Cookie::Oidc.set(&app, &app.accounts.seal_flow(&started.flow)?, FLOW_TTL_MS / 1000)?;
    let mut response = see_other(&started.url)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn callback(
    State(app): State<AppState>,
    ClientIp(ip): ClientIp,
    headers: HeaderMap,
    path: Result<Path<String>, Problem>,
    query: Result<Query<CallbackQuery>, Problem>,
) -> Page {
    let (Path(name), Query(query)) = (path.map_err(|p| p.0)?, query.map_err(|p| p.0)?);
    let provider = find(&app, &name)?;
    // What this browser began: nobody can slip it the end of somebody else's login.
    let flow = Cookie::Oidc.read(&app, &headers).and_then(|sealed| app.accounts.open_flow(&name, &sealed));
    let given = query.state.unwrap_or_default();
    let flow = flow.filter(|f| bool::from(f.state.as_bytes().ct_eq(given.as_bytes()))).ok_or_else(|| {
        ServiceError::new(Kind::Forbidden, "foreign_login", "This login was not begun in this browser, or too long ago.")
            .hint("Begin again.")
    })?;
    let tried = match (query.code, query.error) {
        (Some(code), None) => {
            let who = provider.finish(&code, &flow).await.map_err(problem)?;
            app.accounts.login_identity(&who, provider.settings(), ip).await
        }
        (_, Some(error)) => Err(problem(OidcError::Refused(format!("the provider says: {error}")))),
        (None, None) => Err(ServiceError::malformed("The provider sent neither a code nor a reason.")),
    };
    let mut response = after(&app, &headers, &flow.next, "", tried)?;
    response.headers_mut().append(header::SET_COOKIE, Cookie::Oidc.set(&app, "", 0)?);
    Ok(response)
}
