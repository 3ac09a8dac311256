//! What the inside can see and do.

use std::collections::BTreeMap;

use crate::launched::{bind, hold, output_of, own_program, probing, run, shell};
use crate::{TestResult, launcher};

tests!(
    the_kernel_refuses_every_way_out,
    the_kernel_gives_what_programs_need,
    no_capability_is_in_any_set,
    nothing_of_the_host_is_in_sight,
    nothing_lies_over_the_root,
    the_root_cannot_be_written,
    kernel_paths_are_masked_as_by_other_runtimes,
    there_is_no_network_but_loopback,
    abstract_sockets_of_the_host_are_out_of_reach,
    ipc_objects_of_the_host_are_out_of_reach,
    the_init_is_out_of_reach,
    only_the_standard_streams_are_open,
    the_environment_is_what_was_given,
    a_set_user_id_program_gains_nothing,
    a_mount_that_is_not_executable_runs_nothing,
    every_control_that_the_host_has_is_enforced,
);

/// System calls that a payload has no business with; see `probe`.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "mount", "umount", "fsopen", "open_tree", "pivot_root", "chroot", "unshare-user",
    "unshare-mount", "clone-user", "clone-net", "setns", "ptrace", "ptrace-me", "read-memory",
    "bpf", "keyctl", "add-key", "perf", "userfaultfd", "io_uring", "open-by-handle", "kexec",
    "module", "reboot", "settime", "syslog", "swapon", "sethostname", "mknod-disk",
    "type-on-terminal", "socket-raw",
];

fn attempts(words: &[&str]) -> Result<BTreeMap<String, String>, Box<dyn std::error::Error>> {
    let mut argv = vec!["try"];
    argv.extend(words);
    let text = output_of(&probing(&argv))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(what, told)| (what.to_owned(), told.to_owned()))
        .collect())
}

fn the_kernel_refuses_every_way_out() -> TestResult {
    let told = attempts(REFUSED)?;
    for &what in REFUSED {
        assert_eq!(
            told.get(what).map(String::as_str),
            Some("1"),
            "{what} is not refused with EPERM"
        );
    }
    let families = [
        "socket-packet",
        "socket-vsock",
        "socket-alg",
        "socket-audit",
    ];
    let told = attempts(&families)?;
    for what in families {
        assert_eq!(told[what], libc::EAFNOSUPPORT.to_string(), "{what}");
    }
    let others = attempts(&["clone3", "setuid-root", "oom-shield"])?;
    assert_eq!(
        others["clone3"],
        libc::ENOSYS.to_string(),
        "C libraries fall back on clone"
    );
    assert_eq!(
        others["setuid-root"],
        libc::EINVAL.to_string(),
        "there is no user 0 inside"
    );
    assert_eq!(others["oom-shield"], libc::EACCES.to_string());
    Ok(())
}

fn the_kernel_gives_what_programs_need() -> TestResult {
    let needed = ["socket-route", "socket-unix", "socket-inet6"];
    let told = attempts(&needed)?;
    for what in needed {
        assert_eq!(told[what], "ok", "{what}");
    }
    // Threads, processes, pipes, pseudo-terminals, shared memory, time zones: a language runtime
    // uses them all.
    let script = "
import multiprocessing, os, pty, subprocess, tempfile, threading
threading.Thread(target=print, args=('thread',)).start()
print(subprocess.check_output(['echo', 'child'], text=True).strip())
print(os.read(pty.openpty()[0], 0) == b'')
multiprocessing.Lock()
tempfile.TemporaryFile()
print(os.getuid(), os.getgid(), os.getpid() == 2, len(os.urandom(4)))
";
    let spec = crate::launched::spec(&["/usr/bin/python3", "-c", script]);
    let text = output_of(&spec)?;
    assert_eq!(text, "thread\nchild\nTrue\n1000 1000 True 4");
    Ok(())
}

fn no_capability_is_in_any_set() -> TestResult {
    let text = output_of(&shell(
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
    ))?;
    for line in text.lines() {
        let (name, value) = line.split_once(':').ok_or("no colon")?;
        let expected = match name {
            "NoNewPrivs" => "1",
            "Seccomp" => "2",
            _ => "0000000000000000",
        };
        assert_eq!(value.trim(), expected, "{name}");
    }
    assert_eq!(text.lines().count(), 7);
    Ok(())
}

fn nothing_of_the_host_is_in_sight() -> TestResult {
    let text = output_of(&shell(
        "ls -d /proc/[0-9]*; ls -A /; ls -A /etc; hostname; ls -A /tmp",
    ))?;
    let processes: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("/proc/"))
        .collect();
    assert_eq!(processes.len(), 2, "init and shell alone: {text}");
    for hidden in [
        "root",
        "home",
        "var",
        "sys",
        "shadow",
        "ssh",
        "hosts.allow",
        "work",
        "boot",
    ] {
        assert!(
            !text.lines().any(|line| line == hidden),
            "{hidden} is in sight"
        );
    }
    assert!(
        text.lines().any(|line| line.starts_with("test-")),
        "its host name is its own"
    );
    let groups = output_of(&shell("cut -d: -f3 /proc/self/cgroup | sort -u"))?;
    assert_eq!(groups, "/", "it does not see where its control group is");
    Ok(())
}

fn nothing_lies_over_the_root() -> TestResult {
    let script =
        "ls -A / > /tmp/a; ls -A /.. > /tmp/b; cmp /tmp/a /tmp/b && cat /proc/self/mountinfo";
    let text = output_of(&shell(script))?;
    let roots = text
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/"))
        .count();
    assert_eq!(roots, 1, "{text}");
    // Landlock forbids writing too; the mounts must hold where a kernel has none.
    let device = |at: &str| at.starts_with("/dev/") && at != "/dev/shm";
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (at, read_only) = (fields[4], fields[5].starts_with("ro"));
        // A device is written whatever its mount says.
        if fields[3] == "/null" {
            continue;
        }
        let writable = ["/proc", "/tmp", "/dev/shm"].contains(&at) || device(at);
        assert_eq!(read_only, !writable, "{line}");
    }
    Ok(())
}

fn the_root_cannot_be_written() -> TestResult {
    for path in [
        "/x",
        "/usr/x",
        "/etc/passwd",
        "/etc/x",
        "/dev/x",
        "/proc/sys/kernel/hostname",
    ] {
        let output = run(&shell(&format!("echo x > {path}")))?;
        assert!(!output.exit.status.success(), "{path} can be written");
    }
    let text = output_of(&shell(
        "echo x > /tmp/x; echo y > /dev/shm/y; cat /tmp/x /dev/shm/y",
    ))?;
    assert_eq!(text, "x\ny");
    Ok(())
}

fn kernel_paths_are_masked_as_by_other_runtimes() -> TestResult {
    let script = "
for name in acpi asound scsi; do if [ -e /proc/$name ]; then ls -A /proc/$name; fi; done
for name in interrupts kcore keys latency_stats sched_debug timer_list timer_stats; do
  if [ -e /proc/$name ]; then cat /proc/$name; fi
done
while read -r _ _ _ _ at options _; do
  case $at in /proc/sys|/proc/irq|/proc/bus|/proc/fs) echo $at ${options%%,*};; esac
done < /proc/self/mountinfo";
    let text = output_of(&shell(script))?;
    assert_eq!(
        text,
        "/proc/bus ro\n/proc/fs ro\n/proc/irq ro\n/proc/sys ro"
    );
    Ok(())
}

fn there_is_no_network_but_loopback() -> TestResult {
    let script = "
import socket, errno
print(sorted(name for _, name in socket.if_nameindex()))
for family, address in ((socket.AF_INET, '192.0.2.1'), (socket.AF_INET6, '2001:db8::1')):
    s = socket.socket(family)
    s.settimeout(5)
    print(errno.errorcode[s.connect_ex((address, 80))])
s = socket.create_server(('127.0.0.1', 0))
print(socket.create_connection(s.getsockname()) is not None)
s = socket.create_server(('::1', 0), family=socket.AF_INET6)
print(socket.create_connection(s.getsockname()[:2]) is not None)
";
    let text = output_of(&crate::launched::spec(&["/usr/bin/python3", "-c", script]))?;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("'lo'") && !lines[0].contains("eth"),
        "{}",
        lines[0]
    );
    assert_eq!(lines[1..3], ["ENETUNREACH", "ENETUNREACH"]);
    assert_eq!(lines[3..], ["True", "True"]);
    Ok(())
}

fn abstract_sockets_of_the_host_are_out_of_reach() -> TestResult {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("barecount-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let _listening = std::os::unix::net::UnixListener::bind_addr(&address)?;
    std::os::unix::net::UnixStream::connect_addr(&address)?;
    let told = output_of(&probing(&["connect-abstract", &name]))?;
    assert_eq!(told, libc::ECONNREFUSED.to_string());
    Ok(())
}

fn ipc_objects_of_the_host_are_out_of_reach() -> TestResult {
    // SAFETY: integers in, integer out; removed below.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o666 | libc::IPC_CREAT) };
    assert!(id >= 0, "the host gives shared memory");
    let lines = output_of(&shell("wc -l < /proc/sysvipc/shm"));
    // SAFETY: removes what was made above.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(lines?, "1", "the heading alone");
    Ok(())
}

fn the_init_is_out_of_reach() -> TestResult {
    let script = "
kill -KILL 1; kill -TERM 1; kill -STOP 1
for name in mem environ maps fd/0 root cwd; do
  if cat /proc/1/$name >/dev/null 2>&1; then echo $name can be read; fi
done
ls /proc/1/fd >/dev/null 2>&1 && echo its descriptors can be listed
echo alive";
    let output = run(&shell(script))?;
    assert!(output.exit.status.success());
    assert_eq!(output.stdout, "alive\n", "{}", output.stderr);
    Ok(())
}

fn only_the_standard_streams_are_open() -> TestResult {
    // The fourth is that of ls itself.
    let text = output_of(&crate::launched::spec(&["/bin/ls", "/proc/self/fd"]))?;
    assert_eq!(text, "0\n1\n2\n3");
    Ok(())
}

fn the_environment_is_what_was_given() -> TestResult {
    let mut spec = crate::launched::spec(&["env"]);
    spec.env.push(("KEY".to_owned(), "a=b c".to_owned()));
    assert_eq!(output_of(&spec)?, "PATH=/usr/bin:/bin\nKEY=a=b c");
    Ok(())
}

fn a_set_user_id_program_gains_nothing() -> TestResult {
    let text = output_of(&shell(
        "ls -l /usr/bin/su | cut -c4; cat /proc/self/mountinfo",
    ))?;
    assert!(
        text.starts_with('s'),
        "the host has a set-user-id program to try"
    );
    for line in text.lines().skip(1) {
        let options = line.split(' ').nth(5).ok_or("no options")?;
        let device = line
            .split(' ')
            .nth(4)
            .is_some_and(|at| at.starts_with("/dev/"));
        let masked = line.split(' ').nth(3) == Some("/null");
        assert!(options.contains("nosuid") || device || masked, "{line}");
    }
    Ok(())
}

fn a_mount_that_is_not_executable_runs_nothing() -> TestResult {
    let mut spec = crate::launched::spec(&["/probe", "--probe"]);
    spec.mounts.push(bind(&own_program(), "/probe", true));
    let error = hold(&spec).err().ok_or("it ran")?;
    assert_eq!(error.to_string(), "cannot run /probe in the sandbox");
    Ok(())
}

fn every_control_that_the_host_has_is_enforced() -> TestResult {
    use barecount_sandbox::{Control, Level};
    let mut spec = shell("true");
    spec.limits.memory_bytes = Some(64 << 20);
    spec.limits.pids = Some(16);
    spec.limits.cpu_millis = Some(500);
    spec.limits.cpus = Some(vec![0]);
    let held = hold(&spec)?;
    let enforcement = held.sandbox.enforcement().clone();
    held.finish()?;
    for (control, level) in &enforcement.controls {
        let by_root = matches!(
            control,
            Control::Memory
                | Control::Pids
                | Control::Cpu
                | Control::CpuPinning
                | Control::SupplementaryGroups
                | Control::Users
                | Control::Inodes
        );
        let enforced = *level == Level::Enforced;
        assert_eq!(
            enforced,
            launcher().host().root || !by_root,
            "{control:?}: {level:?}"
        );
    }
    assert_eq!(enforcement.controls.len(), 15);
    Ok(())
}
