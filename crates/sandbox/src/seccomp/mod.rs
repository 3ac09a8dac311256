//! The system call filter, compiled once.
//!
//! The kernel runs a new filter once for every system call number when it is installed (to learn
//! which are always allowed). A filter that compares 320 numbers one by one, as `seccompiler` makes
//! them, took 0.38 ms to install where a binary search over ranges of numbers, as here, took 0.10.

mod allowed;

use crate::sys::Instruction;
use allowed::{ALLOWED, LEGACY};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Offsets in `seccomp_data` (little endian: the low half of an argument comes first).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Everything that `CLONE_NEW*` can be in the flags of `clone`.
const CLONE_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// The highest number that this list knows of; programs are told that later ones do not exist, so
/// that they fall back on what they did before.
const LAST_KNOWN: u32 = 466;

/// The limit of dumps. It stays as it is: at 0, which programs with secrets set it to, the kernel
/// would pipe their memory to the host again. They are told that it was done, since some end where
/// they are refused, and get what they want: nothing is dumped.
const CORE: u32 = libc::RLIMIT_CORE;

/// What is decided for one system call number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Allow,
    Deny,
    Missing,
    Clone,
    Socket,
    SocketPair,
    Ioctl,
    Personality,
    SetLimit,
    AskOrSetLimit,
    Control,
}

fn verdict(number: u32) -> Verdict {
    let number_long = libc::c_long::from(number as i32);
    match number_long {
        libc::SYS_clone => Verdict::Clone,
        // Its flags are in memory, out of a filter's reach: C libraries fall back on clone.
        libc::SYS_clone3 => Verdict::Missing,
        libc::SYS_socket => Verdict::Socket,
        libc::SYS_socketpair => Verdict::SocketPair,
        libc::SYS_ioctl => Verdict::Ioctl,
        libc::SYS_personality => Verdict::Personality,
        libc::SYS_fcntl => Verdict::Control,
        libc::SYS_setrlimit => Verdict::SetLimit,
        libc::SYS_prlimit64 => Verdict::AskOrSetLimit,
        _ if ALLOWED.contains(&number_long) || LEGACY.contains(&number_long) => Verdict::Allow,
        _ if number > LAST_KNOWN => Verdict::Missing,
        _ => Verdict::Deny,
    }
}

/// Compiles the filter.
pub(crate) fn compile() -> Vec<Instruction> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=LAST_KNOWN + 1 {
        let verdict = verdict(number);
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    }
    let mut program = vec![
        load(ARCH),
        jump(libc::BPF_JEQ, AUDIT_ARCH, 1, 0),
        answer(KILL_PROCESS),
        load(NUMBER),
    ];
    search(&ranges, &mut program);
    program
}

/// Appends a search among ranges, each from its number up to the next one's.
fn search(ranges: &[(u32, Verdict)], program: &mut Vec<Instruction>) {
    if let [(_, verdict)] = ranges {
        program.extend(leaf(*verdict));
        return;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let mut below = Vec::new();
    search(low, &mut below);
    // Conditional jumps reach 255 instructions, unconditional ones any distance.
    program.push(jump(libc::BPF_JGE, high[0].0, 0, 1));
    program.push(skip(below.len() as u32));
    program.extend(below);
    search(high, program);
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    let deny = answer(ERRNO | libc::EPERM as u32);
    let allow = answer(ALLOW);
    match verdict {
        Verdict::Allow => vec![allow],
        Verdict::Deny => vec![deny],
        Verdict::Missing => vec![answer(ERRNO | libc::ENOSYS as u32)],
        Verdict::Clone => {
            vec![
                load(argument(0)),
                jump(libc::BPF_JSET, CLONE_NAMESPACES, 0, 1),
                deny,
                allow,
            ]
        }
        Verdict::Socket => vec![
            load(argument(0)),
            jump(libc::BPF_JEQ, libc::AF_UNIX as u32, 6, 0),
            jump(libc::BPF_JEQ, libc::AF_INET as u32, 5, 0),
            jump(libc::BPF_JEQ, libc::AF_INET6 as u32, 4, 0),
            jump(libc::BPF_JEQ, libc::AF_NETLINK as u32, 0, 2),
            load(argument(2)),
            jump(libc::BPF_JEQ, libc::NETLINK_ROUTE as u32, 1, 0),
            answer(ERRNO | libc::EAFNOSUPPORT as u32),
            allow,
        ],
        Verdict::SocketPair => vec![
            load(argument(0)),
            jump(libc::BPF_JEQ, libc::AF_UNIX as u32, 1, 0),
            answer(ERRNO | libc::EAFNOSUPPORT as u32),
            allow,
        ],
        Verdict::Ioctl => vec![
            load(argument(1)),
            // Typing into, and pasting on, somebody else's terminal.
            jump(libc::BPF_JEQ, 0x5412, 1, 0),
            jump(libc::BPF_JEQ, 0x541c, 0, 1),
            deny,
            allow,
        ],
        Verdict::Personality => vec![
            load(argument(0)),
            jump(libc::BPF_JEQ, 0, 2, 0),
            // Asking what it is.
            jump(libc::BPF_JEQ, u32::MAX, 1, 0),
            deny,
            allow,
        ],
        Verdict::Control => vec![
            load(argument(1)),
            // A lease has whoever opens the file wait, and a signal tell of it; what changes in a
            // directory is told by a signal, where programs have watches.
            jump(libc::BPF_JEQ, libc::F_SETLEASE as u32, 1, 0),
            jump(libc::BPF_JEQ, libc::F_NOTIFY as u32, 0, 1),
            deny,
            allow,
        ],
        Verdict::SetLimit => set_limit(),
        Verdict::AskOrSetLimit => ask_or_set_limit(),
    }
}

/// A call that is not carried out, and says that it was.
const NOTHING_DONE: Instruction = answer(ERRNO);

fn set_limit() -> Vec<Instruction> {
    vec![
        load(argument(0)),
        jump(libc::BPF_JEQ, CORE, 0, 1),
        NOTHING_DONE,
        answer(ALLOW),
    ]
}

fn ask_or_set_limit() -> Vec<Instruction> {
    vec![
        load(argument(1)),
        jump(libc::BPF_JEQ, CORE, 0, 5),
        // Both halves of the pointer to the new limit.
        load(argument(2)),
        jump(libc::BPF_JEQ, 0, 0, 2),
        load(argument(2) + 4),
        jump(libc::BPF_JEQ, 0, 1, 0),
        NOTHING_DONE,
        answer(ALLOW),
    ]
}

const fn load(offset: u32) -> Instruction {
    Instruction {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

const fn jump(test: u32, value: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt: when_true,
        jf: when_false,
        k: value,
    }
}

const fn skip(count: u32) -> Instruction {
    Instruction {
        code: (libc::BPF_JMP | libc::BPF_JA) as u16,
        jt: 0,
        jf: 0,
        k: count,
    }
}

const fn answer(action: u32) -> Instruction {
    Instruction {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: action,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn run(program: &[Instruction], number: u32, arguments: [u32; 3]) -> u32 {
        let mut at = 0;
        let mut held = 0;
        loop {
            let step = program[at];
            at += 1;
            let jumps = match u32::from(step.code) {
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    held = match step.k {
                        NUMBER => number,
                        ARCH => AUDIT_ARCH,
                        offset => arguments[(offset as usize - 16) / 8],
                    };
                    continue;
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => {
                    at += step.k as usize;
                    continue;
                }
                code => match code & 0xf0 {
                    libc::BPF_JEQ => held == step.k,
                    libc::BPF_JGE => held >= step.k,
                    libc::BPF_JSET => held & step.k != 0,
                    other => panic!("jump {other:#x}"),
                },
            };
            at += usize::from(if jumps { step.jt } else { step.jf });
        }
    }

    #[test]
    fn the_search_finds_the_verdict_of_every_number() {
        let program = compile();
        for number in (0..2000).chain([0x4000_0000, 0x4000_0000 + 39, u32::MAX]) {
            let expected = match verdict(number) {
                Verdict::Allow => ALLOW,
                Verdict::Deny => ERRNO | libc::EPERM as u32,
                Verdict::Missing => ERRNO | libc::ENOSYS as u32,
                _ => continue,
            };
            assert_eq!(run(&program, number, [0; 3]), expected, "{number}");
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let program = compile();
        let call = |number, arguments| run(&program, number as u32, arguments) == ALLOW;
        assert!(call(
            libc::SYS_clone,
            [libc::CLONE_VM as u32 | libc::SIGCHLD as u32, 0, 0]
        ));
        for bit in 0..32 {
            let flag = 1_u32 << bit;
            let allowed = flag & CLONE_NAMESPACES == 0;
            assert_eq!(call(libc::SYS_clone, [flag, 0, 0]), allowed, "{flag:#x}");
        }
        for family in 0..64 {
            let plain = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].contains(&(family as i32));
            let routes = family == libc::AF_NETLINK as u32;
            assert_eq!(
                call(libc::SYS_socket, [family, 1, 0]),
                plain || routes,
                "{family}"
            );
            assert_eq!(call(libc::SYS_socket, [family, 1, 9]), plain, "{family}");
        }
        assert!(!call(libc::SYS_ioctl, [0, libc::TIOCSTI as u32, 0]));
        assert!(call(libc::SYS_ioctl, [0, libc::TIOCGWINSZ as u32, 0]));
        assert!(!call(libc::SYS_personality, [0x0004_0000, 0, 0]));
        assert!(!call(libc::SYS_fcntl, [3, libc::F_SETLEASE as u32, 0]));
        assert!(!call(libc::SYS_fcntl, [3, libc::F_NOTIFY as u32, 1]));
        for command in [
            libc::F_SETLK,
            libc::F_OFD_SETLKW,
            libc::F_GETFL,
            libc::F_GETLEASE,
        ] {
            assert!(call(libc::SYS_fcntl, [3, command as u32, 0]), "{command}");
        }
        for resource in 0..16 {
            let free = resource != libc::RLIMIT_CORE;
            assert_eq!(call(libc::SYS_setrlimit, [resource, 0x1000, 0]), free);
            assert_eq!(call(libc::SYS_prlimit64, [0, resource, 0x1000]), free);
            assert!(call(libc::SYS_prlimit64, [0, resource, 0]), "asking");
        }
    }

    /// What somebody moves to BareCount from a container loses no protection by the filter.
    #[test]
    fn every_allowed_call_is_allowed_by_dockers_profile() {
        let docker: Vec<&str> = include_str!("docker.txt").lines().collect();
        let ours = include_str!("allowed.rs").lines();
        let named: Vec<&str> = ours
            .filter_map(|line| line.trim().strip_prefix("libc::SYS_")?.strip_suffix(','))
            .collect();
        assert!(named.len() > 250, "{}", named.len());
        for name in named {
            assert!(docker.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_filter_is_small() {
        assert!(compile().len() < 400, "{}", compile().len());
    }
}
