//! The scalar types of the standard library and of policies.
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::bound::Bound;
use super::notation::{duration, quoted};
use super::scalar::{Scalar, Wrong};
use crate::config::text::similar;
use crate::policy::{IcmpType, PortRange, Protocol};

macro_rules! numbers {
    ($($name:ty),*) => {
        $(impl Bound for $name {
            fn show(&self) -> String {
                self.to_string()
            }

            fn is_zero(&self) -> bool {
                *self == 0
            }

            fn is_largest(&self) -> bool {
                *self == Self::MAX
            }
        }

        impl Scalar for $name {
            type Bound = Self;

            const EXPECTED: &'static str = "a whole number";

            fn kind() -> String {
                "number".to_owned()
            }

            fn from_text(text: &str) -> Result<Self, Wrong> {
                Err(format!("`{text}` is a string: write a whole number, not in quotes").into())
            }

            fn from_integer(number: i64) -> Result<Self, Wrong> {
                Self::try_from(number).map_err(|_| Wrong::OutOfBounds {
                    value: number.to_string(),
                    bounds: format!("0 to {}", Self::MAX),
                })
            }

            fn written(&self) -> String {
                self.to_string()
            }

            fn measured(&self) -> Option<Self> {
                Some(*self)
            }
        })*
    };
}

numbers!(u8, u16, u32, u64, usize);

impl Scalar for bool {
    type Bound = ();

    const EXPECTED: &'static str = "`true` or `false`";

    fn from_boolean(value: bool) -> Result<Self, Wrong> {
        Ok(value)
    }

    fn written(&self) -> String {
        self.to_string()
    }
}

impl Scalar for Duration {
    type Bound = Self;

    const EXPECTED: &'static str = "a duration such as \"30s\", or whole seconds";

    fn kind() -> String {
        "duration".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        humantime::parse_duration(text).map_err(|error| {
            format!("`{text}` is not a duration such as \"2h 4m\" or \"500ms\": {error}").into()
        })
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        u64::try_from(number)
            .map(Self::from_secs)
            .map_err(|_| format!("a duration cannot be negative: {number}").into())
    }

    fn written(&self) -> String {
        quoted(duration(*self))
    }

    fn measured(&self) -> Option<Self> {
        Some(*self)
    }
}

impl Scalar for IpNet {
    type Bound = ();

    const EXPECTED: &'static str = "an address or a prefix such as \"10.0.0.0/8\"";

    fn kind() -> String {
        "prefix".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(Self::from))
            .map_err(|_| {
                format!("`{text}` is not an address or a prefix such as \"10.0.0.0/8\"").into()
            })
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        Err(format!("{number} is not an address or a prefix such as \"10.0.0.0/8\"").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

impl Scalar for Ipv4Addr {
    type Bound = ();

    const EXPECTED: &'static str = "an IPv4 address";

    fn kind() -> String {
        "IPv4 address".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse()
            .map_err(|_| format!("`{text}` is not an IPv4 address").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

impl Scalar for Protocol {
    type Bound = ();

    const EXPECTED: &'static str = "a protocol's name or number";

    fn kind() -> String {
        "protocol".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(Wrong::Other)
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        u8::try_from(number)
            .map(Self)
            .map_err(|_| format!("{number} is not a protocol: a number from 0 to 255").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

impl Scalar for PortRange {
    type Bound = ();

    const EXPECTED: &'static str = "a port or a range of ports such as \"8000-8999\"";

    fn kind() -> String {
        "port or range of ports".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(Wrong::Other)
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        u16::try_from(number)
            .map(Self::single)
            .map_err(|_| format!("{number} is not a port (0 to 65535)").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

impl Scalar for IcmpType {
    type Bound = ();

    const EXPECTED: &'static str = "an ICMP type's name or number";

    fn kind() -> String {
        "ICMP type".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|error: String| {
            let name = text.split_once('/').map_or(text, |(name, _)| name);
            match similar(name, Self::names()).filter(|meant| meant != name) {
                Some(meant) => Wrong::Other(format!("{error}; did you mean `{meant}`?")),
                None => Wrong::Other(error),
            }
        })
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        u8::try_from(number)
            .map(Self::number)
            .map_err(|_| format!("{number} is not an ICMP type: a number from 0 to 255").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

impl Scalar for String {
    type Bound = ();

    const EXPECTED: &'static str = "a string";

    fn kind() -> String {
        "string".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        Ok(text.to_owned())
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        Err(format!("a name is a string: write \"{number}\"").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

impl Scalar for PathBuf {
    type Bound = ();

    const EXPECTED: &'static str = "a path in quotes";

    fn kind() -> String {
        "path".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        Ok(text.into())
    }

    fn written(&self) -> String {
        quoted(self.display())
    }
}
