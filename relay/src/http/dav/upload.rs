//! A file that a client writes, in the library's words.

use super::files::in_visit;
use super::visit::Visit;
use crate::service::ServiceError;
use crate::service::content::DavWrite;
use bytes::{Buf, Bytes};
use dav_server::fs::{DavFile, DavMetaData, FsError, FsFuture};
use ferry_protocol::RelPath;
use std::io::SeekFrom;
use std::sync::Arc;

/// A file on its way in. `flush` is its end; dropped before that, nothing has happened.
pub(super) struct Upload {
    visit: Arc<Visit>,
    path: RelPath,
    write: Option<DavWrite>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("write", &self.write).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(visit: Arc<Visit>, path: RelPath, write: DavWrite) -> Self {
        Self { visit, path, write: Some(write) }
    }

    async fn push(&mut self, mut buf: impl Buf + Send) -> Result<(), FsError> {
        let write = self.write.as_mut().ok_or(FsError::GeneralFailure)?;
        while buf.has_remaining() {
            let length = buf.chunk().len();
            write.push(buf.chunk()).await.map_err(|e| self.visit.refuse(e))?;
            buf.advance(length);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), FsError> {
        let write = self.write.take().ok_or(FsError::GeneralFailure)?;
        let visit = &self.visit;
        // A long body leaves time for somebody else's lock.
        let may_still = async {
            let (entry, tokens) = (visit.inside().map_err(|_| ServiceError::not_found())?, visit.tokens());
            match visit.app.content.dav_check_locks(entry, &self.path, &tokens, false, false).await? {
                None => Ok(()),
                Some(_) => Err(ServiceError::conflict("locked", "Somebody has locked this file while it was sent.")),
            }
        };
        let entry = write.finish(may_still).await.map_err(|e| visit.refuse(e))?;
        visit.see(entry);
        Ok(())
    }
}

impl DavFile for Upload {
    fn metadata(&'_ mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        Box::pin(async {
            let entry = self.visit.look(&self.path).await?;
            Ok(Box::new(in_visit(&self.visit, &entry)) as Box<dyn DavMetaData>)
        })
    }

    fn write_buf(&'_ mut self, buf: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        Box::pin(self.push(buf))
    }

    fn write_bytes(&'_ mut self, buf: Bytes) -> FsFuture<'_, ()> {
        Box::pin(self.push(buf))
    }

    fn read_bytes(&'_ mut self, _: usize) -> FsFuture<'_, Bytes> {
        refused()
    }

    fn seek(&'_ mut self, _: SeekFrom) -> FsFuture<'_, u64> {
        refused()
    }

    fn flush(&'_ mut self) -> FsFuture<'_, ()> {
        Box::pin(self.finish())
    }
}

/// The empty file that a lock has made: the library only wants it to be there.
#[derive(Debug)]
pub(super) struct Empty;

impl DavFile for Empty {
    fn metadata(&'_ mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        refused()
    }

    fn write_buf(&'_ mut self, _: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        refused()
    }

    fn write_bytes(&'_ mut self, _: Bytes) -> FsFuture<'_, ()> {
        refused()
    }

    fn read_bytes(&'_ mut self, _: usize) -> FsFuture<'_, Bytes> {
        refused()
    }

    fn seek(&'_ mut self, _: SeekFrom) -> FsFuture<'_, u64> {
        refused()
    }

    fn flush(&'_ mut self) -> FsFuture<'_, ()> {
        refused()
    }
}

fn refused<'a, T: Send + 'a>() -> FsFuture<'a, T> {
    Box::pin(std::future::ready(Err(FsError::Forbidden)))
}
