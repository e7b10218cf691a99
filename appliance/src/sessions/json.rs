//! Replies as lines of JSON: each the object itself, without the name of its kind.

use serde::Serialize;

use crate::run::protocol::Reply;
use crate::run::view::ListedSession;

/// Session that a reload would end.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct WouldEndRow<'r> {
    /// Reason for which the session would end.
    reason: &'r str,
    #[serde(flatten)]
    session: &'r ListedSession,
}

/// Line of a text for people.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct LineRow<'r> {
    line: &'r str,
}

/// Result of a command.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ResultRow<'r> {
    /// The number of things that were found or done.
    count: u64,
    /// The change, in words.
    text: &'r str,
}

/// Returns a reply as a line of JSON; `None` for one that only ends an answer.
///
/// # Errors
/// Returns an error if the reply cannot be written as JSON.
pub(super) fn line(reply: &Reply) -> Result<Option<String>, serde_json::Error> {
    let line = match reply {
        Reply::Session(session) => serde_json::to_string(session),
        Reply::Group(group) => serde_json::to_string(group),
        Reply::WouldEnd { reason, session } => {
            serde_json::to_string(&WouldEndRow { reason, session })
        }
        Reply::Line(line) => serde_json::to_string(&LineRow { line }),
        Reply::Expectation(expectation) => serde_json::to_string(expectation),
        Reply::Asymmetry(asymmetry) => serde_json::to_string(asymmetry),
        Reply::Stats(stats) => serde_json::to_string(stats),
        Reply::Rule(rule) => serde_json::to_string(rule),
        Reply::Store(store) => serde_json::to_string(store),
        Reply::Event(event) => serde_json::to_string(event),
        Reply::Done {
            count,
            text: Some(text),
        } => serde_json::to_string(&ResultRow {
            count: *count,
            text,
        }),
        Reply::Done { text: None, .. } | Reply::Pulse | Reply::Error(_) => return Ok(None),
    };
    line.map(Some)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use portcullis::event::{Expectation, SessionEnds};
    use portcullis::{Direction, Zone};
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::run::observe::row::EventRow;
    use crate::run::protocol::{AsymmetryView, GroupView, RuleView, StatsView};
    use crate::run::store::StoreView;
    use crate::schema;

    /// The fields of [`portcullis::event::Expectation`], for their schema.
    #[derive(JsonSchema, Deserialize)]
    #[schemars(rename = "Expectation")]
    #[expect(dead_code, reason = "the schema alone is used")]
    struct ExpectationFields {
        /// The session that has announced this one.
        parent: Ends,
        source: IpAddr,
        /// `null` for any port.
        source_port: Option<u16>,
        destination: SocketAddr,
        protocol: u8,
        /// `original` if the initiator of the parent initiates, `reply` if its responder does.
        direction: String,
        /// Rest of the lifetime in milliseconds.
        lifetime: u64,
    }

    /// The ends of a session.
    #[derive(JsonSchema, Deserialize)]
    #[expect(dead_code, reason = "the schema alone is used")]
    struct Ends {
        zone: u16,
        initiator: SocketAddr,
        responder: SocketAddr,
    }

    #[test]
    fn the_schemas_are_up_to_date_with_the_objects_like_every_page() {
        schema::check::<ListedSession>("session");
        schema::check::<GroupView>("group");
        schema::check::<WouldEndRow<'_>>("would_end");
        schema::check::<LineRow<'_>>("line");
        schema::check::<ExpectationFields>("expectation");
        schema::check::<AsymmetryView>("asymmetry");
        schema::check::<StatsView>("stats");
        schema::check::<RuleView>("rule");
        schema::check::<StoreView>("store");
        schema::check::<EventRow>("event");
        schema::check::<ResultRow<'_>>("result");
    }

    #[test]
    fn an_expectation_has_the_members_of_its_schema() {
        let ends = [1, 2].map(|host| SocketAddr::from(([192, 0, 2, host], 21)));
        let expectation = Expectation {
            parent: SessionEnds {
                zone: Zone::DEFAULT,
                initiator: ends[0],
                responder: ends[1],
            },
            source: ends[0].ip(),
            source_port: None,
            destination: ends[1],
            protocol: 6,
            direction: Direction::Original,
            lifetime: Duration::from_millis(1_500),
        };
        let text = line(&Reply::Expectation(expectation)).unwrap().unwrap();
        let object: Value = serde_json::from_str(&text).unwrap();
        let names = |object: &Value| -> Vec<String> {
            object.as_object().unwrap().keys().cloned().collect()
        };
        let schema = schemars::schema_for!(ExpectationFields).to_value();
        assert_eq!(names(&object), names(&schema["properties"]));
        assert_eq!(
            names(&object["parent"]),
            names(&schema["$defs"]["Ends"]["properties"])
        );
        let read: ExpectationFields = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(
            (read.lifetime, read.direction.as_str()),
            (1_500, "original")
        );
        assert_eq!(object["source_port"], Value::Null);
    }

    #[test]
    fn a_reply_is_its_object_and_an_end_without_words_is_no_line() {
        let stats = Reply::Stats(Box::default());
        let text = line(&stats).unwrap().unwrap();
        assert!(text.starts_with("{\"uptime\":0.0,"), "{text}");
        let text = line(&Reply::Line("rule web".to_owned())).unwrap();
        assert_eq!(text.as_deref(), Some(r#"{"line":"rule web"}"#));
        let done = |text: Option<&str>| {
            line(&Reply::Done {
                count: 2,
                text: text.map(str::to_owned),
            })
        };
        assert_eq!(done(None).unwrap(), None);
        let text = done(Some("2 sessions ended")).unwrap();
        assert_eq!(
            text.as_deref(),
            Some(r#"{"count":2,"text":"2 sessions ended"}"#)
        );
    }
}
