//! `[store]`: the store that appliances of a group share.

use std::path::PathBuf;
use std::time::Duration;

use portcullis::config::Document;
use portcullis::policy::Protocol;

use super::values::{self, Secret, StoredRules};
use crate::run::store::url_error;

portcullis::config_section! {
    /// `[store]`: records of sessions in Valkey or Redis, so that another appliance of the group
    /// goes on with them. See [Continuity](CONTINUITY.md).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct StoreSettings = "store" {
        /// The store: `redis://host:port/database`, `rediss://host:port` for TLS, or
        /// `unix:///path`. Without it, sessions are known to this appliance alone. Of a cluster,
        /// some of its nodes.
        url: Vec<String> {
            default: Vec::new(), "no store";
            bounds: 0..=16;
            restart: true;
        }
        /// Whether the store is a cluster.
        cluster: bool {
            default: false, "one primary is enough for most";
            restart: true;
        }
        /// The user of the store.
        user: Option<String> {
            default: None, "the store's default user";
            restart: true;
        }
        /// The password of the user. A file keeps it out of this one.
        password: Secret {
            default: Secret::default(), "none";
            restart: true;
        }
        /// The file that holds the password, in place of `password`.
        password_file: Option<PathBuf> {
            default: None, "no password";
            restart: true;
        }
        /// The file of certificates (PEM) that sign the store's certificate.
        ca: Option<PathBuf> {
            default: None, "those of the system";
            restart: true;
        }
        /// The name of the appliances that share sessions: letters, digits and `-_.`. Groups may
        /// share a store.
        group: String {
            default: "default".to_owned(), "one group";
            limit: "1 to 64 characters";
            restart: true;
        }
        /// The file that holds the key of the group: 16 characters or more, the same at each of its
        /// appliances. It seals records, so that who can write to the store cannot invent sessions.
        /// Needed with `url`.
        group_key_file: Option<PathBuf> {
            default: None, "needed with `url`";
            restart: true;
        }
        /// The protocols whose sessions are stored; an empty list is every protocol.
        protocols: Vec<Protocol> {
            default: Vec::new(), "every protocol";
            bounds: 0..=64;
            restart: true;
        }
        /// The rules whose sessions are stored: `all`, or `resilient` for those with
        /// `resilient = true`. Sessions of the default action have no rule.
        rules: StoredRules {
            default: StoredRules::All, "each connection goes on";
            restart: true;
        }
        /// The age from which a session is stored. Most sessions are short, and a client repeats
        /// them.
        min_age: Duration {
            default: Duration::from_secs(2), "most sessions are shorter";
            bounds: Duration::ZERO..=Duration::from_secs(3_600);
            restart: true;
        }
        /// The age from which the record of a session that has moved on is written again.
        refresh: Duration {
            default: Duration::from_secs(10), "an old record is good enough to resume from";
            bounds: Duration::from_millis(100)..=Duration::from_secs(3_600);
            restart: true;
        }
        /// The bytes after which the record of a session is written again earlier.
        refresh_bytes: u64 {
            default: 64 << 20, "a quarter of the largest distance of TCP's windows";
            bounds: 64 << 10..=256 << 20;
            unit: "bytes";
            restart: true;
        }
        /// The time for which the store keeps a record longer than the session lives.
        ttl_margin: Duration {
            default: Duration::from_secs(60), "clocks and refreshes differ";
            bounds: Duration::from_secs(1)..=Duration::from_secs(3_600);
            restart: true;
        }
        /// The most records that are written at once.
        pipeline: usize {
            default: 256, "a store answers as many in 1 ms";
            bounds: 1..=4_096;
            unit: "records";
            restart: true;
        }
        /// The number of records that may wait to be written; further ones are counted and lost,
        /// and written at a later round.
        queue: usize {
            default: 16_384, "some 5 MB";
            bounds: 64..=1 << 20;
            unit: "records";
            restart: true;
        }
    }
}

impl StoreSettings {
    /// Returns whether there is a store.
    pub(crate) const fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// Adds what is wrong with the section to the document.
    pub(super) fn check(&self, document: &mut Document<'_>) {
        for url in &self.url {
            if let Some(why) = url_error(url, self.cluster) {
                document.refuse("store.url", &[], &why);
            }
        }
        if self.url.len() > 1 && !self.cluster {
            let why = "several URLs are nodes of a cluster: `store.cluster` is not set";
            document.refuse("store.url", &["store.cluster"], why);
        }
        if self.is_on() && self.group_key_file.is_none() {
            let why = "records need the key of the group: `store.group_key_file` is not set";
            document.refuse("store.url", &["store.group_key_file"], why);
        }
        if !values::is_log_field(&self.group) || self.group.contains(':') {
            let why = format!("{:?} is not 1 to 64 letters, digits and `-_.`", self.group);
            document.refuse("store.group", &[], &why);
        }
    }
}
