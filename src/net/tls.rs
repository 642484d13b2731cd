//! TLS 1.3, mutual, with pinned keys instead of authorities.
//!
//! Each side presents a self-signed certificate; the other looks at nothing in it but the key. The
//! accepting side takes the key of any configured peer, the dialling side those of the peer that it
//! dials. A node's own key passes the handshake too, only so that it can be told what is wrong: who
//! holds that key gains nothing by it.
//!
//! **Invariant:** a handshake that succeeds proves that the other side holds the private key of a
//! pinned fingerprint: the handshake's signature is verified, not only the certificate shown.
//! **May not:** resume sessions: every connection proves the keys anew.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use recsync_proto::NodeName;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme,
};
use thiserror::Error;

use super::identity::{Fingerprint, Identity};

/// Returns the provider of all cryptography: explicit, so that no process-wide default matters.
pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// Returns the name that a dialling node gives: certificates are not looked up by name.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from("recsync").expect("a host name")
}

/// The keys that are accepted, and whose they are.
#[derive(Debug, Default)]
pub(super) struct Pins(RwLock<BTreeMap<Fingerprint, NodeName>>);

impl Pins {
    /// Replaces all pins.
    pub(super) fn set(&self, pins: BTreeMap<Fingerprint, NodeName>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pins;
    }

    /// Returns the peer whose key this is.
    pub(super) fn peer(&self, fingerprint: Fingerprint) -> Option<NodeName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&fingerprint).cloned()
    }
}

/// Returns the accepting side's config: takes any key in `pins`, as they are at the handshake.
///
/// # Errors
/// If the provider cannot do TLS 1.3: a build without it.
pub(super) fn server_config(
    identity: &Identity,
    pins: Arc<Pins>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(provider());
    let own = identity.fingerprint();
    let accepts = move |fingerprint| fingerprint == own || pins.peer(fingerprint).is_some();
    let verifier = PinnedKey { provider: provider.clone(), accepts: Box::new(accepts) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(resolver(identity));
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Returns the dialling side's config: takes exactly these keys.
///
/// # Errors
/// As [`server_config`].
pub(super) fn client_config(
    identity: &Identity,
    fingerprints: Vec<Fingerprint>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(provider());
    let own = identity.fingerprint();
    let accepts = move |fingerprint| fingerprint == own || fingerprints.contains(&fingerprint);
    let verifier = PinnedKey { provider: provider.clone(), accepts: Box::new(accepts) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(resolver(identity));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

fn resolver(identity: &Identity) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(identity.certified.clone()))
}

/// The key shown is not one that is accepted here.
#[derive(Debug, Clone, Copy, Error)]
#[error("the key {0} is not in this node's config")]
struct UnknownKey(Fingerprint);

/// What a failed handshake means.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TlsError {
    /// The other side showed a key that is not accepted here.
    #[error("it has the key {0}, which is not in this node's config")]
    UnknownKey(Fingerprint),
    /// The other side does not accept this node's key.
    #[error("it does not accept this node's key")]
    NotAccepted,
    /// It speaks no TLS 1.3, or none at all, or shows no certificate.
    #[error("it does not speak this protocol: {0}")]
    Foreign(String),
    /// The connection failed.
    #[error("{0}")]
    Io(String),
}

impl TlsError {
    /// Returns what an error of a TLS stream means.
    pub(super) fn of(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return TlsError::Io(error.to_string());
        };
        match tls {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                match other.downcast_ref::<UnknownKey>() {
                    Some(UnknownKey(fingerprint)) => TlsError::UnknownKey(*fingerprint),
                    None => TlsError::Foreign(tls.to_string()),
                }
            }
            rustls::Error::AlertReceived(
                AlertDescription::CertificateUnknown | AlertDescription::AccessDenied,
            ) => TlsError::NotAccepted,
            _ => TlsError::Foreign(tls.to_string()),
        }
    }
}

/// Accepts a certificate by its key alone.
struct PinnedKey {
    provider: Arc<CryptoProvider>,
    accepts: Box<dyn Fn(Fingerprint) -> bool + Send + Sync>,
}

impl PinnedKey {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let fingerprint = Fingerprint::of(certificate)?;
        if (self.accepts)(fingerprint) {
            return Ok(());
        }
        let other = OtherError(Arc::new(UnknownKey(fingerprint)));
        Err(CertificateError::Other(other).into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl std::fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedKey").finish_non_exhaustive()
    }
}

/// TLS 1.2 is never offered: its signatures are refused, whatever they are.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken".to_owned())
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for PinnedKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

#[cfg(test)]
mod tests {
    use recsync_proto::NodeName;
    use rustls::sign::CertifiedKey;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn identity() -> Identity {
        let dir = tempfile::tempdir().unwrap();
        Identity::create(dir.path(), &NodeName::new("fs1").unwrap()).unwrap()
    }

    /// Returns who shows another's certificate without having its key.
    fn thief(of: &Identity) -> Identity {
        let own = identity();
        let certified = CertifiedKey::new(of.certified.cert.clone(), own.certified.key.clone());
        Identity { certified: Arc::new(certified), ..own }
    }

    /// Returns what each side of a handshake says; the dialling side's first read tells it what the
    /// accepting side thinks of its key.
    fn shake(
        dialler: &Identity,
        accepter: &Identity,
        pins: [&Identity; 2],
    ) -> [Option<TlsError>; 2] {
        let [dialled, dialling] = pins.map(Identity::fingerprint);
        let accepted = Pins::default();
        accepted.set(BTreeMap::from([(dialling, NodeName::new("fs2").unwrap())]));
        let server = server_config(accepter, Arc::new(accepted)).unwrap();
        let client = client_config(dialler, vec![dialled]).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dial = async {
                use tokio::io::AsyncReadExt;
                let connector = TlsConnector::from(Arc::new(client));
                let mut stream = connector.connect(server_name(), near).await?;
                stream.read_u8().await
            };
            let accept = async {
                use tokio::io::AsyncWriteExt;
                let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
                stream.write_all(&[1]).await?;
                stream.flush().await
            };
            let (dialled, accepted) = tokio::join!(dial, accept);
            [dialled.err(), accepted.err()].map(|error| error.map(|error| TlsError::of(&error)))
        })
    }

    #[test]
    fn who_has_a_pinned_key_gets_in() {
        let (one, two) = (identity(), identity());
        assert_eq!(shake(&one, &two, [&two, &one]), [None, None]);
    }

    #[test]
    fn who_has_another_key_does_not() {
        let (one, two, other) = (identity(), identity(), identity());
        let unknown = |identity: &Identity| Some(TlsError::UnknownKey(identity.fingerprint()));
        let refused = || Some(TlsError::NotAccepted);
        assert_eq!(shake(&other, &two, [&two, &one]), [refused(), unknown(&other)]);
        assert_eq!(shake(&one, &other, [&two, &one]), [unknown(&other), refused()]);
    }

    /// The certificate is public: showing it proves nothing.
    #[test]
    fn who_has_only_the_certificate_does_not() {
        let (one, two) = (identity(), identity());
        let [_, accepted] = shake(&thief(&one), &two, [&two, &one]);
        assert!(matches!(accepted, Some(TlsError::Foreign(_))), "{accepted:?}");
        let [dialled, _] = shake(&one, &thief(&two), [&two, &one]);
        assert!(matches!(dialled, Some(TlsError::Foreign(_))), "{dialled:?}");
    }
}
