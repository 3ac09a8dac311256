use super::*;
use crate::plan::compile::{Asked, CompileError, fixture::Documents};

fn stage() -> Result<StagePlan, CompileError> {
    let rest = "      command: [/app/a]\n";
    let documents = Documents::of_stage("class: container, image: images/a", rest);
    Ok(documents.plan(&Asked::default())?.stages.remove(0))
}

fn boundless(stage: &StagePlan) -> Capabilities {
    Capabilities {
        class: stage.class,
        backend: stage.backend.clone(),
        most: Most::default(),
        architectures: vec!["amd64".to_owned()],
        network_profiles: NetworkProfile::ALL.to_vec(),
        bare_processes: false,
        graceful_stop: true,
        survives_agent: false,
    }
}

#[test]
fn a_stage_fits_a_backend_that_gives_just_what_it_asks_for_and_none_that_gives_less()
-> Result<(), CompileError> {
    let stage = stage()?;
    let all = boundless(&stage);
    assert_eq!(all.fits(&stage), Ok(()));
    type Bound = fn(&mut Most, u64);
    let resources = &stage.resources;
    let bounds: [(u64, Bound); 6] = [
        (resources.memory_bytes, |most, at| {
            most.memory_bytes = Some(at);
        }),
        (resources.cpu_millis.into(), |most, at| {
            most.cpu_millis = Some(at);
        }),
        (stage.timeout_ms, |most, at| most.time_ms = Some(at)),
        (resources.scratch_bytes, |most, at| {
            most.disk_bytes = Some(at);
        }),
        (resources.pids.into(), |most, at| most.pids = Some(at)),
        (resources.open_files.into(), |most, at| {
            most.open_files = Some(at);
        }),
    ];
    let mut remedies = std::collections::BTreeSet::new();
    for (asked, bound) in bounds {
        let mut limited = all.clone();
        bound(&mut limited.most, asked);
        assert_eq!(limited.fits(&stage), Ok(()));
        bound(&mut limited.most, asked - 1);
        let unfit = limited.fits(&stage).expect_err("it gives less");
        assert!(
            matches!(&unfit, Unfit::Above { most, .. } if *most == asked - 1),
            "{unfit}"
        );
        remedies.insert(unfit.remedy());
    }
    let helps = |words: &str| remedies.iter().any(|remedy| remedy.contains(words));
    // No size has fewer open files than another.
    assert!(
        helps("LimitNOFILE=") && helps("LimitNPROC="),
        "{remedies:?}"
    );
    assert!(
        !remedies
            .iter()
            .any(|remedy| remedy.contains("LimitNOFILE=") && remedy.contains("smaller size"))
    );
    Ok(())
}

#[test]
fn work_goes_to_no_other_backend_network_or_isolation_than_it_declares() -> Result<(), CompileError>
{
    let stage = stage()?;
    let all = boundless(&stage);
    let elsewhere = Capabilities {
        backend: "elsewhere".to_owned(),
        ..all.clone()
    };
    let found = elsewhere.fits(&stage);
    assert!(matches!(found, Err(Unfit::NoBackend { .. })), "{found:?}");
    let other_class = Capabilities {
        class: RunnerClass::Serverless,
        ..all.clone()
    };
    assert!(matches!(
        other_class.fits(&stage),
        Err(Unfit::NoBackend { .. })
    ));
    let nowhere = Capabilities {
        network_profiles: vec![NetworkProfile::Vpn],
        ..all.clone()
    };
    assert!(matches!(nowhere.fits(&stage), Err(Unfit::Profile { .. })));
    let bare = StagePlan {
        isolation: "process".to_owned(),
        ..stage
    };
    assert!(matches!(all.fits(&bare), Err(Unfit::Sandboxed { .. })));
    Ok(())
}
