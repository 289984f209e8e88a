//! A device that says what it likes: a real key, a real certificate, and frames made by hand.

use ferry_daemon::identity::Identity;
use ferry_daemon::lan::tls::Tls;
use ferry_protocol::lan::frame::StreamKind;
use ferry_protocol::lan::{Message, VERSION, frame};
use ferry_tests::net::Host;
use quinn::{ClientConfig, Connection, Endpoint, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long anything of a rogue's may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The identity of a device that is not running, or a new one.
pub fn identity(state: &Path) -> Identity {
    Identity::load_or_create(state).expect("a key")
}

/// Plays a rogue on a host: what it does runs there, in a runtime of its own.
pub fn play<T: Send>(host: &Host, act: impl AsyncFnOnce() -> T + Send) -> T {
    host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(act())
    })
}

/// Dials as this device.
pub async fn dial(identity: &Identity, to: SocketAddr) -> Result<Connection, String> {
    let crypto = Tls::new(identity).and_then(|tls| tls.client(None)).map_err(|e| e.to_string())?;
    dial_with(ClientConfig::new(Arc::new(crypto)), to).await
}

/// Dials with a configuration of the caller's.
pub async fn dial_with(config: ClientConfig, to: SocketAddr) -> Result<Connection, String> {
    let endpoint = Endpoint::client("0.0.0.0:0".parse().expect("an address")).map_err(|e| e.to_string())?;
    let connecting = endpoint.connect_with(config, to, "ferry").map_err(|e| e.to_string())?;
    timeout(LIMIT, connecting).await.map_err(|_| "no answer".to_string())?.map_err(|e| e.to_string())
}

/// TLS without a certificate of our own, for this protocol name; takes any server.
pub fn anonymous(alpn: &[u8]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = config.expect("TLS 1.3").dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).expect("a QUIC configuration");
    ClientConfig::new(Arc::new(crypto))
}

/// Opens the control stream and says what a device of ours says first.
pub async fn greet(connection: &Connection) -> Result<SendStream, String> {
    let mut control = connection.open_uni().await.map_err(|e| e.to_string())?;
    let mut bytes = vec![StreamKind::Control as u8];
    bytes.extend(frame(&Message::Hello { min: VERSION, max: VERSION }));
    bytes.extend(frame(&Message::Ready { name: "rogue".into() }));
    control.write_all(&bytes).await.map_err(|e| e.to_string())?;
    Ok(control)
}

/// Waits for the end of a connection: why it ended, and how many bytes came on streams until then.
pub async fn until_closed(connection: &Connection) -> Result<(String, usize), String> {
    let read = async {
        let mut bytes = 0;
        while let Ok(mut stream) = connection.accept_uni().await {
            while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                bytes += chunk.bytes.len();
            }
        }
        bytes
    };
    let bytes = timeout(LIMIT, read).await.map_err(|_| "the connection lives on".to_string())?;
    Ok((connection.close_reason().map(|e| e.to_string()).unwrap_or_default(), bytes))
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519, SignatureScheme::RSA_PSS_SHA256]
    }
}
