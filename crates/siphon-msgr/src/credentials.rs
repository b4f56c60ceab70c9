use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{error, fmt};

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use siphon_auth::{
    AuthEnv, CephxClient, CryptoKey, KeyError, Keyring, KeyringError, ModeError, Modes,
};
use siphon_common::Config;
use siphon_wire::types::{AuthName, Utime};
use zeroize::Zeroizing;

/// No keyring is longer, in bytes: one with a million keys has not been seen.
const MAX_KEYRING: u64 = 64 << 20;

/// The system's clock and random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

impl AuthEnv for SystemEnv {
    #[expect(clippy::disallowed_methods, reason = "tickets expire by everybody's clock")]
    fn now(&self) -> Utime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Utime::try_from(since).unwrap_or_default()
    }

    fn fill(&self, bytes: &mut [u8]) {
        // The kernel's own: a generator of our own would have to be seeded first, which takes aws-lc's
        // 20 ms of each process.
        OsRng.try_fill_bytes(bytes).expect("the system has random numbers");
    }
}

/// Why there is no key.
#[derive(Debug)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file cannot be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// None of the files that `keyring` names is there.
    NoKeyring {
        /// The files.
        searched: Vec<PathBuf>,
    },
    /// A keyring that is none.
    Keyring {
        /// The file.
        path: PathBuf,
        /// Its line, and what is wrong with that.
        source: KeyringError,
    },
    /// The keyring has no key for the name.
    NoKey {
        /// The name.
        name: AuthName,
        /// The file.
        path: PathBuf,
    },
    /// Something else where a key was expected: `key` or `keyfile`.
    Key {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        source: KeyError,
    },
    /// An option that is no list of modes.
    Modes(ModeError),
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => {
                write!(f, "{}", path.display())?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(
                        " is not for this user: run as its owner, or choose another (--keyring FILE)",
                    ),
                    _ => Ok(()),
                }
            }
            Self::NoKeyring { searched } => {
                let searched: Vec<_> = searched.iter().map(|it| it.display().to_string()).collect();
                let searched = searched.join(", ");
                write!(
                    f,
                    "no keyring; looked for {searched} (say --keyring FILE or --keyfile FILE)"
                )
            }
            Self::Keyring { path, .. } => write!(f, "{}", path.display()),
            Self::NoKey { name, path } => write!(f, "{} has no key for {name}", path.display()),
            Self::Key { option, .. } => write!(f, "the option {option}"),
            Self::Modes(error) => error.fmt(f),
        }
    }
}

impl error::Error for CredentialsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Keyring { source, .. } => Some(source),
            Self::Key { source, .. } => Some(source),
            Self::NoKeyring { .. } | Self::NoKey { .. } | Self::Modes(_) => None,
        }
    }
}

/// The key of `name`: `key`, else what is in `keyfile`, else that of the first keyring there is.
///
/// # Errors
/// If there is none, or what there is cannot be read.
pub fn load_key(config: &Config, name: &AuthName) -> Result<CryptoKey, CredentialsError> {
    let parse = |text: &str, option| {
        text.parse().map_err(|source| CredentialsError::Key { option, source })
    };
    if !config.key.is_empty() {
        return parse(&config.key, "key");
    }
    if !config.keyfile.is_empty() {
        return parse(&read_text(Path::new(&config.keyfile))?, "keyfile");
    }
    let searched = keyring_files(config, name);
    let Some(path) = searched.iter().find(|path| path.exists()).cloned() else {
        return Err(CredentialsError::NoKeyring { searched });
    };
    let keyring = load_keyring(&path)?;
    let found = keyring.get(name).map(|auth| auth.key.clone());
    found.ok_or_else(|| CredentialsError::NoKey { name: name.clone(), path })
}

/// A keyring file.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn load_keyring(path: &Path) -> Result<Keyring, CredentialsError> {
    let text = read_text(path)?;
    text.parse().map_err(|source| CredentialsError::Keyring { path: path.to_owned(), source })
}

/// Writes a keyring for its owner's eyes only (mode 0600), in place of what was there.
///
/// # Errors
/// If it cannot be written; what was there before stays then.
pub fn save_keyring(path: &Path, keyring: &Keyring) -> Result<(), CredentialsError> {
    save_secret(path, keyring.to_text().as_bytes())
}

/// Writes something secret for its owner's eyes only (mode 0600), in place of what was there.
///
/// # Errors
/// If it cannot be written; what was there before stays then.
pub fn save_secret(path: &Path, secret: &[u8]) -> Result<(), CredentialsError> {
    let fail = |source| CredentialsError::File { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(secret)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&beside); // of a failed attempt
        fail(source)
    })
}

/// Connection modes, as the options `ms_*_mode` have them.
///
/// # Errors
/// If one of them has none.
pub fn modes(config: &Config) -> Result<Modes, CredentialsError> {
    let list = |text: &str| text.parse().map_err(CredentialsError::Modes);
    Ok(Modes {
        mon_cluster: list(&config.ms_mon_cluster_mode)?,
        mon_service: list(&config.ms_mon_service_mode)?,
        mon_client: list(&config.ms_mon_client_mode)?,
        cluster: list(&config.ms_cluster_mode)?,
        service: list(&config.ms_service_mode)?,
        client: list(&config.ms_client_mode)?,
    })
}

/// The connecting side of cephx for `name`, as the configuration has its key and the modes.
///
/// # Errors
/// As [`load_key`] and [`modes`].
pub fn cephx_client(config: &Config, name: AuthName) -> Result<CephxClient, CredentialsError> {
    let key = load_key(config, &name)?;
    Ok(CephxClient::new(name, key, modes(config)?, Arc::new(SystemEnv)))
}

/// The files that `keyring` names.
fn keyring_files(config: &Config, name: &AuthName) -> Vec<PathBuf> {
    // For who authenticates, who may be another than who reads the configuration.
    let files = config.value_for(&name.to_string(), "keyring");
    let files = files.unwrap_or_else(|_| config.keyring.clone());
    files.split([',', ';']).map(str::trim).filter(|it| !it.is_empty()).map(PathBuf::from).collect()
}

/// A key that every user can read is everybody's; of who may by a group, somebody has thought.
fn warn_of_readers(path: &Path, mode: u32) {
    const OTHERS: u32 = 0o004;
    if mode & OTHERS != 0 {
        let (path, mode) = (path.display(), mode & 0o7777);
        tracing::warn!(
            "{path} has a key, and every user of this host may read it (mode {mode:04o}): chmod o-r {path}"
        );
    }
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    let fail = |source| CredentialsError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    warn_of_readers(path, metadata.mode());
    let len = metadata.len().min(MAX_KEYRING);
    // One buffer, so that none is left behind as it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len as usize + 1));
    file.take(MAX_KEYRING).read_to_end(&mut bytes).map_err(fail)?;
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use siphon_auth::{EntityAuth, KeyType};

    use super::*;

    #[test]
    fn a_keyring_is_for_its_owner_only_and_its_key_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ceph.client.bob.keyring");
        let name: AuthName = "client.bob".parse().unwrap();
        let key = CryptoKey::generate(KeyType::AES256K, &SystemEnv).unwrap();
        let mut keyring = Keyring::default();
        let auth = EntityAuth { key: key.clone(), ..EntityAuth::default() };
        keyring.insert(name.clone(), auth);
        fs::write(&path, "old").unwrap();
        save_keyring(&path, &keyring).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let mut config = Config::default();
        config.keyring = format!("/nowhere,{}/$cluster.$name.keyring", folder.path().display());
        assert_eq!(load_key(&config, &name).unwrap(), key);
        let other = "client.eve".parse().unwrap();
        let error = load_key(&config, &other).unwrap_err();
        assert!(matches!(error, CredentialsError::NoKeyring { .. }), "{error}");
        config.keyfile = folder.path().join("key").display().to_string();
        fs::write(&config.keyfile, key.to_base64().as_bytes()).unwrap();
        assert_eq!(load_key(&config, &other).unwrap(), key, "keyfile comes before keyring");
    }
}
