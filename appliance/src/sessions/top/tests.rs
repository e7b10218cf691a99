//! The view without a terminal: keys, answers, and screens of many sizes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::input::Key;
use super::look::{Look, Rows};
use super::state::{App, Mode};
use super::theme::Theme;
use super::update::{Effect, Input, update};
use super::view::draw;
use crate::run::protocol::{GroupKey, GroupView, ListingRequest, SortKey, StatsView};
use crate::run::view::ListedSession;

/// Time of the screens, in seconds since the Unix epoch.
const NOW: f64 = 1_800_000_000.0;

fn session(number: u64, more: &Value) -> ListedSession {
    let mut row = json!({
        "id": number, "uid": format!("8c1f03a2b4d5e6f7-{number:x}"),
        "duration": 60.0 * number as f64,
        "zone": "default", "proto": "tcp",
        "src": format!("10.0.0.{number}"), "sport": 40_000 + number,
        "dst": "192.0.2.80", "dport": 443,
        "state": "ESTABLISHED", "history": "ShAD", "conn_state": "S1",
        "orig_pkts": 10 * number, "orig_ip_bytes": 1_000 * number,
        "resp_pkts": 20 * number, "resp_ip_bytes": 20_000 * number,
        "start": NOW - 60.0 * number as f64, "last": NOW, "rule": "web", "parent": null,
        "adopted": false, "resumed": false, "bypassed": false,
        "assured": true, "left": 340.0,
        "rate": {"packets": 3_000.0 / number as f64, "bytes": 2_000_000.0 / number as f64},
    });
    let fields = row.as_object_mut().unwrap();
    for (name, value) in more.as_object().unwrap() {
        fields.insert(name.clone(), value.clone());
    }
    serde_json::from_value(row).unwrap()
}

fn sessions() -> Vec<ListedSession> {
    let mut rows: Vec<_> = (1..=6).map(|number| session(number, &json!({}))).collect();
    rows.push(session(
        7,
        &json!({
            "src": "2001:db8:0:1234:5678:9abc:def0:1", "dst": "2001:db8::53", "dport": 53,
            "proto": "udp", "state": "REPLIED", "rule": "dns", "zone": "blue",
        }),
    ));
    rows.push(session(
        8,
        &json!({"proto": "gre", "sport": null, "dport": null, "rate": null}),
    ));
    rows
}

fn groups() -> Vec<GroupView> {
    ["203.0.113.7", "10.0.0.1", "2001:db8::53", "other"]
        .iter()
        .zip(1..)
        .map(|(name, n)| {
            let row = json!({
                "name": name, "sessions": 4_000 / n, "packets": 70_000 / n,
                "bytes": 9_000_000 / n, "start": NOW - 7_000.0,
                "rate": {"packets": 900 / n, "bytes": 100_000 / n}, "joined": *name == "other",
            });
            serde_json::from_value(row).unwrap()
        })
        .collect()
}

/// A look at `seconds` after the start of the test.
fn look(app: &App, start: Instant, seconds: u64, rows: Rows) -> Input {
    let stats = StatsView {
        uptime: 3_600.0 + seconds as f64,
        sessions: 12_345,
        max_sessions: 1_048_576,
        sessions_opened: 100 * seconds,
        forwarded: vec![("established".to_owned(), 1_000 * seconds * seconds)],
        forwarded_bytes: 5_000_000 * seconds,
        dropped: vec![("policy_denied".to_owned(), 40 * (seconds / 3) * seconds)],
        ..StatsView::default()
    };
    Input::Look(Box::new(Look {
        at: start + Duration::from_secs(seconds),
        request: app.request(),
        rows,
        found: 12_000,
        note: None,
        stats,
    }))
}

/// A view after 24 looks.
fn app_with(request: &ListingRequest, rows: &Rows) -> App {
    let mut app = App::new(request, "dst 192.0.2.0/24".to_owned());
    let start = Instant::now();
    for seconds in 0..24 {
        let input = look(&app, start, seconds, rows.clone());
        assert_eq!(update(&mut app, input), Effect::None);
    }
    app
}

fn app() -> App {
    app_with(&ListingRequest::default(), &Rows::Sessions(sessions()))
}

fn app_of_groups() -> App {
    let request = ListingRequest {
        group: Some(GroupKey::Source),
        ..ListingRequest::default()
    };
    app_with(&request, &Rows::Groups(groups()))
}

fn press(app: &mut App, keys: &[Key]) -> Effect {
    let mut effect = Effect::None;
    for key in keys {
        effect = update(app, Input::Key(*key));
    }
    effect
}

fn letters(app: &mut App, text: &str) {
    for letter in text.chars() {
        update(app, Input::Key(Key::Character(letter)));
    }
}

fn screen(app: &App, width: u16, height: u16, theme: Theme) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, theme, NOW)).unwrap();
    terminal
}

/// The screen as lines without spaces at their ends.
fn text(app: &App, width: u16, height: u16) -> String {
    let terminal = screen(app, width, height, Theme::new(true));
    let buffer = terminal.backend().buffer();
    let width = usize::from(width).max(1);
    let lines = buffer.content.chunks(width).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

fn target(app: &App) -> u64 {
    app.target().unwrap().id
}

#[test]
fn screens_are_those_of_the_files() {
    let mut detail = app();
    press(&mut detail, &[Key::Down, Key::Enter]);
    let lines = (1..=5).map(|n| format!("line {n} of the explanation"));
    let lines = lines.collect();
    update(&mut detail, Input::Explained { id: 2, lines });
    let mut confirm = app();
    press(&mut confirm, &[Key::Character('k')]);
    let mut help = app();
    press(&mut help, &[Key::Character('?')]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sessions/top/screens");
    for (name, app, width, height) in [
        ("sessions-80x24", app(), 80, 24),
        ("sessions-200x50", app(), 200, 50),
        ("groups-80x24", app_of_groups(), 80, 24),
        ("groups-200x50", app_of_groups(), 200, 50),
        ("detail-80x24", detail, 80, 24),
        ("confirm-80x24", confirm, 80, 24),
        ("help-80x24", help, 80, 24),
    ] {
        let shown = text(&app, width, height);
        let file = folder.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &shown).unwrap();
        }
        let wanted = std::fs::read_to_string(&file).unwrap();
        assert_eq!(shown, wanted, "{name}: UPDATE=1 writes it");
    }
}

#[test]
fn keys_sort_and_group() {
    let mut app = app();
    for (key, sort) in [
        ('p', SortKey::PacketRate),
        ('b', SortKey::Bytes),
        ('c', SortKey::Packets),
        ('a', SortKey::Age),
        ('r', SortKey::Rate),
    ] {
        app.is_due = false;
        letters(&mut app, &key.to_string());
        assert_eq!(app.request().sort, Some(sort));
        assert!(app.is_due, "{key}: another look is wanted");
    }
    letters(&mut app, "n");
    assert_eq!(app.sort, SortKey::Rate);
    assert!(app.message.as_ref().is_some_and(|message| message.is_error));
    letters(&mut app, "3n");
    assert_eq!(
        (app.group, app.sort),
        (Some(GroupKey::Port), SortKey::Sessions)
    );
    let groupings = [
        Some(GroupKey::Rule),
        Some(GroupKey::Zone),
        None,
        Some(GroupKey::Source),
    ];
    for group in groupings {
        letters(&mut app, "g");
        assert_eq!(app.request().group, group);
    }
    assert_eq!(
        app.sort,
        SortKey::Rate,
        "sessions are not sorted by their number"
    );
}

#[test]
fn a_look_for_other_rows_is_not_shown() {
    let mut app = app();
    let input = look(&app, Instant::now(), 1, Rows::Sessions(Vec::new()));
    letters(&mut app, "b");
    app.is_due = false;
    update(&mut app, input);
    assert_eq!(app.rows(), 8);
    assert!(app.is_due);
}

#[test]
fn the_cursor_follows_its_session_but_stays_on_the_first_row() {
    let mut app = app();
    let mut rows = sessions();
    let start = Instant::now();
    rows.reverse();
    let input = look(&app, start, 30, Rows::Sessions(rows.clone()));
    update(&mut app, input);
    assert_eq!((app.cursor(), target(&app)), (0, 8));
    press(&mut app, &[Key::Down, Key::Down]);
    assert_eq!(target(&app), 6);
    rows.reverse();
    let input = look(&app, start, 31, Rows::Sessions(rows.clone()));
    update(&mut app, input);
    assert_eq!((app.cursor(), target(&app)), (5, 6));
    rows.truncate(2);
    let input = look(&app, start, 32, Rows::Sessions(rows));
    update(&mut app, input);
    assert_eq!(app.cursor(), 1);
    let input = look(&app, start, 33, Rows::Sessions(Vec::new()));
    update(&mut app, input);
    assert_eq!((app.cursor(), app.target()), (0, None));
    assert_eq!(press(&mut app, &[Key::Enter]), Effect::None);
    assert_eq!(app.mode, Mode::List);
}

#[test]
fn a_session_ends_only_after_a_confirmation() {
    let mut app = app();
    for no in [
        Key::Character('n'),
        Key::Escape,
        Key::Enter,
        Key::Character('k'),
    ] {
        assert_eq!(press(&mut app, &[Key::Character('k'), no]), Effect::None);
        assert_eq!(app.mode, Mode::List);
    }
    let keys = [Key::Down, Key::Character('k'), Key::Character('y')];
    assert_eq!(press(&mut app, &keys), Effect::End(2));
    app.is_due = false;
    update(&mut app, Input::Ended { id: 2, count: 1 });
    assert!(app.is_due && !app.message.as_ref().unwrap().is_error);
    update(&mut app, Input::Ended { id: 2, count: 0 });
    assert!(app.message.as_ref().unwrap().is_error);
    // The session of the dialog ends, even if another one is at the cursor meanwhile.
    press(&mut app, &[Key::Home, Key::Character('k')]);
    let input = look(
        &app,
        Instant::now(),
        40,
        Rows::Sessions(sessions().split_off(4)),
    );
    update(&mut app, input);
    assert_eq!(press(&mut app, &[Key::Character('y')]), Effect::End(1));
    let mut groups = app_of_groups();
    assert_eq!(
        press(&mut groups, &[Key::Character('k'), Key::Character('y')]),
        Effect::None
    );
}

#[test]
fn a_session_is_explained_until_the_dialog_closes() {
    let mut app = app();
    assert_eq!(press(&mut app, &[Key::Enter]), Effect::Explain(1));
    let lines: Vec<_> = (0..30).map(|n| format!("line {n}")).collect();
    update(
        &mut app,
        Input::Explained {
            id: 9,
            lines: vec!["another".to_owned()],
        },
    );
    update(&mut app, Input::Explained { id: 1, lines });
    press(&mut app, &[Key::PageDown, Key::Down]);
    let shown = text(&app, 80, 12);
    assert!(
        shown.contains("line 11") && !shown.contains("line 9 "),
        "{shown}"
    );
    assert_eq!(press(&mut app, &[Key::Character('i')]), Effect::Explain(1));
    press(&mut app, &[Key::Escape]);
    assert_eq!(app.mode, Mode::List);
    press(&mut app, &[Key::Enter]);
    update(&mut app, Input::Failed("there is no session 1".to_owned()));
    assert_eq!(app.mode, Mode::List);
}

#[test]
fn the_filter_is_edited_in_the_words_of_the_options() {
    let mut app = app();
    press(&mut app, &[Key::Character('/'), Key::Control('u')]);
    letters(&mut app, "q src 10.0.0.0/8");
    press(&mut app, &[Key::Enter]);
    assert!(matches!(app.mode, Mode::Filter(_)), "`q` is no option");
    assert!(app.message.as_ref().is_some_and(|message| message.is_error));
    press(&mut app, &[Key::Control('u')]);
    letters(&mut app, "src 10.0.0.0/8 min-bytes 5");
    press(&mut app, &[Key::Enter]);
    assert_eq!(app.mode, Mode::List);
    let filter = app.request().filter;
    assert_eq!(
        (filter.src, filter.min_bytes),
        (vec!["10.0.0.0/8".to_owned()], Some(5))
    );
    press(
        &mut app,
        &[Key::Character('/'), Key::Character('x'), Key::Escape],
    );
    assert_eq!(app.filter_line, "src 10.0.0.0/8 min-bytes 5");
}

#[test]
fn a_group_opens_its_sessions() {
    let mut app = app_of_groups();
    press(&mut app, &[Key::Enter]);
    assert_eq!(app.group, None);
    assert_eq!(app.filter_line, "dst 192.0.2.0/24 src 203.0.113.7");
    assert_eq!(app.request().filter.src, ["203.0.113.7"]);
    let mut other = app_of_groups();
    press(&mut other, &[Key::End, Key::Enter]);
    assert_eq!(other.group, Some(GroupKey::Source), "`other` is no group");
    for (group, name, words) in [
        (GroupKey::Port, "tcp/443", "protocol tcp port 443"),
        (GroupKey::Port, "gre", "protocol gre"),
        (GroupKey::Rule, "the web", "rule 'the web'"),
        (GroupKey::Zone, "blue", "zone blue"),
        (GroupKey::Destination, "192.0.2.1", "dst 192.0.2.1"),
    ] {
        let mut rows = groups();
        name.clone_into(&mut rows[0].name);
        let request = ListingRequest {
            group: Some(group),
            ..ListingRequest::default()
        };
        let mut app = app_with(&request, &Rows::Groups(rows));
        press(&mut app, &[Key::Enter]);
        assert_eq!(app.filter_line, format!("dst 192.0.2.0/24 {words}"));
    }
}

#[test]
fn a_paused_view_asks_for_no_looks() {
    let interval = Duration::from_secs(5);
    let mut app = App::new(&ListingRequest::default(), String::new());
    assert_eq!(app.pause(interval), Some(Duration::ZERO), "the first look");
    app.is_due = false;
    let mut rows = sessions();
    rows.iter_mut().for_each(|row| row.rate = None);
    let input = look(&app, Instant::now(), 0, Rows::Sessions(rows));
    update(&mut app, input);
    assert!(app.pause(interval).unwrap() < interval, "it had no rates");
    letters(&mut app, " ");
    assert_eq!(app.pause(interval), None);
    assert!(text(&app, 80, 24).contains("PAUSED"));
    letters(&mut app, " ");
    assert_eq!(app.pause(interval), Some(Duration::ZERO));
}

#[test]
fn no_color_means_no_color() {
    let has_colors = |theme| {
        let mut app = app();
        letters(&mut app, "k");
        let terminal = screen(&app, 100, 30, theme);
        let cells = &terminal.backend().buffer().content;
        cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(has_colors(Theme::new(true)));
    assert!(!has_colors(Theme::new(false)));
}

/// Keys, among them every letter with a meaning.
fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        prop::sample::select(
            "rpbcangkyiqfh/ ?012345xé\u{200b}界"
                .chars()
                .collect::<Vec<_>>()
        )
        .prop_map(Key::Character),
        prop::sample::select(vec![
            Key::Enter,
            Key::Escape,
            Key::Backspace,
            Key::Delete,
            Key::Up,
            Key::Down,
            Key::Left,
            Key::Right,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Help,
            Key::Control('u'),
            Key::Control('w'),
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_size_and_no_key_makes_it_panic(
        keys in prop::collection::vec((any_key(), 0_u8..4, 0_u16..250, 0_u16..70), 1..40),
    ) {
        let mut app = App::new(&ListingRequest::default(), String::new());
        let start = Instant::now();
        for (turn, (key, answer, width, height)) in (0..).zip(keys) {
            update(&mut app, Input::Key(key));
            let rows = match (app.group, answer) {
                (_, 0) => None,
                (None, n) => Some(Rows::Sessions(sessions().split_off(usize::from(n)))),
                (Some(_), 1) => Some(Rows::Groups(Vec::new())),
                (Some(_), _) => Some(Rows::Groups(groups())),
            };
            if let Some(rows) = rows {
                let input = look(&app, start, turn, rows);
                update(&mut app, input);
            }
            if let Mode::Detail(detail) = &app.mode {
                let id = detail.target.id;
                let lines = (0..turn).map(|n| "word ".repeat(n as usize)).collect();
                update(&mut app, Input::Explained { id, lines });
            }
            screen(&app, width, height, Theme::new(true));
        }
    }
}

#[test]
fn the_schema_is_up_to_date_with_the_line_like_every_page() {
    crate::schema::check::<super::lines::Row<'_>>("top");
}
