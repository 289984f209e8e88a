//! OAuth 2 for devices: the device authorisation grant (RFC 8628), the token endpoint, revocation (RFC 7009) and the document that says where these are
//! (RFC 8414). Bodies are forms, as the standards ask; an error is a problem document that also has the standards' `error` and `error_description`.

use super::account::TokenDoc;
use super::body::Form;
use super::{Access, AppState, ClientIp, Json, Problem, Route, Routes};
use crate::service::accounts::DeviceIntro;
use crate::service::{Kind, ServiceError};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The one client: Ferry's own. It is public, so its name is no secret.
const CLIENT_ID: &str = "ferry";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const REFRESH_GRANT: &str = "refresh_token";
const BODY_MAX_BYTES: usize = 16 * 1024;
/// The words of RFC 6749 and RFC 8628 that we use as codes.
const ERRORS: [&str; 9] = [
    "authorization_pending",
    "slow_down",
    "access_denied",
    "expired_token",
    "invalid_grant",
    "invalid_request",
    "invalid_client",
    "unsupported_grant_type",
    "unsupported_token_type",
];

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::Public;
    let small = |route: Route| route.body_max(BODY_MAX_BYTES);
    Routes::new(app)
        .add(
            small(
                Route::post("/oauth/device_authorization", Public, "A device asks to be let in (RFC 8628)")
                    .takes_form::<DeviceForm>()
                    .gives::<DeviceCodeDoc>(),
            ),
            device_authorization,
        )
        .add(
            small(
                Route::post("/oauth/token", Public, "Tokens for a device code or a refresh token")
                    .takes_form::<TokenForm>()
                    .gives::<TokenDoc>(),
            ),
            token,
        )
        .add(small(Route::post("/oauth/revoke", Public, "End a token and its login (RFC 7009)").takes_form::<RevokeForm>()), revoke)
        .add(
            Route::get("/.well-known/oauth-authorization-server", Public, "Where these endpoints are (RFC 8414)").gives::<MetadataDoc>(),
            metadata,
        )
}

#[derive(Deserialize, ToSchema)]
struct DeviceForm {
    /// Always `ferry`.
    client_id: String,
    /// The device's name, for people.
    device_name: String,
    /// Ed25519, 64 hexadecimal digits.
    device_public_key: String,
    /// What the device runs on, for people.
    #[serde(default)]
    system: String,
}

#[derive(Serialize, ToSchema)]
struct DeviceCodeDoc {
    /// For the device.
    device_code: String,
    /// For the person.
    user_code: String,
    verification_uri: String,
    verification_uri_complete: String,
    /// Seconds.
    expires_in: u32,
    /// Seconds between two questions.
    interval: u32,
}

#[derive(Deserialize, ToSchema)]
struct TokenForm {
    /// `urn:ietf:params:oauth:grant-type:device_code` or `refresh_token`.
    grant_type: String,
    /// Always `ferry`.
    client_id: Option<String>,
    device_code: Option<String>,
    refresh_token: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct RevokeForm {
    /// A refresh token, an access token or an app password.
    token: String,
}

#[derive(Serialize, ToSchema)]
struct MetadataDoc {
    issuer: String,
    device_authorization_endpoint: String,
    token_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: Vec<&'static str>,
    response_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    service_documentation: String,
}

/// An error as the standards want it.
struct Refused(ServiceError);

impl<E: Into<ServiceError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let word = match (ERRORS.into_iter().find(|word| *word == error.code()), error.kind()) {
            (Some(word), _) => word,
            (None, Kind::TooMany) => "slow_down",
            (None, Kind::Internal | Kind::Unavailable | Kind::StorageFull) => "temporarily_unavailable",
            (None, Kind::Unauthenticated | Kind::Conflict | Kind::Forbidden | Kind::Gone) => "invalid_grant",
            (None, _) => "invalid_request",
        };
        let is_grant = matches!(error.kind(), Kind::Unauthenticated | Kind::Conflict | Kind::Forbidden | Kind::Gone | Kind::Invalid);
        let detail = error.detail().to_owned();
        let mut response = Problem(error.with("error", word).with("error_description", detail)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if is_grant {
            // The standard has one status for all that is wrong with a grant.
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response.headers_mut().remove(header::WWW_AUTHENTICATE);
        }
        response
    }
}

fn check_client(client_id: &str) -> Result<(), ServiceError> {
    if client_id == CLIENT_ID {
        return Ok(());
    }
    Err(ServiceError::new(
        Kind::Malformed,
        "invalid_client",
        format!("'client_id' must be '{CLIENT_ID}': the relay knows no other client."),
    ))
}

fn missing(name: &str) -> ServiceError {
    ServiceError::new(Kind::Malformed, "invalid_request", format!("'{name}' is missing."))
}

type FormOf<T> = Result<Form<T>, Problem>;

async fn device_authorization(
    State(app): State<AppState>,
    ClientIp(ip): ClientIp,
    form: FormOf<DeviceForm>,
) -> Result<Json<DeviceCodeDoc>, Refused> {
    let Form(form) = form.map_err(|p| p.0)?;
    check_client(&form.client_id)?;
    let device = DeviceIntro { name: form.device_name, public_key: form.device_public_key };
    let codes = app.accounts.request_device(&device, &form.system, ip).await?;
    let verification_uri = format!("{}/device", app.base_url);
    Ok(Json(DeviceCodeDoc {
        device_code: codes.device_code,
        verification_uri_complete: format!("{verification_uri}?user_code={}", codes.user_code),
        user_code: codes.user_code,
        verification_uri,
        expires_in: codes.expires_in_s,
        interval: codes.interval_s,
    }))
}

async fn token(State(app): State<AppState>, ClientIp(ip): ClientIp, form: FormOf<TokenForm>) -> Result<Json<TokenDoc>, Refused> {
    let Form(form) = form.map_err(|p| p.0)?;
    check_client(form.client_id.as_deref().unwrap_or(CLIENT_ID))?;
    let set = match form.grant_type.as_str() {
        DEVICE_GRANT => app.accounts.redeem_device(&form.device_code.ok_or_else(|| missing("device_code"))?, ip).await?,
        REFRESH_GRANT => app.accounts.refresh(&form.refresh_token.ok_or_else(|| missing("refresh_token"))?, ip).await?,
        _ => {
            let detail = format!("'grant_type' must be '{DEVICE_GRANT}' or '{REFRESH_GRANT}'.");
            return Err(ServiceError::new(Kind::Malformed, "unsupported_grant_type", detail).into());
        }
    };
    Ok(Json(set.into()))
}

/// A token says itself what it is, so a hint is ignored. Answers 200 for tokens that are not known too: whoever revokes wants them gone, and they are (RFC 7009, 2.2).
async fn revoke(State(app): State<AppState>, ClientIp(ip): ClientIp, form: FormOf<RevokeForm>) -> Result<StatusCode, Refused> {
    let Form(RevokeForm { token }) = form.map_err(|p| p.0)?;
    app.accounts.revoke_token(&token, ip).await?;
    Ok(StatusCode::OK)
}

async fn metadata(State(app): State<AppState>) -> Json<MetadataDoc> {
    let at = |path: &str| format!("{}{path}", app.base_url);
    Json(MetadataDoc {
        issuer: app.base_url.clone(),
        device_authorization_endpoint: at("/oauth/device_authorization"),
        token_endpoint: at("/oauth/token"),
        revocation_endpoint: at("/oauth/revoke"),
        grant_types_supported: vec![DEVICE_GRANT, REFRESH_GRANT],
        response_types_supported: Vec::new(),
        token_endpoint_auth_methods_supported: vec!["none"],
        revocation_endpoint_auth_methods_supported: vec!["none"],
        service_documentation: at("/openapi.json"),
    })
}
