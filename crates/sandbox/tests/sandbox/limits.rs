//! Limits hold and are measured.

use barecount_sandbox::{ExitStatus, Isolation, Source};

use crate::launched::{hold, output_of, probing, run, shell};
use crate::{TestResult, launcher};

tests!(
    a_memory_hog_is_killed_and_said_to_be,
    what_ends_within_its_memory_is_not_said_to_be_killed,
    forks_are_bounded,
    a_fork_bomb_is_killed_whole,
    processor_time_is_throttled,
    cores_are_pinned,
    files_are_bounded,
    the_memory_of_what_crashes_is_left_to_nobody,
    a_launcher_is_read_and_traced_by_root_alone,
    the_temporary_folder_is_bounded,
    what_was_used_is_measured,
);

fn a_memory_hog_is_killed_and_said_to_be() -> TestResult {
    let mut spec = probing(&["eat-memory"]);
    let limit = 64 << 20;
    spec.limits.memory_bytes = Some(limit);
    let exit = run(&spec)?.exit;
    if !launcher().host().root {
        // Held by RLIMIT_DATA: an allocation fails, and the program gives up.
        assert_eq!(exit.status, ExitStatus::Signal(libc::SIGABRT));
        assert!(!exit.oom_killed);
        return Ok(());
    }
    assert_eq!(exit.status, ExitStatus::Signal(libc::SIGKILL));
    assert!(exit.oom_killed);
    let peak = exit.usage.memory_peak_bytes.ok_or("no peak")?;
    assert!((limit / 2..=limit).contains(&peak), "{peak}");
    assert_eq!(exit.usage.memory_source, Some(Source::ControlGroup));
    Ok(())
}

fn what_ends_within_its_memory_is_not_said_to_be_killed() -> TestResult {
    let mut spec = shell("kill -KILL $$");
    spec.limits.memory_bytes = Some(64 << 20);
    let exit = run(&spec)?.exit;
    assert_eq!(exit.status, ExitStatus::Signal(libc::SIGKILL));
    assert!(!exit.oom_killed);
    Ok(())
}

fn the_memory_of_what_crashes_is_left_to_nobody() -> TestResult {
    // What becomes of a dump is the whole host's to say (`core_pattern`), so the limits are looked
    // at: 0 would let the kernel pipe the memory to a program of the host, and 1 does not.
    let script = "cd /tmp; limit() { grep '^Max core' /proc/self/limits | tr -s ' '; }
        limit; ulimit -c 0; limit; ulimit -c unlimited; limit; kill -ABRT $$";
    for isolation in [Isolation::Sandbox, Isolation::Process] {
        let mut spec = shell(script);
        spec.isolation = isolation;
        let output = run(&spec)?;
        assert_eq!(output.exit.status, ExitStatus::Signal(libc::SIGABRT));
        let limits: Vec<&str> = output.stdout.lines().map(str::trim).collect();
        // Without isolation nothing keeps a program from asking for 0.
        let kept = if isolation == Isolation::Sandbox {
            3
        } else {
            1
        };
        assert_eq!(limits[..kept], ["Max core file size 1 1 bytes"; 3][..kept]);
    }
    Ok(())
}

/// What an ordinary user's own processes are told of each other is decided by the same mark as what
/// is dumped: the files of a process that has it are root's.
fn a_launcher_is_read_and_traced_by_root_alone() -> TestResult {
    use std::os::unix::fs::MetadataExt;
    let memory = std::fs::metadata(format!("/proc/{}/mem", launcher().pid()))?;
    assert_eq!(memory.uid(), 0);
    if !launcher().host().root {
        let opened = std::fs::File::open(format!("/proc/{}/mem", launcher().pid()));
        let refused = opened.map_err(|error| error.kind()).err();
        assert_eq!(refused, Some(std::io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

fn forks_are_bounded() -> TestResult {
    let mut spec = probing(&["fork-until-refused"]);
    spec.limits.pids = Some(24);
    assert_eq!(
        output_of(&spec)?,
        "23",
        "the payload itself is the twenty-fourth"
    );
    Ok(())
}

fn a_fork_bomb_is_killed_whole() -> TestResult {
    // Everything in it holds standard output, which ends when the last of them is dead.
    let mut spec = shell("bomb() { bomb | bomb & }; (bomb) & echo lit; read line");
    spec.limits.pids = Some(50);
    let mut held = hold(&spec)?;
    assert_eq!(held.line()?, "lit");
    held.sandbox.kill()?;
    // Its input stays open meanwhile: it must not end by itself.
    assert_eq!(
        held.sandbox.wait()?.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
    held.finish()?;
    Ok(())
}

fn processor_time_is_throttled() -> TestResult {
    let mut spec = probing(&["spin"]);
    // So little that even a busy machine would give more.
    spec.limits.cpu_millis = Some(40);
    let usage = run(&spec)?.exit.usage;
    if launcher().host().root {
        let periods = usage.cpu_throttled_periods.ok_or("no count")?;
        assert!(periods > 0, "{usage:?}");
    }
    let micros = usage.cpu_micros.ok_or("no time")?;
    assert!((50_000..1_000_000).contains(&micros), "{usage:?}");
    Ok(())
}

fn cores_are_pinned() -> TestResult {
    let mut spec = shell("grep Cpus_allowed_list /proc/self/status | cut -f2; nproc");
    spec.limits.cpus = Some(vec![1]);
    assert_eq!(output_of(&spec)?, "1\n1");
    Ok(())
}

fn files_are_bounded() -> TestResult {
    let mut spec = shell("ulimit -n; ulimit -c; head -c 5000 /dev/zero > /tmp/file");
    spec.limits.open_files = Some(32);
    spec.limits.file_size_bytes = Some(4096);
    let output = run(&spec)?;
    assert_eq!(output.stdout, "32\n0\n");
    assert!(
        !output.exit.status.success(),
        "a file can grow beyond its bound"
    );
    Ok(())
}

fn the_temporary_folder_is_bounded() -> TestResult {
    let script = "head -c 200000 /dev/zero > /tmp/file; stat -c %s /tmp/file";
    let mut spec = shell(script);
    spec.limits.tmp_bytes = Some(65_536);
    let output = run(&spec)?;
    assert_eq!(output.stdout, "65536\n");
    assert!(
        output.stderr.contains("No space left on device"),
        "{}",
        output.stderr
    );
    Ok(())
}

fn what_was_used_is_measured() -> TestResult {
    let script = "x = bytearray(32 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1";
    let usage = run(&crate::launched::spec(&["/usr/bin/python3", "-c", script]))?
        .exit
        .usage;
    let source = if launcher().host().root {
        Source::ControlGroup
    } else {
        Source::WaitedFor
    };
    assert_eq!(usage.cpu_source, Some(source));
    assert_eq!(usage.memory_source, Some(source));
    assert!(
        usage.cpu_micros.is_some_and(|micros| micros > 1000),
        "{usage:?}"
    );
    assert!(
        usage
            .memory_peak_bytes
            .is_some_and(|bytes| bytes > 32 << 20),
        "{usage:?}"
    );
    assert!(usage.io_write_bytes.is_some(), "{usage:?}");
    Ok(())
}
