//! A configuration file with sections beyond the engine's.
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::declare::read::{Entries, Problem, Problems, update_keys};
use super::declare::reference::{SectionReference, sections};
use super::declare::{Checker, Item, Table};
use super::error::{
    ConfigError, ConfigErrorCause, ConfigErrors, Location, MAX_PROBLEMS, TextPlace,
};
use super::keys::{Lines, key_at, span_of};
use super::path::cut;
use super::{Config, Provenance};

/// A parsed file, from which a program takes its own sections before the engine reads the rest. All
/// errors are collected, and [`Self::finish`] returns them.
///
/// A program declares its sections with [`config_section!`](crate::config_section), or reads them
/// with serde:
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
    place: FileText<'a>,
    table: Spanned<DeTable<'a>>,
    provenance: Provenance,
    /// Sections that were taken, with their contents.
    taken: DeTable<'a>,
    /// Sections that do not belong to the engine.
    own: Vec<OwnSection>,
    errors: Vec<ConfigError>,
    /// Whether errors were left out.
    is_cut: bool,
}

impl<'a> Document<'a> {
    /// Parses a file as TOML, with any keys. `file_name` is only for messages; no file is opened.
    ///
    /// # Errors
    /// Text that is not TOML: each line that cannot be read, up to 100 of them.
    pub fn parse(text: &'a str, file_name: &'a str) -> Result<Self, ConfigErrors> {
        let place = FileText {
            file_name,
            text,
            lines: Lines::new(text),
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(first) => {
                let (table, errors) = DeTable::parse_recoverable(text);
                let is_cut = errors.len() > MAX_PROBLEMS;
                // The search for the key of an error walks the whole table.
                let errors = errors.iter().take(MAX_PROBLEMS);
                let errors = errors.map(|error| place.syntax(table.get_ref(), error));
                let errors = ConfigErrors::new(errors.collect(), is_cut);
                return Err(errors.unwrap_or_else(|| place.syntax(table.get_ref(), &first).into()));
            }
        };
        Ok(Self {
            provenance: Provenance::new(file_name, text, table.get_ref()),
            place,
            table,
            taken: DeTable::new(),
            own: Vec::new(),
            errors: Vec::new(),
            is_cut: false,
        })
    }

    /// Takes a section out of the file and reads it as a declared table. A key with an error gets
    /// its default, and [`Self::finish`] returns the error.
    pub fn section<T: Table>(&mut self, name: &str) -> T {
        let mut section = T::default();
        self.own.push(OwnSection {
            name: name.to_owned(),
            reference: sections::<T>,
        });
        let Some((key, item)) = self.table.get_mut().remove_entry(name) else {
            return section;
        };
        let mut problems = Problems::default();
        problems.within_key(name, |problems| {
            super::declare::read::update_table(&mut section, &Item(&item), problems);
        });
        self.taken.insert(key, item);
        let mut checker = Checker::new(&self.provenance);
        checker.table(name, &section);
        self.is_cut |= checker.is_cut() || problems.is_cut();
        for mut error in checker.into_errors() {
            self.place.complete(&self.taken, &mut error.location);
            self.errors.push(error);
        }
        let list = problems.list().iter();
        self.errors
            .extend(list.map(|problem| self.place.error(problem)));
        section
    }

    /// Takes sections (`server`), and keys of shared sections (`server.port`), out of the file.
    ///
    /// They are read as one value, whose fields are the sections. Sections that the file does not
    /// have are missing from the value.
    ///
    /// # Errors
    /// Returns the first error of `T`.
    pub fn take<T: DeserializeOwned>(&mut self, keys: &[&str]) -> Result<T, ConfigError> {
        let span = self.table.span();
        let mut own = DeTable::new();
        for key in keys {
            move_key(key, self.table.get_mut(), &mut own);
        }
        T::deserialize(Deserializer::from(Spanned::new(span, own.clone())))
            .map_err(|error| self.place.syntax(&own, &error))
    }

    /// Returns the location of a key, in the form that errors use.
    #[must_use]
    pub fn location(&self, key: &str) -> Location {
        let mut location = self.provenance.locate(key);
        self.place.complete(self.table.get_ref(), &mut location);
        if location.text.is_none() {
            self.place.complete(&self.taken, &mut location);
        }
        location
    }

    /// Adds the error of a key whose value does not fit other keys, which are in `depends_on`. Does
    /// nothing if one of those has an error, since its value in the file is unknown.
    pub fn refuse(&mut self, key: &str, depends_on: &[&str], why: &str) {
        let is_wrong = |error: &ConfigError| {
            let wrong = error.location.key.as_str();
            let mut rests = depends_on.iter().filter_map(|key| key.strip_prefix(wrong));
            rests.any(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.errors.iter().any(is_wrong) {
            return;
        }
        let error = ConfigError {
            location: self.location(key),
            cause: ConfigErrorCause::Syntax(why.to_owned()),
        };
        self.errors.push(error);
    }

    /// Reads the remaining sections as the engine's configuration.
    ///
    /// # Errors
    /// Returns the first error of those that [`Self::finish`] returns.
    pub fn config(self) -> Result<Config, ConfigError> {
        Ok(self.finish()?)
    }

    /// Reads the remaining sections as the engine's configuration, with all errors.
    ///
    /// # Errors
    /// Returns all errors of the file, including those of sections that were taken before: unknown
    /// keys, values of the wrong type, and all that [`Config::validate_all`] finds.
    pub fn finish(self) -> Result<Config, ConfigErrors> {
        let mut config = Config::default();
        let mut problems = Problems::default();
        let own: Vec<&str> = self.own.iter().map(|own| own.name.as_str()).collect();
        let entries = Entries {
            table: self.table.get_ref(),
            span: self.table.span(),
            others: &own,
        };
        update_keys(&mut config, &entries, &mut problems);
        config.provenance = self.provenance;
        let mut errors = self.errors;
        let found = config.errors();
        let is_cut = self.is_cut || found.is_cut || problems.is_cut();
        for mut error in found.list {
            if !follows(&error, problems.list()) {
                self.place
                    .complete(self.table.get_ref(), &mut error.location);
                errors.push(error);
            }
        }
        errors.extend(
            problems
                .list()
                .iter()
                .map(|problem| self.place.error(problem)),
        );
        name_other_sections(&mut errors, &self.own);
        match ConfigErrors::new(errors, is_cut) {
            Some(errors) => Err(errors),
            None => Ok(config),
        }
    }
}

/// A section that a program has taken.
#[derive(Debug)]
struct OwnSection {
    name: String,
    /// Returns the reference of the section at a path.
    reference: fn(&str) -> Vec<SectionReference>,
}

/// Adds the paths of keys of other sections to errors about unknown keys with their names.
fn name_other_sections(errors: &mut [ConfigError], own: &[OwnSection]) {
    let unknown = errors
        .iter_mut()
        .filter_map(|error| match &mut error.cause {
            ConfigErrorCause::UnknownKey(unknown) if unknown.similar.is_none() => Some(unknown),
            _ => None,
        });
    let mut unknown = unknown.peekable();
    if unknown.peek().is_none() {
        return;
    }
    let mut sections = Config::reference();
    sections.extend(own.iter().flat_map(|own| (own.reference)(&own.name)));
    // Tables in lists, and tables by name, have no path of their own.
    sections.retain(|section| !section.path.contains("[]") && !section.path.contains("NAME"));
    for unknown in unknown {
        let has_key = |section: &&SectionReference| {
            let mut keys = section.keys.iter();
            keys.any(|key| key.name == unknown.name && key.name != "NAME")
        };
        let mut found = sections.iter().filter(has_key);
        if let (Some(section), None) = (found.next(), found.next()) {
            unknown.similar = Some(format!("{}.{}", section.path, unknown.name));
        }
    }
}

/// Returns whether an error may follow from keys that could not be read. Such an error is in the
/// same item, or misses a name that such a key may define.
fn follows(error: &ConfigError, problems: &[Problem]) -> bool {
    let key = error.location.key.as_str();
    let names = match &error.cause {
        ConfigErrorCause::UnknownZone { .. } => ["zones", "zone_groups"],
        ConfigErrorCause::UnknownSet { .. } => ["address_sets", "service_sets"],
        ConfigErrorCause::UnknownRule(_) => ["policy.rule", ""],
        ConfigErrorCause::NoZonePrefixes(_) => ["ip.inside", "zones"],
        _ => ["", ""],
    };
    problems.iter().any(|problem| {
        let path = problem.path.as_str();
        let item = path
            .find(']')
            .and_then(|end| path.get(..=end))
            .unwrap_or(path);
        let is_same = key
            .strip_prefix(item)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let misses = |section: &&str| !section.is_empty() && path.starts_with(*section);
        // For example, an item of a list whose length is checked.
        let is_within = path
            .strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(['[', '.']));
        is_same || is_within || names.iter().any(misses)
    })
}

/// The text of a file, to locate errors in it.
#[derive(Debug)]
struct FileText<'a> {
    file_name: &'a str,
    text: &'a str,
    lines: Lines,
}

impl FileText<'_> {
    /// Adds the bytes of a key, and their column.
    fn complete(&self, table: &DeTable<'_>, location: &mut Location) {
        if let Some(span) = span_of(table, &location.key) {
            self.set_span(location, span);
        }
        let kept = cut(&location.key).len();
        location.key.truncate(kept);
    }

    fn set_span(&self, location: &mut Location, span: std::ops::Range<usize>) {
        location.line = Some(self.lines.line(span.start));
        location.text = Some(Box::new(TextPlace {
            column: self.lines.column(self.text, span.start),
            bytes: span,
        }));
    }

    fn error(&self, problem: &Problem) -> ConfigError {
        self.at(
            &problem.path,
            Some(problem.span.clone()),
            problem.cause.clone(),
        )
    }

    fn at(
        &self,
        key: &str,
        span: Option<std::ops::Range<usize>>,
        cause: ConfigErrorCause,
    ) -> ConfigError {
        let mut location = Location {
            file: Some(self.file_name.into()),
            key: key.to_owned(),
            ..Location::default()
        };
        if let Some(span) = span {
            self.set_span(&mut location, span);
        }
        ConfigError { location, cause }
    }

    fn syntax(&self, table: &DeTable<'_>, error: &toml::de::Error) -> ConfigError {
        let span = error.span();
        let key = span
            .as_ref()
            .and_then(|span| key_at(table, span))
            .unwrap_or_default();
        self.at(
            &key,
            span,
            ConfigErrorCause::Syntax(error.message().to_owned()),
        )
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
        let own = document
            .take(&["server"])
            .map_err(|error| error.to_string())?;
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
            assert_eq!(
                (own.server.port, config.table.max_sessions),
                (7, 5),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_after_and_in_a_taken_section_name_the_line_of_the_file() {
        let rest = both("[server]\nport = 7\n\n[table]\nmax_sessions = 0").unwrap_err();
        assert!(rest.starts_with("f:5: table.max_sessions: "), "{rest}");
        let unknown = both("[server]\nport = 7\n[nonsense]\n").unwrap_err();
        assert!(
            unknown.starts_with("f:3: nonsense: unknown key"),
            "{unknown}"
        );
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
    fn syntax_errors_are_bounded() {
        let text: String = (0..10_000).map(|line| format!("x{line} = = 1\n")).collect();
        let errors = Document::parse(&text, "f").unwrap_err();
        assert_eq!(errors.iter().count(), MAX_PROBLEMS);
        assert!(errors.may_have_more());
        assert!(errors.to_string().starts_with("f:1: "), "{errors}");
    }

    #[test]
    fn a_missing_section_is_missing() {
        assert_eq!(both("").unwrap().0.server.port, 0);
    }
}
