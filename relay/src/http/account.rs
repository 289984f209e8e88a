//! Routes of the auth service (8001): registration, login, tokens, devices, the first administrator.

use super::browser::Cookie;
use super::{Access, AppState, ClientIp, Json, Path, Problem, Route, Routes, admin, time_text};
use crate::service::accounts::{Accounts, DeviceIntro, NewUser, OneTimeCode, TokenSet};
use crate::service::{Caller, ServiceError, SessionId, UserRole};
use crate::store::accounts::{Device, Session, User};
use crate::store::peers::DeviceNow;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use ferry_protocol::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

type Answer<T> = Result<Json<T>, Problem>;
type Created<T> = Result<(StatusCode, Json<T>), Problem>;
type Done = Result<StatusCode, Problem>;

/// Bodies of these routes are small: a megabyte of password is refused before it is read (R13).
const BODY_MAX_BYTES: usize = 16 * 1024;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::{Public, User};
    let small = |route: Route| route.body_max(BODY_MAX_BYTES);
    Routes::new(app)
        .add(small(Route::post("/auth/register", Public, "Register a user").takes::<RegisterBody>().gives::<UserDoc>()), register)
        .add(small(Route::post("/auth/login", Public, "Log in, with or without a device").takes::<LoginBody>().gives::<TokenDoc>()), login)
        .add(
            small(
                Route::post("/auth/mfa", Public, "The second step of a login with a second factor").takes::<MfaBody>().gives::<TokenDoc>(),
            ),
            login_mfa,
        )
        .add(small(Route::post("/auth/join", Public, "Link a device with a join code").takes::<JoinBody>().gives::<TokenDoc>()), join)
        .add(small(Route::post("/auth/refresh", Public, "Exchange a refresh token").takes::<RefreshBody>().gives::<TokenDoc>()), refresh)
        .add(small(Route::post("/auth/logout", User, "End this login")), logout)
        .add(Route::get("/auth/verify", User, "Whether the token is good, and whose it is").gives::<VerifyDoc>(), verify)
        .add(Route::get("/auth/me", User, "Who is calling").gives::<UserDoc>(), me)
        .add(
            Route::get("/api/v1/me/browser", User, "What requests of this browser's pages must carry").gives::<BrowserDoc>(),
            browser_token,
        )
        .add(
            small(Route::post("/auth/password/change", User, "Replace the password; other logins end").takes::<PasswordChangeBody>()),
            change_password,
        )
        .add(
            small(Route::post("/auth/password/reset", Public, "Set a password with a reset code").takes::<PasswordResetBody>()),
            reset_password,
        )
        .add(small(Route::post("/api/v1/join-codes", User, "A code that links one more device").gives::<JoinCodeDoc>()), create_join_code)
        .add(Route::get("/api/v1/me/sessions", User, "The caller's logins").gives::<SessionsDoc>(), sessions)
        .add(Route::delete("/api/v1/me/sessions/{session_id}", User, "End a login"), revoke_session)
        .add(Route::get("/api/v1/server", Public, "Name, version, limits and ways to log in").gives::<ServerDoc>(), server)
        .add(small(Route::post("/api/v1/setup", Public, "Make the first administrator").takes::<SetupBody>().gives::<UserDoc>()), setup)
        .merge(admin::routes(app))
}

/// A user's devices: routes of the sync service (8005).
pub(super) fn device_routes(app: &AppState) -> Routes {
    use Access::User;
    let small = |route: Route| route.body_max(BODY_MAX_BYTES);
    Routes::new(app)
        .add(Route::get("/api/v1/devices", User, "The caller's devices").gives::<DevicesDoc>(), devices)
        .add(
            small(Route::patch("/api/v1/devices/{device_id}", User, "Rename a device").takes::<DeviceRenameBody>().gives::<DeviceDoc>()),
            rename_device,
        )
        .add(Route::delete("/api/v1/devices/{device_id}", User, "Revoke a device"), revoke_device)
}

#[derive(Deserialize, ToSchema)]
struct RegisterBody {
    email: String,
    password: String,
    name: Option<String>,
    /// An invitation, where the relay asks for one.
    invite: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct LoginBody {
    email: String,
    password: String,
    device: Option<DeviceBody>,
}

#[derive(Deserialize, ToSchema)]
struct DeviceBody {
    name: String,
    /// Ed25519, 64 hexadecimal digits.
    public_key: String,
}

impl From<DeviceBody> for DeviceIntro {
    fn from(body: DeviceBody) -> Self {
        Self { name: body.name, public_key: body.public_key }
    }
}

#[derive(Deserialize, ToSchema)]
struct MfaBody {
    /// Of the answer `mfa_required` to the login.
    mfa_token: String,
    /// Six digits of the authenticator app, or a recovery code.
    code: String,
    device: Option<DeviceBody>,
}

#[derive(Deserialize, ToSchema)]
struct JoinBody {
    secret: String,
    device: DeviceBody,
}

#[derive(Deserialize, ToSchema)]
struct RefreshBody {
    refresh_token: String,
}

#[derive(Deserialize, ToSchema)]
struct PasswordChangeBody {
    current_password: String,
    new_password: String,
}

#[derive(Deserialize, ToSchema)]
struct PasswordResetBody {
    code: String,
    password: String,
}

#[derive(Deserialize, ToSchema)]
struct DeviceRenameBody {
    name: String,
}

#[derive(Deserialize, ToSchema)]
struct SetupBody {
    token: String,
    email: String,
    password: String,
    name: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TokenDoc {
    access_token: String,
    token_type: &'static str,
    /// Seconds until the access token ends.
    expires_in: u32,
    refresh_token: String,
    #[schema(value_type = String)]
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    /// The public key with which this relay's grants are checked, 64 hexadecimal digits.
    grant_key: String,
}

impl From<TokenSet> for TokenDoc {
    fn from(set: TokenSet) -> Self {
        Self {
            access_token: set.access_token,
            token_type: "Bearer",
            expires_in: set.expires_in_s,
            refresh_token: set.refresh_token,
            user_id: set.user_id,
            device_id: set.device_id,
            grant_key: set.grant_key,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct UserDoc {
    #[schema(value_type = String)]
    user_id: UserId,
    email: String,
    name: String,
    #[schema(value_type = String)]
    role: UserRole,
    /// Bytes.
    storage_used: u64,
    /// Bytes; null is no limit.
    storage_limit: Option<u64>,
    disabled: bool,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
}

impl From<User> for UserDoc {
    fn from(user: User) -> Self {
        Self {
            user_id: user.user_id,
            email: user.email,
            name: user.name,
            role: user.role,
            storage_used: user.storage_used_bytes,
            storage_limit: user.storage_limit_bytes,
            disabled: user.disabled,
            created_at: time_text(user.created_at_ms),
            device_id: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct BrowserDoc {
    /// Goes into `X-CSRF-Token` of every request that changes something, and into `csrf` of forms.
    csrf_token: String,
}

#[derive(Serialize, ToSchema)]
struct VerifyDoc {
    valid: bool,
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    #[schema(value_type = String)]
    role: UserRole,
    expires_at: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CodeDoc {
    code: String,
    expires_at: String,
}

impl From<OneTimeCode> for CodeDoc {
    fn from(code: OneTimeCode) -> Self {
        Self { code: code.secret, expires_at: time_text(code.expires_at_ms) }
    }
}

#[derive(Serialize, ToSchema)]
struct JoinCodeDoc {
    code_secret: String,
    expires_at: String,
}

#[derive(Serialize, ToSchema)]
struct DeviceDoc {
    #[schema(value_type = String)]
    device_id: DeviceId,
    name: String,
    public_key: String,
    created_at: String,
    last_seen_at: String,
    revoked_at: Option<String>,
    /// Whether it is the device that asks.
    current: bool,
    /// What it said of itself and where it was last; null where it is not asked for, and for what it never said.
    now: Option<DeviceNowDoc>,
}

#[derive(Serialize, ToSchema, Default)]
struct DeviceNowDoc {
    /// Where others on its network reach it, the best first.
    addresses: Vec<String>,
    announced_at: Option<String>,
    /// What it runs on.
    system: Option<String>,
    /// Which Ferry.
    version: Option<String>,
    /// Bytes that came to it from devices nearby, ever.
    lan_received_bytes: Option<u64>,
    /// Bytes that came to it from the relay, ever.
    relay_received_bytes: Option<u64>,
}

impl DeviceNowDoc {
    fn of(now: DeviceNow) -> Self {
        let mut doc = Self::default();
        if let Some(at) = now.at {
            doc.addresses = at.addresses.iter().map(ToString::to_string).collect();
            doc.announced_at = Some(time_text(at.announced_at_ms));
        }
        if let Some(kept) = now.report {
            doc.lan_received_bytes = Some(kept.lan_bytes());
            doc.relay_received_bytes = Some(kept.relay_bytes());
            doc.system = Some(kept.report.system).filter(|word| !word.is_empty());
            doc.version = Some(kept.report.version).filter(|word| !word.is_empty());
        }
        doc
    }
}

impl DeviceDoc {
    fn of(device: Device, caller: &Caller) -> Self {
        Self {
            device_id: device.device_id,
            name: device.name,
            public_key: hex::encode(device.public_key),
            created_at: time_text(device.created_at_ms),
            last_seen_at: time_text(device.last_seen_at_ms),
            revoked_at: device.revoked_at_ms.map(time_text),
            current: caller.device_id == Some(device.device_id),
            now: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct DevicesDoc {
    devices: Vec<DeviceDoc>,
}

#[derive(Serialize, ToSchema)]
struct SessionDoc {
    session_id: String,
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    created_at: String,
    last_used_at: String,
    expires_at: String,
    /// Whether it is the login that asks.
    current: bool,
}

impl SessionDoc {
    fn of(session: &Session, caller: &Caller) -> Self {
        Self {
            session_id: session.session_id.to_string(),
            device_id: session.device_id,
            created_at: time_text(session.created_at_ms),
            last_used_at: time_text(session.last_used_at_ms),
            expires_at: time_text(session.expires_at_ms),
            current: caller.session_id == session.session_id,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct SessionsDoc {
    sessions: Vec<SessionDoc>,
}

#[derive(Serialize, ToSchema)]
struct ServerDoc {
    name: &'static str,
    version: &'static str,
    /// The relay's own id.
    relay_id: String,
    /// The public key with which this relay's grants are checked, 64 hexadecimal digits.
    grant_key: String,
    /// The address for people and devices.
    url: String,
    #[schema(value_type = String)]
    registration: crate::config::Registration,
    auth_methods: Vec<&'static str>,
    /// Whether there is an administrator.
    is_set_up: bool,
    limits: LimitsDoc,
}

#[derive(Serialize, ToSchema)]
struct LimitsDoc {
    chunk_max_bytes: usize,
    request_max_bytes: usize,
    file_max_bytes: u64,
    commit_nodes_max: usize,
    chunk_ids_max: usize,
}

async fn register(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<RegisterBody>) -> Created<UserDoc> {
    let new = NewUser { email: &body.email, name: body.name.as_deref(), password: &body.password };
    let user = app.accounts.register(new, body.invite.as_deref(), ip).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

async fn login(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<LoginBody>) -> Answer<TokenDoc> {
    let device = body.device.map(DeviceIntro::from);
    Ok(Json(app.accounts.login(&body.email, &body.password, device.as_ref(), ip).await?.into()))
}

async fn login_mfa(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<MfaBody>) -> Answer<TokenDoc> {
    let device = body.device.map(DeviceIntro::from);
    Ok(Json(app.accounts.login_mfa(&body.mfa_token, &body.code, device.as_ref(), ip).await?.into()))
}

async fn join(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<JoinBody>) -> Answer<TokenDoc> {
    Ok(Json(app.accounts.join(&body.secret, &body.device.into(), ip).await?.into()))
}

async fn refresh(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<RefreshBody>) -> Answer<TokenDoc> {
    Ok(Json(app.accounts.refresh(&body.refresh_token, ip).await?.into()))
}

async fn logout(State(app): State<AppState>, caller: Caller) -> Done {
    app.accounts.logout(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify(caller: Caller) -> Json<VerifyDoc> {
    Json(VerifyDoc {
        valid: true,
        user_id: caller.user_id,
        device_id: caller.device_id,
        role: caller.role,
        expires_at: time_text(caller.expires_at_ms),
    })
}

async fn me(State(app): State<AppState>, caller: Caller) -> Answer<UserDoc> {
    let user = app.accounts.me(&caller).await?;
    Ok(Json(UserDoc { device_id: caller.device_id, ..user.into() }))
}

/// Pages of other origins may ask, but no browser lets them read the answer.
async fn browser_token(State(app): State<AppState>, headers: HeaderMap) -> Answer<BrowserDoc> {
    let cookie = Cookie::Session.read(&app, &headers);
    let cookie = cookie.ok_or_else(|| ServiceError::forbidden("Only a browser that logged in by the page needs this."))?;
    Ok(Json(BrowserDoc { csrf_token: Accounts::csrf_token(&cookie) }))
}

async fn change_password(
    State(app): State<AppState>,
    caller: Caller,
    ClientIp(ip): ClientIp,
    Json(body): Json<PasswordChangeBody>,
) -> Done {
    app.accounts.change_password(&caller, &body.current_password, &body.new_password, ip).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset_password(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<PasswordResetBody>) -> Done {
    app.accounts.reset_password(&body.code, &body.password, ip).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_join_code(State(app): State<AppState>, caller: Caller) -> Created<JoinCodeDoc> {
    let code = app.accounts.create_join_code(caller.user_id).await?;
    Ok((StatusCode::CREATED, Json(JoinCodeDoc { code_secret: code.secret, expires_at: time_text(code.expires_at_ms) })))
}

async fn devices(State(app): State<AppState>, caller: Caller) -> Answer<DevicesDoc> {
    let devices = app.accounts.devices(caller.user_id).await?;
    let mut now: BTreeMap<DeviceId, DeviceNow> = app.peers.reports(&caller).await?.into_iter().map(|now| (now.device_id, now)).collect();
    let doc = |device: Device| {
        let now = now.remove(&device.device_id).map(DeviceNowDoc::of);
        DeviceDoc { now, ..DeviceDoc::of(device, &caller) }
    };
    Ok(Json(DevicesDoc { devices: devices.into_iter().map(doc).collect() }))
}

async fn rename_device(
    State(app): State<AppState>,
    caller: Caller,
    Path(device_id): Path<DeviceId>,
    Json(body): Json<DeviceRenameBody>,
) -> Answer<DeviceDoc> {
    let device = app.accounts.rename_device(caller.user_id, device_id, &body.name).await?;
    Ok(Json(DeviceDoc::of(device, &caller)))
}

async fn revoke_device(State(app): State<AppState>, caller: Caller, Path(device_id): Path<DeviceId>) -> Done {
    app.accounts.revoke_device(caller.user_id, device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sessions(State(app): State<AppState>, caller: Caller) -> Answer<SessionsDoc> {
    let sessions = app.accounts.sessions(caller.user_id).await?;
    Ok(Json(SessionsDoc { sessions: sessions.iter().map(|s| SessionDoc::of(s, &caller)).collect() }))
}

async fn revoke_session(State(app): State<AppState>, caller: Caller, Path(session_id): Path<String>) -> Done {
    let session_id: SessionId = session_id.parse().map_err(|_| crate::service::ServiceError::not_found())?;
    app.accounts.revoke_session(caller.user_id, session_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn server(State(app): State<AppState>) -> Answer<ServerDoc> {
    use ferry_protocol::limits;
    Ok(Json(ServerDoc {
        name: "ferry-relay",
        version: env!("CARGO_PKG_VERSION"),
        relay_id: app.accounts.relay_id().to_owned(),
        grant_key: app.peers.grant_key(),
        url: app.base_url.clone(),
        registration: app.accounts.registration(),
        auth_methods: [&["password", "join_code", "device_code"][..], if app.oidc.is_empty() { &[] } else { &["oidc"] }].concat(),
        is_set_up: app.accounts.is_set_up().await?,
        limits: LimitsDoc {
            chunk_max_bytes: limits::CHUNK_MAX_BYTES,
            request_max_bytes: limits::REQUEST_MAX_BYTES,
            file_max_bytes: limits::FILE_MAX_BYTES,
            commit_nodes_max: limits::COMMIT_NODES_MAX,
            chunk_ids_max: limits::CHUNK_IDS_MAX,
        },
    }))
}

async fn setup(State(app): State<AppState>, ClientIp(ip): ClientIp, Json(body): Json<SetupBody>) -> Created<UserDoc> {
    let new = NewUser { email: &body.email, name: body.name.as_deref(), password: &body.password };
    let user = app.accounts.setup(&body.token, new, ip).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}
