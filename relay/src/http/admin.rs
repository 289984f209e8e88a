//! Routes for administrators: users, invitations, the audit log.

use super::account::{CodeDoc, UserDoc};
use super::{Access, AppState, Json, Path, Problem, Query, Route, Routes, time_text};
use crate::service::UserRole;
use crate::service::accounts::NewUser;
use crate::store::accounts::UserChange;
use axum::extract::State;
use axum::http::StatusCode;
use ferry_protocol::{DeviceId, UserId};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

type Answer<T> = Result<Json<T>, Problem>;
type Created<T> = Result<(StatusCode, Json<T>), Problem>;

/// Users or entries in an answer when the caller does not say.
const PAGE_DEFAULT: u32 = 100;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Admin;
    Routes::new(app)
        .add(Route::get("/api/v1/admin/users", Admin, "Users in the order of their addresses").gives::<UsersDoc>(), users)
        .add(Route::post("/api/v1/admin/users", Admin, "Add a user").takes::<UserAddBody>().gives::<UserDoc>(), add_user)
        .add(Route::get("/api/v1/admin/users/{user_id}", Admin, "A user").gives::<UserDoc>(), user)
        .add(
            Route::patch("/api/v1/admin/users/{user_id}", Admin, "Change a user").takes::<UserChangeBody>().gives::<UserDoc>(),
            change_user,
        )
        .add(Route::delete("/api/v1/admin/users/{user_id}", Admin, "Delete a user"), delete_user)
        .add(
            Route::post("/api/v1/admin/users/{user_id}/reset-code", Admin, "A code that sets a new password").gives::<CodeDoc>(),
            reset_code,
        )
        .add(Route::post("/api/v1/admin/invites", Admin, "A code with which one person may register").gives::<CodeDoc>(), invite)
        .add(Route::get("/api/v1/admin/audit", Admin, "The audit log, newest first").gives::<AuditDoc>(), audit)
}

#[derive(Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
struct UsersDoc {
    users: Vec<UserDoc>,
    /// Ask for what comes `after` this; null at the end.
    next_after: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct UserAddBody {
    email: String,
    password: String,
    name: Option<String>,
    #[schema(value_type = Option<String>)]
    role: Option<UserRole>,
}

#[derive(Deserialize, ToSchema)]
struct UserChangeBody {
    name: Option<String>,
    #[schema(value_type = Option<String>)]
    role: Option<UserRole>,
    disabled: Option<bool>,
    /// Bytes; null removes the limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    storage_limit: Option<Option<u64>>,
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct AuditQuery {
    before: Option<i64>,
    user_id: Option<UserId>,
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
struct AuditDoc {
    entries: Vec<AuditEntryDoc>,
}

#[derive(Serialize, ToSchema)]
struct AuditEntryDoc {
    audit_id: i64,
    at: String,
    event: String,
    #[schema(value_type = Option<String>)]
    user_id: Option<UserId>,
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    /// On whose behalf it was done, when that is known.
    #[schema(value_type = Option<String>)]
    actor_id: Option<UserId>,
    /// By which way: `http`, `cli` or `relay`.
    via: String,
    remote_ip: Option<String>,
    detail: String,
}

async fn users(State(app): State<AppState>, Query(query): Query<PageQuery>) -> Answer<UsersDoc> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).clamp(1, 1000);
    let users = app.accounts.users(query.after.as_deref().unwrap_or(""), limit).await?;
    let next_after = users.last().filter(|_| users.len() == limit as usize).map(|u| u.email_key.clone());
    Ok(Json(UsersDoc { users: users.into_iter().map(UserDoc::from).collect(), next_after }))
}

async fn add_user(State(app): State<AppState>, Json(body): Json<UserAddBody>) -> Created<UserDoc> {
    let new = NewUser { email: &body.email, name: body.name.as_deref(), password: &body.password };
    let user = app.accounts.add_user(new, body.role.unwrap_or(UserRole::User)).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

async fn user(State(app): State<AppState>, Path(user_id): Path<UserId>) -> Answer<UserDoc> {
    Ok(Json(app.accounts.user(user_id).await?.into()))
}

async fn change_user(State(app): State<AppState>, Path(user_id): Path<UserId>, Json(body): Json<UserChangeBody>) -> Answer<UserDoc> {
    let change = UserChange { name: body.name, role: body.role, storage_limit_bytes: body.storage_limit, disabled: body.disabled };
    Ok(Json(app.accounts.update_user(user_id, &change).await?.into()))
}

async fn delete_user(State(app): State<AppState>, Path(user_id): Path<UserId>) -> Result<StatusCode, Problem> {
    app.accounts.delete_user(user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset_code(State(app): State<AppState>, Path(user_id): Path<UserId>) -> Created<CodeDoc> {
    Ok((StatusCode::CREATED, Json(app.accounts.create_reset_code(user_id).await?.into())))
}

async fn invite(State(app): State<AppState>) -> Created<CodeDoc> {
    Ok((StatusCode::CREATED, Json(app.accounts.create_invite().await?.into())))
}

async fn audit(State(app): State<AppState>, Query(query): Query<AuditQuery>) -> Answer<AuditDoc> {
    let entries = app.accounts.audit_entries(query.before, query.user_id, query.limit.unwrap_or(PAGE_DEFAULT)).await?;
    let entries = entries
        .into_iter()
        .map(|e| AuditEntryDoc {
            audit_id: e.audit_id,
            at: time_text(e.at_ms),
            event: e.event,
            user_id: e.user_id,
            device_id: e.device_id,
            actor_id: e.actor_id,
            via: e.via,
            remote_ip: e.remote_ip,
            detail: e.detail,
        })
        .collect();
    Ok(Json(AuditDoc { entries }))
}
