//! `[console]`: the web console.

use std::path::PathBuf;

use portcullis::config::Document;

use super::values::Listen;

portcullis::config_section! {
    /// `[console]`: the web console, a page that changes nothing. See [the console](CONSOLE.md).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct ConsoleSettings = "console" {
        /// The address of the console, or `off`. It needs a `token_file` or a `client_ca`, and a
        /// `certificate` unless it is a loopback address.
        listen: Listen {
            default: Listen(None), "a listener is one more thing to protect";
            restart: true;
        }
        /// The file whose first line is the token that every request needs: 16 characters or more.
        /// The file must not be readable for other users.
        token_file: Option<PathBuf> {
            default: None, "needed with `listen`, unless `client_ca` is set";
            restart: true;
        }
        /// The file of the console's certificate and those that sign it (PEM), for TLS.
        certificate: Option<PathBuf> {
            default: None, "a loopback address needs no TLS";
            restart: true;
        }
        /// The file of the certificate's private key (PEM), which other users must not be able to
        /// read.
        key: Option<PathBuf> {
            default: None, "needed with `certificate`";
            restart: true;
        }
        /// The file of certificates (PEM) that sign those of clients: only clients with such a
        /// certificate connect. With a `token_file`, they need the token as well.
        client_ca: Option<PathBuf> {
            default: None, "a token is simpler";
            restart: true;
        }
    }
}

impl ConsoleSettings {
    /// Adds what is wrong with the section of a console that is on to the document.
    pub(super) fn check(&self, document: &mut Document<'_>) {
        let Some(address) = self.listen.0 else {
            return;
        };
        if let (Some(_), None) = (&self.certificate, &self.key) {
            let why = "a certificate needs its private key: `console.key` is not set";
            document.refuse("console.certificate", &["console.key"], why);
        }
        if let (None, Some(_)) = (&self.certificate, &self.key) {
            let why = "a private key is of no use without `console.certificate`";
            document.refuse("console.key", &["console.certificate"], why);
        }
        if let (None, Some(_)) = (&self.certificate, &self.client_ca) {
            let why = "clients show certificates over TLS alone: `console.certificate` is not set";
            document.refuse("console.client_ca", &["console.certificate"], why);
        }
        if self.token_file.is_none() && self.client_ca.is_none() {
            let why = "every client would see every session: `console.token_file` or \
                       `console.client_ca` must be set";
            let others = ["console.token_file", "console.client_ca"];
            document.refuse("console.listen", &others, why);
        }
        if !address.ip().to_canonical().is_loopback() && self.certificate.is_none() {
            let why = format!(
                "{address} is not a loopback address, and the token would cross the network \
                 unencrypted: `console.certificate` is not set"
            );
            document.refuse("console.listen", &["console.certificate"], &why);
        }
    }
}
