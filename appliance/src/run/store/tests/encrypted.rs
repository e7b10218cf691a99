//! Connections by TLS, with certificates that each test makes for itself.

use std::path::Path;
use std::process::{Command, Stdio};

use super::server::Server;
use super::*;

/// Makes a CA and a certificate of `localhost`; false if the system has no openssl.
fn make(directory: &Path) -> bool {
    std::fs::write(directory.join("names"), "subjectAltName=DNS:localhost").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for arguments in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 30"),
        format!("req -x509 {key} -keyout other.key -out other.pem -subj /CN=other -days 30"),
        format!("req {key} -keyout key.pem -out csr.pem -subj /CN=localhost"),
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 30 \
         -extfile names"
            .to_owned(),
    ] {
        let made = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match made {
            Ok(status) => assert!(status.success(), "openssl {arguments}"),
            Err(_) => {
                eprintln!("ignored: there is no openssl");
                return false;
            }
        }
    }
    true
}

#[test]
fn a_certificate_must_be_signed_by_the_ca_and_name_the_host() {
    let directory = tempfile::tempdir().unwrap();
    if !make(directory.path()) {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
        .to_string();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let options = [
        "--tls-port",
        &port,
        "--bind",
        "127.0.0.1",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let Some(_server) = Server::start(&options) else {
        return;
    };
    let threads = |host: &str, ca: &str| {
        let access = Access {
            ca: Some(std::fs::read(path(ca)).unwrap()),
            ..Access::default()
        };
        Threads::with(&format!("rediss://{host}:{port}"), 1, access, 64)
    };
    let one = threads("localhost", "ca.pem");
    one.put(7, 0, "record");
    one.await_count(Counted::Written, 1);
    assert_eq!(one.await_answer(7), record(1, 0, "record"));
    for (host, ca) in [("localhost", "other.pem"), ("127.0.0.1", "ca.pem")] {
        let wrong = threads(host, ca);
        assert_eq!(wrong.ask(7), Found::NoStore);
        assert_eq!(wrong.count(Counted::Connected), 0);
        assert!(wrong.count(Counted::Failed) > 0);
    }
}
