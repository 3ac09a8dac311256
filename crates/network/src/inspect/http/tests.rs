use proptest::prelude::*;

use super::*;

fn requests() -> Requests {
    Requests::new(Target::Name("api.example".parse().expect("a name")), 8080)
}

fn code(bytes: &str) -> Result<usize, ReasonCode> {
    requests()
        .advance(bytes.as_bytes())
        .map_err(|reason| reason.code)
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
    let evil = get("evil.example");
    for first in [
        get("api.example"),
        "POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;x=y\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n"
            .to_owned(),
    ] {
        let mut requests = requests();
        assert_eq!(
            requests.advance(first.as_bytes()),
            Ok(first.len()),
            "{first}"
        );
        let refusal = requests
            .advance(evil.as_bytes())
            .map_err(|reason| reason.code);
        assert_eq!(refusal, Err(ReasonCode::HostMismatch), "{first}");
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
    assert!(requests.advance(get("[fd00::1]:80").as_bytes()).is_ok());
    assert!(requests.advance(get("fd00.example").as_bytes()).is_err());
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = requests().advance(&bytes);
        let mut chunked = requests();
        let head = b"POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = chunked.advance(&[&head[..], &bytes].concat());
    }

    #[test]
    fn requests_in_pieces_pass_as_they_would_whole(sizes in prop::collection::vec(1usize..20, 1..60)) {
        let stream = [
            "POST /a HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n",
            "10\r\n0123456789abcdef\r\n3\r\nxyz\r\n0\r\n\r\n",
            "POST /b HTTP/1.1\r\nHost: api.example\r\nContent-Length: 4\r\n\r\nbody",
            "GET /c HTTP/1.1\r\nHost: api.example\r\n\r\n",
        ].concat().into_bytes();
        let (mut requests, mut held, mut passed, mut at) = (requests(), Vec::new(), 0, 0);
        for size in sizes.iter().cycle() {
            let end = (at + size).min(stream.len());
            held.extend_from_slice(&stream[at..end]);
            at = end;
            let step = requests.advance(&held).expect("well formed");
            passed += step;
            held.drain(..step);
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(passed, stream.len());
    }
}
