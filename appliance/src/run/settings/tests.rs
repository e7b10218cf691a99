//! Settings of the appliance, their errors, and what a reload keeps.
use super::*;

impl Settings {
    /// The values in force as `check` prints them, without their origins.
    fn lines_of(&self) -> Vec<String> {
        let values = self.effective(&Config::default()).into_iter();
        values
            .map(|value| format!("{} = {}", value.key, value.value))
            .collect()
    }
}

fn read(text: &str) -> Result<Settings, String> {
    let mut document = Document::parse(text, "f").map_err(|error| error.to_string())?;
    let settings = Settings::take(&mut document);
    document.finish().map_err(|error| error.to_string())?;
    Ok(settings)
}

#[test]
fn a_missing_key_has_its_default() {
    assert_eq!(read("[table]\nmax_sessions = 9"), Ok(Settings::default()));
    let some =
        read("[health]\nlisten = \"off\"\n[run]\ndrain = \"5s\"\ncontrol = \"off\"").unwrap();
    assert_eq!(some.health.listen, Listen(None));
    assert_eq!(
        (some.run.drain, some.run.control_path()),
        (Duration::from_secs(5), None)
    );
}

#[test]
fn a_checkpoint_is_not_refused_for_a_sessions_file_that_cannot_be_read() {
    let error = read("[run]\nsessions_file = 5\ncheckpoint = \"30s\"").unwrap_err();
    assert!(error.starts_with("f:2: run.sessions_file: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let error = read("[run]\ncheckpoint = \"30s\"").unwrap_err();
    assert!(error.starts_with("f:2: run.checkpoint: "), "{error}");
}

#[test]
fn the_argument_for_workers_has_the_bounds_of_the_key() {
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        _args: crate::run::RunArgs,
    }
    let most = RunSettings::MAX_WORKERS;
    for count in [0, 1, most] {
        assert!(
            Cli::try_parse_from(["run", "--workers", &count.to_string()]).is_ok(),
            "{count}"
        );
        assert!(
            read(&format!("[run]\nworkers = {count}")).is_ok(),
            "{count}"
        );
    }
    for count in [most + 1, u32::MAX] {
        let error = Cli::try_parse_from(["run", "--workers", &count.to_string()]).unwrap_err();
        assert!(
            error.to_string().contains(&format!("0..={most}")),
            "{error}"
        );
        assert!(
            read(&format!("[run]\nworkers = {count}")).is_err(),
            "{count}"
        );
    }
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    for (text, wanted) in [
        (
            "\n[health]\nlisten = \"80\"",
            "f:3: health.listen: `80` is not an address",
        ),
        (
            "[health]\nfull_table = 101",
            "f:2: health.full_table: 101 is out of bounds: 0 to 100",
        ),
        (
            "[health]\nstall = \"1ms\"",
            "f:2: health.stall: 1ms is out of bounds: 100ms to 5m",
        ),
        (
            "[health]\nfailed_reload = \"maybe\"",
            "f:2: health.failed_reload: unknown value `maybe`: expected one of `ignore`, \
             `unhealthy`",
        ),
        (
            "[health]\nsources = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
            "f:2: health.sources[1]: `10.0.0.0/33` is not an address or a prefix",
        ),
        (
            "[health]\nsources = 7",
            "f:2: health.sources: 7 is not an address or a prefix",
        ),
        (
            "[run]\nworkers = 257",
            "f:2: run.workers: 257 is out of bounds: 0 to 256",
        ),
        (
            "[run]\nreceive_queue = 1",
            "f:2: run.receive_queue: 1 is out of bounds: 65536 to 1073741824",
        ),
        (
            "[run]\ncoalesce = \"2ms\"",
            "f:2: run.coalesce: 2ms is out of bounds: 0s to 1ms",
        ),
        (
            "[run]\nqueue_delay = \"100us\"",
            "f:2: run.queue_delay: 100us is out of bounds: 0s or 1ms to 10s",
        ),
        (
            "[run]\nqueue_delay = \"11s\"",
            "f:2: run.queue_delay: 11s is out of bounds: 0s or 1ms to 10s",
        ),
        (
            "[run]\ndrain = \"soon\"",
            "f:2: run.drain: `soon` is not a duration",
        ),
        (
            "[run]\nsessions_file = \"s\"\ncheckpoint = \"10ms\"",
            "f:3: run.checkpoint: 10ms is out of bounds: 1s to 1d",
        ),
        (
            "[run]\nsessions_file = \"s\"\ncheckpoint = \"often\"",
            "f:3: run.checkpoint: `often` is not a duration",
        ),
        (
            "[run]\nsessions_file = \"s\"\ncheckpoint = true",
            "f:3: run.checkpoint: true is of the wrong type: expected a duration such as \"30s\", \
             or \"off\"",
        ),
        (
            "[run]\n\ncheckpoint = \"10s\"",
            "f:3: run.checkpoint: checkpoints are saved beside `run.sessions_file`, which is not \
             set",
        ),
        (
            "[run]\nmax_saved_age = 0",
            "f:2: run.max_saved_age: 0s is out of bounds: 1s to 30d",
        ),
        (
            "[log]\nformat = \"xml\"",
            "f:2: log.format: unknown value `xml`",
        ),
        (
            "[log]\ndenied = \"some\"",
            "f:2: log.denied: unknown value `some`: did you mean `none`?",
        ),
        ("[log]\nfile = \"x\"", "f:2: log.file: unknown key `file`"),
        (
            "[log]\naccount_id = \"1 2\"",
            "f:2: log.account_id: \"1 2\" is not 1 to 64 letters, digits",
        ),
        (
            "[log]\ninterface_id = \"\"",
            "f:2: log.interface_id: \"\" is not",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[test]
fn a_store_needs_a_key_and_urls_that_it_can_use() {
    let key = "group_key_file = \"/k\"\n";
    for (text, wanted) in [
        (
            "[store]\nurl = \"redis://a\"",
            "f:2: store.url: records need the key of the group: `store.group_key_file` is not set",
        ),
        (
            "[store]\nurl = \"http://a\"\ngroup_key_file = \"/k\"",
            "f:2: store.url: `http://a` is not a URL such as",
        ),
        (
            "[store]\nurl = [\"redis://a\", \"redis://b\"]\ngroup_key_file = \"/k\"",
            "f:2: store.url: several URLs are nodes of a cluster: `store.cluster` is not set",
        ),
        (
            "[store]\ngroup = \"a:b\"",
            "f:2: store.group: \"a:b\" is not 1 to 64 letters, digits and `-_.`",
        ),
        (
            "[store]\ngroup = \"{a}\"",
            "f:2: store.group: \"{a}\" is not 1 to 64 letters",
        ),
        (
            "[store]\nrefresh = \"10ms\"",
            "f:2: store.refresh: 10ms is out of bounds: 100ms to 1h",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
    }
    let text = format!("[store]\nurl = \"redis://a\"\n{key}");
    assert!(read(&text).unwrap().store.is_on());
    let (config, _) = crate::config_file::parse(&text, "f").unwrap();
    assert!(config.continuity.enabled, "the engine keeps what it needs");
    assert!(!Settings::default().store.is_on());
    assert_eq!(Settings::default().store.rules, StoredRules::All);
    let resilient = read(&format!("{text}\nrules = \"resilient\"")).unwrap();
    assert_eq!(resilient.store.rules, StoredRules::Resilient);
    let error = read(&format!("{text}\nrules = \"some\"")).unwrap_err();
    assert!(error.contains("store.rules"), "{error}");
}

#[test]
fn a_store_of_resilient_rules_without_one_is_a_warning() {
    let warning = |rules: &str, rule: &str| {
        let text = format!(
            "[store]\nurl = \"redis://a\"\ngroup_key_file = \"k\"\nrules = \"{rules}\"\n\
             [[policy.rule]]\nname = \"a\"\naction = \"allow\"\n{rule}"
        );
        let (config, settings) = crate::config_file::parse(&text, "f").unwrap();
        stored_rules_warning(&config, &settings.store)
    };
    let told = warning("resilient", "").unwrap();
    assert!(told.contains("no session is stored"), "{told}");
    assert_eq!(warning("resilient", "resilient = true"), None);
    assert_eq!(warning("all", ""), None);
}

#[test]
fn a_password_is_never_shown() {
    let settings = read("store.password = \"hunter2\"").unwrap();
    let shown = format!("{settings:?} {:?}", settings.lines_of());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("store.password = \\\"(hidden)\\\""),
        "{shown}"
    );
}

#[test]
fn every_setting_is_printed() {
    let lines = read("[log]\naccount_id = \"123456789012\"")
        .unwrap()
        .lines_of();
    for wanted in [
        "log.account_id = \"123456789012\"",
        "log.interface_id = \"-\"",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "no {wanted}");
    }
}

#[test]
fn checkpoints_are_off_or_have_an_interval() {
    let told = |text: &str| {
        let lines = read(text).unwrap().lines_of();
        let line = lines
            .into_iter()
            .find(|line| line.starts_with("run.checkpoint"));
        line.unwrap()
    };
    assert_eq!(told(""), "run.checkpoint = \"off\"");
    assert_eq!(told("run.checkpoint = \"off\""), "run.checkpoint = \"off\"");
    for (value, wanted) in [("\"30s\"", "30s"), ("90", "1m 30s")] {
        let text = format!("[run]\nsessions_file = \"s\"\ncheckpoint = {value}");
        assert_eq!(told(&text), format!("run.checkpoint = \"{wanted}\""));
    }
}

#[test]
fn sources_left_at_the_default_are_a_warning() {
    let warning = |text: &str| {
        let config = Document::parse(text, "f").unwrap().config().unwrap();
        sources_warning(&config)
    };
    assert!(warning("").unwrap().contains("is the default"));
    assert!(warning("geneve.sources = []").unwrap().contains("is empty"));
    assert_eq!(warning("geneve.sources = \"10.1.0.0/24\""), None);
}

#[test]
fn a_key_that_needs_a_start_keeps_its_running_value_and_is_named() {
    fn of(text: &str) -> Settings {
        read(text).unwrap()
    }
    let default = Settings::default();
    let mut settings = of("[health]\nstall = 9\nsources = \"10.0.0.1\"\n[run]\ndrain = 1");
    let new = settings.clone();
    assert_eq!(settings.keep_running(&default), [""; 0]);
    assert_eq!(settings, new);
    for (text, key) in [
        ("run.control = \"off\"", "run.control"),
        ("run.workers = 7", "run.workers"),
        ("run.pin = true", "run.pin"),
        ("run.receive_queue = 100_000", "run.receive_queue"),
        ("run.coalesce = \"10us\"", "run.coalesce"),
        ("run.queue_delay = \"5ms\"", "run.queue_delay"),
        ("health.listen = \"off\"", "health.listen"),
        ("health.tcp_listen = \"10.0.0.1:1\"", "health.tcp_listen"),
        ("metrics.listen = \"off\"", "metrics.listen"),
        ("log.output = \"stdout\"", "log.output"),
        ("log.format = \"aws_vpc_flow\"", "log.format"),
        ("log.sessions = \"marked\"", "log.sessions"),
        ("log.opened = true", "log.opened"),
        ("log.denied = \"all\"", "log.denied"),
        ("log.rotate_bytes = 5_000", "log.rotate_bytes"),
        ("log.keep = 9", "log.keep"),
        ("log.queue = 16", "log.queue"),
        ("log.account_id = \"1\"", "log.account_id"),
        ("log.interface_id = \"1\"", "log.interface_id"),
        ("store.group = \"blue\"", "store.group"),
        ("store.password = \"x\"", "store.password"),
        ("store.refresh = 20", "store.refresh"),
        ("store.queue = 100", "store.queue"),
    ] {
        let text = format!("{text}\nhealth.stall = 9");
        let mut settings = of(&text);
        assert_eq!(settings.keep_running(&default), [key]);
        let rest = of("health.stall = 9");
        assert_eq!(
            settings, rest,
            "{key}: its value is the running one, the rest is new"
        );
    }
    let text = format!("run.control = \"{DEFAULT_CONTROL}\"");
    let mut written = of(&text);
    assert_eq!(
        written.keep_running(&default),
        [""; 0],
        "the default, written out"
    );
}

#[test]
fn sources_are_addresses_and_prefixes_and_an_empty_list_is_every_address() {
    let settings = read("health.sources = [\"10.1.0.0/16\", \"2001:db8::1\"]").unwrap();
    let allows = |address: &str| settings.health.allows(address.parse().unwrap());
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
        assert!(allows(address), "{address}");
    }
    for address in ["10.2.0.1", "::ffff:10.2.0.1", "2001:db8::2"] {
        assert!(!allows(address), "{address}");
    }
    assert!(Settings::default().health.allows([192, 0, 2, 1].into()));
    let line = "health.sources = [\"10.1.0.0/16\", \"2001:db8::1/128\"]";
    assert!(
        settings.lines_of().iter().any(|each| each == line),
        "{:?}",
        settings.lines_of()
    );
}

#[test]
fn denied_sessions_of_marked_rules_are_logged_by_default() {
    let said = |text| {
        let settings = read(text).unwrap();
        let line = settings
            .lines_of()
            .into_iter()
            .find(|line| line.starts_with("log.denied"));
        (settings.log.denied, line.unwrap())
    };
    for (text, wanted, line) in [
        ("", LoggedDenied::Marked, "log.denied = \"marked\""),
        (
            "log.denied = \"none\"",
            LoggedDenied::None,
            "log.denied = \"none\"",
        ),
        (
            "log.denied = \"all\"",
            LoggedDenied::All,
            "log.denied = \"all\"",
        ),
    ] {
        assert_eq!(said(text), (wanted, line.to_owned()));
    }
}

#[test]
fn the_names_of_interfaces_are_bounded_and_are_no_paths() {
    let settings = read("run.io = \"af_xdp\"\nrun.interfaces = [\"ens5\", \"wire.7\"]").unwrap();
    assert_eq!(settings.run.io, Io::AfXdp);
    assert_eq!(settings.run.interfaces, ["ens5", "wire.7"]);
    for name in ["", "..", "a/b", "a b", "eth0:1", "a-name-of-16-byt"] {
        let error = read(&format!("run.interfaces = {name:?}")).unwrap_err();
        assert!(error.contains("is not the name of a network"), "{error}");
    }
    let many = vec!["ens5"; 17];
    let error = read(&format!("run.interfaces = {many:?}")).unwrap_err();
    assert!(error.contains("17 names are more than 16"), "{error}");
}

#[test]
fn a_console_needs_a_token_or_certificates_and_tls_beyond_this_host() {
    let refused = |text: &str| read(&format!("[console]\n{text}")).unwrap_err();
    for (text, wanted) in [
        (
            "listen = \"127.0.0.1:9682\"",
            "f:2: console.listen: every client would see every session: `console.token_file` or \
             `console.client_ca` must be set",
        ),
        (
            "listen = \"0.0.0.0:9682\"\ntoken_file = \"t\"",
            "f:2: console.listen: 0.0.0.0:9682 is not a loopback address, and the token would \
             cross the network unencrypted: `console.certificate` is not set",
        ),
        (
            "listen = \"[::1]:9682\"\ntoken_file = \"t\"\ncertificate = \"c\"",
            "f:4: console.certificate: a certificate needs its private key: `console.key` is not \
             set",
        ),
        (
            "listen = \"[::1]:9682\"\ntoken_file = \"t\"\nkey = \"k\"",
            "f:4: console.key: a private key is of no use without `console.certificate`",
        ),
        (
            "listen = \"[::1]:9682\"\nclient_ca = \"c\"",
            "f:3: console.client_ca: clients show certificates over TLS alone: \
             `console.certificate` is not set",
        ),
        (
            "listen = \"9682\"",
            "f:2: console.listen: `9682` is not an address",
        ),
        ("token = \"x\"", "f:2: console.token: unknown key `token`"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(wanted), "{error}");
    }
    for text in [
        "",
        "listen = \"off\"\nkey = \"k\"",
        "listen = \"127.0.0.1:9682\"\ntoken_file = \"t\"",
        "listen = \"[::ffff:127.0.0.1]:9682\"\ntoken_file = \"t\"",
        "listen = \"0.0.0.0:9682\"\ntoken_file = \"t\"\ncertificate = \"c\"\nkey = \"k\"",
        "listen = \"[::]:9682\"\nclient_ca = \"a\"\ncertificate = \"c\"\nkey = \"k\"",
    ] {
        assert!(read(&format!("[console]\n{text}")).is_ok(), "{text}");
    }
}
