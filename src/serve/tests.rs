//! What is served to whom, over real sockets.
#![expect(clippy::disallowed_methods, reason = "tests look at the socket's file")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::api::*;
use super::testing::{Daemon, Fake, check, hung};
use super::*;

/// Sends one request and returns status code, headers and body.
fn ask(mut stream: impl Read + Write, request: &str, body: &str) -> (u16, String, String) {
    let length = body.len();
    let head = format!("{request}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_lowercase(), body.to_owned())
}

fn tcp(daemon: &Daemon, line: &str) -> (u16, String, String) {
    let stream = TcpStream::connect(daemon.address).unwrap();
    ask(stream, &format!("{line} HTTP/1.1\r\nHost: localhost:9873"), "")
}

fn control(daemon: &Daemon, line: &str, body: &str) -> (u16, String, String) {
    let stream = UnixStream::connect(daemon.control()).unwrap();
    ask(stream, &format!("{line} HTTP/1.1\r\nHost: localhost"), body)
}

#[test]
fn each_scope_serves_its_own() {
    const TELLS_ALL: [&str; 3] = ["GET /metrics", "GET /healthz", "GET /readyz"];
    const API: [&str; 1] = ["GET /api/v1/status"];
    const COMMANDS: [&str; 5] = [
        "POST /api/v1/rescan",
        "POST /api/v1/confirm",
        "POST /api/v1/verify",
        "POST /api/v1/wait",
        "POST /api/v1/reload",
    ];
    for (scope, has_api) in
        [(Scope::Loopback, true), (Scope::Network, false), (Scope::NetworkWithApi, true)]
    {
        let daemon = Daemon::with_scope(Fake::default(), scope);
        for line in TELLS_ALL {
            assert_eq!(tcp(&daemon, line).0, 200, "{line} for {scope:?}");
        }
        for line in API {
            let expected = if has_api { 200 } else { 404 };
            assert_eq!(tcp(&daemon, line).0, expected, "{line} for {scope:?}");
        }
        for line in COMMANDS {
            let (code, _, body) = tcp(&daemon, line);
            assert_eq!(code, 404, "{line} for {scope:?}");
            assert!(body.contains("control socket only"), "{body}");
        }
        for line in TELLS_ALL.into_iter().chain(API) {
            assert_eq!(control(&daemon, line, "").0, 200, "{line}");
        }
        assert_eq!(daemon.service.asked(), Vec::<String>::new());
    }
}

#[test]
fn scope_follows_from_the_listener() {
    for (address, api, scope) in [
        ("127.0.0.1:1", false, Scope::Loopback),
        ("127.8.0.1:1", true, Scope::Loopback),
        ("[::1]:1", false, Scope::Loopback),
        ("[::ffff:127.0.0.1]:1", false, Scope::Loopback),
        ("0.0.0.0:1", false, Scope::Network),
        ("[::]:1", false, Scope::Network),
        ("192.168.1.108:1", false, Scope::Network),
        ("192.168.1.108:1", true, Scope::NetworkWithApi),
    ] {
        assert_eq!(Scope::of_listener(address.parse().unwrap(), api), scope, "{address} {api}");
    }
}

#[test]
fn a_browser_cannot_be_led_here_by_a_foreign_name() {
    let daemon = Daemon::start(Fake::default());
    for (host, code) in [
        ("localhost", 200),
        ("LOCALHOST:9873", 200),
        ("127.0.0.1:9873", 200),
        ("[::1]:9873", 200),
        ("evil.example", 403),
        ("localhost.evil.example:9873", 403),
        ("127.0.0.1.evil.example", 403),
    ] {
        let stream = TcpStream::connect(daemon.address).unwrap();
        let request = format!("GET /api/v1/status HTTP/1.1\r\nHost: {host}");
        assert_eq!(ask(stream, &request, "").0, code, "{host}");
    }
}

#[test]
fn metrics_in_the_format_asked_for() {
    let daemon = Daemon::start(Fake::default());
    let (_, head, body) = tcp(&daemon, "GET /metrics");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(!body.contains("# EOF"));

    let stream = TcpStream::connect(daemon.address).unwrap();
    let request =
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text; version=1.0.0";
    let (_, head, body) = ask(stream, request, "");
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"));
}

#[test]
fn unwell_is_503_with_reasons() {
    let mut service = Fake::default();
    service.status.health.healthy = false;
    service.status.health.reasons = vec!["recordings: the index cannot be written".into()];
    service.ready = Ready { ready: false, reasons: vec!["recordings is being scanned".into()] };
    let daemon = Daemon::start(service);

    let (code, _, body) = tcp(&daemon, "GET /healthz");
    let health: Health = serde_json::from_str(&body).unwrap();
    assert_eq!((code, health.reasons.len()), (503, 1));
    let (code, _, body) = tcp(&daemon, "GET /readyz");
    assert_eq!(code, 503);
    assert_eq!(body, r#"{"ready":false,"reasons":["recordings is being scanned"]}"#);
    assert!(!Client::new(&daemon.control()).health().unwrap().healthy);
}

#[test]
fn commands_reach_the_daemon() {
    let daemon = Daemon::start(Fake::default());
    for (line, body, code, answer) in [
        ("rescan", "", 200, r#"{"shares":["recordings","prompts"]}"#),
        ("rescan", r#"{"share":"prompts"}"#, 200, r#"{"shares":["prompts"]}"#),
        ("rescan", r#"{"share":"none"}"#, 404, r#"{"error":"there is no share none"}"#),
        ("confirm", r#"{"id":"1"}"#, 200, r#"{"message":"60 deletes go to fs2"}"#),
        ("confirm", r#"{"id":"1","reject":true}"#, 200, r#"{"message":"60 deletes go to fs2"}"#),
        ("reload", "", 200, r#"{"changes":[],"at_next_start":[]}"#),
    ] {
        let (got, _, text) = control(&daemon, &format!("POST /api/v1/{line}"), body);
        assert_eq!((got, text.as_str()), (code, answer), "{line} {body}");
    }
    for (line, body) in [
        ("rescan", r#"{"share":"../etc"}"#),
        ("rescan", r#"{"shares":"prompts"}"#),
        ("confirm", ""),
        ("verify", "{}"),
        ("verify", "not JSON"),
        ("wait", r#"{"path":{"path":"a"}}"#),
        ("wait", r#"{"path":{"path":"a"},"peer":"fs2","all_peers":true,"timeout_ms":1}"#),
    ] {
        let (code, _, text) = control(&daemon, &format!("POST /api/v1/{line}"), body);
        assert_eq!(code, 400, "{line} {body}: {text}");
        serde_json::from_str::<ErrorBody>(&text).unwrap();
    }
    assert_eq!(control(&daemon, "GET /api/v1/reload", "").0, 405);
    let long = format!("{{\"id\":\"{}\"}}", "1".repeat(100_000));
    assert_eq!(control(&daemon, "POST /api/v1/confirm", &long).0, 413);
    assert_eq!(
        daemon.service.asked(),
        [
            "rescan None",
            "rescan Some(prompts)",
            "rescan Some(none)",
            "Confirm 1",
            "Reject 1",
            "reload"
        ]
    );
}

#[test]
fn verify_report_is_as_the_contract_has_it() {
    let report = VerifyReport {
        consistent: false,
        checks: vec![VerifyCheck {
            differences: vec![Difference {
                path: "2026/11/22/a.wav".into(),
                kind: DifferenceKind::MissingOnPeer,
                local: Some(VerifySide {
                    size: 1,
                    mtime_ns: 1,
                    mode: 420,
                    owner: None,
                    hash: Some("ab".into()),
                }),
                peer: None,
            }],
            ..check()
        }],
    };
    let expected = r#"{"consistent": false, "checks": [{"share": "recordings", "peer": "fs2", "files": 120345,
        "bytes": 9182736455, "in_flight": 0, "seconds": 1.8, "differences": [{"path": "2026/11/22/a.wav",
        "kind": "missing_on_peer", "local": {"size": 1, "mtime_ns": 1, "mode": 420, "hash": "ab"}, "peer": null}]}]}"#;
    let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);

    let daemon = Daemon::start(Fake { verify: Ok(report.clone()), ..Fake::default() });
    let request = VerifyRequest { share: None, peer: Some("fs2".into()), timeout_ms: 1500 };
    let answer: VerifyReport =
        Client::new(&daemon.control()).post("/api/v1/verify", &request).unwrap();
    assert_eq!(answer, report);
    assert_eq!(daemon.service.asked(), ["Verify { share: None, peer: Some(fs2), timeout: 1.5s }"]);
}

#[test]
fn status_survives_the_wire() {
    let daemon = Daemon::start(Fake::default());
    let status: Status = Client::new(&daemon.control()).get("/api/v1/status").unwrap();
    assert_eq!(status, daemon.service.status);
}

#[test]
fn one_request_a_connection() {
    let daemon = Daemon::start(Fake::default());
    let mut stream = TcpStream::connect(daemon.address).unwrap();
    stream
        .write_all(
            b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\nGET /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_daemon() {
    let daemon = Daemon::start(Fake::default());
    let path = daemon.control();
    let meta = fs::symlink_metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    // Nothing but the socket is left in its directory.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept.sock");
    fs::hard_link(&path, &kept).unwrap();
    drop(daemon);
    let error = UnixStream::connect(&kept).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// Binds where `path` is and returns the error, if there is one.
fn bind(path: &std::path::Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _within = runtime.enter();
    ControlSocket::bind(path).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_dead_daemons_socket_is_replaced_a_living_ones_is_not() {
    let daemon = Daemon::start(Fake::default());
    let error = bind(&daemon.control()).unwrap_err();
    assert!(error.starts_with("another recsync daemon answers at "), "{error}");
    assert_eq!(control(&daemon, "GET /healthz", "").0, 200);

    let dir = tempfile::tempdir().unwrap();
    let (path, listener) = hung(dir.path());
    assert!(bind(&path).is_err(), "a daemon that hangs is alive");
    drop(listener);
    assert_eq!(bind(&path), Ok(()));
    assert!(!path.exists(), "its file goes with the socket");

    fs::write(&path, "precious").unwrap();
    let error = bind(&path).unwrap_err();
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_full_queue_is_life() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _listener) = hung(dir.path());
    let mut waiting = Vec::new();
    loop {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect};
        let flags = SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        match connect(&socket, &SocketAddrUnix::new(&path).unwrap()) {
            Ok(()) => waiting.push(socket),
            Err(rustix::io::Errno::AGAIN) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(bind(&path).unwrap_err().contains("another recsync daemon"));
    let client = Client::new(&path).with_timeout(Duration::from_millis(20));
    assert!(matches!(client.health(), Err(ClientError::Timeout { .. })));
}

#[test]
fn another_sockets_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _within = runtime.enter();
    let socket = ControlSocket::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
}

#[test]
fn the_client_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let check = |path: &std::path::Path, expected: &str| {
        let client = Client::new(path).with_timeout(Duration::from_millis(50));
        let error = client.get::<Status>("/api/v1/status").unwrap_err().to_string();
        assert_eq!(error, expected.replace("PATH", &path.display().to_string()));
    };
    let none =
        "no recsync daemon answers at PATH: is it running? start it with `systemctl start recsync`";
    check(&dir.path().join("missing.sock"), none);

    let (path, listener) = hung(dir.path());
    check(&path, "the recsync daemon at PATH did not answer within 50ms");
    drop(listener);
    check(&path, none);

    let daemon = Daemon::start(Fake::default());
    let client = Client::new(&daemon.control());
    let refused =
        client.post::<Rescan>("/api/v1/rescan", &RescanRequest { share: Some("x".into()) });
    match refused {
        Err(ClientError::Refused { status: 404, message }) => {
            assert_eq!(message, "there is no share x");
        }
        other => panic!("{other:?}"),
    }
    let error = client.get::<Held>("/api/v1/status").unwrap_err().to_string();
    assert!(error.contains("is the daemon of another version?"), "{error}");
}

#[test]
fn the_client_notices_a_hang_up() {
    let dir = tempfile::tempdir().unwrap();
    let (path, listener) = hung(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.shutdown(Shutdown::Both).unwrap());
        let error = Client::new(&path).health().unwrap_err();
        assert!(matches!(error, ClientError::HungUp(_)), "{error}");
    });
}
