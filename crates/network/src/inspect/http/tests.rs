use proptest::prelude::*;

use super::*;

fn requests() -> Requests {
    Requests::new(Target::Name("api.example".parse().expect("a name")), 8080)
}

fn code(bytes: &str) -> Result<usize, ReasonCode> {
    let advanced = requests().advance(bytes.as_bytes(), &mut Vec::new());
    advanced.map_err(|reason| reason.code)
}

/// What is passed on of requests that are taken whole.
fn forwarded(bytes: &str) -> String {
    let mut forward = Vec::new();
    let taken = requests().advance(bytes.as_bytes(), &mut forward);
    assert_eq!(taken, Ok(bytes.len()), "{bytes}");
    String::from_utf8(forward).expect("text")
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn a_request_for_the_declared_host_passes_however_it_is_spelt() {
    for host in [
        "api.example",
        "API.Example",
        "api.example.",
        "api.example:8080",
        "api.example:",
        " api.example\t",
    ] {
        let request = get(host);
        assert_eq!(code(&request), Ok(request.len()), "{host}");
    }
    let absolute = "GET http://API.example:8080/x HTTP/1.1\r\nhOsT: api.example\r\n\r\n";
    assert_eq!(code(absolute), Ok(absolute.len()));
    let options = "OPTIONS * HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert_eq!(code(options), Ok(options.len()));
}

#[test]
fn a_request_for_another_host_is_refused() {
    for host in [
        "evil.example",
        "api.example.evil",
        "api.example:80",
        "api.example:+8080",
        "api.example:08080",
        "[api.example]",
        "api.example:8080:8080",
        "user@api.example",
        "api.example,evil.example",
        "api.example evil.example",
        "10.0.0.1",
        "[::1]",
        "api.example..",
        "",
    ] {
        assert_eq!(code(&get(host)), Err(ReasonCode::HostMismatch), "{host}");
    }
}

#[test]
fn the_absolute_form_and_the_host_field_must_both_name_the_host() {
    for (uri, host) in [
        ("http://evil.example/", "api.example"),
        ("http://api.example/", "evil.example"),
        ("http://api.example@evil.example/", "api.example"),
        ("http://user@api.example/", "api.example"),
    ] {
        let request = format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(code(&request), Err(ReasonCode::HostMismatch), "{uri}");
    }
    let secure = "GET https://api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert_eq!(code(secure), Err(ReasonCode::NotHttp));
}

#[test]
fn no_host_and_two_hosts_are_refused() {
    assert_eq!(code("GET / HTTP/1.0\r\n\r\n"), Err(ReasonCode::HostMissing));
    let twice = "GET / HTTP/1.1\r\nHost: api.example\r\nHost: evil.example\r\n\r\n";
    assert_eq!(code(twice), Err(ReasonCode::NotHttp));
    let folded = "GET / HTTP/1.1\r\nHost: api.example\r\n evil.example\r\n\r\n";
    assert_eq!(code(folded), Err(ReasonCode::NotHttp));
    let spaced = "GET / HTTP/1.1\r\nHost : evil.example\r\nHost: api.example\r\n\r\n";
    assert_eq!(code(spaced), Err(ReasonCode::NotHttp));
}

#[test]
fn what_would_make_the_connection_opaque_is_refused() {
    let connect = "CONNECT evil.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert_eq!(code(connect), Err(ReasonCode::MethodRefused));
    let upgrade = "GET / HTTP/1.1\r\nHost: api.example\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(code(upgrade), Err(ReasonCode::MethodRefused));
    assert_eq!(
        code("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Err(ReasonCode::NotHttp)
    );
    assert_eq!(code("EHLO mail.example\r\n"), Err(ReasonCode::NotHttp));
}

#[test]
fn a_later_request_of_the_connection_is_held_to_the_same_host() {
    let (first, evil) = (get("api.example"), get("evil.example"));
    let mut requests = requests();
    for _ in 0..3 {
        let taken = requests.advance(first.as_bytes(), &mut Vec::new());
        assert_eq!(taken, Ok(first.len()));
    }
    let refusal = requests.advance(evil.as_bytes(), &mut Vec::new());
    let refusal = refusal.map_err(|reason| reason.code);
    assert_eq!(refusal, Err(ReasonCode::HostMismatch));
}

#[test]
fn nothing_comes_after_a_request_that_is_the_last_of_its_connection() {
    let last = [
        "POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 9\r\n\r\nhello you",
        "POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;x=y\r\nhello\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: api.example\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.example\r\nConnection: Close\r\n\r\n",
    ];
    for last in last {
        assert!(
            forwarded(last).contains("\r\nConnection: close\r\n"),
            "{last}"
        );
        // Some clients end a body with a line end that is not in its length.
        let taken = code(&format!("{last}\r\n"));
        assert_eq!(taken, Ok(last.len() + 2), "{last}");
        for next in [get("api.example"), get("evil.example"), "x".to_owned()] {
            let refusal = code(&format!("{last}{next}"));
            assert_eq!(refusal, Err(ReasonCode::NotHttp), "{last}{next}");
        }
    }
}

#[test]
fn another_request_may_follow_a_body_that_no_server_can_take_for_one() {
    let post = |body: &str| {
        let length = body.len();
        format!("POST /t HTTP/1.1\r\nHost: api.example\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let next = get("api.example");
    let form = post("grant_type=client_credentials&scope=a+b%20c&to=http://evil.example/");
    for pieces in [form.len() + next.len(), 7, 1] {
        let (mut requests, mut forward) = (requests(), Vec::new());
        let bytes = format!("{form}{next}").into_bytes();
        let (mut taken, mut offered) = (0, 0);
        while offered < bytes.len() {
            offered = (offered + pieces).min(bytes.len());
            let advanced = requests.advance(&bytes[taken..offered], &mut forward);
            taken += advanced.expect("both are for the declared host");
        }
        assert_eq!(taken, bytes.len(), "in pieces of {pieces}");
        let told = String::from_utf8(forward).expect("text");
        assert!(!told.contains("Connection: close"), "{told}");
    }
    // White space, also that of other alphabets, or more than is looked at.
    let long = "x".repeat(MAX_HEAD);
    for body in [
        "a b", "a\tb", "a\nb", "a\r\nb", "a\u{a0}b", "a\u{85}b", "a\u{1c}b", &long,
    ] {
        let refused = code(&format!("{}{next}", post(body)));
        assert_eq!(refused, Err(ReasonCode::NotHttp), "{body:?}");
        assert!(
            forwarded(&post(body)).contains("Connection: close"),
            "{body:?}"
        );
    }
}

#[test]
fn what_is_passed_on_is_what_was_understood() {
    let request = "\r\nPOST http://API.example:8080?q HTTP/1.1\r\nX: a \t\r\nhost:\tAPI.example.\r\n\
                   Keep-Alive: 5\r\nTE: trailers\r\nConnection: keep-alive, TE\r\n\
                   transfer-encoding:\tChunked\r\n\r\n\
                   005;ext=\"0\"\r\nhello\r\nA\r\n0123456789\r\n000\r\n\r\n";
    let understood = "POST /?q HTTP/1.1\r\nX: a\r\nhost: api.example\r\n\
                      transfer-encoding: chunked\r\nConnection: close\r\n\r\n\
                      5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n";
    assert_eq!(forwarded(request), understood);
    let length = "PUT /a HTTP/1.1\r\nHost: api.example:8080\r\nContent-Length: 007\r\n\
                  Expect: 100-Continue\r\n\r\n0123456";
    assert!(forwarded(length).contains("Content-Length: 7\r\nExpect: 100-continue\r\n"));
    let options = "OPTIONS http://api.example HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert!(forwarded(options).starts_with("OPTIONS * HTTP/1.1\r\n"));
    let plain = get("api.example").repeat(2);
    assert_eq!(forwarded(&plain), plain);
}

#[test]
fn methods_whose_content_servers_leave_unread_have_none() {
    let evil = get("evil.example");
    for method in ["GET", "HEAD", "DELETE", "TRACE"] {
        let length = evil.len();
        let framings = [
            format!("Content-Length: {length}\r\n\r\n{evil}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{evil}\r\n0\r\n\r\n"),
        ];
        for framed in framings {
            let request = format!("{method} / HTTP/1.1\r\nHost: api.example\r\n{framed}");
            assert_eq!(code(&request), Err(ReasonCode::NotHttp), "{request}");
        }
        let none = format!("{method} / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(code(&none), Ok(none.len()));
    }
}

#[test]
fn trailers_are_refused_whatever_they_say() {
    for trailer in [
        "Trailer: 1",
        "Host: evil.example",
        "GET / HTTP/1.1",
        " x",
        "\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n{trailer}\r\n\r\n"
        );
        assert_eq!(code(&request), Err(ReasonCode::NotHttp), "{trailer}");
    }
}

#[test]
fn fields_that_recipients_take_for_others_are_refused() {
    for (field, reason) in [
        ("Content_Length: 5", ReasonCode::NotHttp),
        ("Transfer.Encoding: chunked", ReasonCode::NotHttp),
        ("_Host: evil.example", ReasonCode::NotHttp),
        ("Connection: close, Host", ReasonCode::NotHttp),
        ("Connection: Upgrade", ReasonCode::MethodRefused),
        ("Expect: 100-continue", ReasonCode::NotHttp),
        ("X-Forwarded-Host: evil.example", ReasonCode::HostMismatch),
        ("X_Forwarded_Host: evil.example", ReasonCode::HostMismatch),
        (
            "Forwarded: for=a;Host=\"evil.example\"",
            ReasonCode::HostMismatch,
        ),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: api.example\r\n{field}\r\n\r\n");
        assert_eq!(code(&request), Err(reason), "{field}");
    }
}

/// Names from ingress-nginx, Envoy, Azure's gateway and rules that people write themselves.
#[test]
fn a_field_whose_name_ends_in_host_names_the_declared_one() {
    let with = |field: &str| format!("GET / HTTP/1.1\r\nHost: api.example\r\n{field}\r\n\r\n");
    for name in [
        "X-Forwarded-Host",
        "X-Original-Forwarded-Host",
        "X-Envoy-Original-Host",
        "X-Forwarded-Hostname",
        "X-Forwarded-Server",
        "X-HTTP-Host-Override",
        "X-Real-Host",
        "Real-Host",
        "Original-Host",
        "original_host_",
        "X.Backend.HostName",
        "Disguised-Host",
    ] {
        for other in [
            "evil.example",
            "api.example, evil.example",
            "",
            "api.example:1",
        ] {
            let refusal = code(&with(&format!("{name}: {other}")));
            assert_eq!(refusal, Err(ReasonCode::HostMismatch), "{name}: {other}");
        }
        let own = with(&format!("{name}: API.example:8080"));
        assert_eq!(code(&own), Ok(own.len()), "{name}");
    }
    for field in [
        "X-Sumo-Host: worker-1",
        "X-Datadog-Hostname: worker-1",
        "Agent-Hostname: worker-1",
        "Hostname: worker-1",
        "X-Host-Id: 7",
        "X-Localhost: yes",
    ] {
        let request = with(field);
        assert_eq!(code(&request), Ok(request.len()), "{field}");
    }
}

/// A URL that is resolved against another (RFC 3986 section 4.2, and the URL Standard, which takes
/// `\` for `/`): behind two slashes stands a host.
#[test]
fn a_path_that_is_resolved_to_another_host_is_refused() {
    for target in [
        "//evil.example/x",
        "/\\evil.example/x",
        "//",
        "///evil.example",
        "http://api.example//evil.example/x",
        "http://api.example/\\evil.example/x",
    ] {
        for method in ["GET", "OPTIONS"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: api.example\r\n\r\n");
            assert_eq!(code(&request), Err(ReasonCode::NotHttp), "{target}");
        }
    }
    for target in ["/", "/x//y", "/?to=//evil.example", "/a\\b", "/%2f/x"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: api.example\r\n\r\n");
        assert_eq!(code(&request), Ok(request.len()), "{target}");
    }
}

#[test]
fn targets_and_methods_that_are_read_in_different_ways_are_refused() {
    for line in [
        "GET * HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /\u{fc} HTTP/1.1",
        "GET evil.example/ HTTP/1.1",
        "GET http:/api.example/ HTTP/1.1",
        "get / HTTP/1.1",
        "GET! / HTTP/1.1",
        "PRI / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.2",
        "GET /",
    ] {
        let request = format!("{line}\r\nHost: api.example\r\n\r\n");
        assert_eq!(code(&request), Err(ReasonCode::NotHttp), "{line}");
    }
    let small = "connect a:1 HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert_eq!(code(small), Err(ReasonCode::MethodRefused));
}

#[test]
fn a_control_character_is_refused_as_soon_as_it_comes() {
    for head in [
        "\x16\x03\x01",
        "GET /\0",
        "GET / HTTP/1.1\r\nX: \x0b",
        "GET / HTTP/1.1\r\nX\x7f",
    ] {
        assert_eq!(code(head), Err(ReasonCode::NotHttp), "{head:?}");
    }
}

#[test]
fn a_body_that_looks_like_a_request_is_a_body() {
    let evil = get("evil.example");
    let length = evil.len();
    let request =
        format!("POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: {length}\r\n\r\n{evil}");
    assert_eq!(code(&request), Ok(request.len()));
    let request = format!(
        "POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{evil}\r\n0\r\n\r\n"
    );
    assert_eq!(code(&request), Ok(request.len()));
}

#[test]
fn requests_whose_end_is_read_in_different_ways_are_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "X: a\nHost: evil.example\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: api.example\r\n{fields}\r\n");
        assert_eq!(code(&request), Err(ReasonCode::NotHttp), "{fields}");
    }
    for chunks in [
        "5 \r\nhello",
        "-1\r\n",
        "\r\n",
        "5\nhello",
        "5\r\nhelloX",
        "ffffffffffffffff\r\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        );
        assert_eq!(code(&request), Err(ReasonCode::NotHttp), "{chunks}");
    }
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
    assert_eq!(code(&long), Err(ReasonCode::HeadTooLarge));
    let many = format!(
        "GET / HTTP/1.1\r\n{}\r\n",
        "X: y\r\n".repeat(MAX_HEADERS + 1)
    );
    assert_eq!(code(&many), Err(ReasonCode::HeadTooLarge));
}

#[test]
fn an_address_is_named_as_an_address() {
    let mut requests = Requests::new(Target::Address("fd00::1".parse().expect("an address")), 80);
    let mut forward = Vec::new();
    let named = get("[fd00:0::1]:80");
    assert_eq!(
        requests.advance(named.as_bytes(), &mut forward),
        Ok(named.len())
    );
    assert_eq!(forward, get("[fd00::1]:80").as_bytes());
    let other = get("fd00.example");
    assert!(requests.advance(other.as_bytes(), &mut forward).is_err());
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = requests().advance(&bytes, &mut Vec::new());
        let mut chunked = requests();
        let head = b"POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = chunked.advance(&[&head[..], &bytes].concat(), &mut Vec::new());
    }

    #[test]
    fn requests_in_pieces_pass_as_they_would_whole(sizes in prop::collection::vec(1usize..20, 1..60)) {
        let stream = [
            "GET /b HTTP/1.1\r\nHost: api.example\r\n\r\n",
            "GET /c HTTP/1.1\r\nHost: api.example\r\nContent-Length: 0\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n",
            "10;x\r\n0123456789abcdef\r\n3\r\nxyz\r\n0\r\n\r\n",
        ].concat();
        let whole = forwarded(&stream);
        let (mut requests, mut held, mut passed, mut at) = (requests(), Vec::new(), 0, 0);
        let mut forward = Vec::new();
        for size in sizes.iter().cycle() {
            let end = (at + size).min(stream.len());
            held.extend_from_slice(&stream.as_bytes()[at..end]);
            at = end;
            let step = requests.advance(&held, &mut forward).expect("well formed");
            passed += step;
            held.drain(..step);
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(passed, stream.len());
        prop_assert_eq!(String::from_utf8(forward).expect("text"), whole);
    }
}
