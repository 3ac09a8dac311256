//! Names and passwords that a request has in its address (RFC 3986, section 3.2.1), which are no part
//! of what is recorded.

/// What stands for what was left out.
const LEFT_OUT: &str = "…";

/// An authority, as it may be told: `user:password@host:port` without what stands before the host.
/// What stands behind a colon and is no port goes, too: where a password has a slash, this is where
/// the authority ends for whoever reads it by the standard.
pub(crate) fn without_userinfo(authority: &str) -> String {
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (true, host),
        None => (false, authority),
    };
    let mut told = String::new();
    if userinfo {
        told.push_str(LEFT_OUT);
        told.push('@');
    }
    // The colons of an address in brackets are its own.
    let bracketed = host.starts_with('[').then(|| host.find(']')).flatten();
    let (name, port) = match host[bracketed.unwrap_or(0)..].find(':') {
        None => (host, ""),
        Some(colon) => host.split_at(bracketed.unwrap_or(0) + colon),
    };
    told.push_str(name);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match port.strip_prefix(':') {
        Some(digits) if !is_port(digits) => {
            told.push(':');
            told.push_str(LEFT_OUT);
        }
        _ => told.push_str(port),
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::http::Requests;
    use crate::inspect::tls::sample;
    use crate::inspect::{Target, check_hello};

    #[test]
    fn the_host_is_told_and_who_asks_is_not() {
        for (authority, told) in [
            ("evil.example", "evil.example"),
            ("evil.example:8080", "evil.example:8080"),
            ("evil.example:", "evil.example:"),
            ("[::1]:80", "[::1]:80"),
            ("[::1", "[:…"),
            ("user:canary@evil.example:80", "…@evil.example:80"),
            ("user:can@ry@evil.example", "…@evil.example"),
            ("canary@[::1]:80", "…@[::1]:80"),
            // Of `user:can/ary@host`.
            ("user:can", "user:…"),
            ("a:b:canary", "a:…"),
            ("@", "…@"),
            ("", ""),
        ] {
            assert_eq!(without_userinfo(authority), told, "{authority}");
        }
    }

    #[test]
    fn a_password_in_a_server_name_is_in_no_reason() {
        let hello = sample::message(&[sample::server_name("user:canary@evil.example")]);
        for target in [
            Target::Name("api.example".parse().expect("a name")),
            Target::Address("192.0.2.1".parse().expect("an address")),
        ] {
            let hello = sample::records(&hello, 16_000);
            let reason = check_hello(&hello, &target).expect_err("it is for another host");
            assert!(
                reason.text.raw().contains("…@evil.example"),
                "{}",
                reason.text
            );
            assert!(!reason.text.raw().contains("canary"), "{}", reason.text);
        }
    }

    /// Every place of a request where a name and a password can stand.
    #[test]
    fn a_password_in_a_request_is_in_no_reason() {
        for userinfo in [
            "user:canary",
            "canary",
            ":canary",
            "user:x@canary",
            "user:canary/x",
        ] {
            for request in [
                format!("GET http://{userinfo}@api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n"),
                format!(
                    "GET http://{userinfo}@evil.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n"
                ),
                format!(
                    "GET https://{userinfo}@api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n"
                ),
                format!("GET {userinfo}@api.example HTTP/1.1\r\nHost: api.example\r\n\r\n"),
                format!("CONNECT {userinfo}@api.example:80 HTTP/1.1\r\nHost: api.example\r\n\r\n"),
                format!("GET / HTTP/1.1\r\nHost: {userinfo}@api.example\r\n\r\n"),
                format!("GET / HTTP/1.1\r\nHost: {userinfo}@evil.example:80\r\n\r\n"),
            ] {
                let target = Target::Name("api.example".parse().expect("a name"));
                let refused =
                    Requests::new(target, 80).advance(request.as_bytes(), &mut Vec::new());
                let reason = refused.expect_err("no request has a password");
                assert!(
                    !reason.text.raw().contains("canary"),
                    "{request}: {}",
                    reason.text
                );
            }
        }
    }
}
