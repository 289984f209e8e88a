//! The event stream and the activity log.

use super::files::query;
use crate::events::{Event, EventSink};
use crate::problem::Problem;
use crate::supervisor::Daemon;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Most events of one activity answer.
const ACTIVITY_MAX: usize = 10_000;
/// How many events are taken from the ring at once.
const PAGE: usize = 256;

/// `GET /v1/events?since=ID`: server-sent events from the one after ID (or `Last-Event-ID`) on; without either, from now on.
pub async fn stream(
    State(daemon): State<Arc<Daemon>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let given = match headers.get("last-event-id").and_then(|v| v.to_str().ok()) {
        Some(id) => Some(id.to_owned()),
        None => query(&uri, "since")?,
    };
    let sink = daemon.activity.events().clone();
    let newest = sink.newest();
    let after = match given {
        Some(id) => id.parse().map_err(|_| Problem::usage(format!("'{id}' is not the id of an event")))?,
        None => *newest.borrow(),
    };
    let reader = Reader { sink, newest, after, ready: VecDeque::new(), stop: daemon.stop.clone() };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(20))))
}

struct Reader {
    sink: EventSink,
    newest: watch::Receiver<u64>,
    after: u64,
    ready: VecDeque<sse::Event>,
    stop: CancellationToken,
}

impl Reader {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.newest.borrow_and_update();
            let since = self.sink.since(self.after, PAGE);
            if since.gap {
                let first = since.events.first().map_or(self.after + 1, |e| e.id);
                let gap = json!({"type": "gap", "after": self.after, "next": first});
                self.ready.push_back(sse::Event::default().event("gap").data(gap.to_string()));
            }
            for event in &since.events {
                self.after = event.id;
                self.ready.push_back(encode(event));
            }
            if self.ready.is_empty() {
                tokio::select! {
                    changed = self.newest.changed() => changed.ok()?,
                    () = self.stop.cancelled() => return None,
                }
            }
        }
    }
}

fn encode(event: &Event) -> sse::Event {
    let json = serde_json::to_value(event).unwrap_or_default();
    let kind = json["type"].as_str().unwrap_or("event").to_owned();
    sse::Event::default().id(event.id.to_string()).event(kind).data(json.to_string())
}

/// `GET /v1/activity?since_ms=&folder=&limit=`, oldest first.
pub async fn activity(State(daemon): State<Arc<Daemon>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let number = |name: &str, default: i64| -> Result<i64, Problem> {
        let text = query(&uri, name)?;
        text.map_or(Ok(default), |t| t.parse().map_err(|_| Problem::usage(format!("{name} must be a number"))))
    };
    let since_ms = number("since_ms", 0)?;
    let limit = usize::try_from(number("limit", 100)?).unwrap_or(0).min(ACTIVITY_MAX);
    let folder = query(&uri, "folder")?;
    if let Some(folder) = &folder {
        daemon.find(folder)?;
    }
    let events = tokio::task::spawn_blocking(move || {
        let newest = *daemon.activity.events().newest().borrow();
        (daemon.activity.newest(since_ms, folder.as_deref(), limit), newest)
    });
    let (events, newest) = events.await.map_err(|e| Problem::failed("activity", e.to_string()))?;
    Ok(Json(json!({"type": "activity", "events": events, "newest": newest})))
}
