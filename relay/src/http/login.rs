//! Logging a browser in and out: pages that a server renders and that need no script. The web client uses the same cookie.

use super::body::Form;
use super::browser::{Cookie, browser, check_form, form, logged_in};
use super::error::status_of;
use super::html::{Html, Slot, fill};
use super::language;
use super::{Access, AppState, ClientIp, Problem, Query, Route, Routes};
use crate::service::ServiceError;
use crate::service::accounts::BrowserLogin;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest place to go after the login, in bytes.
const NEXT_MAX_BYTES: usize = 512;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Public;
    let small = |route: Route| route.body_max(BODY_MAX_BYTES).page();
    Routes::new(app)
        .add(small(Route::get("/login", Public, "The page that logs a browser in")), login_page)
        .add(small(Route::post("/login", Public, "Log a browser in (form)")), login)
        .add(small(Route::post("/login/code", Public, "The second factor of a browser's login (form)")), code)
        .add(small(Route::post("/logout", Public, "Log a browser out (form)")), logout)
}

#[derive(Deserialize)]
struct NextQuery {
    next: Option<String>,
}

#[derive(Deserialize)]
struct LoginForm {
    csrf: String,
    #[serde(default)]
    next: String,
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct CodeForm {
    csrf: String,
    #[serde(default)]
    next: String,
    mfa_token: String,
    code: String,
}

#[derive(Deserialize)]
struct CsrfForm {
    csrf: String,
}

/// A problem as a page.
pub(super) fn problem_page(error: ServiceError) -> Response {
    let (status, retry) = (status_of(error.kind()), error.retry_after_s());
    if let Some(source) = error.source_text() {
        tracing::error!(code = error.code(), source, "a page could not be made");
    }
    let text = language::problem(&error);
    let body = fill(include_str!("pages/device_done.html"), &[("text", (&text).into()), ("aside", "".into())]);
    let mut response = body.into_page(status, language::message("problem.title"));
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A handler's error, shown as a page.
pub(super) struct PageProblem(pub ServiceError);

impl<E: Into<ServiceError>> From<E> for PageProblem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PageProblem {
    fn into_response(self) -> Response {
        problem_page(self.0)
    }
}

pub(super) type Page = Result<Response, PageProblem>;

/// What stands above a form when the last try failed.
pub(super) fn alert(error: Option<&ServiceError>) -> Html {
    let Some(error) = error else { return Html::default() };
    let text = language::problem(error);
    fill(include_str!("pages/alert.html"), &[("text", Slot::from(&text))])
}

/// Whether a place to go after a login is a path on this relay and nothing else (R57).
fn is_own_path(next: &str) -> bool {
    next.len() <= NEXT_MAX_BYTES
        && next.starts_with('/')
        && !next[1..].starts_with(['/', '\\'])
        && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

/// Where to go: the place asked for when it is ours, else the landing page.
pub(super) fn place(next: &str) -> &str {
    if is_own_path(next) { next } else { "/" }
}

/// Sends the browser on with a GET.
pub(super) fn see_other(to: &str) -> Result<Response, ServiceError> {
    let to = HeaderValue::from_str(to).map_err(ServiceError::internal)?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response())
}

/// Sends a browser to the login, and back here afterwards.
pub(super) fn to_login(next: &str) -> Result<Response, ServiceError> {
    see_other(&format!("/login?next={}", urlencoded(next)))
}

fn urlencoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn login_page(State(app): State<AppState>, headers: HeaderMap, query: Result<Query<NextQuery>, Problem>) -> Page {
    let Query(NextQuery { next }) = query.map_err(|p| p.0)?;
    let next = next.unwrap_or_default();
    if browser(&app, &headers).await?.is_some() {
        return Ok(see_other(place(&next))?);
    }
    Ok(login_form(&app, &headers, &next, "", None)?)
}

fn login_form(
    app: &AppState,
    headers: &HeaderMap,
    next: &str,
    email: &str,
    error: Option<&ServiceError>,
) -> Result<Response, ServiceError> {
    let (csrf, cookie) = form(app, headers)?;
    let status = error.map_or(StatusCode::OK, |e| status_of(e.kind()));
    let (alert, providers) = (alert(error), providers(app, place(next)));
    let body = fill(
        include_str!("pages/login.html"),
        &[
            ("alert", (&alert).into()),
            ("csrf", (&csrf).into()),
            ("next", place(next).into()),
            ("email", email.into()),
            ("providers", (&providers).into()),
        ],
    );
    Ok(with_cookie(body.into_page(status, language::message("login.title")), cookie))
}

/// The ways through other providers.
fn providers(app: &AppState, next: &str) -> Html {
    let links = app.oidc.iter().map(|provider| {
        let to = format!("/auth/oidc/{}/start?next={}", provider.name(), urlencoded(next));
        let label = language::filled("login.provider", &[("label", provider.label())]);
        fill(include_str!("pages/provider.html"), &[("to", (&to).into()), ("label", (&label).into())])
    });
    let links = Html::concat(links);
    if links == Html::default() {
        return links;
    }
    fill(include_str!("pages/providers.html"), &[("links", (&links).into())])
}

fn code_form(
    app: &AppState,
    headers: &HeaderMap,
    next: &str,
    mfa_token: &str,
    error: Option<&ServiceError>,
) -> Result<Response, ServiceError> {
    let (csrf, cookie) = form(app, headers)?;
    let status = error.map_or(StatusCode::OK, |e| status_of(e.kind()));
    let alert = alert(error);
    let body = fill(
        include_str!("pages/mfa.html"),
        &[("alert", (&alert).into()), ("csrf", (&csrf).into()), ("next", place(next).into()), ("mfa_token", mfa_token.into())],
    );
    Ok(with_cookie(body.into_page(status, language::message("mfa.title")), cookie))
}

async fn login(State(app): State<AppState>, ClientIp(ip): ClientIp, headers: HeaderMap, body: Result<Form<LoginForm>, Problem>) -> Page {
    let Form(body) = body.map_err(|p| p.0)?;
    check_form(&app, &headers, Cookie::Form, &body.csrf)?;
    let tried = app.accounts.login_browser(&body.email, &body.password, ip).await;
    after(&app, &headers, &body.next, &body.email, tried)
}

/// What a browser sees after a password or another provider spoke for it: where it wanted to go, the second factor, or why not.
pub(super) fn after(app: &AppState, headers: &HeaderMap, next: &str, email: &str, tried: Result<BrowserLogin, ServiceError>) -> Page {
    match tried {
        Ok(login) => Ok(with_cookie(see_other(place(next))?, Some(logged_in(app, &login)?))),
        Err(e) if e.code() == "mfa_required" => {
            let token = e.extra().get("mfa_token").and_then(|t| t.as_str()).unwrap_or_default();
            Ok(code_form(app, headers, next, token, None)?)
        }
        Err(e) if e.source_text().is_some() => Err(e.into()),
        Err(e) => Ok(login_form(app, headers, next, email, Some(&e))?),
    }
}

async fn code(State(app): State<AppState>, ClientIp(ip): ClientIp, headers: HeaderMap, body: Result<Form<CodeForm>, Problem>) -> Page {
    let Form(body) = body.map_err(|p| p.0)?;
    check_form(&app, &headers, Cookie::Form, &body.csrf)?;
    match app.accounts.login_browser_mfa(&body.mfa_token, &body.code, ip).await {
        Err(e) if e.code() == "wrong_code" => Ok(code_form(&app, &headers, &body.next, &body.mfa_token, Some(&e))?),
        tried => after(&app, &headers, &body.next, "", tried),
    }
}

async fn logout(State(app): State<AppState>, headers: HeaderMap, body: Result<Form<CsrfForm>, Problem>) -> Page {
    let Form(body) = body.map_err(|p| p.0)?;
    check_form(&app, &headers, Cookie::Session, &body.csrf)?;
    if let Some(browser) = browser(&app, &headers).await? {
        app.accounts.logout(&browser.caller).await?;
    }
    let mut response = with_cookie(see_other("/login")?, Some(Cookie::Session.set(&app, "", 0)?));
    // Nothing of this login stays in the browser (R70).
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(response)
}

/// Who is logged in, with the way out, for the foot of a page.
pub(super) async fn who(app: &AppState, caller: &crate::service::Caller, csrf: &str) -> Result<Html, ServiceError> {
    let email = app.accounts.me(caller).await?.email;
    let who = language::filled("who", &[("email", &email)]);
    Ok(fill(include_str!("pages/who.html"), &[("csrf", csrf.into()), ("who", (&who).into())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R57.
    #[test]
    fn only_paths_of_ours_are_gone_to() {
        for good in ["/", "/device", "/device?user_code=BCDF-GHJK", "/a/b?c=d#e"] {
            assert_eq!(place(good), good);
        }
        let long = format!("/{}", "a".repeat(NEXT_MAX_BYTES));
        for wrong in
            ["", "//evil", "/\\evil", "\\evil", "https:evil", "https://evil", "javascript:x", "/a\nb", "/a\\b", "/é", " /x", "/\t/x", &long]
        {
            assert_eq!(place(wrong), "/", "{wrong}");
        }
    }
}
