//! Mutual TLS 1.3 bound to the devices' Ed25519 keys: libp2p's certificates, in our own configuration.
//!
//! * **LT1** A handshake that ends well has proved the other side's device id. Which devices may then hear anything is decided by grants, not here.
//! * **LT2** Only TLS 1.3, only our ALPN, no early data: nothing is negotiated down and nothing can be replayed (L03, L10).
//!
//! libp2p-tls's own configurations prefer ChaCha20, which costs a third of the throughput where the processor has AES instructions; so the
//! certificates are libp2p's and the configuration is ours.

use crate::identity::Identity;
use ferry_protocol::DeviceId;
use ferry_protocol::lan::ALPN;
use libp2p_identity::PeerId;
use libp2p_tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use std::sync::Arc;

/// Why there can be no TLS at all.
#[derive(Debug, thiserror::Error)]
#[error("the LAN cannot be used: {0}")]
pub struct TlsError(String);

fn failed(error: impl std::fmt::Display) -> TlsError {
    TlsError(error.to_string())
}

/// The certificate of this run, and the configurations made of it.
#[derive(Debug, Clone)]
pub struct Tls {
    key: Arc<CertifiedKey>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Tls {
    /// Makes a certificate for this device's key.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        let (certificate, key) = certificate::generate(identity.keypair()).map_err(failed)?;
        let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).map_err(failed)?;
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        // AES first only where the processor helps with it; otherwise ChaCha20 is the faster one.
        let rank = |suite: &rustls::SupportedCipherSuite| match suite.suite() {
            rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => {
                if has_aes() {
                    0
                } else {
                    2
                }
            }
            rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 1,
            _ => 3,
        };
        provider.cipher_suites.sort_by_key(rank);
        Ok(Self { key: Arc::new(CertifiedKey::new(vec![certificate], key)), provider: Arc::new(provider) })
    }

    /// For connections that this device begins; to this device if one is expected, to any otherwise.
    pub fn client(&self, expected: Option<DeviceId>) -> Result<quinn::crypto::rustls::QuicClientConfig, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { expected }))
            .with_client_cert_resolver(Arc::new(Resolver(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        quinn::crypto::rustls::QuicClientConfig::try_from(config).map_err(failed)
    }

    /// For connections that others begin.
    pub fn server(&self) -> Result<quinn::crypto::rustls::QuicServerConfig, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(Arc::new(Verifier { expected: None }))
            .with_cert_resolver(Arc::new(Resolver(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        quinn::crypto::rustls::QuicServerConfig::try_from(config).map_err(failed)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// The device at the other end of a connection whose handshake has ended.
pub fn device_of(connection: &quinn::Connection) -> Option<DeviceId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    device_of_certificate(identity.first()?)
}

fn device_of_certificate(certificate: &CertificateDer<'_>) -> Option<DeviceId> {
    device_of_peer(certificate::parse(certificate).ok()?.peer_id())
}

/// The device id of a libp2p peer id. A peer id of an Ed25519 key holds the key itself: an identity multihash (code 0, 36 bytes) of the key's
/// protobuf form (4 bytes of header, 32 of key). Keys of other kinds are no devices of ours.
fn device_of_peer(peer: PeerId) -> Option<DeviceId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20])?;
    (key.len() == 32).then(|| DeviceId::of_public_key(key))
}

#[derive(Debug)]
struct Resolver(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Resolver {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Accepts a certificate that a device's key has signed; of one device, if one is expected.
#[derive(Debug)]
struct Verifier {
    expected: Option<DeviceId>,
}

fn refused() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let device = device_of_certificate(certificate).filter(|_| others.is_empty()).ok_or_else(refused)?;
        if self.expected.is_some_and(|expected| expected != device) { Err(refused()) } else { Ok(()) }
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let certificate = certificate::parse(certificate).map_err(|_| refused())?;
        certificate.verify_signature(signed.scheme, message, signed.signature()).map_err(|_| refused())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn schemes() -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(certificate, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}
