//! How single values are read from TOML and written back.
use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::{FragmentsConfig, TableConfig};
use crate::policy::{IcmpType, PortRange, Protocol};

/// A value that is written as a string, an integer or either.
pub(super) trait Scalar: Sized {
    /// What the value is, for the message about another type.
    const EXPECTED: &'static str;

    fn from_text(text: &str) -> Result<Self, String>;

    fn from_integer(number: i64) -> Result<Self, String>;
}

impl Scalar for Duration {
    const EXPECTED: &'static str = "a duration such as \"30s\", or whole seconds";

    fn from_text(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map_err(|error| format!("`{text}` is no duration such as \"2h 4m\" or \"500ms\": {error}"))
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        u64::try_from(number)
            .map(Self::from_secs)
            .map_err(|_| format!("a duration cannot be negative: {number}"))
    }
}

impl Scalar for IpNet {
    const EXPECTED: &'static str = "an address or a prefix such as \"10.0.0.0/8\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(Self::from))
            .map_err(|_| format!("`{text}` is no address or prefix such as \"10.0.0.0/8\""))
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        Err(format!("{number} is no address or prefix such as \"10.0.0.0/8\""))
    }
}

impl Scalar for Ipv4Addr {
    const EXPECTED: &'static str = "an IPv4 address";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is no IPv4 address"))
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        Err(format!("{number} is no IPv4 address"))
    }
}

impl Scalar for Protocol {
    const EXPECTED: &'static str = "a protocol's name or number";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        u8::try_from(number)
            .map(Self)
            .map_err(|_| format!("{number} is no protocol: a number from 0 to 255"))
    }
}

impl Scalar for PortRange {
    const EXPECTED: &'static str = "a port or a range of ports such as \"8000-8999\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        u16::try_from(number)
            .map(Self::single)
            .map_err(|_| format!("{number} is no port (0 to 65535)"))
    }
}

impl Scalar for IcmpType {
    const EXPECTED: &'static str = "an ICMP type's name or number";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        u8::try_from(number)
            .map(Self::number)
            .map_err(|_| format!("{number} is no ICMP type: a number from 0 to 255"))
    }
}

impl Scalar for String {
    const EXPECTED: &'static str = "a name";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        Err(format!("a name is a string: write \"{number}\""))
    }
}

/// A number in `[zones]`.
pub(super) struct ZoneNumber(pub(super) u16);

impl Scalar for ZoneNumber {
    const EXPECTED: &'static str = "a zone's number, 0 to 65535";

    fn from_text(text: &str) -> Result<Self, String> {
        Err(format!(
            "`{text}` is no number of a zone: 0 to 65535, not in quotes"
        ))
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        u16::try_from(number)
            .map(Self)
            .map_err(|_| format!("{number} is out of bounds: 0 to 65535"))
    }
}

/// A count of 32 bits. The bounds of its key are checked later; `MAX`, the upper one, is only for the message about
/// what does not fit in 32 bits.
struct Count<const MAX: u32>(u32);

impl<const MAX: u32> Scalar for Count<MAX> {
    const EXPECTED: &'static str = "a whole number";

    fn from_text(text: &str) -> Result<Self, String> {
        Err(format!(
            "`{text}` is a string: write a whole number, not in quotes"
        ))
    }

    fn from_integer(number: i64) -> Result<Self, String> {
        u32::try_from(number)
            .map(Self)
            .map_err(|_| format!("{number} is out of bounds: 1 to {MAX}"))
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::from_integer(number).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<'de, T: Scalar> DeserializeSeed<'de> for ScalarVisitor<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A list of values, or one value in place of a list of one.
struct ListVisitor<T> {
    /// Is `[]` a list?
    empty: bool,
    item: PhantomData<T>,
}

impl<'de, T: Scalar> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list of such", T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        ScalarVisitor(PhantomData)
            .visit_str(text)
            .map(|value| vec![value])
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<T>, E> {
        ScalarVisitor(PhantomData)
            .visit_i64(number)
            .map(|value| vec![value])
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<T>, E> {
        ScalarVisitor(PhantomData)
            .visit_u64(number)
            .map(|value| vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(ScalarVisitor(PhantomData))? {
            values.push(value);
        }
        if values.is_empty() && !self.empty {
            return Err(A::Error::custom(
                "an empty list matches nothing: leave the key out to match anything",
            ));
        }
        Ok(values)
    }
}

pub(super) fn scalar<'de, D: Deserializer<'de>, T: Scalar>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(ScalarVisitor(PhantomData))
}

pub(super) fn optional<'de, D: Deserializer<'de>, T: Scalar>(deserializer: D) -> Result<Option<T>, D::Error> {
    scalar(deserializer).map(Some)
}

pub(super) fn list<'de, D: Deserializer<'de>, T: Scalar>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(ListVisitor {
        empty: false,
        item: PhantomData,
    })
}

pub(super) fn list_or_empty<'de, D: Deserializer<'de>, T: Scalar>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(ListVisitor {
        empty: true,
        item: PhantomData,
    })
}

pub(super) fn sessions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    scalar(deserializer).map(|Count::<{ TableConfig::MAX_SESSIONS }>(number)| number)
}

pub(super) fn datagrams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    scalar(deserializer).map(|Count::<{ FragmentsConfig::MAX_DATAGRAMS }>(number)| number)
}

pub(super) fn held<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    scalar(deserializer).map(|Count::<{ FragmentsConfig::MAX_HELD }>(number)| number)
}

pub(super) fn shards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    scalar(deserializer).map(|Count::<{ TableConfig::MAX_SHARDS }>(number)| Some(number))
}

/// A duration as it is written in TOML, without quotes: days and below, so that it is exact.
pub(super) fn duration(value: Duration) -> String {
    let millis = value.as_millis();
    if Duration::from_millis(millis as u64) != value {
        return humantime::format_duration(value).to_string();
    }
    let parts = [
        (millis / 86_400_000, "d"),
        (millis / 3_600_000 % 24, "h"),
        (millis / 60_000 % 60, "m"),
        (millis / 1_000 % 60, "s"),
        (millis % 1_000, "ms"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// A string as it is written in TOML.
pub(super) fn quoted(value: impl fmt::Display) -> String {
    format!("\"{value}\"")
}

/// A list of strings as it is written in TOML.
pub(super) fn quoted_list<T: fmt::Display>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", values.join(", "))
}
