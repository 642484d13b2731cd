//! A node's key and its self-signed certificate: a node is its key.
//!
//! ECDSA over P-256: every TLS library and every `openssl` verifies and shows it. The certificate's
//! names and dates mean nothing here; only the key does, by its [`Fingerprint`].
//!
//! **Invariant:** a key is written once, whole, readable by its owner alone, and never overwritten.
//! **May not:** leave `state_dir`, print a private key.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use recsync_proto::NodeName;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with, unlink};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::tls;

/// The private key's file in the state directory.
pub const KEY_FILE: &str = "key.pem";
/// The certificate's file in the state directory.
pub const CERT_FILE: &str = "cert.pem";
/// A PEM file longer than this is none of ours.
const PEM_LEN_MAX: u64 = 64 << 10;

/// Which key a node has: SHA-256 over its certificate's SubjectPublicKeyInfo (DER), written as
/// `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a certificate's key.
    ///
    /// # Errors
    /// If the bytes are no X.509 certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
        // The provider's SHA-256 is reached through a suite that uses it: no other crate is needed.
        let digest = suite.common.hash_provider.hash(spki.as_ref());
        let bytes = digest.as_ref().try_into().expect("SHA-256 gives 32 bytes");
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why text is no [`Fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "a fingerprint is `sha256:` and 64 lower-case hex digits, as `recsync identity` prints it on that node"
)]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(FingerprintError),
        };
        let hex = text.strip_prefix("sha256:").ok_or(FingerprintError)?;
        if hex.len() != 64 {
            return Err(FingerprintError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Fingerprint(bytes))
    }
}

/// Why a node has no usable key.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is no key yet.
    #[error("{0} is missing: this node has no key yet; run `recsync init`")]
    Missing(PathBuf),
    /// There is a key already: it is never overwritten.
    #[error("{0} is there already: this node has a key and keeps it")]
    Exists(PathBuf),
    /// Others may read the private key.
    #[error(
        "{path} has mode {mode:04o}: others may read this node's private key; run `chmod 600 {path}`, \
         and make a new key if anybody else has had it"
    )]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file holds something else than it should.
    #[error(
        "{path} is not usable: {why}; restore it from a backup, or move key.pem and cert.pem away and run `recsync init`"
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate is not this key's.
    #[error(
        "{cert} does not belong to {key}; move {cert} away and run `recsync init`, which makes one for the key that is there"
    )]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A node's key, ready for TLS.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) fingerprint: Fingerprint,
}

impl Identity {
    /// Makes a key and a certificate for it in the state directory, both of mode 0600, synced.
    /// The directory is made, of mode 0700, if it is missing. If a crash left a key without a
    /// certificate, the certificate is made for that key.
    ///
    /// # Errors
    /// If there is an identity already, or it could not be written.
    pub fn create(state_dir: &Path, node: &NodeName) -> Result<Self, IdentityError> {
        let (key_path, cert_path) = (state_dir.join(KEY_FILE), state_dir.join(CERT_FILE));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| failed("create", state_dir, source))?;
        let key = match read_key(&key_path) {
            Ok(_) if cert_path.exists() => return Err(IdentityError::Exists(key_path)),
            Ok(pem) => rcgen::KeyPair::from_pem(&pem)?,
            Err(IdentityError::Missing(_)) => {
                let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                write_new(&key_path, &key.serialize_pem())?;
                key
            }
            Err(other) => return Err(other),
        };
        write_new(&cert_path, &certificate(&key, node)?.pem())?;
        Identity::load(state_dir)
    }

    /// Reads the identity from the state directory.
    ///
    /// # Errors
    /// If it is missing, readable by others, damaged, or key and certificate are not a pair.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let (key_path, cert_path) = (state_dir.join(KEY_FILE), state_dir.join(CERT_FILE));
        let unusable =
            |path: &Path, why: String| IdentityError::Unusable { path: path.into(), why };
        let key = PrivateKeyDer::from_pem_slice(read_key(&key_path)?.as_bytes())
            .map_err(|error| unusable(&key_path, error.to_string()))?;
        let (cert_pem, _) = read(&cert_path)?;
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|error| unusable(&cert_path, error.to_string()))?;
        let fingerprint =
            Fingerprint::of(&cert).map_err(|error| unusable(&cert_path, error.to_string()))?;
        let certified = CertifiedKey::from_der(vec![cert], key, &tls::provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    IdentityError::Mismatch { key: key_path.clone(), cert: cert_path }
                }
                other => unusable(&key_path, other.to_string()),
            },
        )?;
        Ok(Identity { certified: Arc::new(certified), fingerprint })
    }

    /// Returns the key's fingerprint: what peers put into their config.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Returns a self-signed certificate without an end (RFC 5280, 4.1.2.5): what ends a key's use is
/// its removal from the peers' configs.
fn certificate(key: &rcgen::KeyPair, node: &NodeName) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, node.as_str());
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params.self_signed(key)
}

/// Returns the key's PEM text if nobody else may read it.
fn read_key(path: &Path) -> Result<String, IdentityError> {
    let (pem, mode) = read(path)?;
    if mode & 0o077 == 0 {
        Ok(pem)
    } else {
        Err(IdentityError::Exposed { path: path.into(), mode })
    }
}

/// Returns a file's text and its permission bits, of the same open file.
fn read(path: &Path) -> Result<(String, u32), IdentityError> {
    let missing_or = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing(path.into()),
        _ => failed("open", path, source),
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(missing_or)?;
    let mode = file.metadata().map_err(|source| failed("stat", path, source))?.mode() & 0o7777;
    let mut text = String::new();
    file.take(PEM_LEN_MAX)
        .read_to_string(&mut text)
        .map_err(|source| failed("read", path, source))?;
    Ok((text, mode))
}

/// Writes a file that appears under its name whole and synced, or not at all.
fn write_new(path: &Path, text: &str) -> Result<(), IdentityError> {
    let temp = path.with_extension("new");
    // What a crash left here was never in use: only the final name is.
    match unlink(&temp) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(failed("remove", &temp, errno.into())),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp)
        .map_err(|source| failed("create", &temp, source))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|source| failed("write", &temp, source))?;
    match renameat_with(CWD, &temp, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(IdentityError::Exists(path.into())),
        Err(errno) => return Err(failed("create", path, errno.into())),
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    sync_dir(dir).map_err(|source| failed("sync", dir, source))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir: File = OpenOptions::new().read(true).open(dir)?;
    dir.sync_all()
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn node() -> NodeName {
        NodeName::new("fs1").unwrap()
    }

    #[test]
    fn made_once_and_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        assert!(matches!(Identity::load(&state_dir), Err(IdentityError::Missing(_))));
        let made = Identity::create(&state_dir, &node()).unwrap();
        let loaded = Identity::load(&state_dir).unwrap();
        assert_eq!(made.fingerprint(), loaded.fingerprint());
        for file in [KEY_FILE, CERT_FILE] {
            assert_eq!(read(&state_dir.join(file)).unwrap().1, 0o600, "{file}");
        }
        assert!(matches!(Identity::create(&state_dir, &node()), Err(IdentityError::Exists(_))));
        assert_eq!(Identity::load(&state_dir).unwrap().fingerprint(), made.fingerprint());
    }

    #[test]
    fn a_key_without_certificate_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::create(dir.path(), &node()).unwrap();
        unlink(dir.path().join(CERT_FILE)).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Missing(_))));
        let again = Identity::create(dir.path(), &node()).unwrap();
        assert_eq!(again.fingerprint(), made.fingerprint());
    }

    #[test]
    fn an_exposed_key_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        Identity::create(dir.path(), &node()).unwrap();
        let key = dir.path().join(KEY_FILE);
        let permissions = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&key, permissions).unwrap();
        let error = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0640"), "{error}");
        assert!(error.contains(&format!("chmod 600 {}", key.display())), "{error}");
    }

    #[test]
    fn a_foreign_certificate_or_a_damaged_key_is_refused() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        Identity::create(one.path(), &node()).unwrap();
        Identity::create(two.path(), &node()).unwrap();
        let (ours, theirs) = (one.path().join(CERT_FILE), two.path().join(CERT_FILE));
        rustix::fs::rename(&theirs, &ours).unwrap();
        assert!(matches!(Identity::load(one.path()), Err(IdentityError::Mismatch { .. })));
        let key = OpenOptions::new().write(true).open(one.path().join(KEY_FILE)).unwrap();
        key.set_len(20).unwrap();
        assert!(matches!(Identity::load(one.path()), Err(IdentityError::Unusable { .. })));
    }

    /// What `openssl x509 -pubkey | openssl pkey -pubin -outform DER | sha256sum` prints.
    #[test]
    fn the_fingerprint_is_that_of_openssl() {
        let pem = b"-----BEGIN CERTIFICATE-----\nMIIBbjCCARWgAwIBAgIUC9eTnGsLm5dU1FVnIGrbVO+cFjswCgYIKoZIzj0EAwIw\n\
              DDEKMAgGA1UEAwwBeDAgFw0yNjExMjMwNDEyMTdaGA8yMTI2MTAzMDA0MTIxN1ow\n\
              DDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUM6sZjmnp3\n\
              BDixF1oMuWVI3IZmtQNR7PAxWGECiCR8tJcMZ1MQ1PdfDp+qG8Xjpm4t0+gMJPmw\n\
              1Vtj0kwoAnOjUzBRMB0GA1UdDgQWBBQrVaL4tCknGkYQwcRMy3k5+ruOpTAfBgNV\n\
              HSMEGDAWgBQrVaL4tCknGkYQwcRMy3k5+ruOpTAPBgNVHRMBAf8EBTADAQH/MAoG\n\
              CCqGSM49BAMCA0cAMEQCIBgtvpm/wUuhGIMh5qr1+Qfv5DGrd3pJzgXKATsemr+J\n\
              AiBzynQF4VNS6hlVBzRdH3A4rAEo0i+ZdmHXvYiXK3O0pw==\n-----END CERTIFICATE-----\n";
        let cert = CertificateDer::from_pem_slice(pem).unwrap();
        let expected = "sha256:0b3307a10f0a8abd552cd241a88872b3d4ec55be00669de112bba1ce9c93824e";
        assert_eq!(Fingerprint::of(&cert).unwrap().to_string(), expected);
        assert_eq!(expected.parse(), Ok(Fingerprint::of(&cert).unwrap()));
    }

    #[test]
    fn text_that_is_no_fingerprint() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(format!("sha256:{hex}").parse::<Fingerprint>().is_ok());
        for text in [
            String::new(),
            hex.clone(),
            format!("sha1:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256:é{}", &hex[2..]),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }
}
