//! The web console from outside.

use std::os::unix::fs::PermissionsExt;

use super::*;

const TOKEN: &str = "0123456789abcdef-token";
const AUTHORIZED: &str = "Authorization: Bearer 0123456789abcdef-token\r\nConnection: close\r\n";
const CONSOLE: &str = "console.listen = \"127.0.0.1:0\"\nconsole.token_file = \"DIR/token\"\n";

/// All paths, and one that names nothing.
const PATHS: [&str; 14] = [
    "/",
    "/?part=1",
    "/talkers",
    "/talkers?sort=sessions",
    "/zones",
    "/rules",
    "/sessions",
    "/sessions?q=port+80",
    "/sessions/1",
    "/asymmetry",
    "/health",
    "/console.css",
    "/console.js",
    "/icon.svg",
];

fn start(more: &str) -> TestAppliance {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    TestAppliance::start_in(directory, &format!("{CONSOLE}{more}"))
}

impl TestAppliance {
    fn console(&self) -> SocketAddr {
        self.operations().addresses.console.unwrap()
    }

    /// Status and body of a page with the token.
    fn page(&self, path: &str) -> (u16, String) {
        let (head, body) = get_with(self.console(), path, AUTHORIZED);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }
}

/// Head of the answer to a request with a method.
fn head_of(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let wait = Some(Duration::from_secs(10));
    stream.set_read_timeout(wait).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

#[test]
fn nothing_is_answered_without_the_token() {
    let appliance = start("");
    appliance.connection(1, 1_000);
    let close = "Connection: close\r\n";
    for path in PATHS.into_iter().chain(["/nothing", "/favicon.ico", "*"]) {
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS"] {
            let head = head_of(appliance.console(), method, path, close);
            assert!(head.starts_with("HTTP/1.1 401 "), "{method} {path}: {head}");
            assert!(
                head.contains("www-authenticate: Basic realm=\"portcullis\""),
                "{head}"
            );
        }
        let (_, body) = get_with(appliance.console(), path, close);
        assert_eq!(
            body,
            "the token is needed, as the password of any user or as a bearer\n"
        );
    }
    appliance.finish();
}

#[test]
fn every_page_has_its_headers_and_nothing_but_reading_is_answered() {
    let appliance = start("");
    appliance.connection(1, 1_000);
    appliance.query(2, 1);
    for path in PATHS {
        let (head, body) = get_with(appliance.console(), path, AUTHORIZED);
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; \
             connect-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
             form-action 'self'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(header), "{path}: {header} in {head}");
        }
        assert!(
            !body.contains("style=\"") && !body.contains("http://1"),
            "{path}: {body}"
        );
    }
    for path in ["/nothing", "/sessions/x", "/talkers?sort=color"] {
        assert_eq!(appliance.page(path).0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let head = head_of(appliance.console(), method, "/", AUTHORIZED);
        assert!(
            head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET, HEAD"),
            "{head}"
        );
    }
    let head = head_of(appliance.console(), "HEAD", "/", AUTHORIZED);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let basic = "Authorization: Basic YWRtaW46MDEyMzQ1Njc4OWFiY2RlZi10b2tlbg==\r\n\
                 Connection: close\r\n";
    let head = head_of(appliance.console(), "GET", "/", basic);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    appliance.finish();
}

#[test]
fn sessions_rules_and_groups_are_shown() {
    let appliance = start("");
    appliance.connection(1, 1_000);
    appliance.query(2, 1);
    assert!(!appliance.packet(&udp(3, 4_000, 99), 0).is_forward());
    let (_, all) = appliance.page("/sessions");
    assert!(
        all.contains("10.0.0.1#1000") && all.contains("2 sessions<"),
        "{all}"
    );
    let (_, found) = appliance.page("/sessions?q=src+10.0.0.2");
    assert!(found.contains("1 session matches the filter"), "{found}");
    assert!(
        found.contains("10.0.0.2#4000") && !found.contains("10.0.0.1#1000"),
        "{found}"
    );
    let id = found.split("/sessions/").nth(1).unwrap();
    let id = id.split('"').next().unwrap();
    let (_, session) = appliance.page(&format!("/sessions/{id}"));
    assert!(
        session.contains("zone blue, udp 10.0.0.2#4000 -&gt; 192.0.2.1#53"),
        "{session}"
    );
    assert!(session.contains("by rule `dns`"), "{session}");
    let (_, gone) = appliance.page("/sessions/7");
    assert!(
        gone.contains("there is no session 7: it has ended"),
        "{gone}"
    );
    let (_, wrong) = appliance.page("/sessions?q=sorce+%3Ci%3E");
    assert!(
        wrong.contains("--sorce") && !wrong.contains("<i>"),
        "{wrong}"
    );
    let (_, talkers) = appliance.page("/talkers?sort=sessions");
    for name in [">10.0.0.1<", ">192.0.2.1<", ">tcp/80<", ">udp/53<"] {
        assert!(talkers.contains(name), "{name} in {talkers}");
    }
    assert!(appliance.page("/zones").1.contains(">blue<"));
    let (_, rules) = appliance.page("/rules");
    for name in [">web<", ">dns<", ">default<"] {
        assert!(rules.contains(name), "{name} in {rules}");
    }
    let (_, overview) = appliance.page("/");
    assert!(
        overview.contains("policy_deny") && overview.contains("<svg "),
        "{overview}"
    );
    appliance.finish();
}

#[test]
fn texts_of_the_configuration_and_of_requests_are_text() {
    let rule = "[[policy.rule]]\nname = \"x\"\naction = \"deny\"\n\
                comment = \"<script>alert(1)</script><img src=x>\"\n\
                protocol = \"tcp\"\ndestination_ports = [81]\n";
    let appliance = start(rule);
    let (_, rules) = appliance.page("/rules");
    assert!(
        rules.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{rules}"
    );
    assert!(
        !rules.contains("<script>") && !rules.contains("<img"),
        "{rules}"
    );
    let (_, search) = appliance.page("/sessions?q=%22%3E%3Cscript%3E");
    assert!(!search.contains("<script>"), "{search}");
    appliance.finish();
}

#[test]
fn wrong_tokens_are_counted_and_limited_and_idle_clients_delay_nobody() {
    let appliance = start("");
    let wrong = "Authorization: Bearer 0123456789abcdef-tokem\r\nConnection: close\r\n";
    // A slow machine regains attempts meanwhile.
    let mut examined = 0;
    let limited = loop {
        let head = head_of(appliance.console(), "GET", "/", wrong);
        if !head.starts_with("HTTP/1.1 401 ") || examined == 1_000 {
            break head;
        }
        examined += 1;
    };
    assert!(limited.starts_with("HTTP/1.1 429 "), "{limited}");
    assert!(examined >= 10, "{examined}");
    assert_eq!(appliance.page("/").0, 200, "the right token is admitted");
    let count = |outcome| {
        appliance.metric(&format!(
            "portcullis_console_requests_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(
        (count("wrong_token"), count("limited")),
        (f64::from(examined), 1.0)
    );
    let idle: Vec<_> = (0..200)
        .filter_map(|_| TcpStream::connect(appliance.console()).ok())
        .collect();
    let close = "Connection: close\r\n";
    for _ in 0..20 {
        let head = head_of(appliance.console(), "GET", "/", close);
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    }
    assert!(count("no_token") >= 20.0);
    let long = format!("X: {}\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(appliance.console()).unwrap();
    let _ = write!(
        stream,
        "GET / HTTP/1.1\r\nHost: test\r\n{AUTHORIZED}{long}\r\n"
    );
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    // The connection ends, with an answer about the length or without one.
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    drop(idle);
    appliance.finish();
}
