//! What runs a stage: class, size, profile, and work that fits the class.

use super::scope::Findings;
use super::{CommandRoot, CustomSize, Event, HandlerProgram, JobLanguage, Work};
use crate::class::{NetworkProfile, RunnerClass, Size};
use crate::codes;
use crate::diagnostic::quoted;
use crate::manifest::{Contract, Defaults, EventSpec, EventType, RunnerSpec, StageSpec};
use crate::text::DriverName;

/// The decided runner of a stage.
pub(super) struct Runner {
    pub(super) class: RunnerClass,
    pub(super) size: Size,
    pub(super) custom: Option<CustomSize>,
    pub(super) network_profile: NetworkProfile,
    pub(super) work: Work,
    pub(super) drivers: Vec<DriverName>,
    pub(super) concurrency_limit: Option<u32>,
    pub(super) shuffle_partition_hint: Option<u32>,
}

/// Decides the runner of the stage at a JSON pointer.
pub(super) fn resolve(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    defaults: &Defaults,
) -> Option<Runner> {
    let (own, inherited) = (&stage.runner, &defaults.runner);
    let class = own.class.or(inherited.class);
    let size = own.size.or(inherited.size);
    let network_profile = own.network_profile.or(inherited.network_profile);
    let missing: Vec<&str> = [
        ("class", class.is_none()),
        ("size", size.is_none()),
        ("network_profile", network_profile.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect();
    if !missing.is_empty() {
        let message = format!(
            "nothing says the runner's {} of stage `{}`",
            missing.join(", "),
            stage.name
        );
        let help = "set it in the stage's `runner`, or for all stages in `defaults.runner`";
        findings.key_error(codes::MISSING_RUNNER, &format!("{at}/name"), message, help);
    }
    let class = class?;
    let contract = contract(findings, at, stage, class);
    let usual = Contract::usual(class);
    refuse_fields_of_other_classes(findings, at, stage, class, contract.unwrap_or(usual));
    let work = contract.and_then(|contract| work(findings, at, stage, inherited, class, contract));
    let custom = custom_size(findings, at, own, inherited, class, size);
    let has = |field: &str| fields_of(class).contains(&field);
    let drivers = if own.drivers.is_empty() && has("drivers") {
        &inherited.drivers
    } else {
        &own.drivers
    };
    let hint = own.shuffle_partition_hint;
    Some(Runner {
        class,
        size: size?,
        custom,
        network_profile: network_profile?,
        work: work?,
        drivers: drivers.clone(),
        concurrency_limit: own.concurrency_limit.or(inherited.concurrency_limit),
        shuffle_partition_hint: hint.or(inherited
            .shuffle_partition_hint
            .filter(|_| has("shuffle_partition_hint"))),
    })
}

/// The fields that have a meaning for a class and not for every class.
fn fields_of(class: RunnerClass) -> &'static [&'static str] {
    match class {
        RunnerClass::Serverless => &["package", "event"],
        RunnerClass::Container => &["image", "drivers", "command", "args"],
        RunnerClass::ManagedEtl => &["job", "shuffle_partition_hint"],
        RunnerClass::DedicatedCompute => &[
            "package", "image", "drivers", "command", "args", "vcpu", "memory",
        ],
    }
}

/// How the program takes work. Only a container may do so in another way than is usual in its class.
fn contract(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    class: RunnerClass,
) -> Option<Contract> {
    let usual = Contract::usual(class);
    match (class, stage.contract) {
        (_, None) => Some(usual),
        (_, Some(contract)) if contract == usual => Some(contract),
        (RunnerClass::Container, Some(Contract::Handler)) => Some(Contract::Handler),
        (_, Some(contract)) => {
            let contract = contract.as_str();
            let message = format!("the class {class} has no contract `{contract}`");
            let help = match class {
                RunnerClass::Container => "a container is a `command` or a `handler`".to_owned(),
                _ => format!("work of the class is a `{}`; leave it out", usual.as_str()),
            };
            let pointer = format!("{at}/contract");
            findings.error_with_help(codes::FIELD_NOT_OF_CLASS, &pointer, message, help);
            None
        }
    }
}

fn refuse_fields_of_other_classes(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    class: RunnerClass,
    contract: Contract,
) {
    let runner = &stage.runner;
    let fields = [
        ("runner/", "image", runner.image.is_some()),
        ("runner/", "package", runner.package.is_some()),
        ("runner/", "job", runner.job.is_some()),
        ("runner/", "drivers", !runner.drivers.is_empty()),
        (
            "runner/",
            "shuffle_partition_hint",
            runner.shuffle_partition_hint.is_some(),
        ),
        ("runner/", "vcpu", runner.vcpu.is_some()),
        ("runner/", "memory", runner.memory.is_some()),
        ("", "event", stage.event.is_some()),
        ("", "command", !stage.command.is_empty()),
        ("", "args", !stage.args.is_empty()),
    ];
    let of_contract = |field| field == "event" && contract == Contract::Handler;
    for (prefix, field, present) in fields {
        if present && !fields_of(class).contains(&field) && !of_contract(field) {
            let classes: Vec<&str> = RunnerClass::ALL
                .iter()
                .filter(|other| fields_of(**other).contains(&field))
                .map(|other| other.as_str())
                .collect();
            let message = format!("`{field}` has no meaning for the class {class}");
            let help = match (field, class) {
                ("event", RunnerClass::Container) => {
                    "a container takes events with `contract: handler`".to_owned()
                }
                _ => format!("it belongs to {}", classes.join(" and ")),
            };
            let pointer = format!("{at}/{prefix}{field}");
            findings.key_error(codes::FIELD_NOT_OF_CLASS, &pointer, message, help);
        }
    }
}

fn work(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    inherited: &RunnerSpec,
    class: RunnerClass,
    contract: Contract,
) -> Option<Work> {
    match class {
        RunnerClass::Serverless => function(findings, at, stage, inherited),
        RunnerClass::Container => container(findings, at, stage, inherited, contract),
        RunnerClass::ManagedEtl => job(findings, at, stage, inherited),
        RunnerClass::DedicatedCompute => dedicated(findings, at, stage, inherited),
    }
}

fn missing(findings: &mut Findings<'_>, at: &str, message: &str, help: &str) {
    let runner = format!("{at}/runner");
    let pointer = if findings.has(&runner) {
        runner
    } else {
        format!("{at}/name")
    };
    findings.error_with_help(codes::MISSING_ARTIFACT, &pointer, message, help);
}

fn container(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    inherited: &RunnerSpec,
    contract: Contract,
) -> Option<Work> {
    let own = stage.runner.image.as_ref();
    let image = own.or(inherited.image.as_ref()).cloned();
    if image.is_none() {
        let help = "name the image's folder or its reference in a registry";
        missing(findings, at, "a container stage needs `runner.image`", help);
    }
    if contract != Contract::Handler {
        return Some(command(CommandRoot::Image(image?), stage));
    }
    let event = stage_event(findings, at, stage)?;
    let program = HandlerProgram::Image {
        image: image?,
        command: stage.command.clone(),
        args: stage.args.clone(),
    };
    Some(Work::Handler { program, event })
}

fn function(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    inherited: &RunnerSpec,
) -> Option<Work> {
    let package = stage
        .runner
        .package
        .clone()
        .or_else(|| inherited.package.clone());
    if package.is_none() {
        let help = "name the folder of the function, as in `package: functions/ingest`";
        missing(
            findings,
            at,
            "a serverless stage needs `runner.package`",
            help,
        );
    }
    let event = stage_event(findings, at, stage)?;
    let program = HandlerProgram::Package(package?);
    Some(Work::Handler { program, event })
}

/// What starts a handler, if anything but the end of the stages before it does. `None`: it is wrong.
fn stage_event(findings: &mut Findings<'_>, at: &str, stage: &StageSpec) -> Option<Option<Event>> {
    match &stage.event {
        Some(spec) => event(findings, &format!("{at}/event"), spec).map(Some),
        None => Some(None),
    }
}

fn job(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    inherited: &RunnerSpec,
) -> Option<Work> {
    let Some(job) = stage.runner.job.clone().or_else(|| inherited.job.clone()) else {
        let help = "name the SQL file, as in `job: jobs/consolidate.sql`";
        missing(findings, at, "a managed_etl stage needs `runner.job`", help);
        return None;
    };
    let language = match job.extension() {
        Some("sql") => JobLanguage::Sql,
        Some("py") => JobLanguage::PySpark,
        _ => {
            let message = format!("{} is neither SQL nor PySpark", quoted(job.as_str()));
            let pointer = format!("{at}/runner/job");
            let help = "a job's file ends in `.sql` or `.py`";
            findings.error_with_help(codes::INVALID_VALUE, &pointer, message, help);
            return None;
        }
    };
    Some(Work::Job { job, language })
}

fn dedicated(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    inherited: &RunnerSpec,
) -> Option<Work> {
    let own = &stage.runner;
    if own.image.is_some() && own.package.is_some() {
        let message = "a stage runs an image or a package, not both";
        findings.error(
            codes::FIELD_NOT_OF_CLASS,
            &format!("{at}/runner/package"),
            message,
        );
        return None;
    }
    // what the stage says itself goes before what it inherits
    let declared = [
        (&own.image, &own.package),
        (&inherited.image, &inherited.package),
    ];
    let root = declared
        .into_iter()
        .find_map(|(image, package)| match (image, package) {
            (Some(image), _) => Some(CommandRoot::Image(image.clone())),
            (None, Some(package)) => Some(CommandRoot::Package(package.clone())),
            (None, None) => None,
        });
    let Some(root) = root else {
        let message = "a dedicated_compute stage needs `runner.package` or `runner.image`";
        missing(
            findings,
            at,
            message,
            "name the program's folder, or an image",
        );
        return None;
    };
    if stage.command.is_empty() && matches!(root, CommandRoot::Package(_)) {
        let message = "a package has no entry point; the stage needs `command`";
        missing(findings, at, message, "as in `command: [\"/app/archive\"]`");
        return None;
    }
    Some(command(root, stage))
}

fn command(root: CommandRoot, stage: &StageSpec) -> Work {
    Work::Command {
        root,
        command: stage.command.clone(),
        args: stage.args.clone(),
    }
}

fn event(findings: &mut Findings<'_>, at: &str, spec: &EventSpec) -> Option<Event> {
    let kind = spec.event_type;
    let wanted = match kind {
        EventType::FileArrival => "path",
        EventType::Webhook => "route",
        EventType::Timer => "every",
        EventType::Message => "topic",
    };
    for key in ["path", "route", "every", "topic"] {
        let pointer = format!("{at}/{key}");
        if key != wanted && findings.has(&pointer) {
            let message = format!(
                "`{key}` has no meaning for an event of type {}",
                kind.as_str()
            );
            let help = format!("it takes `{wanted}`");
            findings.key_error(codes::INVALID_EVENT, &pointer, message, help);
        }
    }
    let event = match kind {
        EventType::FileArrival => spec.path.clone().map(|path| Event::FileArrival { path }),
        EventType::Webhook => spec.route.clone().map(|route| Event::Webhook { route }),
        EventType::Timer => spec.every.map(|every| Event::Timer { every }),
        EventType::Message => spec.topic.clone().map(|topic| Event::Message { topic }),
    };
    if event.is_none() {
        let message = format!("an event of type {} needs `{wanted}`", kind.as_str());
        findings.error(codes::INVALID_EVENT, at, message);
    }
    event
}

fn custom_size(
    findings: &mut Findings<'_>,
    at: &str,
    own: &RunnerSpec,
    inherited: &RunnerSpec,
    class: RunnerClass,
    size: Option<Size>,
) -> Option<CustomSize> {
    let own_size = format!("{at}/runner/size");
    let pointer = if findings.has(&own_size) {
        &own_size
    } else {
        "/spec/defaults/runner/size"
    };
    if size != Some(Size::Custom) {
        for (key, present) in [
            ("vcpu", own.vcpu.is_some()),
            ("memory", own.memory.is_some()),
        ] {
            if present && class == RunnerClass::DedicatedCompute {
                let message = format!("`{key}` is declared with size `custom` only");
                let help = "set `size: custom`, or leave it to the catalog";
                let place = format!("{at}/runner/{key}");
                findings.key_error(codes::INVALID_SIZE, &place, message, help);
            }
        }
        return None;
    }
    if class != RunnerClass::DedicatedCompute {
        let message = format!("the class {class} has no size `custom`");
        let help = "choose small, medium, large or xlarge, or the class dedicated_compute";
        findings.error_with_help(codes::INVALID_SIZE, pointer, message, help);
        return None;
    }
    let (vcpu, memory) = (own.vcpu.or(inherited.vcpu), own.memory.or(inherited.memory));
    match (vcpu, memory) {
        (Some(vcpu), Some(memory)) if memory.as_bytes() >= 64 << 20 => {
            Some(CustomSize { vcpu, memory })
        }
        (Some(_), Some(_)) => {
            let message = "less than 64MiB of memory runs nothing";
            findings.error(codes::INVALID_SIZE, &format!("{at}/runner/memory"), message);
            None
        }
        _ => {
            let message = "size `custom` is declared in full, with `vcpu` and `memory`";
            let help = "as in `runner: { size: custom, vcpu: 16, memory: 128GiB, … }`";
            findings.error_with_help(codes::INVALID_SIZE, pointer, message, help);
            None
        }
    }
}
