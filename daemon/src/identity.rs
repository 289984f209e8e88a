//! Who this device is: its Ed25519 key, and what it needs to speak to its relay.
//!
//! * **D1** The key is made once. A key that is damaged, or gone where there was one, is refused with advice and never replaced in silence:
//!   a new key is a new device (K43).
//! * **D2** Key and credentials are readable by their owner only, and a new version replaces an old one whole or not at all.

use ferry_protocol::{DeviceId, UserId};
use libp2p_identity::ed25519::PublicKey;
use libp2p_identity::{Keypair, PeerId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, process};

const KEY_FILE: &str = "device.key";
/// The device's id in clear text: the evidence that there was a key.
const ID_FILE: &str = "device.id";
const CREDENTIALS_FILE: &str = "credentials.json";
const KEY_HEADER: &str = "ferry device key 1";
/// A file longer than this was not written by us, in bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Why this device's key or credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There was a key and it is gone (D1).
    #[error(
        "the key of device {device} is missing from {}: restore {KEY_FILE} from a backup, or remove {ID_FILE} and {CREDENTIALS_FILE} there \
         and run 'ferry login' to link this machine as a new device", .dir.display()
    )]
    Lost {
        /// Where it should be.
        dir: PathBuf,
        /// Which device it was.
        device: String,
    },
    /// The file is there and is not a key, or another device's (D1).
    #[error("{} is damaged ({why}): restore it from a backup, or move it away together with {ID_FILE} and {CREDENTIALS_FILE} and run 'ferry login' to link this machine as a new device", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Others can read it (D2).
    #[error("{} can be read by other users: run 'chmod 600 {}'", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The disk or its permissions.
    #[error("{} cannot be used: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// This device's key and id.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    public_key: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("device", &self.device_id()).finish_non_exhaustive()
    }
}

impl Identity {
    fn new(keypair: Keypair) -> Result<Self, String> {
        let public = keypair.public().try_into_ed25519().map_err(|_| "not an Ed25519 key".to_owned())?;
        Ok(Self { keypair, public_key: public.to_bytes() })
    }

    /// The key pair, for TLS and signatures.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The raw public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// The device's id.
    pub fn device_id(&self) -> DeviceId {
        DeviceId::of_public_key(&self.public_key)
    }

    /// The same key's name among peers.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// Loads the key from the state directory, or makes it if there is no sign that there ever was one (D1).
    pub fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        fs::create_dir_all(state_dir).map_err(|e| io_error(state_dir, e))?;
        if let Some(identity) = Self::load(state_dir)? {
            return Ok(identity);
        }
        let keypair = Keypair::generate_ed25519();
        let path = state_dir.join(KEY_FILE);
        let damaged = |why: String| IdentityError::Damaged { path: path.clone(), why };
        let bytes = keypair.to_protobuf_encoding().map_err(|e| damaged(e.to_string()))?;
        let identity = Self::new(keypair).map_err(damaged)?;
        // The key first: after a crash between the two writes the next load adds the id.
        write_private(&path, format!("{KEY_HEADER}\n{}\n", hex::encode(bytes)).as_bytes())?;
        write_private(&state_dir.join(ID_FILE), format!("{}\n", identity.device_id()).as_bytes())?;
        Ok(identity)
    }

    /// Loads the key. Nothing if there is none and no sign that there ever was one.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = state_dir.join(KEY_FILE);
        let known = read_private(&state_dir.join(ID_FILE))?.map(|text| text.trim().to_owned());
        let Some(text) = read_private(&path)? else {
            if known.is_some() || state_dir.join(CREDENTIALS_FILE).exists() {
                let device = known.unwrap_or_else(|| "(unknown)".into());
                return Err(IdentityError::Lost { dir: state_dir.to_owned(), device });
            }
            return Ok(None);
        };
        let damaged = |why: &str| IdentityError::Damaged { path: path.clone(), why: why.to_owned() };
        let (header, key) = text.split_once('\n').ok_or_else(|| damaged("it is not whole"))?;
        if header != KEY_HEADER {
            return Err(damaged("its first line is not that of a key of this version"));
        }
        let bytes = hex::decode(key.trim()).map_err(|_| damaged("its second line is not hexadecimal"))?;
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|e| damaged(&e.to_string()))?;
        let identity = Self::new(keypair).map_err(|why| damaged(&why))?;
        match known {
            Some(known) if known != identity.device_id().to_string() => Err(damaged("it is the key of another device")),
            Some(_) => Ok(Some(identity)),
            None => {
                write_private(&state_dir.join(ID_FILE), format!("{}\n", identity.device_id()).as_bytes())?;
                Ok(Some(identity))
            }
        }
    }
}

/// What this device needs to speak to its relay as its user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The relay's address, with its pin if it has one.
    pub relay: String,
    /// The user.
    pub user_id: UserId,
    /// The device, as the relay knows it.
    pub device_id: DeviceId,
    /// Short-lived; renewed with the refresh token.
    pub access_token: String,
    /// Used once: every refresh gives the next one.
    pub refresh_token: String,
    /// The key of the relay's grants; none from a relay that signs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_key: Option<GrantKey>,
}

/// The public key with which a relay signs who may take part. In text it is 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantKey(PublicKey);

/// The text is not an Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the public key of a relay's grants: expected 64 hexadecimal digits")]
pub struct GrantKeyError;

impl GrantKey {
    /// Whether the signature is this key's over the message: for [`ferry_protocol::grant::SignedGrant::open`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify(message, signature)
    }
}

impl FromStr for GrantKey {
    type Err = GrantKeyError;
    fn from_str(text: &str) -> Result<Self, GrantKeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| GrantKeyError)?;
        PublicKey::try_from_bytes(&bytes).map(Self).map_err(|_| GrantKeyError)
    }
}

impl TryFrom<String> for GrantKey {
    type Error = GrantKeyError;
    fn try_from(text: String) -> Result<Self, GrantKeyError> {
        text.parse()
    }
}

impl From<GrantKey> for String {
    fn from(key: GrantKey) -> Self {
        hex::encode(key.0.to_bytes())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("relay", &self.relay).field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// The file that holds the credentials.
#[derive(Debug, Clone)]
pub struct CredentialsFile {
    path: PathBuf,
}

impl CredentialsFile {
    /// The file of this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(CREDENTIALS_FILE) }
    }

    /// The credentials; nothing when this device is not logged in.
    pub fn load(&self) -> Result<Option<Credentials>, IdentityError> {
        let Some(text) = read_private(&self.path)? else { return Ok(None) };
        // serde's message can quote the file: secrets stay out of errors.
        let damaged = |_| IdentityError::Damaged { path: self.path.clone(), why: "it is not the JSON that ferry wrote".into() };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Replaces the credentials; on the disk when this returns (D2).
    pub fn save(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let text = serde_json::to_string_pretty(credentials).map_err(|e| io_error(&self.path, io::Error::other(e)))?;
        write_private(&self.path, text.as_bytes())
    }

    /// Forgets the credentials.
    pub fn remove(&self) -> Result<(), IdentityError> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&self.path, e)),
            _ => Ok(()),
        }
    }
}

fn io_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { path: path.to_owned(), source }
}

fn read_private(path: &Path) -> Result<Option<String>, IdentityError> {
    let metadata = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| io_error(path, e))?,
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned() });
    }
    if metadata.len() > FILE_MAX_BYTES {
        return Err(IdentityError::Damaged { path: path.to_owned(), why: "it is too long".into() });
    }
    let bytes = fs::read(path).map_err(|e| io_error(path, e))?;
    String::from_utf8(bytes).map(Some).map_err(|_| IdentityError::Damaged { path: path.to_owned(), why: "it is not text".into() })
}

/// Writes a file of mode 0600 beside, syncs it, and puts it in place (D2).
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let temporary = path.with_extension(format!("new-{}", process::id()));
    let write = || {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|e| io_error(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(n: u8) -> Credentials {
        Credentials {
            relay: "https://relay.example".into(),
            user_id: UserId::from_bytes([n; 16]),
            device_id: DeviceId::from_bytes([n; 16]),
            access_token: "access-secret".into(),
            refresh_token: "refresh-secret".into(),
            grant_key: None,
        }
    }

    #[test]
    fn a_grant_key_has_one_form_and_checks_what_it_signed() {
        let pair = libp2p_identity::ed25519::Keypair::generate();
        let text = hex::encode(pair.public().to_bytes());
        let key: GrantKey = text.parse().unwrap();
        assert_eq!(String::from(key.clone()), text);
        assert!(key.verify(b"message", &pair.sign(b"message")));
        assert!(!key.verify(b"massage", &pair.sign(b"message")) && !key.verify(b"message", b""));
        for wrong in ["", "00", &"0".repeat(63), &format!("02{}", "0".repeat(62))] {
            assert_eq!(wrong.parse::<GrantKey>(), Err(GrantKeyError), "{wrong}");
        }
    }

    #[test]
    fn credentials_of_before_grants_are_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = CredentialsFile::new(dir.path());
        file.save(&credentials(1)).unwrap();
        assert!(!fs::read_to_string(dir.path().join(CREDENTIALS_FILE)).unwrap().contains("grant_key"));
        assert_eq!(file.load().unwrap(), Some(credentials(1)));
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        let first = Identity::load_or_create(dir.path()).unwrap();
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        assert_eq!(first.device_id(), DeviceId::of_public_key(&first.public_key()));
        assert_eq!(first.peer_id(), again.keypair().public().to_peer_id());
        for file in [KEY_FILE, ID_FILE] {
            assert_eq!(fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_lost_key_is_refused_and_not_replaced() {
        for evidence in [ID_FILE, CREDENTIALS_FILE] {
            let dir = tempfile::tempdir().unwrap();
            Identity::load_or_create(dir.path()).unwrap();
            CredentialsFile::new(dir.path()).save(&credentials(1)).unwrap();
            fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
            fs::remove_file(dir.path().join(if evidence == ID_FILE { CREDENTIALS_FILE } else { ID_FILE })).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Lost { .. }));
            assert!(error.to_string().contains("restore"), "{error}");
            assert!(!dir.path().join(KEY_FILE).exists());
        }
    }

    #[test]
    fn a_damaged_or_foreign_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        let good = fs::read(&path).unwrap();
        let foreign = tempfile::tempdir().unwrap();
        Identity::load_or_create(foreign.path()).unwrap();
        let other = fs::read(foreign.path().join(KEY_FILE)).unwrap();
        for bad in [&b""[..], b"\xff\xff", &good[..good.len() / 2], b"ferry device key 1\n00\n", b"ferry device key 9\n00\n", &other] {
            fs::write(&path, bad).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
        assert!(Identity::load_or_create(dir.path()).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Exposed { .. })));
    }

    #[test]
    fn credentials_are_replaced_whole_and_keep_their_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let file = CredentialsFile::new(dir.path());
        assert_eq!(file.load().unwrap(), None);
        file.save(&credentials(1)).unwrap();
        file.save(&credentials(2)).unwrap();
        assert_eq!(file.load().unwrap(), Some(credentials(2)));
        assert!(!format!("{:?}", credentials(1)).contains("secret"));
        assert_eq!(fs::metadata(dir.path().join(CREDENTIALS_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(CREDENTIALS_FILE), "{\"refresh_token\": \"refresh-secret\"").unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains("secret"), "{error}");
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.load().unwrap(), None);
    }
}
