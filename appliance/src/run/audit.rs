//! Lines in the appliance's own log about orders over the control socket: the client, the order and
//! its outcome.

use std::fmt;

use super::protocol::{Reply, Request};

/// The longest part of a line that a client or a file can fill, in characters.
const MAX_TEXT: usize = 400;

/// The process at the other end of the control socket, as the kernel named it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)
    }
}

/// Returns the order that is logged of a request, without its outcome; `None` if it only reads.
pub(super) fn order(request: &Request) -> Option<String> {
    Some(match request {
        Request::Delete { filter, all } => {
            let filter = serde_json::to_string(filter).unwrap_or_default();
            let all = if *all { " (all)" } else { "" };
            format!("delete {}{all}", one_line(&filter))
        }
        Request::Preview { name, text } => {
            format!("preview {:?}, {} bytes", one_line(name), text.len())
        }
        Request::Adopt { seconds } => format!("adopt for {seconds} s"),
        Request::Reload => "reload".to_owned(),
        Request::Import { expectations } => format!("import {} expectations", expectations.len()),
        Request::Observe(spec) if spec.snap.is_some() || spec.explain => {
            format!(
                "observe {}",
                one_line(&serde_json::to_string(spec).unwrap_or_default())
            )
        }
        Request::Asymmetry { clear: true } => "clear the report of asymmetric paths".to_owned(),
        Request::Sessions(_)
        | Request::Explain { .. }
        | Request::Rules
        | Request::Expectations
        | Request::Asymmetry { clear: false }
        | Request::Stats
        | Request::Store
        | Request::Observe(_)
        | Request::Health => return None,
    })
}

/// Returns the line about an order and the last line of its answer; `None` if the client has gone
/// before that.
pub(super) fn line(peer: Peer, order: &str, answer: Option<&Reply>) -> String {
    let outcome = match answer {
        Some(Reply::Error(error)) => format!("refused: {}", one_line(error)),
        Some(Reply::Done {
            text: Some(text), ..
        }) => one_line(text),
        Some(_) => "done".to_owned(),
        None => "the client disconnected before the end of its answer".to_owned(),
    };
    format!("control: {peer}: {order}: {outcome}")
}

/// Returns a text without control characters, cut where it is too long.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(MAX_TEXT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{FilterSpec, ListingRequest};
    use super::*;

    #[test]
    fn orders_are_logged_and_questions_are_not() {
        let filter = FilterSpec {
            src: vec!["10.0.0.1".to_owned()],
            ..FilterSpec::default()
        };
        let peer = Peer { uid: 1_000, pid: 7 };
        let text = "configuration\nwith \x1b[31mlines".to_owned();
        let done = |text: &str| Reply::Done {
            count: 1,
            text: Some(text.to_owned()),
        };
        for (request, answer, wanted) in [
            (
                Request::Delete { filter, all: false },
                Some(done("1 sessions ended")),
                "delete {\"src\":[\"10.0.0.1\"]}: 1 sessions ended",
            ),
            (
                Request::Delete {
                    filter: FilterSpec::default(),
                    all: true,
                },
                Some(done("9 sessions ended")),
                "delete {} (all): 9 sessions ended",
            ),
            (
                Request::Preview {
                    name: "a\nb".to_owned(),
                    text: text.clone(),
                },
                Some(Reply::Error(text)),
                "preview \"a b\", 29 bytes: refused: configuration with  [31mlines",
            ),
            (
                Request::Adopt { seconds: 60 },
                Some(done("x")),
                "adopt for 60 s: x",
            ),
            (
                Request::Reload,
                None,
                "reload: the client disconnected before the end of its answer",
            ),
            (
                Request::Asymmetry { clear: true },
                Some(Reply::Done {
                    count: 0,
                    text: None,
                }),
                "clear the report of asymmetric paths: done",
            ),
        ] {
            let order = order(&request).unwrap();
            assert_eq!(
                line(peer, &order, answer.as_ref()),
                format!("control: uid 1000, pid 7: {wanted}")
            );
        }
        for question in [
            Request::Stats,
            Request::Store,
            Request::Health,
            Request::Expectations,
            Request::Explain { id: 1 },
            Request::Asymmetry { clear: false },
            Request::Sessions(ListingRequest::default()),
        ] {
            assert_eq!(order(&question), None, "{question:?}");
        }
    }

    #[test]
    fn no_request_makes_a_long_line() {
        let filter = FilterSpec {
            id: (0..100_000).collect(),
            ..FilterSpec::default()
        };
        let order = order(&Request::Delete { filter, all: false }).unwrap();
        assert!(
            order.chars().count() < MAX_TEXT + 20 && order.ends_with("..."),
            "{order}"
        );
        let error = Reply::Error("\u{e9}".repeat(100_000));
        let line = line(Peer { uid: 0, pid: 1 }, "reload", Some(&error));
        assert!(line.chars().count() < MAX_TEXT + 60, "{line}");
    }
}
