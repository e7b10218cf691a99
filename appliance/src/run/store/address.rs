//! Address of the store and the secrets to use it, from `[store]` and the files that it names.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::run::settings::StoreSettings;

/// The longest file of a secret or of certificates.
const MAX_FILE: u64 = 1 << 20;
/// The shortest group key, in bytes.
const MIN_KEY: usize = 16;

/// Address of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) urls: Vec<String>,
    pub(super) is_cluster: bool,
}

impl Address {
    /// Returns the address in the settings.
    pub(super) fn new(settings: &StoreSettings) -> Self {
        Self {
            urls: settings.url.clone(),
            is_cluster: settings.cluster,
        }
    }

    /// Returns whether connections are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        let mut urls = self.urls.iter();
        urls.any(|url| url.starts_with("rediss:") || url.starts_with("valkeys:"))
    }
}

/// Secrets and certificates, as read at the start.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Certificates in PEM.
    pub(super) ca: Option<Vec<u8>>,
    /// The key of the group.
    pub(super) group_key: Vec<u8>,
    /// Warnings about files of secrets that every user of the host can read.
    pub(super) exposed: Vec<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// A file cannot be read, or holds no key.
    pub(super) fn read(settings: &StoreSettings) -> io::Result<Self> {
        let password = match (&settings.password_file, &settings.password.0) {
            (Some(path), _) => Some(read_secret("store.password_file", path)?),
            (None, password) => password.clone(),
        };
        let ca = match &settings.ca {
            Some(path) => Some(read("store.ca", path)?),
            None => None,
        };
        let group_key = match &settings.group_key_file {
            Some(path) => read_secret("store.group_key_file", path)?.into_bytes(),
            None => Vec::new(),
        };
        if group_key.len() < MIN_KEY {
            return Err(io::Error::other(format!(
                "store.group_key_file: {} bytes are no key: {MIN_KEY} or more are",
                group_key.len()
            )));
        }
        Ok(Self {
            user: settings.user.clone(),
            password,
            ca,
            group_key,
            exposed: exposed(settings),
        })
    }
}

/// Returns a warning for each file of a secret that every user of the host can read.
fn exposed(settings: &StoreSettings) -> Vec<String> {
    let files = [
        ("store.password_file", &settings.password_file),
        ("store.group_key_file", &settings.group_key_file),
    ];
    let named = files
        .iter()
        .filter_map(|(key, path)| Some((*key, path.as_ref()?)));
    named
        .filter(|(_, path)| {
            std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
        })
        .map(|(key, path)| {
            format!(
                "{key}: every user of this host can read {}: its mode should be 0600",
                path.display()
            )
        })
        .collect()
}

/// Reads a secret of one line.
fn read_secret(key: &str, path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read(key, path)?)
        .map_err(|_| io::Error::other(format!("{key}: {}: not UTF-8", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(key: &str, path: &Path) -> io::Result<Vec<u8>> {
    let read = || {
        let file = File::open(path)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("{key}: {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_without_their_line_ends_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let mut settings = StoreSettings {
            password_file: file("password", "hunter2\n"),
            group_key_file: file("key", "0123456789abcdef\r\n"),
            ..StoreSettings::default()
        };
        let access = Access::read(&settings).unwrap();
        assert_eq!(access.password.as_deref(), Some("hunter2"));
        assert_eq!(access.group_key, b"0123456789abcdef");
        let shown = format!("{access:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("0123"),
            "{shown}"
        );
        let mode = |mode| {
            let path = directory.path().join("key");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            Access::read(&settings).unwrap().exposed
        };
        let password = directory.path().join("password");
        std::fs::set_permissions(password, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(mode(0o640).is_empty());
        let exposed = mode(0o644);
        assert_eq!(exposed.len(), 1);
        assert!(
            exposed[0].starts_with("store.group_key_file: every user"),
            "{exposed:?}"
        );
        settings.group_key_file = file("key", "0123456789abcde\n");
        let error = Access::read(&settings).unwrap_err().to_string();
        assert!(error.contains("15 bytes are no key"), "{error}");
        settings.group_key_file = Some(directory.path().join("missing"));
        let error = Access::read(&settings).unwrap_err().to_string();
        assert!(error.starts_with("store.group_key_file: "), "{error}");
    }
}
