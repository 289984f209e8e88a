//! Secrets in files of their own: written whole, durable, readable by the owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes `bytes` to `path` with mode 0600; a crash leaves the old file or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temp, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a secret; refuses one that others may read. Of a credential the service manager takes care, by an access list that looks like a group's right.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.parent() == Some(Path::new(&dir)));
    if mode & 0o077 != 0 && !is_credential {
        let message = format!("{} may be read by others (mode {:03o}); run: chmod 600 {}", path.display(), mode & 0o777, path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    std::fs::read(path)
}

/// The Ed25519 key pair at `path` (PEM), made if there is none. An unreadable or foreign file is an error that names `what` the key is for: without its
/// keys the relay does not start (R08).
pub fn ed25519(path: &Path, what: &str) -> Result<rcgen::KeyPair, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot use the {what} {}: {e}", path.display());
    if !path.try_exists().map_err(|e| failed(&e))? {
        let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(|e| failed(&e))?;
        write(path, made.serialize_pem().as_bytes()).map_err(|e| failed(&e))?;
    }
    let pem = read(path).map_err(|e| failed(&e))?;
    let pem = String::from_utf8(pem).map_err(|_| failed(&"it is not a PEM file"))?;
    let pair = rcgen::KeyPair::from_pem(&pem).map_err(|e| failed(&format!("it is not a private key ({e})")))?;
    if !pair.is_compatible(&rcgen::PKCS_ED25519) {
        return Err(failed(&"it is not an Ed25519 key"));
    }
    Ok(pair)
}
