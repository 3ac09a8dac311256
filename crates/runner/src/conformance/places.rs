//! What the work finds, and what it leaves: inputs, outputs, checkpoint, scratch, log.

use sha2::{Digest, Sha256};

use super::{Behaviour, Check, Checking, Session, Verdict, promise, succeeded};
use crate::launch::cut_notice;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "inputs_can_be_read_and_not_changed",
        body: |session| -> Checking { Box::pin(simply(session, Behaviour::KeepInput)) },
    },
    Check {
        name: "outputs_are_in_their_place_when_the_attempt_has_ended",
        body: |session| -> Checking { Box::pin(outputs(session)) },
    },
    Check {
        name: "the_checkpoint_is_in_its_place_when_the_attempt_has_ended",
        body: |session| -> Checking { Box::pin(checkpoint(session)) },
    },
    Check {
        name: "scratch_is_empty_for_every_attempt",
        body: |session| -> Checking { Box::pin(scratch(session)) },
    },
    Check {
        name: "the_log_keeps_what_was_printed_and_its_digest",
        body: |session| -> Checking { Box::pin(log(session, 10_000, false)) },
    },
    Check {
        name: "a_log_above_its_limit_is_cut_and_says_so",
        body: |session| -> Checking { Box::pin(log(session, 20_000_000, true)) },
    },
];

async fn simply(session: Session, behaviour: Behaviour) -> Verdict {
    let Some(launch) = session.prepare(&behaviour) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    let log = fs_err::read_to_string(&launch.log).unwrap_or_default();
    promise("it succeeds", succeeded(&ended.end), &(&ended, log))?;
    session.finish([&launch.token]).await
}

async fn outputs(session: Session) -> Verdict {
    for name in ["first", "second"] {
        let Some(launch) = session.prepare(&Behaviour::Append(name.to_owned())) else {
            return Ok(());
        };
        let (_, ended) = session.carry_out(&launch).await?;
        promise("it succeeds", succeeded(&ended.end), &ended)?;
        let mut found = Vec::new();
        for entry in fs_err::read_dir(&launch.places.output)? {
            found.push(entry?.file_name());
        }
        promise(
            "the output folder holds what this attempt wrote and nothing else",
            found == [name],
            &found,
        )?;
        session.finish([&launch.token]).await?;
    }
    Ok(())
}

async fn checkpoint(session: Session) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Checkpoint("page 7".to_owned())) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    promise("it succeeds", succeeded(&ended.end), &ended)?;
    let found = fs_err::read_to_string(launch.places.checkpoint.join("state"))?;
    promise("the checkpoint is what it wrote", found == "page 7", &found)?;
    session.finish([&launch.token]).await
}

async fn scratch(session: Session) -> Verdict {
    simply(session.clone(), Behaviour::FreshScratch).await?;
    simply(session, Behaviour::FreshScratch).await
}

async fn log(session: Session, bytes: u64, cut: bool) -> Verdict {
    let Some(launch) = session.prepare(&Behaviour::Print(bytes)) else {
        return Ok(());
    };
    let (_, ended) = session.carry_out(&launch).await?;
    promise("it succeeds", succeeded(&ended.end), &ended)?;
    let kept = fs_err::read(&launch.log)?;
    let log = &ended.log;
    promise(
        "every byte is kept or counted as dropped",
        log.bytes + log.dropped_bytes == bytes,
        log,
    )?;
    let expected = if cut { launch.limits.log_bytes } else { bytes };
    promise(
        "as much is kept as the limit allows",
        log.bytes == expected,
        log,
    )?;
    let notice = match log.dropped_bytes {
        0 => String::new(),
        dropped => cut_notice(dropped),
    };
    promise(
        "the log holds what was kept, and says so if it was cut",
        kept.len() as u64 == log.bytes + notice.len() as u64
            && String::from_utf8_lossy(&kept).contains(&notice),
        &(log, kept.len()),
    )?;
    promise(
        "the digest is that of the log",
        log.sha256 == hex::encode(Sha256::digest(&kept)),
        log,
    )?;
    session.finish([&launch.token]).await
}
