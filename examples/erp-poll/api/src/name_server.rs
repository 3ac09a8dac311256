//! A name server that knows one name.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, SimpleDnsError, TYPE,
    rdata::{A, RData},
};

use crate::recover;

/// Seconds for which an answer may be kept.
const TTL: u32 = 5;

/// Answers whoever asks for the addresses of `name`. An asker who cannot be reached gets no answer,
/// and keeps nobody else from getting one.
pub(crate) fn serve(socket: &UdpSocket, name: &str, address: Ipv4Addr) -> ! {
    loop {
        if let Err(error) = serve_next(socket, name, address) {
            recover("a question, or its answer's way,", &error);
        }
    }
}

fn serve_next(socket: &UdpSocket, name: &str, address: Ipv4Addr) -> io::Result<()> {
    let mut question = [0; 512];
    let (length, asker) = socket.recv_from(&mut question)?;
    // What is no question gets no answer.
    if let Ok(answer) = answer(&question[..length], name, address) {
        socket.send_to(&answer, asker)?;
    }
    Ok(())
}

fn answer(asked: &[u8], name: &str, address: Ipv4Addr) -> Result<Vec<u8>, SimpleDnsError> {
    let asked = Packet::parse(asked)?;
    let known = Name::new(name)?;
    let mut reply = Packet::new_reply(asked.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    for question in &asked.questions {
        if !question.qname.to_string().eq_ignore_ascii_case(name) {
            *reply.rcode_mut() = RCODE::NameError;
        } else if question.qtype == QTYPE::TYPE(TYPE::A) {
            let rdata = RData::A(A::from(address));
            let record = ResourceRecord::new(known.clone(), CLASS::IN, TTL, rdata);
            reply.answers.push(record);
        }
    }
    reply.questions = asked.questions;
    reply.build_bytes_vec()
}

#[cfg(test)]
mod tests {
    use simple_dns::{QCLASS, Question};

    use super::*;

    fn ask(name: &str, kind: TYPE) -> Result<(RCODE, usize), SimpleDnsError> {
        let mut question = Packet::new_query(7);
        let class = QCLASS::CLASS(CLASS::IN);
        question.questions = vec![Question::new(
            Name::new(name)?,
            QTYPE::TYPE(kind),
            class,
            false,
        )];
        let bytes = answer(
            &question.build_bytes_vec()?,
            "erp.corp.example",
            Ipv4Addr::new(10, 20, 0, 5),
        )?;
        let reply = Packet::parse(&bytes)?;
        Ok((reply.rcode(), reply.answers.len()))
    }

    #[test]
    fn the_one_name_has_an_address_and_no_other_name_exists() -> Result<(), SimpleDnsError> {
        assert_eq!(ask("ERP.corp.example", TYPE::A)?, (RCODE::NoError, 1));
        assert_eq!(ask("erp.corp.example", TYPE::AAAA)?, (RCODE::NoError, 0));
        assert_eq!(ask("crm.corp.example", TYPE::A)?, (RCODE::NameError, 0));
        Ok(())
    }
}
