//! Every value in force of a configuration, and its notation in TOML.
use super::declare::{Printer, Table, Value};
use super::geneve::GeneveConfig;
use super::origin::{EffectiveValue, Origin};
use super::{Config, DEFAULT_ZONE};

impl Config {
    /// Returns every value in force with its origin: all settings, zones, lifetimes, overrides and,
    /// in order, rules.
    ///
    /// ```
    /// use portcullis::config::Config;
    ///
    /// let config = Config::from_toml("[gwlb]\ntcp_idle = 400", "portcullis.toml")?;
    /// let values: Vec<String> = config.effective().iter().map(ToString::to_string).collect();
    /// assert!(values.contains(&"gwlb.tcp_idle = \"6m 40s\"  # line 2".to_owned()));
    /// assert!(values.contains(&"lifetimes.icmp = \"30s\"  # default: Linux".to_owned()));
    /// # Ok::<(), portcullis::config::ConfigError>(())
    /// ```
    pub fn effective(&self) -> Vec<EffectiveValue> {
        self.print(&Self::default(), Printer::new(&self.provenance))
    }

    /// Returns the keys of the engine that only a start can change, with their values in force.
    pub(super) fn restart_values(&self) -> Vec<(String, String)> {
        let printer = Printer::of_restart_keys(&self.provenance);
        let values = self.print(&Self::default(), printer).into_iter();
        // The front end checks its own keys.
        let values = values.filter(|each| !each.key.starts_with("geneve."));
        values.map(|each| (each.key, each.value)).collect()
    }

    fn print(&self, default: &Self, mut printer: Printer<'_>) -> Vec<EffectiveValue> {
        self.visit(default, &mut printer);
        let mut values = printer.into_values();
        // The default zone is a value of its own once it is named: named zones have shares.
        if self.zones.contains_key(DEFAULT_ZONE)
            && let Some(named) = values.iter_mut().find(|each| each.key == DEFAULT_ZONE_KEY)
        {
            named.is_default = false;
            if matches!(named.origin, Origin::Default { .. }) {
                named.origin = Origin::File { line: None };
            }
        }
        // Keys that are not set and whose value depends on others.
        let unknown = self.geneve.unknown_zone().unwrap_or(GeneveConfig::REFUSE);
        for (key, value) in [
            ("table.shards", self.table.shards_in_force().to_string()),
            ("geneve.unknown_endpoints", unknown.to_owned().toml()),
            (
                "geneve.required",
                self.geneve.required_in_force().to_vec().toml(),
            ),
        ] {
            if let Some(unset) = values
                .iter_mut()
                .find(|each| each.key == key && each.value.is_empty())
            {
                unset.value = value;
            }
        }
        values
    }
}

/// The key of the default zone.
const DEFAULT_ZONE_KEY: &str = "zones.default";

/// Returns values as TOML, with their origins as comments. Reading it gives the same configuration.
///
/// Lifetimes that are not set, and the default zone if it is not named, are comments: as settings
/// they would change overrides, other lifetimes and the shares of zones.
///
/// ```
/// use portcullis::config::{Config, effective_toml};
///
/// let config = Config::from_toml("[table]\nmax_sessions = 5000", "portcullis.toml")?;
/// let printed = effective_toml(&config.effective());
/// assert!(printed.contains("table.max_sessions = 5000  # line 2\n"));
/// let again = Config::from_toml(&printed, "printed.toml")?;
/// assert_eq!(again.table.max_sessions, 5000);
/// # Ok::<(), portcullis::config::ConfigError>(())
/// ```
#[must_use]
pub fn effective_toml(values: &[EffectiveValue]) -> String {
    let mut text = String::new();
    let mut list = None;
    for value in values {
        // An array of tables is one value.
        let of_list = value
            .key
            .strip_suffix(']')
            .and_then(|key| key.rsplit_once('['));
        let name = of_list.map(|(name, _)| name);
        if list != name {
            if list.is_some() {
                text.push_str("]\n");
            }
            if let Some(name) = name {
                text.push_str(&format!("{name} = [\n"));
            }
            list = name;
        }
        match name {
            Some(_) => text.push_str(&format!("  {},  # {}\n", value.value, value.origin)),
            None if is_comment(value) => text.push_str(&format!("# {value}\n")),
            None => text.push_str(&format!("{value}\n")),
        }
    }
    if list.is_some() {
        text.push_str("]\n");
    }
    text
}

/// Returns whether a value in force must not be written as a setting.
fn is_comment(value: &EffectiveValue) -> bool {
    let is_set = matches!(value.origin, Origin::File { .. });
    let is_lifetime = value.key.starts_with("lifetimes.");
    !is_set && !value.value.is_empty() && (is_lifetime || value.key == DEFAULT_ZONE_KEY)
}
