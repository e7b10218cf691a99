//! Dependencies between the modules of the appliance and of the simulator, and their measures.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(clippy::manual_strip, reason = "the checker scans a text by position")]
#[path = "../../tests/support/floors.rs"]
mod floors;
#[path = "../../tests/support/measures.rs"]
mod measures;

use std::path::Path;

use self::floors::{Source, circles, faults, read};
use self::measures::faults_below;

/// Floors of the appliance, the lowest first.
const FLOORS: &[&str] = &[
    // Shared by several commands.
    "output",
    "completions",
    "man",
    "counts",
    "figures",
    "schema",
    "memory",
    "five_tuple",
    "session_view",
    // Captures: values, fields and link layers, formats, and the reader.
    "capture::error",
    "capture::limits",
    "capture::order",
    "capture::window",
    "capture::compressed",
    "capture::offload",
    "capture::pad",
    "capture::pcapng_writer",
    "capture::writer",
    "capture::link::types",
    "capture::link::fields",
    "capture::link::ppp",
    "capture::link::ethernet",
    "capture::link::host",
    "capture::link::serial",
    "capture::link::wireless",
    "capture::link",
    "capture::located",
    "capture::tunnel",
    "capture::pcap",
    "capture::pcapng",
    "capture::reader",
    "capture",
    // The packet path of a running appliance.
    "run::supervise",
    "run::priority",
    "run::streak",
    "run::store::url",
    "run::settings",
    "run::counters",
    "run::sends",
    "run::overflow",
    "run::worker_stats",
    "run::socket",
    "run::inlet",
    "run::outlet",
    // AF_XDP beside the sockets.
    "run::xdp::state",
    "run::xdp::open",
    "run::xdp::rings",
    // The store as the packet path sees it.
    "run::store::address",
    "run::store::backoff",
    "run::store::change",
    "run::store::scripts",
    "run::store::envelope",
    "run::store::refusal",
    "run::store::link",
    "run::store::troubles",
    "run::store::state",
    "run::store::supervisor",
    "run::store::connecting",
    "run::store::marks",
    "run::store::kept",
    "run::store::writer",
    "run::store::asker",
    "run::store::handle",
    "run::store::retry",
    "run::store::hand_over",
    "run::store::view",
    // The stream of events as the packet path sees it.
    "run::observe::kind",
    "run::observe::shares",
    "run::observe::packet",
    "run::observe::event",
    "run::observe::dropped",
    "run::observe::filter",
    "run::event_queue",
    "run::observe::ring",
    "run::observe::switch",
    "run::observe::raw",
    "run::observe::tap",
    "run::shared",
    "run::event_sink",
    "run::worker",
    "run::xdp::start",
    "run::xdp",
    "run::overrides",
    "run::data_path",
    "run::store::answers",
    "run::store::sweeper",
    "run::store::threads",
    "run::store",
    // Modules that run beside the packet path, and the type that combines them.
    "config_file",
    "run::drain",
    "run::clients",
    "run::instance",
    "run::limits",
    "run::saved",
    "run::sharing",
    "run::http",
    "run::exposition",
    "run::reloads",
    "run::watch",
    "run::health",
    "run::service",
    "run::census",
    "run::checkpoint",
    "run::rates",
    "run::view",
    "run::observe::asymmetry",
    "run::observe::hub",
    "run::observe::row",
    "run::observe::spec",
    "run::appliance",
    "run::observe::stream",
    "run::observe",
    // Operations on a running appliance.
    "run::protocol",
    "run::filter_args",
    "run::audit",
    "run::reload",
    "run::signals",
    "run::control::exchange",
    "run::control::explain",
    "run::control::ranking",
    "run::control::groups",
    "run::control::listing",
    "run::control::readings",
    "run::control::answer",
    "run::control",
    // The console: its defenses, what it shows, and its pages.
    "run::console::counters",
    "run::console::gate",
    "run::console::tls",
    "run::console::samples",
    "run::console::chart",
    "run::console::route",
    "run::console::facts",
    "run::console::pages::parts",
    "run::console::pages::overview",
    "run::console::pages::groups",
    "run::console::pages::rules",
    "run::console::pages::sessions",
    "run::console::pages::asymmetry",
    "run::console::pages::health",
    "run::console::pages",
    "run::console::cache",
    "run::console",
    "run::log::counters",
    "run::log::batch",
    "run::log::datagrams",
    "run::log::stream",
    "run::log::formats::dropped",
    "run::log::formats::facts",
    "run::log::formats::zeek",
    "run::log::formats::eve",
    "run::log::formats::ecs",
    "run::log::formats::intervals",
    "run::log::formats::vpc",
    "run::log::formats::ipfix",
    "run::log::formats::json",
    "run::log::formats",
    "run::log::output",
    "run::log::syslog",
    "run::log::ipfix",
    "run::log::destination",
    "run::log::interim",
    "run::log",
    "run::metrics::families",
    "run::process",
    "run::metrics::readings",
    "run::metrics::engine",
    "run::metrics::appliance",
    "run::metrics::xdp",
    "run::metrics",
    "run::operations",
    "run",
    // The other commands.
    "check",
    "sessions::error",
    "sessions::client",
    "sessions::table",
    "sessions::json",
    "sessions::top::args",
    "sessions::top::look",
    "sessions::top::lines",
    "sessions::top::input",
    "sessions::top::columns",
    "sessions::top::theme",
    "sessions::top::state",
    "sessions::top::update",
    "sessions::top::dialogs",
    "sessions::top::view",
    "sessions::top::asker",
    "sessions::top::screen",
    "sessions::top",
    "sessions",
    "observe::args",
    "observe::error",
    "observe::packets",
    "observe::text",
    "observe",
    "bench::error",
    "bench::args",
    "bench::memory",
    "bench::rules",
    "bench::mix",
    "bench::worker",
    "bench::latency",
    "bench::report",
    "bench",
    "replay::clock",
    "replay::explain",
    "replay::notes",
    "replay::error",
    "replay::halves",
    "replay::rows",
    "replay::helper",
    "replay::talkers",
    "replay::lines",
    "replay::summary",
    "replay::columns",
    "replay::report",
    "replay::collector",
    "replay::judge",
    "replay",
    "simulate",
    "init",
    // The demo: programs and namespaces, the network, the traffic, and the story of all.
    "demo::error",
    "demo::stop",
    "demo::namespace",
    "demo::launch",
    "demo::child",
    "demo::workspace",
    "demo::readings",
    "demo::accept",
    "demo::relay",
    "demo::topology",
    "demo::content",
    "demo::ftp",
    "demo::services",
    "demo::visitors",
    "demo::fetch",
    "demo::packets",
    "demo::story",
    "demo::traffic",
    "demo::attack",
    "demo",
];

/// The sources without `main.rs`, which is above all floors.
fn appliance() -> Vec<Source> {
    let mut sources = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    sources.retain(|source| source.path != "main.rs");
    sources
}

#[test]
fn no_module_names_a_higher_floor() {
    assert_eq!(faults(&appliance(), FLOORS), Vec::<String>::new());
}

#[test]
fn no_modules_name_each_other_in_a_circle() {
    assert_eq!(circles(&appliance()), Vec::<String>::new());
}

#[test]
fn no_modules_of_the_simulator_name_each_other_in_a_circle() {
    let simulator = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulator/src"));
    assert_eq!(circles(&simulator), Vec::<String>::new());
}

#[test]
fn no_modules_of_xdp_name_each_other_in_a_circle() {
    let xdp = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdp/src"));
    assert_eq!(circles(&xdp), Vec::<String>::new());
}

#[test]
fn no_modules_of_the_c_interface_name_each_other_in_a_circle() {
    let capi = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../capi/src"));
    assert_eq!(circles(&capi), Vec::<String>::new());
}

#[test]
fn the_sources_keep_their_bounds() {
    let appliance = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = faults_below(&appliance.join("src"));
    faults.extend(faults_below(&appliance.join("../simulator/src")));
    faults.extend(faults_below(&appliance.join("../xdp")));
    faults.extend(faults_below(&appliance.join("../capi")));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    let mut faults = faults_below(&appliance.join("tests"));
    faults.retain(|fault| fault.ends_with(" columns"));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_module_names_an_item_of_the_root() {
    let is_module = |name: &str| {
        FLOORS
            .iter()
            .any(|floor| floor.split("::").next() == Some(name))
    };
    for Source { path, text } in appliance() {
        for named in text.split("crate::").skip(1) {
            let end = named.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &named[..end.unwrap_or(named.len())];
            assert!(is_module(name), "{path}: crate::{name}");
        }
    }
}
