//! A TCP proxy on loopback that the tests steer: cut connections, refuse new ones, cut after so many bytes, count what passes.

use crate::net::Host;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    closed: AtomicBool,
    /// Bytes to the server that may still pass; `u64::MAX` for any number.
    budget: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// The proxy of one link.
pub struct Proxy {
    addr: SocketAddr,
    /// Where clients are, if not on the machine's own network.
    host: Option<Host>,
    state: Arc<State>,
}

impl Proxy {
    /// A proxy to this loopback port.
    pub fn to(port: u16) -> Self {
        Self::of(TcpListener::bind("127.0.0.1:0").expect("a free port"), port, None)
    }

    /// A proxy from the loopback address of a host of a test network to this loopback port of the machine's own.
    pub fn on(host: &Host, port: u16) -> Self {
        let listener = host.inside(|| TcpListener::bind("127.0.0.1:0")).expect("a free port");
        Self::of(listener, port, Some(host.clone()))
    }

    fn of(listener: TcpListener, port: u16, host: Option<Host>) -> Self {
        let addr = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State { budget: AtomicU64::new(u64::MAX), ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || accept(&listener, port, &shared));
        Self { addr, host, state }
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Cuts every connection and refuses new ones until [`Proxy::heal`].
    pub fn cut(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.drop_connections();
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.state.budget.store(u64::MAX, Ordering::SeqCst);
        self.state.closed.store(false, Ordering::SeqCst);
    }

    /// Cuts every connection once; new ones are welcome.
    pub fn drop_connections(&self) {
        for stream in self.state.open.lock().expect("no holder panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts all connections after so many more bytes to the server, once; afterwards everything passes.
    pub fn cut_after(&self, bytes: u64) {
        self.state.budget.store(bytes, Ordering::SeqCst);
    }

    /// Whether the cut of [`Proxy::cut_after`] has happened.
    pub fn was_cut(&self) -> bool {
        self.state.budget.load(Ordering::SeqCst) == u64::MAX
    }

    /// Bytes that passed to the server and to the client.
    pub fn passed(&self) -> (u64, u64) {
        (self.state.to_server.load(Ordering::SeqCst), self.state.to_client.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread so that it can end.
        let knock = || drop(TcpStream::connect(self.addr));
        match &self.host {
            Some(host) => host.inside(knock),
            None => knock(),
        }
    }
}

fn accept(listener: &TcpListener, port: u16, state: &Arc<State>) {
    for client in listener.incoming().flatten() {
        if state.ended.load(Ordering::SeqCst) {
            return;
        }
        if state.closed.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { continue };
        {
            let mut open = state.open.lock().expect("no holder panics");
            open.extend([client.try_clone(), server.try_clone()].into_iter().flatten());
        }
        let (up, down) = (state.clone(), state.clone());
        std::thread::spawn(move || pump(client, server, &up, true));
        std::thread::spawn(move || pump(server2, client2, &down, false));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, is_up: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        let mut pass = n;
        if is_up {
            let left = state.budget.load(Ordering::SeqCst);
            if left != u64::MAX {
                pass = n.min(left as usize);
                state.budget.store(left - pass as u64, Ordering::SeqCst);
            }
        }
        if to.write_all(&buffer[..pass]).is_err() {
            break;
        }
        let counter = if is_up { &state.to_server } else { &state.to_client };
        counter.fetch_add(pass as u64, Ordering::SeqCst);
        if pass < n {
            state.budget.store(u64::MAX, Ordering::SeqCst);
            for stream in state.open.lock().expect("no holder panics").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_passes_counts_and_cuts() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let echo = std::thread::spawn(move || {
            let mut got = Vec::new();
            for stream in server.incoming().take(2) {
                let mut bytes = Vec::new();
                let _ = stream.unwrap().read_to_end(&mut bytes);
                got.push(bytes.len());
            }
            got
        });
        let proxy = Proxy::to(port);
        let send = |bytes: usize| {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
            let _ = stream.write_all(&vec![7; bytes]);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        };
        send(1000);
        proxy.cut_after(500);
        send(1000);
        assert_eq!(echo.join().unwrap(), [1000, 500]);
        assert!(proxy.was_cut());
        assert_eq!(proxy.passed().0, 1500);
    }
}
