//! Sharing with people (metadata service): folders and files, invitations, roles; and the folders that a caller has.

use super::plain::{file_json, namespace_of, node_of, time, uuid};
use super::{Access, AppState, Json, Path, Problem, Query, Route, Routes};
use crate::service::sharing::{Listed, ShareDoc, ShareRef, ShareState, SharedThing, What, With, given_role};
use crate::service::{Caller, Scope, ServiceError};
use axum::extract::State;
use axum::http::StatusCode;
use ferry_protocol::wire::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub(super) fn routes(app: &AppState) -> Routes {
    use Access::User;
    Routes::new(app)
        .add(
            Route::get("/api/v1/spaces", User, "The caller's folders, with role and owner").scope(Scope::FilesRead).gives::<SpacesDoc>(),
            spaces,
        )
        .add(Route::get("/api/v1/shares", User, "What the caller shares, or what is shared with the caller").gives::<SharesDoc>(), list)
        .add(
            Route::post("/api/v1/shares", User, "Invite somebody to a folder or a file").takes::<InviteBody>().gives::<InvitedDoc>(),
            invite,
        )
        .add(Route::patch("/api/v1/shares/{share_id}", User, "Change a role").takes::<RoleBody>(), change)
        .add(Route::delete("/api/v1/shares/{share_id}", User, "Withdraw, remove or leave"), end)
        .add(Route::post("/api/v1/shares/{share_id}/accept", User, "Accept an invitation").gives::<AcceptedDoc>(), accept)
        .add(Route::post("/api/v1/shares/{share_id}/decline", User, "Decline an invitation"), decline)
}

#[derive(Serialize, ToSchema)]
struct PersonDoc {
    email: String,
    /// Null for an address that has not accepted yet.
    name: Option<String>,
}

impl From<With> for PersonDoc {
    fn from(with: With) -> Self {
        Self { email: with.email, name: with.name }
    }
}

#[derive(Serialize, ToSchema)]
struct SpaceDoc {
    space_id: String,
    name: String,
    /// `viewer`, `editor` or `owner`.
    role: String,
    /// Null for the caller's own folders.
    shared_by: Option<PersonDoc>,
    /// How many people have it beside its owner; null for folders of others.
    members: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct SpacesDoc {
    spaces: Vec<SpaceDoc>,
}

#[derive(Serialize, ToSchema)]
struct ShareBody {
    share_id: String,
    /// `folder` or `file`.
    kind: &'static str,
    space_id: String,
    /// Of the folder or the file; null while the file is in the trash or gone.
    name: Option<String>,
    /// The file as `GET /metadata/files/{file_id}` shows it, its place left out; null for folders.
    file: Option<Value>,
    file_id: Option<String>,
    /// With whom.
    with: PersonDoc,
    shared_by: PersonDoc,
    /// `viewer`, `editor` or `owner`.
    role: &'static str,
    /// The same of a file: `read` or `write`; null for folders.
    permission: Option<&'static str>,
    /// `pending` or `accepted`.
    state: &'static str,
    created_at: String,
}

#[derive(Serialize, ToSchema)]
struct SharesDoc {
    shares: Vec<ShareBody>,
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Editor => "editor",
        Role::Owner => "owner",
    }
}

impl From<ShareDoc> for ShareBody {
    fn from(doc: ShareDoc) -> Self {
        let (kind, name, file_id, file) = match doc.what {
            SharedThing::Folder(name) => ("folder", Some(name), None, None),
            SharedThing::File(node, info) => {
                let file = info.map(|info| file_json(&info));
                let name = file.as_ref().and_then(|file| file["file_name"].as_str().map(str::to_owned));
                ("file", name, Some(uuid(node.as_bytes())), file)
            }
        };
        Self {
            share_id: doc.share.to_string(),
            kind,
            space_id: uuid(doc.namespace.as_bytes()),
            name,
            permission: file_id.as_ref().map(|_| if doc.role >= Role::Editor { "write" } else { "read" }),
            file,
            file_id,
            with: doc.with.into(),
            shared_by: doc.by.into(),
            role: word(doc.role),
            state: if doc.state == ShareState::Pending { "pending" } else { "accepted" },
            created_at: time(doc.created_at_ms),
        }
    }
}

async fn spaces(State(app): State<AppState>, caller: Caller) -> Result<Json<SpacesDoc>, Problem> {
    let namespaces = app.content.namespaces(&caller).await?;
    let mut spaces = Vec::with_capacity(namespaces.len());
    let owners = app.sharing.owners(&namespaces).await?;
    for space in namespaces {
        let is_own = space.owner == caller.user_id;
        let (owner, members) = owners.get(&space.id).cloned().unwrap_or_default();
        spaces.push(SpaceDoc {
            space_id: uuid(space.id.as_bytes()),
            name: space.name,
            role: word(space.role).to_owned(),
            shared_by: (!is_own).then(|| owner.into()),
            members: is_own.then_some(members),
        });
    }
    Ok(Json(SpacesDoc { spaces }))
}

#[derive(Deserialize)]
struct ListQuery {
    with: Option<String>,
    by: Option<String>,
    space_id: Option<String>,
    file_id: Option<String>,
    /// `pending`, with `with=me`: only the folders to which the caller is invited and has not answered.
    state: Option<String>,
}

async fn list(State(app): State<AppState>, caller: Caller, Query(query): Query<ListQuery>) -> Result<Json<SharesDoc>, Problem> {
    let only_open = match query.state.as_deref() {
        None => false,
        Some("pending") if query.with.is_some() => true,
        Some(_) => return Err(ServiceError::malformed("'state' is 'pending', together with 'with=me'.").into()),
    };
    let wanted = match (query.with.as_deref(), query.by.as_deref(), query.space_id, query.file_id) {
        (Some("me"), None, None, None) if only_open => Listed::Open,
        (Some("me"), None, None, None) => Listed::WithMe,
        (None, None | Some("me"), None, None) => Listed::ByMe,
        (None, None, Some(space), None) => Listed::Folder(namespace_of(&space)?),
        (None, None, space, Some(file)) => Listed::File(node_of(&file)?, space.as_deref().map(namespace_of).transpose()?),
        _ => {
            return Err(ServiceError::malformed(
                "Give one of 'with=me', 'by=me', 'space_id', and 'file_id' with or without its 'space_id'.",
            )
            .into());
        }
    };
    let list = app.sharing.list(&caller, wanted).await?;
    Ok(Json(SharesDoc { shares: list.into_iter().map(ShareBody::from).collect() }))
}

#[derive(Deserialize, ToSchema)]
struct InviteBody {
    /// A folder; with `file_id` the one in which the file is meant.
    space_id: Option<String>,
    /// A file.
    file_id: Option<String>,
    email: String,
    /// `viewer` or `editor`; of a file also `read` or `write`. `viewer` when nothing is said.
    role: Option<String>,
    /// Another name of `role`.
    permission: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct InvitedDoc {
    share_id: String,
    /// Always `pending`, whoever's the address is.
    state: &'static str,
}

async fn invite(
    State(app): State<AppState>,
    caller: Caller,
    Json(body): Json<InviteBody>,
) -> Result<(StatusCode, Json<InvitedDoc>), Problem> {
    let what = match (&body.space_id, &body.file_id) {
        (Some(space), None) => What::Folder(namespace_of(space)?),
        (space, Some(file)) => What::File(node_of(file)?, space.as_deref().map(namespace_of).transpose()?),
        _ => return Err(ServiceError::malformed("Give 'space_id' or 'file_id'.").into()),
    };
    let role = given_role(body.role.or(body.permission).as_deref().unwrap_or("viewer"))?;
    let share = app.sharing.invite(&caller, what, &body.email, role).await?;
    Ok((StatusCode::CREATED, Json(InvitedDoc { share_id: share.to_string(), state: "pending" })))
}

#[derive(Deserialize, ToSchema)]
struct RoleBody {
    /// `viewer` or `editor`; of a file also `read` or `write`.
    role: Option<String>,
    /// Another name of `role`.
    permission: Option<String>,
}

async fn change(
    State(app): State<AppState>,
    caller: Caller,
    Path(share): Path<String>,
    Json(body): Json<RoleBody>,
) -> Result<Json<Value>, Problem> {
    let share: ShareRef = share.parse()?;
    let role = given_role(body.role.or(body.permission).as_deref().unwrap_or_default())?;
    app.sharing.set_role(&caller, share, role).await?;
    Ok(Json(json!({"share_id": share.to_string(), "role": word(role)})))
}

async fn end(State(app): State<AppState>, caller: Caller, Path(share): Path<String>) -> Result<StatusCode, Problem> {
    app.sharing.end(&caller, share.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct AcceptedDoc {
    space_id: String,
    /// Null for folders.
    file_id: Option<String>,
    role: &'static str,
}

async fn accept(State(app): State<AppState>, caller: Caller, Path(share): Path<String>) -> Result<Json<AcceptedDoc>, Problem> {
    let taken = app.sharing.accept(&caller, share.parse()?).await?;
    Ok(Json(AcceptedDoc {
        space_id: uuid(taken.namespace.as_bytes()),
        file_id: taken.file.map(|file| uuid(file.as_bytes())),
        role: word(taken.role),
    }))
}

async fn decline(State(app): State<AppState>, caller: Caller, Path(share): Path<String>) -> Result<StatusCode, Problem> {
    app.sharing.decline(&caller, share.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
