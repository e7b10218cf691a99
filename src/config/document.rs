//! A configuration file that holds more than the engine's sections.
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{ConfigError, ConfigErrorCause, Location};
use super::keys::locate_span;
use super::{Config, Provenance};

/// A parsed file, from which a program takes its own sections before the engine reads the rest. Errors of either name the
/// line and the key of the whole file.
///
/// ```
/// use portcullis::config::Document;
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Own {
///     server: Server,
/// }
/// #[derive(serde::Deserialize)]
/// struct Server {
///     port: u16,
/// }
///
/// let text = "[table]\nmax_sessions = 1000\n\n[server]\nport = 80\n";
/// let mut document = Document::parse(text, "example.toml")?;
/// let own: Own = document.take(&["server"])?;
/// assert_eq!(own.server.port, 80);
/// assert_eq!(document.config()?.table.max_sessions, 1000);
/// # Ok::<(), portcullis::config::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Document<'a> {
    file_name: &'a str,
    text: &'a str,
    provenance: Provenance,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Reads a file as TOML, whatever its keys are. `file_name` is only for messages; nothing is opened.
    ///
    /// # Errors
    /// Text that is not TOML.
    pub fn parse(text: &'a str, file_name: &'a str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self {
                file_name,
                text,
                provenance: Provenance::new(file_name, text, table.get_ref()),
                table,
            }),
            Err(error) => Err(syntax(text, file_name, &error)),
        }
    }

    /// Takes sections (`server`), and keys of sections that both have (`server.port`), out of the file, and reads them as one
    /// value, whose fields are the sections. Those that the file does not have are missing in it.
    ///
    /// # Errors
    /// What `T` finds wrong with them.
    pub fn take<T: DeserializeOwned>(&mut self, keys: &[&str]) -> Result<T, ConfigError> {
        let span = self.table.span();
        let mut own = DeTable::new();
        for key in keys {
            move_key(key, self.table.get_mut(), &mut own);
        }
        T::deserialize(Deserializer::from(Spanned::new(span, own)))
            .map_err(|error| syntax(self.text, self.file_name, &error))
    }

    /// The place of a key, as errors name it.
    #[must_use]
    pub fn location(&self, key: &str) -> Location {
        self.provenance.locate(key)
    }

    /// Returns the error of a key whose value does not fit the rest of the file.
    #[must_use]
    pub fn refused(&self, key: &str, why: &str) -> ConfigError {
        ConfigError {
            location: self.location(key),
            cause: ConfigErrorCause::Syntax(why.to_owned()),
        }
    }

    /// Reads what is left as the engine's configuration.
    ///
    /// # Errors
    /// As those of [`Config::from_toml`].
    pub fn config(self) -> Result<Config, ConfigError> {
        let mut config: Config = serde::Deserialize::deserialize(Deserializer::from(self.table))
            .map_err(|error| syntax(self.text, self.file_name, &error))?;
        config.provenance = self.provenance;
        config.validate()?;
        Ok(config)
    }
}

fn move_key<'a>(key: &str, from: &mut DeTable<'a>, to: &mut DeTable<'a>) {
    let Some((section, key)) = key.split_once('.') else {
        if let Some((key, value)) = from.remove_entry(key) {
            to.insert(key, value);
        }
        return;
    };
    let Some((name, mut value)) = from.remove_entry(section) else {
        return;
    };
    let span = value.span();
    if let DeValue::Table(from) = value.get_mut() {
        let empty = || Spanned::new(span, DeValue::Table(DeTable::new()));
        if let DeValue::Table(to) = to.entry(name.clone()).or_insert_with(empty).get_mut() {
            move_key(key, from, to);
        }
    }
    from.insert(name, value);
}

fn syntax(text: &str, file_name: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError {
        location: locate_span(file_name, text, error.span()),
        cause: ConfigErrorCause::Syntax(error.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Own {
        server: Server,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Server {
        port: u16,
    }

    fn both(text: &str) -> Result<(Own, Config), String> {
        let mut document = Document::parse(text, "f").map_err(|error| error.to_string())?;
        let own = document.take(&["server"]).map_err(|error| error.to_string())?;
        Ok((own, document.config().map_err(|error| error.to_string())?))
    }

    #[test]
    fn a_section_may_stand_anywhere_and_in_any_form() {
        for text in [
            "[server]\nport = 7\n[table]\nmax_sessions = 5\n",
            "table.max_sessions = 5\nserver.port = 7\n",
            "server = { port = 7 }\n[table]\nmax_sessions = 5\n",
            "[table]\nmax_sessions = 5\n[server]\n\"port\" = 7",
        ] {
            let (own, config) = both(text).unwrap();
            assert_eq!((own.server.port, config.table.max_sessions), (7, 5), "{text}");
        }
    }

    #[test]
    fn errors_behind_and_in_a_taken_section_name_the_line_of_the_file() {
        let rest = both("[server]\nport = 7\n\n[table]\nmax_sessions = 0").unwrap_err();
        assert!(rest.starts_with("f:5: table.max_sessions: "), "{rest}");
        let unknown = both("[server]\nport = 7\n[nonsense]\n").unwrap_err();
        assert!(unknown.starts_with("f:3: nonsense: unknown field"), "{unknown}");
        let own = both("[table]\n\n[server]\nport = \"x\"").unwrap_err();
        assert!(own.starts_with("f:4: server.port: invalid type"), "{own}");
        let unknown = both("[server]\nbort = 1").unwrap_err();
        assert!(
            unknown.starts_with("f:2: server.bort: unknown field"),
            "{unknown}"
        );
        let torn = both("[server\nport = 1").unwrap_err();
        assert!(torn.starts_with("f:1"), "{torn}");
    }

    #[test]
    fn a_section_of_two_readers_is_shared_by_its_keys() {
        let text = "[table]\nmax_sessions = 5\nport = 9\n";
        #[derive(serde::Deserialize)]
        struct Shared {
            table: Server,
        }
        let mut document = Document::parse(text, "f").unwrap();
        let own: Shared = document
            .take(&["table.port", "table.absent", "absent.port"])
            .unwrap();
        assert_eq!(own.table.port, 9);
        assert_eq!(document.config().unwrap().table.max_sessions, 5);
    }

    #[test]
    fn a_missing_section_is_missing() {
        assert_eq!(both("").unwrap().0.server.port, 0);
    }
}
