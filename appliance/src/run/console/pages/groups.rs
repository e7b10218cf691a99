//! Sessions by source, destination, port and zone.

use maud::{Markup, html};

use super::parts::{Content, Head, Table, age, bar, count, rate, status};
use crate::figures::amount;
use crate::run::console::facts::{EndpointFacts, Facts, List};
use crate::run::console::route::Route;
use crate::run::protocol::{GroupKey, GroupView, SortKey};

/// Kinds of groups with their captions.
const TALKERS: [(GroupKey, &str); 3] = [
    (GroupKey::Source, "Sources"),
    (GroupKey::Destination, "Destinations"),
    (GroupKey::Port, "Ports of responders"),
];

/// Returns the page of the busiest hosts and ports.
pub(super) fn talkers(facts: &mut Facts<'_>, sort: SortKey) -> Content {
    let state = facts.status();
    let route = Route::Talkers(sort);
    let lists = facts.groups(TALKERS.map(|(key, _)| key), sort);
    let groups = TALKERS.iter().zip(&lists);
    Content {
        title: "Talkers".to_owned(),
        fixed: html! {},
        part: html! {
            (status(&state))
            div.columns.wide {
                @for ((key, caption), list) in groups {
                    (table(*key, caption, list, &route, sort))
                }
            }
        },
    }
}

/// Returns the page of zones and of the endpoints that belong to them.
pub(super) fn zones(facts: &mut Facts<'_>, sort: SortKey) -> Content {
    let state = facts.status();
    let [zones] = facts.groups([GroupKey::Zone], sort);
    let endpoints = facts.endpoints();
    Content {
        title: "Zones".to_owned(),
        fixed: html! {},
        part: html! {
            (status(&state))
            (table(GroupKey::Zone, "Zones with sessions", &zones, &Route::Zones(sort), sort))
            (endpoint_table(&endpoints))
        },
    }
}

/// Returns the sessions of a group.
fn sessions_of(key: GroupKey, group: &GroupView) -> Option<Route> {
    let name = group.name.as_str();
    let of = |word: &str| Some(Route::sessions_of(word, name));
    match key {
        // Groups without room have no common property.
        _ if group.joined => None,
        GroupKey::Source => of("src"),
        GroupKey::Destination => of("dst"),
        GroupKey::Rule => of("rule"),
        GroupKey::Zone => of("zone"),
        GroupKey::Port => match name.split_once('/') {
            Some((protocol, port)) => {
                let Route::Sessions { filter, sort } = Route::sessions_of("protocol", protocol)
                else {
                    return None;
                };
                Some(Route::Sessions {
                    filter: format!("{filter} port {port}"),
                    sort,
                })
            }
            None => of("protocol"),
        },
    }
}

/// Returns a table of groups.
fn table(
    key: GroupKey,
    caption: &str,
    list: &List<GroupView>,
    route: &Route,
    sort: SortKey,
) -> Markup {
    let heads = [
        Head::text(key.name()),
        Head::sorted("bytes/s", route, SortKey::Rate, sort),
        Head::text("share"),
        Head::sorted("packets/s", route, SortKey::PacketRate, sort),
        Head::sorted("sessions", route, SortKey::Sessions, sort),
        Head::sorted("bytes", route, SortKey::Bytes, sort),
        Head::sorted("packets", route, SortKey::Packets, sort),
        Head::sorted("oldest", route, SortKey::Age, sort),
    ];
    let value = |group: &GroupView| match sort {
        SortKey::Rate => group.rate.map_or(0.0, |rate| rate.bytes),
        SortKey::PacketRate => group.rate.map_or(0.0, |rate| rate.packets),
        SortKey::Sessions => group.sessions as f64,
        SortKey::Bytes => group.bytes as f64,
        SortKey::Packets => group.packets as f64,
        SortKey::Age => 0.0,
    };
    let most = list.rows.iter().map(value).fold(0.0, f64::max);
    let rows = html! {
        @for group in &list.rows {
            tr {
                th scope="row" {
                    @match sessions_of(key, group) {
                        Some(sessions) => a href=(sessions.address()) { (group.name) },
                        None => (group.name),
                    }
                }
                td.n { (rate(group.rate.map(|rate| rate.bytes))) }
                td.wide { (bar(value(group) / most)) }
                td.n { (rate(group.rate.map(|rate| rate.packets))) }
                td.n { (count(group.sessions)) }
                td.n { (amount(group.bytes as f64)) }
                td.n { (amount(group.packets as f64)) }
                td.n { (age(group.start)) }
            }
        }
    };
    let more = list.count.saturating_sub(list.rows.len() as u64);
    let more = (more > 0).then(|| format!("{} more", count(more)));
    let note: Vec<_> = more.into_iter().chain(list.note.clone()).collect();
    let note = note.join("; ");
    let table = Table {
        id: key.name(),
        caption,
        heads: &heads,
        note: (!note.is_empty()).then_some(&note),
    };
    table.with(&rows, list.rows.is_empty())
}

fn endpoint_table(endpoints: &[EndpointFacts]) -> Markup {
    let heads = [
        Head::text("endpoint"),
        Head::text("zone"),
        Head::number("received"),
        Head::number("bytes received"),
        Head::number("sent"),
        Head::number("bytes sent"),
    ];
    let rows = html! {
        @for each in endpoints {
            tr {
                th scope="row" { code { (each.name) } }
                td { (each.zone) }
                td.n { (count(each.received)) }
                td.n { (amount(each.received_bytes as f64)) }
                td.n { (count(each.sent)) }
                td.n { (amount(each.sent_bytes as f64)) }
            }
        }
    };
    let table = Table {
        id: "endpoints",
        caption: "Endpoints of load balancers",
        heads: &heads,
        note: None,
    };
    table.with(&rows, endpoints.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, joined: bool) -> GroupView {
        GroupView {
            name: name.to_owned(),
            joined,
            sessions: 3,
            packets: 4,
            bytes: 5,
            start: 0.0,
            partial: false,
            rate: None,
        }
    }

    fn filter_of(key: GroupKey, group: &GroupView) -> Option<String> {
        match sessions_of(key, group)? {
            Route::Sessions { filter, .. } => Some(filter),
            _ => None,
        }
    }

    #[test]
    fn names_are_text_and_lead_to_their_sessions() {
        let name = "<script>alert(1)</script>\" onload=\"x";
        let list = List {
            rows: vec![group(name, false)],
            count: 9,
            note: None,
        };
        let sort = SortKey::Rate;
        let page = table(GroupKey::Zone, "Zones", &list, &Route::Zones(sort), sort).into_string();
        assert!(
            !page.contains("<script") && !page.contains("\" onload"),
            "{page}"
        );
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
            "{page}"
        );
        assert!(
            page.contains("/sessions?q=zone+") && page.contains(">8 more<"),
            "{page}"
        );
    }

    #[test]
    fn a_port_selects_its_protocol_too() {
        let of = |name| filter_of(GroupKey::Port, &group(name, false)).unwrap();
        assert_eq!(of("tcp/443"), "protocol tcp port 443");
        assert_eq!(of("icmp"), "protocol icmp");
    }

    #[test]
    fn joined_groups_lead_nowhere_and_a_zone_of_their_name_does() {
        let of = |joined| filter_of(GroupKey::Zone, &group("other", joined));
        assert_eq!(of(false).unwrap(), "zone other");
        assert_eq!(of(true), None);
    }
}
