//! The command line.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, str::FromStr};

use lexopt::{Arg, Parser, ValueExt};

use crate::{faults::Faults, orders::Orders};

const USAGE: &str = "usage: erp-api [serve|orders] [--FLAG VALUE]…

what there is
  --orders N              so many orders, 336 a year from 2024 on (500)
  --seed S                what they are made from (7)
  --spoil-every K         each K-th order is not as the schema says (none)
  --schema-version V      its entity tag changes with it (1)

where it is
  --listen ADDRESS:PORT   (127.0.0.1:0)
  --name-server ADDRESS:PORT, --name NAME
                          also answers who asks for the address of NAME (erp.corp.example)

who is let in
  --client-id ID          (barecount-poll)
  --client-secret-file F  the file's whole content is the secret
  --token-seconds N       how long a token is good (300)

what goes wrong
  --limit-every K, --retry-after SECONDS
                          each K-th request for orders is told to come later, after so long (1)
  --token-uses N          a token is refused after N uses
  --fail-page P, --fail-times N
                          page P is answered with status 500, N times (1)
  --drop-page P           the answer with page P breaks off in its middle, once
  --hold-page P           the first request for page P gets no answer";

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print all orders.
    Orders(Orders),
    /// Answer requests.
    Serve(Box<Flags>),
}

/// How to answer requests.
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) orders: Orders,
    pub(crate) schema_version: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) name_server: Option<SocketAddr>,
    pub(crate) name: String,
    pub(crate) client_id: String,
    pub(crate) client_secret_file: PathBuf,
    pub(crate) token_seconds: u64,
    pub(crate) faults: Faults,
}

/// Reads the arguments of this process.
pub(crate) fn read() -> Result<Command, lexopt::Error> {
    let mut flags = Flags {
        orders: Orders {
            seed: 7,
            count: 500,
            spoil_every: None,
        },
        schema_version: 1,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        name_server: None,
        name: "erp.corp.example".to_owned(),
        client_id: "barecount-poll".to_owned(),
        client_secret_file: PathBuf::new(),
        token_seconds: 300,
        faults: Faults {
            retry_after_s: 1,
            fail_times: 1,
            ..Faults::default()
        },
    };
    let mut prints = false;
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(word) if word == "orders" => prints = true,
            Arg::Value(word) if word == "serve" => prints = false,
            Arg::Long(name) => {
                let name = name.to_owned();
                set(&mut flags, &name, &mut arguments)?;
            }
            other => return Err(format!("{}\n\n{USAGE}", other.unexpected()).into()),
        }
    }
    if prints {
        return Ok(Command::Orders(flags.orders));
    }
    if flags.client_secret_file.as_os_str().is_empty() {
        return Err(format!("`--client-secret-file` is missing\n\n{USAGE}").into());
    }
    Ok(Command::Serve(Box::new(flags)))
}

fn set(flags: &mut Flags, name: &str, arguments: &mut Parser) -> Result<(), lexopt::Error> {
    fn value<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        arguments: &mut Parser,
    ) -> Result<T, lexopt::Error> {
        arguments.value()?.parse()
    }
    let faults = &mut flags.faults;
    match name {
        "orders" => flags.orders.count = value(arguments)?,
        "seed" => flags.orders.seed = value(arguments)?,
        "spoil-every" => flags.orders.spoil_every = Some(value::<NonZeroU64>(arguments)?),
        "schema-version" => flags.schema_version = value(arguments)?,
        "listen" => flags.listen = value(arguments)?,
        "name-server" => flags.name_server = Some(value(arguments)?),
        "name" => flags.name = arguments.value()?.string()?,
        "client-id" => flags.client_id = arguments.value()?.string()?,
        "client-secret-file" => flags.client_secret_file = arguments.value()?.into(),
        "token-seconds" => flags.token_seconds = value(arguments)?,
        "limit-every" => faults.limit_every = Some(value::<NonZeroU64>(arguments)?),
        "retry-after" => faults.retry_after_s = value(arguments)?,
        "token-uses" => faults.token_uses = Some(value(arguments)?),
        "fail-page" => faults.fail_page = Some(value(arguments)?),
        "fail-times" => faults.fail_times = value(arguments)?,
        "drop-page" => faults.drop_page = Some(value(arguments)?),
        "hold-page" => faults.hold_page = Some(value(arguments)?),
        _ => return Err(format!("there is no `--{name}`\n\n{USAGE}").into()),
    }
    Ok(())
}
