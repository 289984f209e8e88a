//! The one way to make a route: [`Routes::add`] demands who may call it, so no route can be open by oversight, and the list of all routes can be
//! walked by a test and written out as the OpenAPI document.

use super::AppState;
use super::auth;
use super::error::Problem;
use crate::service::{Scope, ServiceError};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, any, on};
use std::time::Duration;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Anyone.
    Public,
    /// Whoever holds an address that is signed or secret; the handler checks it. There is no token to check.
    Signed,
    /// Any user who is logged in.
    User,
    /// A user through a linked device (the token names one).
    Device,
    /// A program with an app password of the route's scope; no login will do.
    AppPassword,
    /// An administrator.
    Admin,
}

/// Largest body of a route that does not say otherwise, in bytes.
pub const BODY_DEFAULT_BYTES: usize = 256 * 1024;
/// How long a route that does not say otherwise may take to begin its answer.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// A route: how it is called, by whom, and its bounds.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{parameters}`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// One line for the OpenAPI document.
    pub summary: &'static str,
    /// Largest body, in bytes.
    pub body_max_bytes: usize,
    /// How long until the answer begins; none for routes that wait or carry much.
    pub timeout: Option<Duration>,
    /// The body that it takes, for the OpenAPI document.
    pub request: Option<Schema>,
    /// Whether that body is a form, not JSON.
    pub takes_form: bool,
    /// Whether the body may be left out.
    pub body_is_optional: bool,
    /// Whether it answers with a page for people, errors included.
    pub is_page: bool,
    /// What an app password must be for to call it; none: no app password may.
    pub scope: Option<Scope>,
    /// The JSON body that it answers with, for the OpenAPI document.
    pub response: Option<Schema>,
    /// Whether `?space_id=` says in which folder the file of its path is meant.
    pub in_folder: bool,
}

/// A type in the OpenAPI document.
#[derive(Debug, Clone)]
pub struct Schema {
    /// Its name among the document's components.
    pub name: String,
    /// It and the types that it is made of.
    pub components: Vec<(String, serde_json::Value)>,
}

impl Schema {
    fn of<T: utoipa::ToSchema>() -> Self {
        let mut components = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut components);
        let value = |schema| serde_json::to_value(schema).unwrap_or(serde_json::Value::Null);
        Self { name: T::name().into_owned(), components: components.into_iter().map(|(name, schema)| (name, value(schema))).collect() }
    }
}

impl Route {
    /// A route with the default bounds.
    pub fn new(method: Method, path: &'static str, access: Access, summary: &'static str) -> Self {
        Self {
            method,
            path,
            access,
            summary,
            body_max_bytes: BODY_DEFAULT_BYTES,
            timeout: Some(TIMEOUT_DEFAULT),
            request: None,
            takes_form: false,
            body_is_optional: false,
            is_page: false,
            scope: None,
            response: None,
            in_folder: false,
        }
    }

    /// `GET path` (answers `HEAD` too).
    pub fn get(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new(Method::GET, path, access, summary)
    }

    /// `POST path`.
    pub fn post(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new(Method::POST, path, access, summary)
    }

    /// `PUT path`.
    pub fn put(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new(Method::PUT, path, access, summary)
    }

    /// `PATCH path`.
    pub fn patch(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new(Method::PATCH, path, access, summary)
    }

    /// `DELETE path`.
    pub fn delete(path: &'static str, access: Access, summary: &'static str) -> Self {
        Self::new(Method::DELETE, path, access, summary)
    }

    /// Takes bodies up to this size, in bytes.
    #[must_use]
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max_bytes = bytes;
        self
    }

    /// Takes this body.
    #[must_use]
    pub fn takes<T: utoipa::ToSchema>(mut self) -> Self {
        self.request = Some(Schema::of::<T>());
        self
    }

    /// Takes this body, or none.
    #[must_use]
    pub fn may_take<T: utoipa::ToSchema>(mut self) -> Self {
        self.body_is_optional = true;
        self.takes::<T>()
    }

    /// Takes this form.
    #[must_use]
    pub fn takes_form<T: utoipa::ToSchema>(mut self) -> Self {
        self.takes_form = true;
        self.takes::<T>()
    }

    /// Answers with a page for people.
    #[must_use]
    pub fn page(mut self) -> Self {
        self.is_page = true;
        self
    }

    /// May be called by an app password that is for this.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Answers with this body.
    #[must_use]
    pub fn gives<T: utoipa::ToSchema>(mut self) -> Self {
        self.response = Some(Schema::of::<T>());
        self
    }

    /// Takes `?space_id=`, the folder in which the file of its path is meant.
    #[must_use]
    pub fn in_folder(mut self) -> Self {
        self.in_folder = true;
        self
    }

    /// May take as long as it needs until its answer begins.
    #[must_use]
    pub fn no_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }
}

/// The largest body of the route that a request came to, in bytes, plain or compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyMax(pub usize);

/// The service that an answer is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service(pub &'static str);

/// Routes and their list.
pub struct Routes {
    app: AppState,
    router: Router<AppState>,
    list: Vec<Route>,
}

impl Routes {
    /// No routes yet.
    pub fn new(app: &AppState) -> Self {
        Self { app: app.clone(), router: Router::new(), list: Vec::new() }
    }

    /// Adds a route. The caller is checked before the handler, its extractors included, sees anything of the request.
    #[must_use]
    pub fn add<H, T>(mut self, route: Route, handler: H) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::GET);
        let bounds = (route.body_max_bytes, route.timeout);
        let mut method_router = on(filter, handler)
            .route_layer(DefaultBodyLimit::max(route.body_max_bytes))
            .route_layer(middleware::from_fn(move |request, next| within(bounds, request, next)));
        if !matches!(route.access, Access::Public | Access::Signed) {
            let state = (self.app.clone(), auth::Demand { access: route.access, scope: route.scope });
            method_router = method_router.route_layer(middleware::from_fn_with_state(state, auth::require));
        }
        self.router = self.router.route(route.path, method_router);
        self.list.push(route);
        self
    }

    /// Adds a path of a protocol above HTTP, whose handler answers every method, also those that only the protocol knows. It is called with app passwords of
    /// this scope. `routes`, all of this path, say which methods it takes; the bounds are those of the first.
    #[must_use]
    pub fn add_methods<H, T>(mut self, scope: Scope, routes: Vec<Route>, handler: H) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        let Some(first) = routes.first() else { return self };
        let bounds = (first.body_max_bytes, first.timeout);
        let method_router = any(handler)
            .layer(DefaultBodyLimit::max(first.body_max_bytes))
            .layer(middleware::from_fn(move |request, next| within(bounds, request, next)))
            .layer(middleware::from_fn_with_state((self.app.clone(), scope), super::dav::require_app_password));
        self.router = self.router.route(first.path, method_router);
        self.list.extend(routes.into_iter().map(|route| Route { access: Access::AppPassword, scope: Some(scope), ..route }));
        self
    }

    /// Adds all routes of another list. Two routes of one method and path are a mistake of ours and stop the start.
    #[must_use]
    pub fn merge(mut self, other: Routes) -> Self {
        self.router = self.router.merge(other.router);
        self.list.extend(other.list);
        self
    }

    /// Says in each answer which service it is of, for log and metrics.
    #[must_use]
    pub(super) fn of_service(mut self, name: &'static str) -> Self {
        self.router = self.router.route_layer(middleware::map_response(move |mut response: Response| async move {
            response.extensions_mut().insert(Service(name));
            response
        }));
        self
    }

    pub(super) fn into_parts(self) -> (Router<AppState>, Vec<Route>) {
        (self.router, self.list)
    }
}

/// Refuses a body that announces more than the route takes before reading it, and ends a handler that takes too long.
async fn within((body_max_bytes, timeout): (usize, Option<Duration>), mut request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > body_max_bytes as u64) {
        let error = ServiceError::too_large(format!("The body is larger than the {body_max_bytes} bytes that this route takes."))
            .with("limit_bytes", body_max_bytes);
        return Problem(error).into_response();
    }
    request.extensions_mut().insert(BodyMax(body_max_bytes));
    match timeout {
        None => next.run(request).await,
        Some(limit) => match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem(ServiceError::unavailable("The relay took too long. Try again.")).into_response(),
        },
    }
}
