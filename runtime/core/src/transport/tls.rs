//! TLS 1.3, mutual, with raw Ed25519 public keys (RFC 7250) in the place of certificates.
//!
//! The "certificate" is the 44-byte `SubjectPublicKeyInfo`. One verifier serves both sides; whom it trusts is [`Trust`].
//! No resumption and no tickets, so that each stream proves its key anew and a removed pin holds from then on.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme, version,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, client, server};

use super::{Protocol, Rejected};
use crate::identity::{Identity, PublicKey};

/// Never sent, as SNI is off; rustls wants a name all the same.
const SERVER_NAME: &str = "village";

/// Key exchange is hybrid first: what is recorded today stays closed to a quantum computer.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
});

/// The keys of the members. Clones share them; a change holds for every handshake that ends after it.
#[derive(Debug, Clone, Default)]
pub struct Pins(Arc<ArcSwap<HashSet<PublicKey>>>);

impl Pins {
    /// Lets in exactly these.
    pub fn replace(&self, keys: impl IntoIterator<Item = PublicKey>) {
        self.0.store(Arc::new(keys.into_iter().collect()));
    }

    /// Whether the key is a member's.
    #[must_use]
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.0.load().contains(key)
    }
}

impl FromIterator<PublicKey> for Pins {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys.into_iter().collect())))
    }
}

/// Whose key is good.
#[derive(Debug)]
enum Trust {
    Members(Pins),
    Only(PublicKey),
    Anyone,
}

#[derive(Debug)]
struct KeyVerifier(Trust);

impl KeyVerifier {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let key = PublicKey::from_spki(shown).ok_or(CertificateError::BadEncoding)?;
        let trusted = match &self.0 {
            Trust::Members(pins) => pins.contains(&key),
            Trust::Only(expected) => key == *expected,
            Trust::Anyone => true,
        };
        // Sent as the alert `access_denied`.
        if trusted { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }
}

fn verify_signature(
    message: &[u8],
    shown: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
    verify_tls13_signature_with_raw_key(message, &key, signed, &PROVIDER.signature_verification_algorithms)
}

fn only_tls13() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        only_tls13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The accepting side.
pub(super) struct TlsServer {
    /// One config per protocol, so that what was picked is what is negotiated.
    configs: [(Protocol, Arc<ServerConfig>); Protocol::ALL.len()],
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

/// A finished handshake of somebody who dialled.
pub(super) struct Accepted {
    pub(super) peer: PublicKey,
    pub(super) protocol: Protocol,
    pub(super) stream: server::TlsStream<TcpStream>,
}

impl TlsServer {
    pub(super) fn new(identity: &Identity, pins: &Pins) -> Self {
        let configs = Protocol::ALL.map(|protocol| {
            let trust = match protocol {
                Protocol::Session | Protocol::Data | Protocol::Blob => Trust::Members(pins.clone()),
                Protocol::Join => Trust::Anyone,
            };
            (protocol, Arc::new(server_config(identity, trust, protocol)))
        });
        Self { configs }
    }

    /// Runs the handshake. `admit` is asked once the protocol is known, before anything costly is done.
    pub(super) async fn accept(
        &self,
        tcp: TcpStream,
        admit: impl FnOnce(Protocol) -> Result<(), Rejected>,
    ) -> Result<Accepted, Rejected> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await.map_err(|e| reason(&e))?;
        let offered = start.client_hello().alpn().and_then(|mut names| names.find_map(Protocol::from_alpn));
        let picked = offered.and_then(|offered| self.configs.iter().find(|(protocol, _)| *protocol == offered));
        // rustls alone would let in a client that names no protocol at all.
        let Some((protocol, config)) = picked else {
            refuse(start.io, AlertDescription::NoApplicationProtocol).await;
            return Err(Rejected::Protocol);
        };
        if let Err(rejected) = admit(*protocol) {
            refuse(start.io, AlertDescription::AccessDenied).await;
            return Err(rejected);
        }
        let stream = start.into_stream(Arc::clone(config)).await.map_err(|e| reason(&e))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = shown.and_then(|shown| PublicKey::from_spki(shown)).ok_or(Rejected::NoRawKey)?;
        Ok(Accepted { peer, protocol: *protocol, stream })
    }
}

fn server_config(identity: &Identity, trust: Trust, protocol: Protocol) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider has suites and groups of TLS 1.3")
        .with_client_cert_verifier(Arc::new(KeyVerifier(trust)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// The handshake of a door that opens to nobody, for a listener that cannot be left out.
pub(crate) fn locked(identity: &Identity) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(server_config(identity, Trust::Members(Pins::default()), Protocol::Session)))
}

/// Answers a `ClientHello` with an alert. RFC 8446 section 6: nothing is encrypted before a `ServerHello`.
async fn refuse(mut tcp: TcpStream, alert: AlertDescription) {
    const FATAL: u8 = 2;
    let record = [0x15, 0x03, 0x03, 0x00, 0x02, FATAL, alert.into()];
    // Who does not read it gets a closed socket, which says the same.
    let _ = tcp.write_all(&record).await;
    let _ = tcp.shutdown().await;
}

/// The reason behind the error of a handshake.
fn reason(error: &io::Error) -> Rejected {
    use CertificateError::ApplicationVerificationFailure;
    use PeerIncompatible::{IncorrectCertificateTypeExtension, NoSignatureSchemesInCommon};
    match tls_error(error) {
        None | Some(Error::AlertReceived(_)) => Rejected::Closed,
        Some(Error::InvalidCertificate(ApplicationVerificationFailure)) => Rejected::NotPinned,
        Some(
            Error::NoCertificatesPresented
            | Error::InvalidCertificate(_)
            | Error::PeerIncompatible(IncorrectCertificateTypeExtension | NoSignatureSchemesInCommon),
        ) => Rejected::NoRawKey,
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Rejected::Protocol,
        Some(_) => Rejected::Garbage,
    }
}

/// Whether a peer has turned this node away because of its key.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        || matches!(tls_error(error), Some(Error::AlertReceived(AlertDescription::AccessDenied)))
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Runs the handshake of a dialler over `tcp` with the owner of `peer`.
pub(super) async fn connect(
    identity: &Identity,
    tcp: TcpStream,
    peer: PublicKey,
    protocol: Protocol,
) -> io::Result<client::TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(client_config(identity, peer, protocol)));
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let stream = connector.connect(name, tcp).await.map_err(|error| dial_error(error, peer))?;
    if stream.get_ref().1.alpn_protocol() != Some(protocol.alpn()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer did not agree on the protocol"));
    }
    Ok(stream)
}

pub(super) fn client_config(identity: &Identity, peer: PublicKey, protocol: Protocol) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider has suites and groups of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier(Trust::Only(peer))))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

/// Gives the two refusals a kind of their own, as [`super::ClusterTransport::dial`] promises.
fn dial_error(error: io::Error, peer: PublicKey) -> io::Error {
    match tls_error(&error) {
        Some(Error::InvalidCertificate(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, format!("not node {}: another key", peer.node_id()))
        }
        Some(Error::AlertReceived(AlertDescription::AccessDenied)) => {
            io::Error::new(io::ErrorKind::PermissionDenied, "the peer refuses this node")
        }
        _ => error,
    }
}
