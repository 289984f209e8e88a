//! The other end of a connection between devices, in the hands of a test: an endpoint with a device's own key, or with one that nobody knows,
//! which says what the test wants.

use crate::device::Device;
use ferry_daemon::identity::Identity;
use ferry_daemon::lan::tls::Tls;
use ferry_protocol::lan::frame::{self, LENGTH_BYTES, StreamKind};
use ferry_protocol::lan::{ALPN, ChunkAsk, Message, PeerPage};
use ferry_protocol::wire::{self, FeedPage, NodeUpdate};
use ferry_protocol::{ChunkId, DeviceId, Epoch, NamespaceId, ReplicaId};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long one step of a talk may take on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(20);

/// An endpoint with a key.
pub struct Attacker {
    runtime: tokio::runtime::Runtime,
    endpoint: Endpoint,
    tls: Tls,
    own: DeviceId,
}

/// How a client of an [`Attacker`] shows itself in TLS.
#[derive(Debug, Clone, Default)]
pub struct Guise {
    /// The application protocol.
    pub alpn: Vec<u8>,
    /// The certificate and its key, if any.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Attacker {
    /// With the key of a device that is enrolled; its own daemon should not run.
    pub fn with_key_of(device: &Device) -> Self {
        let identity = Identity::load(&device.home().join("state")).expect("a readable key").expect("the device has a key");
        Self::with_identity(&identity)
    }

    /// With a key that nobody knows, kept in this folder.
    pub fn stranger(folder: &Path) -> Self {
        Self::with_identity(&Identity::load_or_create(&folder.join("stranger")).expect("a new key"))
    }

    fn with_identity(identity: &Identity) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket")
        };
        Self { runtime, endpoint, tls: Tls::new(identity).expect("a certificate"), own: identity.device_id() }
    }

    /// Runs what the test wants.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Its device id.
    pub fn own(&self) -> DeviceId {
        self.own
    }

    /// A connection whose handshake has ended, or why not.
    pub async fn connect(&self, to: SocketAddr) -> Result<Connection, String> {
        let crypto = self.tls.client(None).map_err(|e| e.to_string())?;
        self.connect_with(to, ClientConfig::new(Arc::new(crypto))).await
    }

    /// [`Attacker::connect`] in another guise.
    pub async fn connect_as(&self, to: SocketAddr, guise: &Guise) -> Result<Connection, String> {
        self.connect_with(to, guise.config()).await
    }

    /// Whether early data could be sent to a server that was talked to before in this guise.
    pub async fn has_early_data(&self, to: SocketAddr, guise: &Guise) -> bool {
        let config = guise.config();
        if let Ok(first) = self.connect_with(to, config.clone()).await {
            // Tickets would come right after the handshake.
            let _ = tokio::time::timeout(Duration::from_millis(500), first.accept_uni()).await;
            first.close(0u32.into(), b"");
        }
        self.endpoint.connect_with(config, to, "ferry").is_ok_and(|connecting| connecting.into_0rtt().is_ok())
    }

    async fn connect_with(&self, to: SocketAddr, config: ClientConfig) -> Result<Connection, String> {
        let connecting = self.endpoint.connect_with(config, to, "ferry").map_err(|e| e.to_string())?;
        match tokio::time::timeout(STEP_MAX, connecting).await {
            Ok(connection) => connection.map_err(|e| e.to_string()),
            Err(_) => Err("no answer".into()),
        }
    }

    /// A connection that is greeted and has opened the namespace that the other side opened first. As a device of ours would, but for its feed.
    pub async fn greet(&self, to: SocketAddr) -> Result<Member, String> {
        let connection = self.connect(to).await?;
        let mut inbox = Inbox::accept(&connection).await?;
        while !matches!(inbox.next().await?, Message::Ready { .. }) {}
        let mut control = connection.open_uni().await.map_err(|e| e.to_string())?;
        let hello = [Message::Hello { min: 1, max: 1 }, Message::Ready { name: "B".into() }];
        let bytes: Vec<u8> = hello.iter().flat_map(frame::frame).collect();
        control.write_all(&[&[StreamKind::Control as u8][..], &bytes].concat()).await.map_err(|e| e.to_string())?;
        let (namespace, replica) = loop {
            if let Message::Open { namespace, replica, .. } = inbox.next().await? {
                break (namespace, replica);
            }
        };
        let member = Member {
            connection,
            control: tokio::sync::Mutex::new(control),
            namespace,
            their_replica: replica,
            replica: ReplicaId::from_bytes(random()),
            run: Epoch::from_bytes(random()),
            asked: Arc::default(),
            heard: Arc::default(),
        };
        member.send(&Message::Open { namespace, replica: member.replica, run: member.run, relays: false }).await?;
        let heard = member.heard.clone();
        tokio::spawn(async move {
            while let Ok(message) = inbox.next().await {
                heard.lock().expect("no holder panics").push(message);
            }
        });
        member.until("it asks for our feed", |message| matches!(message, Message::Subscribe { .. })).await?;
        Ok(member)
    }

    /// [`Attacker::greet`], again until the other side has learned of us.
    pub async fn join(&self, to: SocketAddr) -> Member {
        let (mut polls, deadline) = (tokio::time::interval(Duration::from_millis(200)), Instant::now() + 3 * STEP_MAX);
        loop {
            polls.tick().await;
            match self.greet(to).await {
                Ok(member) => return member,
                Err(error) => assert!(Instant::now() < deadline, "the device does not greet one of its own: {error}"),
            }
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"");
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("randomness");
    bytes
}

/// The messages of a control stream.
struct Inbox {
    stream: RecvStream,
}

impl Inbox {
    async fn accept(connection: &Connection) -> Result<Self, String> {
        let accept = tokio::time::timeout(STEP_MAX, connection.accept_uni()).await.map_err(|_| "nothing is said")?;
        let mut stream = accept.map_err(|e| e.to_string())?;
        let mut kind = [9];
        stream.read_exact(&mut kind).await.map_err(|e| e.to_string())?;
        if kind[0] == StreamKind::Control as u8 { Ok(Self { stream }) } else { Err(format!("a stream of kind {}", kind[0])) }
    }

    async fn next(&mut self) -> Result<Message, String> {
        let mut head = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut head).await.map_err(|e| e.to_string())?;
        let mut body = vec![0; u32::from_le_bytes(head) as usize];
        self.stream.read_exact(&mut body).await.map_err(|e| e.to_string())?;
        wire::decode(&body).map_err(|e| e.to_string())
    }
}

/// A connection on which both sides have opened a namespace.
pub struct Member {
    /// QUIC's side of it.
    pub connection: Connection,
    control: tokio::sync::Mutex<SendStream>,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The other side's replica.
    pub their_replica: ReplicaId,
    /// Ours.
    pub replica: ReplicaId,
    /// The run of our feed.
    pub run: Epoch,
    /// How many chunks the other side has asked for.
    pub asked: Arc<AtomicU64>,
    heard: Arc<Mutex<Vec<Message>>>,
}

impl Member {
    /// Says something.
    pub async fn send(&self, message: &Message) -> Result<(), String> {
        self.send_bytes(&frame::frame(message)).await
    }

    /// Says these bytes on the control stream.
    pub async fn send_bytes(&self, bytes: &[u8]) -> Result<(), String> {
        self.control.lock().await.write_all(bytes).await.map_err(|e| e.to_string())
    }

    /// Waits until such a message has come.
    pub async fn until(&self, what: &str, is: impl Fn(&Message) -> bool) -> Result<(), String> {
        let (mut polls, deadline) = (tokio::time::interval(Duration::from_millis(20)), Instant::now() + STEP_MAX);
        while Instant::now() < deadline {
            polls.tick().await;
            if self.heard.lock().expect("no holder panics").iter().any(&is) {
                return Ok(());
            }
            if let Some(reason) = self.connection.close_reason() {
                return Err(format!("{what}: {reason}"));
            }
        }
        Err(format!("{what}: it does not"))
    }

    /// Waits until the other side has taken in our feed up to here.
    pub async fn until_heard(&self, seq: u64) -> Result<(), String> {
        let run = self.run;
        self.until("it hears", |m| matches!(m, Message::Heard { cursor, .. } if cursor.0 == run && cursor.1 >= seq)).await
    }

    /// A page with these nodes; the first of our feed.
    pub fn page(&self, cursor: u64, nodes: Vec<NodeUpdate>) -> PeerPage {
        let page = FeedPage { epoch: self.run, replica: self.replica, cursor, head: cursor, has_more: false, nodes };
        PeerPage { since: None, page }
    }

    /// Opens a feed stream with these bytes after its head, and leaves it open.
    pub async fn feed(&self, bytes: &[u8]) -> Result<SendStream, String> {
        let mut stream = self.connection.open_uni().await.map_err(|e| e.to_string())?;
        let head = [&[StreamKind::Feed as u8][..], self.namespace.as_bytes()].concat();
        stream.write_all(&[&head, bytes].concat()).await.map_err(|e| e.to_string())?;
        Ok(stream)
    }

    /// Sends a body behind its length on a feed stream of its own.
    pub async fn feed_body(&self, body: &[u8]) -> Result<SendStream, String> {
        self.feed(&[&(body.len() as u32).to_le_bytes()[..], body].concat()).await
    }

    /// Asks for chunks; all bytes of the answer.
    pub async fn ask(&self, namespace: NamespaceId, ids: Vec<ChunkId>) -> Result<Vec<u8>, String> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(|e| e.to_string())?;
        let ask = frame::frame(&ChunkAsk { namespace, ids });
        send.write_all(&[&[StreamKind::Chunks as u8][..], &ask].concat()).await.map_err(|e| e.to_string())?;
        let _ = send.finish();
        receive.read_to_end(64 << 20).await.map_err(|e| e.to_string())
    }

    /// Answers every question with the bytes that this gives; with nothing, the stream is held open and never answered.
    pub fn answer(&self, with: impl Fn(&ChunkAsk) -> Option<Vec<u8>> + Send + Sync + 'static) {
        let (connection, asked) = (self.connection.clone(), self.asked.clone());
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let Ok(bytes) = receive.read_to_end(4 << 20).await else { continue };
                let Ok(Some((ask, _))) = frame::parse::<ChunkAsk>(&bytes[1..], StreamKind::Chunks) else { continue };
                asked.fetch_add(ask.ids.len() as u64, Ordering::Relaxed);
                match with(&ask) {
                    Some(answer) => {
                        let _ = send.write_all(&answer).await;
                        let _ = send.finish();
                    }
                    None => held.push(send),
                }
            }
        });
    }

    /// The code with which the other side ended the connection.
    pub async fn end(&self) -> Option<u64> {
        end_of(&self.connection).await
    }
}

/// The code with which the other side ends a connection; nothing if it does not in time.
pub async fn end_of(connection: &Connection) -> Option<u64> {
    match tokio::time::timeout(3 * STEP_MAX, connection.closed()).await.ok()? {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

impl Guise {
    /// Our own application protocol and no certificate.
    pub fn bare() -> Self {
        Self { alpn: ALPN.to_vec(), certificate: None }
    }

    /// A certificate that no device's key has signed, with this name in it.
    pub fn self_signed(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).and_then(|p| p.self_signed(&key)).expect("a certificate");
        Self { alpn: ALPN.to_vec(), certificate: Some((certificate.der().to_vec(), key.serialize_der())) }
    }

    fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let mut config = match &self.certificate {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from(certificate.clone())],
                    PrivateKeyDer::try_from(key.clone()).expect("a private key"),
                )
                .expect("a certificate and its key"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = if self.alpn.is_empty() { Vec::new() } else { vec![self.alpn.clone()] };
        config.enable_early_data = true;
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("a suite for QUIC")))
    }
}

/// Takes any server for the right one.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519]
    }
}
