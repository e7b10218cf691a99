//! Names with counts as one object of JSON, in their order.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;

/// Writes names with counts as an object.
pub(crate) fn serialize<S: Serializer>(
    counts: &[(String, u64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(name, count)| (name, count)))
}

/// Reads names with counts from an object.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, u64)>, D::Error> {
    struct Counts;

    impl<'de> Visitor<'de> for Counts {
        type Value = Vec<(String, u64)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of counts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut counts = Vec::new();
            while let Some(entry) = map.next_entry()? {
                counts.push(entry);
            }
            Ok(counts)
        }
    }

    deserializer.deserialize_map(Counts)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        #[serde(with = "super")]
        dropped: Vec<(String, u64)>,
    }

    #[test]
    fn counts_are_an_object_and_keep_their_order() {
        let row = Row {
            dropped: vec![("zebra".to_owned(), 1), ("ant".to_owned(), 2)],
        };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"{"dropped":{"zebra":1,"ant":2}}"#);
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
