//! Routes of app passwords: list, make, revoke. An app password itself may call none of them.

use super::plain::namespace_of;
use super::{Access, AppState, ClientIp, Json, Path, Problem, Route, Routes, time_text};
use crate::service::accounts::NewAppPassword;
use crate::service::{Caller, ServiceError, SessionId};
use crate::store::signin::ApiToken;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const BODY_MAX_BYTES: usize = 16 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::User;
    Routes::new(app)
        .add(Route::get("/api/v1/me/tokens", User, "The caller's app passwords").gives::<AppPasswordsDoc>(), list)
        .add(
            Route::post("/api/v1/me/tokens", User, "Make an app password; its secret is shown this once")
                .body_max(BODY_MAX_BYTES)
                .takes::<AppPasswordBody>()
                .gives::<NewAppPasswordDoc>(),
            create,
        )
        .add(Route::delete("/api/v1/me/tokens/{token_id}", User, "Revoke an app password"), revoke)
}

#[derive(Deserialize, ToSchema)]
struct AppPasswordBody {
    /// For people: where it is used.
    name: String,
    /// `files:read`, `files:write`, `dav`.
    scopes: Vec<String>,
    /// The only folder that it opens; without it and without `space_id`, everything.
    path: Option<String>,
    /// The namespace of that folder; without it the caller's home.
    space_id: Option<String>,
    /// RFC 3339; without it, it does not end by itself.
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct AppPasswordDoc {
    token_id: String,
    name: String,
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    space_id: Option<String>,
    /// Where its folder was when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    created_at: String,
    expires_at: Option<String>,
    /// A minute coarse.
    last_used_at: Option<String>,
    last_used_ip: Option<String>,
}

impl From<ApiToken> for AppPasswordDoc {
    fn from(token: ApiToken) -> Self {
        Self {
            token_id: token.token_id.to_string(),
            name: token.name,
            scopes: token.scopes.names(),
            space_id: token.folder.map(|f| super::plain::uuid(f.namespace.as_bytes())),
            path: token.path,
            created_at: time_text(token.created_at_ms),
            expires_at: token.expires_at_ms.map(time_text),
            last_used_at: token.last_used_at_ms.map(time_text),
            last_used_ip: token.last_used_ip,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct AppPasswordsDoc {
    tokens: Vec<AppPasswordDoc>,
}

#[derive(Serialize, ToSchema)]
struct NewAppPasswordDoc {
    /// The secret: as a bearer token, or as the password of WebDAV with the e-mail address as the name.
    secret: String,
    token: AppPasswordDoc,
}

async fn list(State(app): State<AppState>, caller: Caller) -> Result<Json<AppPasswordsDoc>, Problem> {
    let tokens = app.accounts.app_passwords(caller.user_id).await?;
    Ok(Json(AppPasswordsDoc { tokens: tokens.into_iter().map(AppPasswordDoc::from).collect() }))
}

async fn create(
    State(app): State<AppState>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Json(body): Json<AppPasswordBody>,
) -> Result<(StatusCode, Json<NewAppPasswordDoc>), Problem> {
    let folder = match (&body.path, &body.space_id) {
        (None, None) => None,
        (path, space) => {
            let namespace = space.as_deref().map(namespace_of).transpose()?;
            Some(app.content.token_folder(&caller, namespace, path.as_deref().unwrap_or("")).await?)
        }
    };
    let expires_at_ms = body.expires_at.as_deref().map(expiry).transpose()?;
    let new = NewAppPassword { name: body.name, scopes: body.scopes, folder, expires_at_ms };
    let (secret, token) = app.accounts.create_app_password(&caller, new, ip).await?;
    Ok((StatusCode::CREATED, Json(NewAppPasswordDoc { secret, token: token.into() })))
}

fn expiry(text: &str) -> Result<i64, ServiceError> {
    let at: jiff::Timestamp = text.parse().map_err(|_| ServiceError::invalid("invalid_expiry", "'expires_at' is a time in RFC 3339."))?;
    Ok(at.as_millisecond())
}

async fn revoke(State(app): State<AppState>, caller: Caller, Path(token_id): Path<String>) -> Result<StatusCode, Problem> {
    let token_id: SessionId = token_id.parse().map_err(|_| ServiceError::not_found())?;
    app.accounts.revoke_app_password(caller.user_id, token_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
