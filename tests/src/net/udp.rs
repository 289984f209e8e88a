//! A UDP proxy on a host of a test network that plays a bad line: it delays, reorders, loses, doubles and damages datagrams, and counts them.

use super::Host;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Datagrams on their way at once; more are lost, as in a full queue.
const ON_THEIR_WAY_MAX: usize = 20_000;
/// Clients at once; datagrams of more are lost.
const CLIENTS_MAX: usize = 64;
/// Datagrams that are remembered.
const KEPT_MAX: usize = 4096;

/// What happens to each datagram, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// How long each is on its way.
    pub delay: Duration,
    /// Up to so much longer, by chance: later ones overtake.
    pub jitter: Duration,
    /// Of 1,000, so many are lost.
    pub lose: u32,
    /// Of 1,000, so many come twice.
    pub double: u32,
    /// Of 1,000, so many have a wrong bit.
    pub damage: u32,
}

#[derive(Default)]
struct Shared {
    trouble: Mutex<Trouble>,
    to_server: AtomicU64,
    to_client: AtomicU64,
    on_their_way: AtomicUsize,
    kept: Mutex<Vec<Vec<u8>>>,
    dice: AtomicU64,
}

/// The proxy; it ends when this is dropped.
pub struct UdpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl UdpProxy {
    /// A proxy on a host, at this address of it, to a server. The seed decides what happens to which datagram.
    pub fn on(host: &Host, address: Ipv4Addr, server: SocketAddr, seed: u64) -> Self {
        let shared = Arc::new(Shared { dice: AtomicU64::new(seed), ..Shared::default() });
        let (stop, stopped) = oneshot::channel();
        let (tell, bound) = mpsc::channel();
        let (host, state) = (host.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            host.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let work = async move {
                let listener = Arc::new(UdpSocket::bind((address, 0)).await.expect("a free port"));
                tell.send(listener.local_addr().expect("it is bound")).expect("somebody waits");
                serve(listener, server, state).await;
            };
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::select! { () = work => {}, _ = stopped => {} }
            });
        });
        let address = bound.recv().expect("the proxy listens");
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens to datagrams.
    pub fn set(&self, trouble: Trouble) {
        *self.shared.trouble.lock().expect("no holder panics") = trouble;
    }

    /// Bytes of payload that arrived here for the server and for clients.
    pub fn passed(&self) -> (u64, u64) {
        (self.shared.to_server.load(Ordering::SeqCst), self.shared.to_client.load(Ordering::SeqCst))
    }

    /// The first datagrams that clients sent, to be sent again by somebody else.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        self.shared.kept.lock().expect("no holder panics").clone()
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: Arc<UdpSocket>, server: SocketAddr, shared: Arc<Shared>) {
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is of a datagram that was sent earlier (a closed port), not of the socket.
        let Ok((n, client)) = listener.recv_from(&mut buffer).await else { continue };
        shared.to_server.fetch_add(n as u64, Ordering::SeqCst);
        keep(&shared, &buffer[..n]);
        if !clients.contains_key(&client) {
            if clients.len() >= CLIENTS_MAX {
                continue;
            }
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let Ok(socket) = UdpSocket::bind(any).await else { continue };
            if socket.connect(server).await.is_err() {
                continue;
            }
            let socket = Arc::new(socket);
            clients.insert(client, socket.clone());
            tokio::task::spawn_local(answers(socket, listener.clone(), client, shared.clone()));
        }
        let socket = clients[&client].clone();
        pass(&shared, &buffer[..n], move |bytes| {
            let socket = socket.clone();
            async move { drop(socket.send(&bytes).await) }
        });
    }
}

async fn answers(socket: Arc<UdpSocket>, listener: Arc<UdpSocket>, client: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(n) = socket.recv(&mut buffer).await else { continue };
        shared.to_client.fetch_add(n as u64, Ordering::SeqCst);
        let listener = listener.clone();
        pass(&shared, &buffer[..n], move |bytes| {
            let listener = listener.clone();
            async move { drop(listener.send_to(&bytes, client).await) }
        });
    }
}

/// Sends a datagram, later, twice, damaged or not at all.
fn pass<F, S>(shared: &Arc<Shared>, bytes: &[u8], send: F)
where
    F: Fn(Vec<u8>) -> S + 'static,
    S: Future<Output = ()>,
{
    let trouble = *shared.trouble.lock().expect("no holder panics");
    if below(shared, 1000) < u64::from(trouble.lose) {
        return;
    }
    let copies = if below(shared, 1000) < u64::from(trouble.double) { 2 } else { 1 };
    let send = std::rc::Rc::new(send);
    for _ in 0..copies {
        if shared.on_their_way.fetch_add(1, Ordering::SeqCst) >= ON_THEIR_WAY_MAX {
            shared.on_their_way.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() && below(shared, 1000) < u64::from(trouble.damage) {
            let at = below(shared, bytes.len() as u64) as usize;
            bytes[at] ^= 1 << below(shared, 8);
        }
        let due = Instant::now() + trouble.delay + Duration::from_micros(below(shared, trouble.jitter.as_micros() as u64 + 1));
        let (shared, send) = (shared.clone(), send.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep_until(due).await;
            send(bytes).await;
            shared.on_their_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn keep(shared: &Shared, bytes: &[u8]) {
    let mut kept = shared.kept.lock().expect("no holder panics");
    if kept.len() < KEPT_MAX {
        kept.push(bytes.to_vec());
    }
}

/// A number below `end`, from the seed (splitmix64).
fn below(shared: &Shared, end: u64) -> u64 {
    let mut z = shared.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % end.max(1)
}

#[cfg(test)]
mod tests {
    use super::super::Net;
    use super::*;
    use crate::poll::until;
    use std::net::UdpSocket;

    /// A server that echoes, and a client behind the proxy.
    fn parts(net: &mut Net) -> (UdpProxy, UdpSocket, UdpSocket) {
        let lan = net.lan();
        let (a, middle, b) = (net.host("A", lan), net.host("middle", lan), net.host("B", lan));
        let server = b.inside(|| UdpSocket::bind((b.address(), 0))).expect("a socket");
        let proxy = UdpProxy::on(&middle, middle.address(), server.local_addr().expect("bound"), 7);
        let client = a.inside(|| UdpSocket::bind((a.address(), 0))).expect("a socket");
        client.connect(proxy.address()).expect("an address");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        }
        (proxy, server, client)
    }

    fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut buffer = [0; 100];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec())).collect()
    }

    #[test]
    fn it_passes_both_ways_and_counts() {
        let mut net = Net::new();
        let (proxy, server, client) = parts(&mut net);
        let mut buffer = [0; 100];
        until("the question arrives", Duration::from_secs(20), || {
            client.send(b"question").map_err(|e| e.to_string())?;
            let (n, from) = server.recv_from(&mut buffer).map_err(|e| e.to_string())?;
            assert_eq!(&buffer[..n], b"question");
            server.send_to(b"answer", from).map_err(|e| e.to_string())?;
            let n = client.recv(&mut buffer).map_err(|e| e.to_string())?;
            if &buffer[..n] == b"answer" { Ok(()) } else { Err("other bytes".into()) }
        });
        let (up, down) = proxy.passed();
        assert!(up >= 8 && up % 8 == 0 && down >= 6 && down % 6 == 0, "{up} {down}");
        assert_eq!(proxy.kept()[0], b"question");
    }

    #[test]
    fn each_trouble_happens() {
        let mut net = Net::new();
        let (proxy, server, client) = parts(&mut net);
        let play = |trouble: Trouble| {
            proxy.set(trouble);
            (0..200u8).for_each(|n| drop(client.send(&[n; 20])));
            let got = heard(&server);
            proxy.set(Trouble::default());
            got
        };
        until("the way is open", Duration::from_secs(20), || if play(Trouble::default()).len() == 200 { Ok(()) } else { Err("no".into()) });
        let lossy = play(Trouble { lose: 500, ..Trouble::default() });
        assert!((50..150).contains(&lossy.len()), "{}", lossy.len());
        let doubled = play(Trouble { double: 500, ..Trouble::default() });
        assert!((250..350).contains(&doubled.len()), "{}", doubled.len());
        let damaged = play(Trouble { damage: 500, ..Trouble::default() });
        let bad = damaged.iter().filter(|d| d.iter().any(|byte| *byte != d[0])).count();
        assert!((50..150).contains(&bad), "{bad}");
        let mixed = play(Trouble { delay: Duration::from_millis(20), jitter: Duration::from_millis(50), ..Trouble::default() });
        assert!(mixed.len() == 200 && mixed.windows(2).any(|w| w[0] > w[1]), "later ones overtake");
    }
}
