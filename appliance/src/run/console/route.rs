//! Addresses of the pages.

use form_urlencoded::{byte_serialize, parse};

use crate::run::protocol::SortKey;

/// Longest filter, in bytes.
const MAX_FILTER: usize = 1_000;

/// Page of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Overview,
    Talkers(SortKey),
    Zones(SortKey),
    Rules,
    /// Sessions that a filter line selects, in an order.
    Sessions {
        filter: String,
        sort: SortKey,
    },
    /// Session with a number.
    Session(u64),
    Asymmetry,
    Health,
}

/// File beside the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asset {
    Style,
    Script,
    Icon,
}

/// Part of the console that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A page; with `is_part`, only the part of it that changes.
    Page {
        route: Route,
        is_part: bool,
    },
    Asset(Asset),
}

/// Orders of sessions and groups with their names in an address.
pub(super) const SORTS: [(SortKey, &str); 6] = [
    (SortKey::Rate, "rate"),
    (SortKey::PacketRate, "packet_rate"),
    (SortKey::Bytes, "bytes"),
    (SortKey::Packets, "packets"),
    (SortKey::Age, "age"),
    (SortKey::Sessions, "sessions"),
];

fn sort_name(sort: SortKey) -> &'static str {
    let known = SORTS.iter().find(|(key, _)| *key == sort);
    known.map_or("rate", |(_, name)| *name)
}

/// Parameters of an address.
struct Parameters {
    filter: String,
    sort: SortKey,
    is_part: bool,
}

impl Parameters {
    /// Reads the parameters. Unknown ones are ignored, and `None` is returned if one is invalid.
    fn read(query: &str) -> Option<Self> {
        let mut read = Self {
            filter: String::new(),
            sort: SortKey::Rate,
            is_part: false,
        };
        for (name, value) in parse(query.as_bytes()) {
            match &*name {
                "q" if value.len() <= MAX_FILTER => read.filter = value.trim().to_owned(),
                "q" => return None,
                "sort" => read.sort = SORTS.iter().find(|(_, name)| *name == value)?.0,
                "part" => read.is_part = true,
                _ => {}
            }
        }
        Some(read)
    }
}

impl Target {
    /// Returns the part of the console that a path and its query name, if there is one.
    pub(super) fn of(path: &str, query: &str) -> Option<Self> {
        let asset = match path {
            "/console.css" => Some(Asset::Style),
            "/console.js" => Some(Asset::Script),
            "/icon.svg" => Some(Asset::Icon),
            _ => None,
        };
        if let Some(asset) = asset {
            return Some(Self::Asset(asset));
        }
        let Parameters {
            filter,
            sort,
            is_part,
        } = Parameters::read(query)?;
        let route = match path {
            "/" => Route::Overview,
            "/talkers" => Route::Talkers(sort),
            "/zones" => Route::Zones(sort),
            "/rules" => Route::Rules,
            "/sessions" if sort == SortKey::Sessions => return None,
            "/sessions" => Route::Sessions { filter, sort },
            "/asymmetry" => Route::Asymmetry,
            "/health" => Route::Health,
            _ => Route::Session(path.strip_prefix("/sessions/")?.parse().ok()?),
        };
        Some(Self::Page { route, is_part })
    }
}

impl Route {
    /// Returns the path of the page in the navigation.
    pub(super) const fn path(&self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Talkers(_) => "/talkers",
            Self::Zones(_) => "/zones",
            Self::Rules => "/rules",
            Self::Sessions { .. } | Self::Session(_) => "/sessions",
            Self::Asymmetry => "/asymmetry",
            Self::Health => "/health",
        }
    }

    /// Returns the address of the page.
    pub(super) fn address(&self) -> String {
        let path = self.path();
        match self {
            Self::Talkers(sort) | Self::Zones(sort) => format!("{path}?sort={}", sort_name(*sort)),
            Self::Sessions { filter, sort } => {
                let filter: String = byte_serialize(filter.as_bytes()).collect();
                format!("{path}?q={filter}&sort={}", sort_name(*sort))
            }
            Self::Session(number) => format!("{path}/{number}"),
            _ => path.to_owned(),
        }
    }

    /// Returns the page in another order.
    pub(super) fn sorted(&self, sort: SortKey) -> Self {
        match self {
            Self::Talkers(_) => Self::Talkers(sort),
            Self::Zones(_) => Self::Zones(sort),
            Self::Sessions { filter, .. } => Self::Sessions {
                filter: filter.clone(),
                sort,
            },
            other => other.clone(),
        }
    }

    /// Returns the sessions that a word of the filter and its value select.
    pub(super) fn sessions_of(word: &str, value: &str) -> Self {
        let quoted = shlex::try_quote(value).unwrap_or_default();
        Self::Sessions {
            filter: format!("{word} {quoted}"),
            sort: SortKey::Rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::filter_args::FilterArgs;
    use crate::run::protocol::FilterSpec;

    fn page(path: &str, query: &str) -> Option<Route> {
        match Target::of(path, query)? {
            Target::Page { route, .. } => Some(route),
            Target::Asset(_) => None,
        }
    }

    #[test]
    fn the_address_of_a_page_names_it() {
        let routes = [
            Route::Overview,
            Route::Talkers(SortKey::Sessions),
            Route::Zones(SortKey::PacketRate),
            Route::Rules,
            Route::sessions_of("rule", "a b & <script> 100% + 'c'"),
            Route::Session(u64::MAX),
            Route::Asymmetry,
            Route::Health,
        ];
        for route in routes {
            let address = route.address();
            let (path, query) = address.split_once('?').unwrap_or((&address, ""));
            assert_eq!(page(path, query), Some(route), "{address}");
        }
    }

    #[test]
    fn a_name_in_a_link_is_one_value_of_the_filter() {
        for name in ["it's \"a\" $(rule) --zone b", "-web", "--zone=blue"] {
            let Route::Sessions { filter, .. } = Route::sessions_of("rule", name) else {
                panic!("sessions")
            };
            let read = FilterArgs::from_line(&filter).unwrap();
            assert_eq!(FilterSpec::from(&read).rule.unwrap(), name);
        }
    }

    #[test]
    fn other_addresses_name_nothing() {
        for path in [
            "",
            "/x",
            "/sessions/",
            "/sessions/x",
            "/sessions/1/2",
            "/sessions/-1",
            "//",
        ] {
            assert_eq!(Target::of(path, ""), None, "{path}");
        }
        assert_eq!(page("/talkers", "sort=color"), None);
        assert_eq!(page("/sessions", "sort=sessions"), None);
        assert_eq!(page("/sessions", &format!("q={}", "x".repeat(2_000))), None);
        let part = Target::of("/", "part=1&other=2");
        assert!(matches!(part, Some(Target::Page { is_part: true, .. })));
    }
}
