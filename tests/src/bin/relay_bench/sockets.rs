//! From a commit to its word on WebSockets, with many open. A relay bounds the sockets of one user, so there are several users; a commit is heard by
//! the sockets of its user while all are open. The latency counts from before the commit was sent.

use super::Options;
use super::client::{Client, Folder, small_file};
use super::figures::{Figures, Latencies, Target};
use super::running::Running;
use anyhow::{Context, Result, ensure};
use ferry_protocol::NodeId;
use futures_util::StreamExt;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Sockets of one user; the relay takes 64.
const EACH: usize = 62;
/// How long word may take before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// A word that a socket heard: of which number of the feed, and when.
type Heard = (u64, Instant);

struct Listener {
    folder: Folder,
    sockets: usize,
    heard: mpsc::UnboundedReceiver<Heard>,
}

async fn listen(client: &Client, urls: &[String], count: usize) -> Result<Listener> {
    let folder = client.folder("sockets").await?;
    let (sender, heard) = mpsc::unbounded_channel();
    for n in 0..count {
        let url = format!("{}/ws/sync/{}", urls[n % urls.len()].replacen("http", "ws", 1), client.user_id);
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {}", client.token).parse()?);
        let (mut socket, _) = connect_async(request).await.context("a WebSocket")?;
        socket.next().await.context("hello")??;
        let (sender, folder) = (sender.clone(), folder.id.to_string());
        tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                let at = Instant::now();
                let Ok(text) = message.to_text() else { continue };
                let word: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                if word["type"] == "file_change"
                    && word["data"]["namespace_id"] == folder.as_str()
                    && let Some(seq) = word["data"]["seq"].as_u64()
                    && sender.send((seq, at)).is_err()
                {
                    return;
                }
            }
        });
    }
    Ok(Listener { folder, sockets: count, heard })
}

/// Opens the sockets, then commits one by one.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let admin = Client::login(running.url(0), &options.email, &options.password).await?;
    let mut listeners = Vec::new();
    let mut open = 0;
    while open < options.sockets {
        let count = EACH.min(options.sockets - open);
        let email = format!("socket{}@example.org", listeners.len());
        let user = admin.add_user(&email, "a password for sockets").await?;
        listeners.push(listen(&user, &running.urls, count).await?);
        open += count;
    }
    let (mut latencies, mut firsts, mut lost) = (Latencies::default(), Latencies::default(), 0u64);
    let users = listeners.len();
    ensure!(users > 0, "no sockets were asked for");
    for n in 0..options.commits {
        let listener = &mut listeners[n % users];
        let (content, chunk) = small_file(&format!("word {n} {}", listener.folder.id));
        let node = listener.folder.node(NodeId::ROOT, &format!("word{n}"), content);
        let begun = Instant::now();
        let seq = listener.folder.commit(vec![node], vec![chunk]).await?;
        let mut took = Vec::new();
        while took.len() < listener.sockets {
            match tokio::time::timeout(LOST_AFTER, listener.heard.recv()).await {
                Ok(Some((heard, at))) if heard == seq => took.push(at.duration_since(begun)),
                Ok(Some(_)) => {}
                _ => break,
            }
        }
        lost += (listener.sockets - took.len()) as u64;
        firsts.extend(took.first().copied());
        latencies.extend(took);
    }
    figures.row("sockets", "commit to WebSocket, p95", latencies.ms(0.95), "ms", Target::AtMost(100.0));
    figures.row("sockets", "commit to the first WebSocket, p95", firsts.ms(0.95), "ms", Target::None);
    figures.row("sockets", "words that did not come", lost as f64, "", Target::AtMost(0.0));
    figures.put(
        "sockets",
        json!({"sockets": open, "users": users, "commits": options.commits, "commit_to_socket": latencies.json(),
            "commit_to_first_socket": firsts.json(), "lost": lost}),
    );
    Ok(())
}
