//! Attempts of a payload to undo what leads its traffic to the agent.

use std::process::Command;

use barecount_sandbox::{Brokered, Network};

use crate::TestResult;
use crate::launched::{output_of, probing};
use crate::network::{PROBES, accept, intercept, python};

tests!(
    rules_and_routes_are_out_of_the_payloads_reach,
    there_is_no_other_namespace_to_go_to,
    connections_still_arrive_after_an_attempt_to_get_out,
);

/// Tries over netlink and by `ioctl` what would undo the interception, and prints what the kernel
/// answers.
const GET_OUT: &str = "
import fcntl, os, struct
def ask(kind, flags, body):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.settimeout(5)
    # NLM_F_REQUEST and NLM_F_ACK.
    s.send(struct.pack('=IHHII', 16 + len(body), kind, 5 | flags, 1, 0) + body)
    answer = s.recv(4096)
    code = struct.unpack('=i', answer[16:20])[0]
    return errno.errorcode[-code] if code else 'done'
device = struct.pack('=HHI', 8, 4, 1)
for family in (socket.AF_INET, socket.AF_INET6):
    route = struct.pack('=BBBBBBBBI', family, 0, 0, 0, 255, 3, 254, 2, 0)
    print('delete the route', ask(25, 0, route + device))
    print('add a route', ask(24, 0x400, struct.pack('=BBBBBBBBI', family, 0, 0, 0, 254, 4, 0, 1, 0) + device))
print('take the device down', ask(16, 0, struct.pack('=BBHiII', 0, 0, 0, 1, 0, 1)))
print('add a device', ask(16, 0x400, struct.pack('=BBHiII', 0, 0, 0, 0, 0, 0)
    + struct.pack('=HH', 16, 18 | 0x8000) + struct.pack('=HH', 10, 1) + b'dummy\\0\\0\\0'))
print('add a rule', ask(32, 0x400, struct.pack('=BBBBBBBBI', 2, 0, 0, 0, 254, 0, 0, 1, 0)))
def attempt(name, what):
    try:
        what()
        print(name, 'done')
    except OSError as error:
        print(name, name_of(error))
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt('take it down by ioctl',
    lambda: fcntl.ioctl(plain, 0x8914, struct.pack('16sh14x', b'lo', 0)))
attempt('speak to netfilter', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
attempt('mark packets', lambda: plain.setsockopt(socket.SOL_SOCKET, 36, 1))
attempt('be transparent', lambda: plain.setsockopt(socket.SOL_IP, 19, 1))
attempt('replace rules', lambda: plain.setsockopt(socket.SOL_IP, 64, b'x' * 200))
attempt('write settings', lambda: open('/proc/sys/net/ipv4/ip_forward', 'w'))
attempt('the namespace of the init', lambda: os.open('/proc/1/ns/net', os.O_RDONLY))
";

fn rules_and_routes_are_out_of_the_payloads_reach() -> TestResult {
    let text = output_of(&python(GET_OUT))?;
    let expected = "\
        delete the route EPERM\n\
        add a route EPERM\n\
        delete the route EPERM\n\
        add a route EPERM\n\
        take the device down EPERM\n\
        add a device EPERM\n\
        add a rule EPERM\n\
        take it down by ioctl EPERM\n\
        speak to netfilter EAFNOSUPPORT\n\
        mark packets EPERM\n\
        be transparent EPERM\n\
        replace rules EPERM\n\
        write settings EROFS\n\
        the namespace of the init EACCES";
    assert_eq!(text, expected);
    // The same succeeds for who has capabilities in the namespace.
    let output = Command::new("unshare")
        .args(["-Urn", "python3", "-c", &format!("{PROBES}{GET_OUT}")])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    for done in [
        "delete the route ESRCH",
        "take the device down done",
        "take it down by ioctl done",
        "speak to netfilter done",
        "mark packets done",
        "be transparent done",
    ] {
        assert!(text.lines().any(|line| line == done), "no {done:?}: {text}");
    }
    Ok(())
}

fn there_is_no_other_namespace_to_go_to() -> TestResult {
    let words = [
        "try",
        "unshare-user",
        "unshare-net",
        "clone-user",
        "clone-net",
        "setns",
        "socket-raw",
    ];
    let mut spec = probing(&words);
    spec.network = Network::Brokered(Brokered::default());
    let text = output_of(&spec)?;
    let refused: Vec<String> = words[1..].iter().map(|what| format!("{what} 1")).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), refused);
    Ok(())
}

fn connections_still_arrive_after_an_attempt_to_get_out() -> TestResult {
    let script = format!("{GET_OUT}\nprint('then', dial('192.0.2.77', 77) is None)");
    let (held, intercepted) = intercept(&python(&script))?;
    let (_stream, destination) = accept(&intercepted)?;
    assert_eq!(destination, "192.0.2.77:77".parse()?);
    let ended = held.finish()?;
    assert!(ended.stdout.ends_with("then False\n"), "{ended:?}");
    Ok(())
}
