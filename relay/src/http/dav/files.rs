//! What the protocol's library asks of a file system, answered by the content service.
//!
//! The library walks trees by itself and asks for one entry after another. Here a DELETE, COPY or MOVE is one edit: it finds directories empty, and what it
//! asks to be removed before something takes the place goes by the same edit as that comes.

use super::meta::{self, Line, Meta};
use super::upload::{Empty, Upload};
use super::visit::{Visit, Where};
use crate::service::content::{DavProp, WriteTerms};
use axum::http::StatusCode;
use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavMetaData, DavProp as Prop, FsError, FsFuture, FsResult, FsStream, GuardedFileSystem, OpenOptions, ReadDirMeta,
};
use ferry_protocol::RelPath;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// See the module. It holds nothing: everything is the visit's.
#[derive(Debug, Clone)]
pub(super) struct Files;

/// What is at a place of the visit.
pub(super) async fn meta_of(visit: &Visit, place: Where) -> FsResult<Meta> {
    Ok(match place {
        Where::Top => {
            let heads: u64 = visit.spaces.iter().map(|space| space.info.head_seq).sum();
            Meta::of_whole(format!("t{heads}-{}", visit.spaces.len()))
        }
        Where::Other(number) => whole(visit, number),
        Where::Inside(path) => in_visit(visit, &visit.look(&path).await?),
    })
}

fn whole(visit: &Visit, number: usize) -> Meta {
    let info = &visit.spaces[number].info;
    Meta::of_whole(format!("d{}-{}", info.head_seq, hex::encode(&info.id.as_bytes()[..8])))
}

/// An entry, as of this visit.
pub(super) fn in_visit(visit: &Visit, entry: &crate::service::content::DavEntry) -> Meta {
    let head_seq = visit.space().map_or(0, |space| space.info.head_seq);
    Meta::of(entry, head_seq, visit.quota.map_or(0, |(used, _)| used))
}

async fn list(visit: &Visit, place: Where) -> FsResult<Vec<Line>> {
    match place {
        Where::Top => Ok((0..visit.spaces.len())
            .map(|at| Line { name: visit.spaces[at].name.clone().into_bytes(), meta: whole(visit, at) })
            .collect()),
        Where::Other(_) => Err(FsError::NotFound),
        Where::Inside(path) => {
            let found = visit.app.content.dav_list(visit.inside()?, &path).await.map_err(|e| visit.refuse(e))?;
            let line = |entry: crate::service::content::DavEntry| {
                let name = entry.path.names().last().map_or(Vec::new(), |name| name.as_bytes().to_vec());
                let meta = in_visit(visit, &entry);
                visit.see(entry);
                Line { name, meta }
            };
            Ok(found.into_iter().map(line).collect())
        }
    }
}

/// Removes what is at a place: at once, or with what takes its place.
async fn remove(visit: &Visit, path: &DavPath) -> FsResult<()> {
    let path = visit.path(path)?;
    if visit.asked.method != "DELETE" {
        visit.note_replaced();
        return Ok(());
    }
    visit.app.content.dav_delete(visit.inside()?, &path).await.map_err(|e| visit.refuse(e))
}

/// Opens a file to write it; a LOCK of a place where nothing is makes an empty file.
async fn open(visit: &Arc<Visit>, path: &DavPath, options: &OpenOptions) -> FsResult<Box<dyn DavFile>> {
    let path = visit.path(path)?;
    if !options.write {
        return Err(FsError::Forbidden);
    }
    let there = match visit.look(&path).await {
        Ok(there) => Some(there),
        Err(FsError::NotFound) => None,
        Err(error) => return Err(error),
    };
    match &there {
        Some(there) if options.create_new || there.is_dir() => return Err(FsError::Exists),
        None if !options.create && !options.create_new => return Err(FsError::NotFound),
        _ => {}
    }
    let (entry, is_lock) = (visit.inside()?, visit.asked.method == "LOCK");
    let terms = if is_lock { WriteTerms { only_over: Some(None), ..WriteTerms::default() } } else { visit.asked.terms.clone() };
    let write = visit.app.content.dav_write(entry, &path, terms).await.map_err(|e| visit.refuse(e))?;
    if is_lock {
        write.finish(std::future::ready(Ok(()))).await.map_err(|e| visit.refuse(e))?;
        return Ok(Box::new(Empty));
    }
    Ok(Box::new(Upload::new(visit.clone(), path, write)))
}

async fn copy(visit: &Visit, from: &RelPath, to: &DavPath, is_deep: bool) -> FsResult<()> {
    let to = visit.path(to)?;
    visit.app.content.dav_copy(visit.inside()?, from, &to, is_deep, visit.replaces()).await.map_err(|e| visit.refuse(e))
}

async fn patch(visit: &Visit, path: &DavPath, patch: Vec<(bool, Prop)>) -> FsResult<Vec<(StatusCode, Prop)>> {
    let path = visit.path(path)?;
    let there = visit.look(&path).await?;
    if there.is_copy {
        // Its node is another file's.
        return Err(FsError::Forbidden);
    }
    let row = |prop: &Prop| DavProp {
        space: prop.namespace.clone().unwrap_or_default(),
        name: prop.name.clone(),
        value: prop.xml.clone().unwrap_or_default(),
    };
    let rows: Vec<(bool, DavProp)> = patch.iter().map(|(is_set, prop)| (*is_set, row(prop))).collect();
    visit.app.content.dav_patch_props(visit.inside()?, there.node, &rows).await.map_err(|e| visit.refuse(e))?;
    Ok(patch.into_iter().map(|(_, prop)| (StatusCode::OK, Prop { xml: None, ..prop })).collect())
}

/// What clients have left with the entry.
async fn dead_props(visit: &Visit, path: &DavPath) -> FsResult<Vec<Prop>> {
    let Where::Inside(path) = visit.place(path)? else { return Ok(Vec::new()) };
    let there = visit.look(&path).await?;
    if there.is_copy || !visit.has_props(there.node).await.map_err(|e| visit.refuse(e))? {
        return Ok(Vec::new());
    }
    let rows = visit.app.content.dav_props(visit.inside()?, there.node).await.map_err(|e| visit.refuse(e))?;
    let prop = |row: DavProp| Prop { name: row.name, prefix: None, namespace: Some(row.space), xml: Some(row.value) };
    Ok(rows.into_iter().map(prop).collect())
}

/// A property that is asked for by name and is made of what is known; those that clients left are in every answer anyway.
async fn live_prop(visit: &Visit, path: &DavPath, wanted: Prop) -> FsResult<Vec<u8>> {
    let Where::Inside(place) = visit.place(path)? else { return Err(FsError::NotFound) };
    let there = visit.look(&place).await?;
    let space = wanted.namespace.unwrap_or_default();
    let is_left = |prop: &Prop| prop.name == wanted.name && prop.namespace.as_deref() == Some(space.as_str());
    if space == "DAV:" && dead_props(visit, path).await?.iter().any(is_left) {
        return Err(FsError::NotFound);
    }
    let role = visit.inside()?.role();
    meta::live(&there, role, &space, &wanted.name).map(String::into_bytes).ok_or(FsError::NotFound)
}

impl GuardedFileSystem<Arc<Visit>> for Files {
    fn open<'a>(&'a self, path: &'a DavPath, options: OpenOptions, visit: &'a Arc<Visit>) -> FsFuture<'a, Box<dyn DavFile>> {
        Box::pin(async move { open(visit, path, &options).await })
    }

    fn read_dir<'a>(&'a self, path: &'a DavPath, _: ReadDirMeta, visit: &'a Arc<Visit>) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        Box::pin(async move {
            let lines = if visit.asked.method == "PROPFIND" { list(visit, visit.place(path)?).await? } else { Vec::new() };
            let lines = lines.into_iter().map(|line| Ok(Box::new(line) as Box<dyn DavDirEntry>));
            Ok(Box::pin(futures_util::stream::iter(lines)) as FsStream<Box<dyn DavDirEntry>>)
        })
    }

    fn metadata<'a>(&'a self, path: &'a DavPath, visit: &'a Arc<Visit>) -> FsFuture<'a, Box<dyn DavMetaData>> {
        Box::pin(async move {
            let meta = meta_of(visit, visit.place(path)?).await?;
            Ok(Box::new(meta) as Box<dyn DavMetaData>)
        })
    }

    fn create_dir<'a>(&'a self, path: &'a DavPath, visit: &'a Arc<Visit>) -> FsFuture<'a, ()> {
        Box::pin(async move {
            if visit.asked.method == "COPY" {
                return copy(visit, &visit.asked.path, path, visit.asked.is_deep).await;
            }
            let path = visit.path(path)?;
            visit.app.content.dav_make_directory(visit.inside()?, &path).await.map_err(|e| visit.refuse(e))
        })
    }

    fn remove_dir<'a>(&'a self, path: &'a DavPath, visit: &'a Arc<Visit>) -> FsFuture<'a, ()> {
        Box::pin(remove(visit, path))
    }

    fn remove_file<'a>(&'a self, path: &'a DavPath, visit: &'a Arc<Visit>) -> FsFuture<'a, ()> {
        Box::pin(remove(visit, path))
    }

    fn rename<'a>(&'a self, from: &'a DavPath, to: &'a DavPath, visit: &'a Arc<Visit>) -> FsFuture<'a, ()> {
        Box::pin(async move {
            let (from, to) = (visit.path(from)?, visit.path(to)?);
            visit.app.content.dav_move(visit.inside()?, &from, &to, visit.replaces()).await.map_err(|e| visit.refuse(e))
        })
    }

    fn copy<'a>(&'a self, from: &'a DavPath, to: &'a DavPath, visit: &'a Arc<Visit>) -> FsFuture<'a, ()> {
        Box::pin(async move { copy(visit, &visit.path(from)?, to, true).await })
    }

    fn have_props<'a>(&'a self, path: &'a DavPath, visit: &'a Arc<Visit>) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(std::future::ready(matches!(visit.place(path), Ok(Where::Inside(_)))))
    }

    fn patch_props<'a>(
        &'a self,
        path: &'a DavPath,
        wanted: Vec<(bool, Prop)>,
        visit: &'a Arc<Visit>,
    ) -> FsFuture<'a, Vec<(StatusCode, Prop)>> {
        Box::pin(patch(visit, path, wanted))
    }

    fn get_props<'a>(&'a self, path: &'a DavPath, _: bool, visit: &'a Arc<Visit>) -> FsFuture<'a, Vec<Prop>> {
        Box::pin(dead_props(visit, path))
    }

    fn get_prop<'a>(&'a self, path: &'a DavPath, prop: Prop, visit: &'a Arc<Visit>) -> FsFuture<'a, Vec<u8>> {
        Box::pin(live_prop(visit, path, prop))
    }

    fn get_quota<'a>(&'a self, visit: &'a Arc<Visit>) -> FsFuture<'a, (u64, Option<u64>)> {
        Box::pin(std::future::ready(visit.quota.ok_or(FsError::NotImplemented)))
    }
}
