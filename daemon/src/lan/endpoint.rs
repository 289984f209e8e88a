//! The UDP socket and QUIC's settings, each with the reason for its value.

use super::tls::{Tls, TlsError};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The largest packet that is tried. quinn sends ten packets in one call (GSO) and a call takes 65,507 bytes: with larger packets every call
/// would fail and the connection fall back to the smallest size for good.
const PACKET_MAX_BYTES: u16 = 6500;
/// Asked for; the system may give less. With less than this, bursts of a fast link are lost before they are read.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;
/// A connection is over when nothing came for so long.
const IDLE_MAX: Duration = Duration::from_secs(12);
/// How often an idle connection says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// What the peer may send of one stream before it is read.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What the peer may send of all streams before they are read, once it is known to be one of ours.
pub const WINDOW_BYTES: u32 = 16 << 20;
/// The same before that (I14).
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// What may be under way of our own.
const SEND_WINDOW_BYTES: u64 = 16 << 20;
/// Streams that the peer may have open: the control stream and a feed for each namespace; requests for chunks.
const UNI_STREAMS_MAX: u32 = ferry_protocol::limits::LAN_NAMESPACES_MAX as u32 + 64;
const BIDI_STREAMS_MAX: u32 = 32;

/// Why the LAN cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No socket.
    #[error("cannot listen on {address}: {source}; choose another with: ferry config set lan.listen")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Opens the socket. A wildcard IPv6 address takes IPv4 too; where there is no IPv6 at all, IPv4 alone is taken.
pub fn open(address: SocketAddr, tls: &Tls, offload: bool) -> Result<Endpoint, EndpointError> {
    let bind = |source| EndpointError::Bind { address, source };
    let socket = match bind_socket(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            bind_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).map_err(bind)?
        }
        other => other.map_err(bind)?,
    };
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls.server()?));
    server.transport_config(transport(offload));
    // Addresses are hints that every device finds out for itself; a connection that moves is a new one.
    server.migration(true);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(PACKET_MAX_BYTES).map_err(|e| bind(io::Error::other(e.to_string())))?;
    Endpoint::new(config, Some(server), socket.into(), Arc::new(quinn::TokioRuntime)).map_err(bind)
}

fn bind_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: more loss, never an error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The settings of every connection.
pub fn transport(offload: bool) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_MAX_BYTES);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(offload)
        .mtu_discovery_config(Some(discovery));
    Arc::new(config)
}
