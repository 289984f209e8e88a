//! Routes of the second factor: begin, confirm, remove, recovery codes; and an administrator's way to take one away.

use super::{Access, AppState, ClientIp, Json, Path, Problem, Route, Routes};
use crate::service::Caller;
use axum::extract::State;
use axum::http::StatusCode;
use ferry_protocol::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

type Answer<T> = Result<Json<T>, Problem>;

const BODY_MAX_BYTES: usize = 16 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::{Admin, User};
    let small = |route: Route| route.body_max(BODY_MAX_BYTES);
    Routes::new(app)
        .add(Route::get("/api/v1/me/totp", User, "Whether logins ask for a second factor").gives::<TotpStateDoc>(), state)
        .add(
            small(Route::post("/api/v1/me/totp", User, "Begin a second factor (TOTP)").takes::<PasswordBody>().gives::<NewTotpDoc>()),
            begin,
        )
        .add(
            small(
                Route::post("/api/v1/me/totp/confirm", User, "Confirm it with a code; gives the recovery codes, once")
                    .takes::<CodeBody>()
                    .gives::<RecoveryCodesDoc>(),
            ),
            confirm,
        )
        .add(small(Route::delete("/api/v1/me/totp", User, "Remove the second factor").takes::<CodeBody>()), remove)
        .add(
            small(
                Route::post("/api/v1/me/recovery-codes", User, "New recovery codes in place of the old ones")
                    .takes::<CodeBody>()
                    .gives::<RecoveryCodesDoc>(),
            ),
            renew,
        )
        .add(Route::delete("/api/v1/admin/users/{user_id}/totp", Admin, "Take a user's second factor away"), reset)
}

#[derive(Serialize, ToSchema)]
struct TotpStateDoc {
    enabled: bool,
    recovery_codes_left: u32,
}

#[derive(Deserialize, ToSchema)]
struct PasswordBody {
    /// The caller's own, once more.
    password: String,
}

#[derive(Serialize, ToSchema)]
struct NewTotpDoc {
    /// Base 32, for people who type.
    secret: String,
    /// The same as an `otpauth:` address, for a QR code.
    url: String,
}

#[derive(Deserialize, ToSchema)]
struct CodeBody {
    /// Six digits of the authenticator app; to remove it or for new recovery codes a recovery code does too.
    code: String,
}

#[derive(Serialize, ToSchema)]
struct RecoveryCodesDoc {
    /// Each opens once. They are shown this once.
    recovery_codes: Vec<String>,
}

async fn state(State(app): State<AppState>, caller: Caller) -> Answer<TotpStateDoc> {
    let state = app.accounts.totp_state(caller.user_id).await?;
    Ok(Json(TotpStateDoc { enabled: state.is_enabled, recovery_codes_left: state.recovery_codes_left }))
}

async fn begin(State(app): State<AppState>, caller: Caller, ClientIp(ip): ClientIp, Json(body): Json<PasswordBody>) -> Answer<NewTotpDoc> {
    let new = app.accounts.begin_totp(&caller, &body.password, ip).await?;
    Ok(Json(NewTotpDoc { secret: new.secret, url: new.url }))
}

async fn confirm(
    State(app): State<AppState>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Json(body): Json<CodeBody>,
) -> Answer<RecoveryCodesDoc> {
    Ok(Json(RecoveryCodesDoc { recovery_codes: app.accounts.confirm_totp(&caller, &body.code, ip).await? }))
}

async fn remove(
    State(app): State<AppState>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Json(body): Json<CodeBody>,
) -> Result<StatusCode, Problem> {
    app.accounts.remove_totp(&caller, &body.code, ip).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn renew(
    State(app): State<AppState>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Json(body): Json<CodeBody>,
) -> Answer<RecoveryCodesDoc> {
    Ok(Json(RecoveryCodesDoc { recovery_codes: app.accounts.renew_recovery_codes(&caller, &body.code, ip).await? }))
}

async fn reset(State(app): State<AppState>, Path(user_id): Path<UserId>) -> Result<StatusCode, Problem> {
    app.accounts.reset_totp(user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
