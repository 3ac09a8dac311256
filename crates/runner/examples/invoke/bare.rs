//! An echo without a client library: two requests on one connection, and nothing beside them. What a
//! published client takes longer is the client's.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::Failure;

/// The variable of the launch that asks for this function.
pub(crate) const ASKED_BY: &str = "ECHO_WITHOUT_CLIENT";

/// Is the function, until the Runtime API is gone.
pub(crate) fn echo() -> Result<(), Failure> {
    let mut api = Api::connect(&std::env::var("AWS_LAMBDA_RUNTIME_API")?)?;
    loop {
        let next = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: runtime\r\n\r\n";
        let (id, body) = api.ask(next.to_owned())?;
        let payload: Value = serde_json::from_slice(&body)?;
        let answer = payload["event"].to_string();
        let length = answer.len();
        api.ask(format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nhost: runtime\r\n\
             content-length: {length}\r\n\r\n{answer}"
        ))?;
    }
}

struct Api {
    requests: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Api {
    fn connect(address: &str) -> Result<Self, Failure> {
        let requests = TcpStream::connect(address)?;
        requests.set_nodelay(true)?;
        let answers = BufReader::new(requests.try_clone()?);
        Ok(Self { requests, answers })
    }

    /// The request id, empty if there is none, and the body of the answer.
    fn ask(&mut self, request: String) -> Result<(String, Vec<u8>), Failure> {
        self.requests.write_all(request.as_bytes())?;
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                return Err("the Runtime API is gone".into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "lambda-runtime-aws-request-id" => value.trim().clone_into(&mut id),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.answers.read_exact(&mut body)?;
        Ok((id, body))
    }
}
