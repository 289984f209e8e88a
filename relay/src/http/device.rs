//! The page on which a person lets a device in, or not: `ferry login` shows its address and a code.

use super::body::Form;
use super::browser::{Browser, Cookie, browser, check_form};
use super::error::status_of;
use super::html::fill;
use super::language;
use super::login::{Page, alert, to_login, who};
use super::{Access, AppState, ClientIp, Problem, Query, Route, Routes};
use crate::service::accounts::WaitingDevice;
use crate::service::{Kind, ServiceError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

const BODY_MAX_BYTES: usize = 16 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    let page = |route: Route| route.body_max(BODY_MAX_BYTES).page();
    Routes::new(app)
        .add(page(Route::get("/device", Access::Public, "The page that lets a device in")), look)
        .add(page(Route::post("/device", Access::Public, "Let a device in, or refuse it (form)")), decide)
}

#[derive(Deserialize)]
struct CodeQuery {
    user_code: Option<String>,
}

#[derive(Deserialize)]
struct DecisionForm {
    csrf: String,
    user_code: String,
    decision: Decision,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Approve,
    Deny,
}

async fn look(State(app): State<AppState>, ClientIp(ip): ClientIp, headers: HeaderMap, query: Result<Query<CodeQuery>, Problem>) -> Page {
    let Query(CodeQuery { user_code }) = query.map_err(|p| p.0)?;
    // Only the letters: what comes back in an address was typed by nobody we know.
    let letters: String = user_code.unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(16).collect();
    let Some(browser) = browser(&app, &headers).await? else {
        let next = if letters.is_empty() { "/device".to_owned() } else { format!("/device?user_code={letters}") };
        return Ok(to_login(&next)?);
    };
    if letters.is_empty() {
        return Ok(enter_page(&app, &browser, None).await?);
    }
    match app.accounts.waiting_device(&letters, ip).await {
        Ok(device) => Ok(decide_page(&app, &browser, &device).await?),
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::TooMany) => Ok(enter_page(&app, &browser, Some(&e)).await?),
        Err(e) => Err(e.into()),
    }
}

async fn decide(
    State(app): State<AppState>,
    ClientIp(ip): ClientIp,
    headers: HeaderMap,
    body: Result<Form<DecisionForm>, Problem>,
) -> Page {
    let Form(body) = body.map_err(|p| p.0)?;
    let Some(browser) = browser(&app, &headers).await? else { return Ok(to_login("/device")?) };
    check_form(&app, &headers, Cookie::Session, &body.csrf)?;
    let let_in = body.decision == Decision::Approve;
    let device = match app.accounts.decide_device(&browser.caller, &body.user_code, let_in, ip).await {
        Ok(device) => device,
        Err(e) if e.kind() == Kind::NotFound => return Ok(enter_page(&app, &browser, Some(&e)).await?),
        Err(e) => return Err(e.into()),
    };
    let end = if let_in { "linked" } else { "refused" };
    let text = language::filled(&format!("device.{end}.text"), &[("name", &device.name)]);
    let aside = language::message(&format!("device.{end}.aside"));
    let body = fill(include_str!("pages/device_done.html"), &[("text", (&text).into()), ("aside", aside.into())]);
    Ok(body.into_page(StatusCode::OK, language::message(&format!("device.{end}.title"))))
}

async fn enter_page(app: &AppState, browser: &Browser, error: Option<&ServiceError>) -> Result<Response, ServiceError> {
    let status = error.map_or(StatusCode::OK, |e| status_of(e.kind()));
    let (alert, who) = (alert(error), who(app, &browser.caller, &browser.csrf).await?);
    let body = fill(include_str!("pages/device_enter.html"), &[("alert", (&alert).into()), ("who", (&who).into())]);
    Ok(body.into_page(status, language::message("device.enter.title")))
}

async fn decide_page(app: &AppState, browser: &Browser, device: &WaitingDevice) -> Result<Response, ServiceError> {
    let who = who(app, &browser.caller, &browser.csrf).await?;
    let asked_at =
        Timestamp::from_millisecond(device.asked_at_ms).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%d %H:%M UTC").to_string();
    let body = fill(
        include_str!("pages/device_decide.html"),
        &[
            ("user_code", (&device.user_code).into()),
            ("name", (&device.name).into()),
            ("system", (&device.system).into()),
            ("remote_ip", (&device.remote_ip).into()),
            ("asked_at", (&asked_at).into()),
            ("csrf", (&browser.csrf).into()),
            ("who", (&who).into()),
        ],
    );
    Ok(body.into_page(StatusCode::OK, language::message("device.decide.title")))
}
