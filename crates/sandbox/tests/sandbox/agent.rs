//! An agent in a process of its own, for tests that kill it.
#![expect(clippy::print_stdout, reason = "it speaks to the test by its output")]

use std::collections::VecDeque;
use std::process::ExitCode;

use crate::launched::probing;

use barecount_sandbox::{
    Brokered, LaunchError, Launcher, LauncherConfig, Network, SandboxName, Spec, Stdio,
    TunnelNetwork,
};

pub(crate) fn main(words: &[String]) -> ExitCode {
    let launcher =
        Launcher::start(LauncherConfig::new(words[1].as_str())).expect("the launcher starts");
    if words[0] == "churn" {
        churn(&launcher, &words[1]);
        return ExitCode::SUCCESS;
    }
    if words[0] == "sweep" {
        println!("{}", launcher.sweep().expect("nothing is left").removed);
        return ExitCode::SUCCESS;
    }
    if words[0] == "tunnel" {
        let network = TunnelNetwork {
            addresses: vec![std::net::Ipv4Addr::new(10, 9, 0, 2).into()],
            routes: Vec::new(),
            mtu: 1_420,
        };
        let tunnel = launcher.tunnel(&network).expect("the tunnel is made");
        println!("{}", tunnel.pid());
        until_let_go();
        return ExitCode::SUCCESS;
    }
    let name = SandboxName::new("held").expect("it is a name");
    let argv = ["/bin/sleep", "1000"].map(str::to_owned).to_vec();
    let stdio = Stdio::null().expect("the device opens");
    let mut spec = Spec::new(name, argv);
    spec.network = Network::Brokered(Brokered::default());
    let sandbox = match launcher.launch(&spec, stdio) {
        Ok(sandbox) => sandbox,
        Err(LaunchError::UserNamespaces { reason, remedy }) => {
            println!("{reason} {remedy}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("{error}"),
    };
    println!("{} {}", launcher.pid(), sandbox.pid());
    match sandbox.wait() {
        Ok(exit) => println!("{exit:?}"),
        Err(error) => println!("{error}"),
    }
    until_let_go();
    ExitCode::SUCCESS
}

/// Or killed.
fn until_let_go() {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("the test closes it");
}

/// Starts sandboxes and stops the ones before, a step for each line that it is given, until there
/// are no more lines or it is killed.
fn churn(launcher: &Launcher, prefix: &str) {
    const ALIVE: usize = 3;
    println!("{}", launcher.pid());
    let mut running = VecDeque::new();
    for (number, line) in std::io::stdin().lines().enumerate() {
        if line.is_err() {
            return;
        }
        let mut spec = probing(&["hold-tree", prefix]);
        spec.name = SandboxName::new(format!("churn-{number}")).expect("it is a name");
        spec.network = Network::Brokered(Brokered::default());
        match launcher.launch(&spec, Stdio::null().expect("the device opens")) {
            Ok(sandbox) => {
                println!("{}", sandbox.pid());
                running.push_back(sandbox);
            }
            Err(error) => println!("{error}"),
        }
        if running.len() > ALIVE
            && let Some(oldest) = running.pop_front()
        {
            // One that was killed from outside has ended already; dropping it is all there is to do.
            _ = oldest.kill();
        }
    }
}
