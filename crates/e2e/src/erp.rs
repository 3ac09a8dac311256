//! The order system that the second example polls, and places to poll it from.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use serde_json::Value;

use crate::{
    binary, example,
    place::Place,
    process::{Invocation, Running},
};

/// The client's secret; nobody else writes it on this host, and each of its encodings differs from
/// it.
pub fn secret() -> String {
    format!("canary {}/of+orders=?&~é", std::process::id())
}

/// An order system that listens on this host, with its own name server.
#[derive(Debug)]
pub struct Api {
    running: Running,
    /// Where it answers HTTP.
    pub address: SocketAddr,
    /// Where it answers DNS.
    pub name_server: SocketAddr,
}

/// The folder in which programs of the example are built for tests.
pub fn target() -> PathBuf {
    binary::scratch().join("erp-api")
}

fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = binary::workspace().join("examples/erp-poll/Cargo.toml");
        Invocation::of(
            cargo,
            &binary::workspace(),
            ["build", "--release", "--locked"],
        )
        .argument("--package=erp-api")
        .argument("--manifest-path")
        .argument(manifest)
        .argument("--target-dir")
        .argument(target())
        .within(Duration::from_secs(30 * 60))
        .finish()
        .exits_with(0);
        target().join("release/erp-api")
    });
    &PROGRAM
}

impl Api {
    /// Starts it with these flags, separated by spaces, at addresses that nobody uses.
    pub fn start(flags: &str) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(flags, anywhere, anywhere)
    }

    /// Starts it where another one was.
    pub fn start_again(flags: &str, before: (SocketAddr, SocketAddr)) -> Self {
        Self::start_at(flags, before.0, before.1)
    }

    fn start_at(flags: &str, at: SocketAddr, name_server: SocketAddr) -> Self {
        // Not in the place, which is searched for the secret and for what is left running.
        let secrets = tempfile::tempdir_in(binary::scratch()).expect("a folder for the secret");
        let file = secrets.path().join("secret");
        fs_err::write(&file, secret()).expect("a file for the secret");
        let running = Invocation::of(program(), binary::scratch(), flags.split_whitespace())
            .argument(format!("--listen={at}"))
            .argument(format!("--name-server={name_server}"))
            .argument("--client-secret-file")
            .argument(file)
            .start();
        let mut told = None;
        running.wait_until("it listens", || {
            told = told_by(&running).into_iter().next();
            told.is_some()
        });
        let told = told.unwrap_or_default();
        let address = |name: &str| {
            let text = told[name].as_str().unwrap_or_default();
            text.parse().expect("an address")
        };
        Self {
            address: address("listening"),
            name_server: address("name_server"),
            running,
        }
    }

    /// The addresses to start it again at.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.address, self.name_server)
    }

    /// The requests that it had, as it tells of them.
    ///
    /// # Panics
    /// If it told anything else.
    pub fn requests(&self) -> Vec<Value> {
        told_by(&self.running).split_off(1)
    }

    /// How many requests it had for this path, by the status that they were answered with.
    ///
    /// # Panics
    /// If one of them was not answered.
    pub fn statuses(&self, path: &str) -> BTreeMap<u64, usize> {
        statuses(&self.requests(), path)
    }

    /// The cursors that it was asked to go on from among the orders of a year, in order; an empty text
    /// where it was asked to begin.
    ///
    /// # Panics
    /// If a request has something else in its place.
    pub fn cursors(&self, year: &str) -> Vec<String> {
        self.requests()
            .iter()
            .filter(|request| request["path"] == "/v1/orders" && request["year"] == year)
            .map(|request| match &request["after"] {
                Value::Null => String::new(),
                Value::String(cursor) => cursor.clone(),
                other => panic!("{other} is no cursor: {request}"),
            })
            .collect()
    }
}

fn told_by(running: &Running) -> Vec<Value> {
    let told = running.so_far();
    // A line feed stands between standard output and standard error, which has nothing while all is
    // well.
    lines(told.strip_suffix('\n').unwrap_or(&told))
}

/// What an order system told until now, a line each. The last line counts when it has its end.
///
/// # Panics
/// If a line is not JSON.
pub fn lines(told: &str) -> Vec<Value> {
    told.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("`{line}` is no line of an order system ({error}):\n{told}")
            })
        })
        .collect()
}

/// How many of these requests were for a path, by the status that they were answered with.
///
/// # Panics
/// If one of them was not answered.
pub fn statuses(requests: &[Value], path: &str) -> BTreeMap<u64, usize> {
    let mut statuses = BTreeMap::new();
    for request in requests.iter().filter(|request| request["path"] == path) {
        let status = request["status"].as_u64();
        let status = status.unwrap_or_else(|| panic!("it was not answered: {request}"));
        *statuses.entry(status).or_default() += 1;
    }
    statuses
}

/// All orders that an order system with these flags has, without being asked over a network.
pub fn orders(flags: &str) -> Vec<Value> {
    let arguments = std::iter::once("orders").chain(flags.split_whitespace());
    Invocation::of(program(), &binary::workspace(), arguments)
        .finish()
        .exits_with(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("an order is JSON"))
        .collect()
}

/// A place with the example in `erp-poll`, and its image in the state folder. Its secret is kept.
pub fn place() -> Place {
    let place = example::place_with("erp-poll", built());
    keep(&place, &secret());
    place
}

fn built() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| example::build("erp-poll", "erp"));
    &BUILT
}

/// A place in which the example can be run by somebody who cannot build anything: the order system
/// is there as `erp-api`, its client secret as `secret`, and the image is made of a program that is
/// there, too. No secret is kept.
///
/// # Panics
/// If it cannot be made.
pub fn place_without_sources() -> Place {
    let place = example::place_with("erp-poll", built());
    let copy = |from: &Path, to: &str| {
        let to = place.write(to, []);
        fs_err::copy(from, to).expect("a program can be copied");
    };
    copy(program(), "erp-api");
    place.write("secret", secret());
    // Below a folder that is named after what it is built for.
    let targets = fs_err::read_dir(built().join("build/target")).expect("it was built");
    let poll = targets
        .flatten()
        .map(|target| target.path().join("release/erp-poll"))
        .find(|program| program.exists())
        .expect("the image's program was built");
    copy(&poll, "erp-poll/images/poll/poll");
    place.write(
        "erp-poll/images/poll/build.yaml",
        "kind: image\nfiles:\n  - { from: poll, to: /app/poll, executable: true }\n\
         user: \"1000:1000\"\nworkdir: /\n",
    );
    place
}

/// Keeps a client secret in a place.
pub fn keep(place: &Place, secret: &str) {
    let folder = place.join("erp-poll");
    Invocation::of_binary(&folder, ["secrets", "set", "erp/client-secret"])
        .argument("--env=local")
        .argument("--state")
        .argument(place.state())
        .env("XDG_CONFIG_HOME", place.join("config"))
        .reads(secret)
        .finish()
        .exits_with(0);
}

/// A place whose environment leads to this order system.
pub fn place_for(flags: &str) -> (Place, Api) {
    let place = place();
    let api = Api::start(flags);
    rewrite(
        &place,
        "erp-poll/pipeline.yaml",
        "8080",
        &api.address.port().to_string(),
    );
    let environment = "erp-poll/environments/local.yaml";
    rewrite(&place, environment, "10.20.0.0/24", "127.0.0.0/8");
    rewrite(
        &place,
        environment,
        "10.20.0.2:53",
        &api.name_server.to_string(),
    );
    (place, api)
}

/// Replaces a text in a file of a place.
///
/// # Panics
/// If it is not there.
#[track_caller]
pub fn rewrite(place: &Place, file: &str, from: &str, to: &str) {
    let text = fs_err::read_to_string(place.join(file)).expect("a file of the example");
    assert!(text.contains(from), "`{from}` is in {file}");
    place.write(file, text.replace(from, to));
}

/// A poll, by the token that tells it from others.
pub fn poll(place: &Place, token: &str) -> Invocation {
    place
        .barecount([
            "run",
            "erp-poll/pipeline.yaml",
            "--env",
            "local",
            "-o",
            "json",
        ])
        .argument("--token")
        .argument(token)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_told_when_they_have_their_end() {
        assert_eq!(lines("{\"a\":1}\n{\"b\":"), [json!({ "a": 1 })]);
        assert_eq!(lines("{\"a\":1}"), Vec::<Value>::new());
    }

    #[test]
    #[should_panic(expected = "`erp-api: all is lost` is no line of an order system")]
    fn a_line_that_cannot_be_read_is_not_passed_over() {
        lines("{\"a\":1}\nerp-api: all is lost\n");
    }

    #[test]
    fn requests_are_counted_by_what_they_were_answered_with() {
        let requests = [200, 429, 200].map(|status| json!({ "path": "/", "status": status }));
        assert_eq!(statuses(&requests, "/"), [(200, 2), (429, 1)].into());
        assert_eq!(statuses(&requests, "/other"), BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "it was not answered")]
    fn a_request_without_an_answer_is_not_counted_as_one_with() {
        statuses(&[json!({ "path": "/", "status": null })], "/");
    }
}
