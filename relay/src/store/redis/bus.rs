//! Wake-ups between processes over Redis pub/sub.
//!
//! Listeners of the publishing process hear at once, without Redis. A message is 10 to 50 bytes: version, sender, kind, ids. Whatever else comes on the channel is
//! ignored. Every process also sends itself a beat now and then: a subscription on which its own beats do not arrive is dead, however healthy its connection
//! looks. After a gap, of listening or of sending, all listeners concerned are told that they may have missed something.

use super::Link;
use crate::store::Health;
use crate::store::bus::{Bus, LocalBus, Wake, Wakes};
use async_trait::async_trait;
use ferry_protocol::{DeviceId, NamespaceId, UserId};
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wake-ups that may wait to go out; what comes on top is lost, and the others are told so.
const OUT_MAX: usize = 4096;
/// Wake-ups that go out in one round trip.
const BATCH_MAX: usize = 128;
/// How often a process sends itself a beat, and tries again what did not work.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// Without a beat for so long the subscription counts as dead.
const SILENCE_MAX: Duration = Duration::from_secs(16);
/// How long connecting and subscribing may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// First and longest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The version of the messages; others are ignored, and their senders' listeners ask now and then anyway.
const VERSION: u8 = 1;
/// No message of ours is longer, in bytes.
const MESSAGE_MAX_BYTES: usize = 64;

/// The bus of all processes that share a Redis server.
pub struct RedisBus {
    local: LocalBus,
    out: mpsc::Sender<Wake>,
    state: Arc<State>,
    /// Ends the two tasks.
    _running: DropGuard,
}

struct State {
    link: Arc<Link>,
    channel: String,
    sender: [u8; 8],
    local: LocalBus,
    /// Whether the subscription stands.
    listening: watch::Sender<bool>,
    /// How many losses of outgoing wake-ups there were, and of how many the others were told.
    losses: AtomicU64,
    losses_told: AtomicU64,
    published: AtomicU64,
    gone_out: watch::Sender<u64>,
}

impl State {
    fn owes_a_gap(&self) -> bool {
        self.losses.load(Ordering::SeqCst) != self.losses_told.load(Ordering::SeqCst)
    }
}

/// What comes on the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Wake(Wake),
    /// The sender lost wake-ups.
    Gap,
    /// The sender listens to itself.
    Beat,
}

impl RedisBus {
    /// Joins the channel of this link's relay. Waits a moment for the subscription; without it the bus begins with the local listeners and goes on trying.
    pub async fn open(link: Arc<Link>, sender: [u8; 8]) -> Self {
        let local = LocalBus::default();
        let (out, queue) = mpsc::channel(OUT_MAX);
        let state = Arc::new(State {
            channel: link.name("wake"),
            link,
            sender,
            local: local.clone(),
            listening: watch::Sender::new(false),
            losses: AtomicU64::new(0),
            losses_told: AtomicU64::new(0),
            published: AtomicU64::new(0),
            gone_out: watch::Sender::new(0),
        });
        let running = CancellationToken::new();
        tokio::spawn(running.clone().run_until_cancelled_owned(listen(state.clone())));
        tokio::spawn(running.clone().run_until_cancelled_owned(send(state.clone(), queue)));
        let mut listening = state.listening.subscribe();
        let _ = timeout(CONNECT_MAX, listening.wait_for(|on| *on)).await;
        Self { local, out, state, _running: running.drop_guard() }
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn publish(&self, wake: Wake) {
        self.local.publish(wake);
        self.state.published.fetch_add(1, Ordering::SeqCst);
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.out.try_send(wake) {
            self.state.losses.fetch_add(1, Ordering::SeqCst);
            self.state.gone_out.send_modify(|n| *n += 1);
        }
    }

    fn subscribe(&self) -> Wakes {
        self.local.subscribe()
    }

    fn health(&self) -> Health {
        let worse = "wake-ups reach this process only; devices hear of changes when they ask";
        if !*self.state.listening.borrow() {
            Health::Degraded(format!("not subscribed: {worse}"))
        } else if self.state.owes_a_gap() {
            Health::Degraded(format!("wake-ups do not go out: {worse}"))
        } else {
            Health::Good
        }
    }

    async fn flush(&self, limit: Duration) -> bool {
        let goal = self.state.published.load(Ordering::SeqCst);
        let mut gone_out = self.state.gone_out.subscribe();
        let all = timeout(limit, gone_out.wait_for(|n| *n >= goal)).await.is_ok();
        all && !self.state.owes_a_gap()
    }
}

/// Sends what is published, and beats.
async fn send(state: Arc<State>, mut queue: mpsc::Receiver<Wake>) {
    let mut beats = interval(BEAT_EVERY);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        let count = tokio::select! {
            count = queue.recv_many(&mut batch, BATCH_MAX) => count,
            _ = beats.tick() => 0,
        };
        let mut messages: Vec<Message> = batch.drain(..).map(Message::Wake).collect();
        if count == 0 {
            messages.push(Message::Beat);
        }
        // First the gap: whoever hears it asks after it, and misses nothing of what follows.
        let losses = state.losses.load(Ordering::SeqCst);
        let lost = losses != state.losses_told.load(Ordering::SeqCst);
        if lost {
            messages.insert(0, Message::Gap);
        }
        match publish(&state, &messages).await {
            Ok(()) => state.losses_told.store(losses, Ordering::SeqCst),
            Err(error) => {
                if !lost {
                    tracing::warn!(%error, "wake-ups do not reach the other processes");
                }
                // A beat that did not go out is no loss, but says that the next wake-up would be one.
                state.losses.fetch_add(1, Ordering::SeqCst);
            }
        }
        state.gone_out.send_modify(|n| *n += count as u64);
    }
}

async fn publish(state: &State, messages: &[Message]) -> Result<(), super::Failure> {
    let mut pipe = redis::pipe();
    for message in messages {
        pipe.publish(&state.channel, encode(state.sender, *message)).ignore();
    }
    let mut manager = state.link.manager.clone();
    state.link.bounded(pipe.query_async::<()>(&mut manager)).await
}

/// Subscribes, passes on what comes, and begins again when the connection is gone.
async fn listen(state: Arc<State>) {
    let mut pause = PAUSE_MIN;
    let mut first = true;
    loop {
        match timeout(CONNECT_MAX, subscribe(&state)).await {
            Ok(Ok(mut messages)) => {
                state.listening.send_replace(true);
                if !first {
                    // Subscribed again, so what happens from now on is heard; what happened meanwhile is asked for.
                    tracing::info!("wake-ups of the other processes arrive again");
                    state.local.missed();
                }
                (first, pause) = (false, PAUSE_MIN);
                hear(&state, &mut messages).await;
                state.listening.send_replace(false);
                tracing::warn!("wake-ups of the other processes do not arrive; trying again");
                metrics::counter!("ferry_relay_bus_reconnects_total").increment(1);
            }
            // Somebody may have published before we ever listened.
            _ => first = false,
        }
        tokio::time::sleep(pause + jitter(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn subscribe(state: &State) -> redis::RedisResult<redis::aio::PubSubStream> {
    let (mut sink, stream) = state.link.client.get_async_pubsub().await?.split();
    sink.subscribe(&state.channel).await?;
    Ok(stream)
}

/// Passes on what comes until the connection is gone or our own beats stay away.
async fn hear(state: &State, messages: &mut redis::aio::PubSubStream) {
    let mut dead_at = Instant::now() + SILENCE_MAX;
    while let Ok(Some(message)) = timeout_at(dead_at, messages.next()).await {
        match decode(message.get_payload_bytes()) {
            Some((sender, Message::Beat)) if sender == state.sender => dead_at = Instant::now() + SILENCE_MAX,
            Some((sender, _)) if sender == state.sender => {}
            Some((_, Message::Wake(wake))) => state.local.publish(wake),
            Some((_, Message::Gap)) => state.local.missed(),
            Some((_, Message::Beat)) => {}
            None => metrics::counter!("ferry_relay_bus_messages_ignored_total").increment(1),
        }
    }
}

/// Up to as long again, so that the processes do not all come back at the same moment.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without randomness they come together; that is no reason to fail.
    let _ = getrandom::fill(&mut byte);
    pause * u32::from(byte[0]) / 255
}

fn encode(sender: [u8; 8], message: Message) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&sender);
    match message {
        Message::Beat => out.push(0),
        Message::Gap => out.push(1),
        Message::Wake(Wake::Feed { namespace, seq }) => {
            out.push(2);
            out.extend_from_slice(namespace.as_bytes());
            out.extend_from_slice(&seq.to_be_bytes());
        }
        Message::Wake(Wake::Peers { namespace, by }) => {
            out.push(3);
            out.extend_from_slice(namespace.as_bytes());
            out.extend(by.iter().flat_map(|device| *device.as_bytes()));
        }
        Message::Wake(Wake::Access { user }) => {
            out.push(4);
            out.extend_from_slice(user.as_bytes());
        }
    }
    out
}

/// None for whatever is not a message of this version, exactly.
fn decode(bytes: &[u8]) -> Option<([u8; 8], Message)> {
    if bytes.len() > MESSAGE_MAX_BYTES {
        return None;
    }
    let (head, body) = bytes.split_at_checked(10)?;
    let sender = head.get(1..9)?.try_into().ok()?;
    let message = match (head[0], head[9]) {
        (VERSION, 0) if body.is_empty() => Message::Beat,
        (VERSION, 1) if body.is_empty() => Message::Gap,
        (VERSION, 2) => {
            let (namespace, seq) = body.split_at_checked(NamespaceId::LEN)?;
            let seq = u64::from_be_bytes(seq.try_into().ok()?);
            Message::Wake(Wake::feed(NamespaceId::from_slice(namespace)?, seq))
        }
        (VERSION, 3) => {
            let (namespace, by) = body.split_at_checked(NamespaceId::LEN)?;
            let by = if by.is_empty() { None } else { Some(DeviceId::from_slice(by)?) };
            Message::Wake(Wake::peers(NamespaceId::from_slice(namespace)?, by))
        }
        (VERSION, 4) => Message::Wake(Wake::access(UserId::from_slice(body)?)),
        _ => return None,
    };
    Some((sender, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> Vec<Message> {
        let (namespace, device, user) = (NamespaceId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]), UserId::from_bytes([3; 16]));
        let wakes =
            [Wake::feed(namespace, u64::MAX), Wake::peers(namespace, None), Wake::peers(namespace, Some(device)), Wake::access(user)];
        wakes.into_iter().map(Message::Wake).chain([Message::Gap, Message::Beat]).collect()
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for message in messages() {
            let bytes = encode([7; 8], message);
            assert!(bytes.len() <= MESSAGE_MAX_BYTES);
            assert_eq!(decode(&bytes), Some(([7; 8], message)));
            for cut in 0..bytes.len() {
                let shorter = decode(&bytes[..cut]);
                let also_whole = matches!(message, Message::Wake(Wake::Peers { by: Some(_), .. })) && cut == bytes.len() - DeviceId::LEN;
                assert_eq!(shorter.is_some(), also_whole, "{message:?} cut to {cut}");
            }
            assert_eq!(decode(&[&bytes[..], &[0]].concat()), None, "{message:?} with a byte more");
            let mut other = bytes.clone();
            other[0] = VERSION + 1;
            assert_eq!(decode(&other), None, "another version");
        }
        assert_eq!(decode(&[VERSION; MESSAGE_MAX_BYTES + 1]), None);
    }

    proptest! {
        #[test]
        fn garbage_is_ignored(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some((sender, message)) = decode(&bytes) {
                prop_assert_eq!(encode(sender, message), bytes);
            }
        }
    }
}
