//! Policies from text: parsed, named, checked strictly against the schema, before anything is asked.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use cedar_policy::{
    Effect, EntityUid, Policy, PolicyId, PolicySet, PolicySetError, Schema, ValidationMode,
    Validator,
};
use miette::Diagnostic;
use sha2::{Digest, Sha256};

use super::template::Template;

/// Most bytes that one policy file may have.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Most policies that may be in force together, the default ones included.
pub const MAX_POLICIES: usize = 512;
/// Longest `@id`, in bytes.
const MAX_ID_BYTES: usize = 64;
/// Longest annotation, in bytes.
const MAX_ANNOTATION_BYTES: usize = 512;

const SCHEMA: &str = include_str!("../../../../policies/schema.cedarschema");

/// The default policies, in the order in which answers list them.
const DEFAULTS: [(&str, &str); 5] = [
    (
        "policies/execution.cedar",
        include_str!("../../../../policies/execution.cedar"),
    ),
    (
        "policies/isolation.cedar",
        include_str!("../../../../policies/isolation.cedar"),
    ),
    (
        "policies/network.cedar",
        include_str!("../../../../policies/network.cedar"),
    ),
    (
        "policies/operations.cedar",
        include_str!("../../../../policies/operations.cedar"),
    ),
    (
        "policies/approvals.cedar",
        include_str!("../../../../policies/approvals.cedar"),
    ),
];

/// Text of Cedar policies, with the name by which errors refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Usually a path, as the user wrote it.
    pub name: String,
    /// Cedar policies, each with `@id`, `@title` and `@remedy`, and `@refusal` where it helps.
    pub text: String,
}

/// The default policies as text, to be shown to people.
pub(super) fn default_sources() -> Vec<PolicySource> {
    let source = |(name, text): (&str, &str)| PolicySource {
        name: name.into(),
        text: text.into(),
    };
    DEFAULTS.into_iter().map(source).collect()
}

/// Policies that cannot be put in force. Nothing is loaded when anything is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", Problems(.problems))]
pub struct LoadError {
    /// Everything that is wrong, in the order of the files.
    pub problems: Vec<PolicyProblem>,
}

/// One thing that is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The file, as its [`PolicySource`] names it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong; a lower-case fragment.
    pub message: String,
    /// What would help, as a sentence, where that is known.
    pub help: Option<String>,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

struct Problems<'a>(&'a [PolicyProblem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// What a policy says of itself.
#[derive(Debug)]
pub(super) struct PolicyText {
    pub(super) title: String,
    pub(super) remedy: String,
    /// What was not met, with the names of the case; the title serves when absent.
    pub(super) refusal: Option<Template>,
}

/// Policies in force, ready to be asked.
#[derive(Debug)]
pub(super) struct Policies {
    pub(super) schema: Schema,
    /// By action: the policies that the schema lets apply to it, so that no question pays for
    /// policies about another action.
    pub(super) sets: HashMap<EntityUid, PolicySet>,
    pub(super) texts: HashMap<PolicyId, PolicyText>,
    /// Policies in the order of their sources, so that answers are the same every time.
    pub(super) order: HashMap<PolicyId, usize>,
    pub(super) digest: String,
    /// Schema and sources, one after the other, each under a line that names it.
    pub(super) text: String,
}

impl Policies {
    /// The default policies and `additional` ones, which can only be added.
    pub(super) fn load(additional: &[PolicySource]) -> Result<Self, LoadError> {
        let (schema, _warnings) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| LoadError {
                problems: vec![diagnosed("policies/schema.cedarschema", SCHEMA, &error)],
            })?;
        let mut sources = default_sources();
        sources.extend_from_slice(additional);
        let mut loading = Loading::default();
        for source in &sources {
            loading.source(source);
        }
        loading.validate(&schema, &sources);
        if !loading.problems.is_empty() {
            return Err(LoadError {
                problems: loading.problems,
            });
        }
        let sets = by_action(&schema, &loading.set).map_err(|error| LoadError {
            problems: vec![located("policies", "", 0, error.to_string())],
        })?;
        Ok(Self {
            schema,
            sets,
            texts: loading.texts,
            order: loading.order,
            digest: digest(&sources),
            text: text(&sources),
        })
    }
}

/// What has been read so far, and what is wrong with it.
#[derive(Default)]
struct Loading {
    set: PolicySet,
    texts: HashMap<PolicyId, PolicyText>,
    order: HashMap<PolicyId, usize>,
    /// The source that each policy came from, by position, and where it starts there.
    origin: HashMap<PolicyId, (String, usize)>,
    problems: Vec<PolicyProblem>,
}

impl Loading {
    fn source(&mut self, source: &PolicySource) {
        if source.text.len() > MAX_SOURCE_BYTES {
            let message = format!("the file is larger than {MAX_SOURCE_BYTES} bytes");
            return self.problem(source, 0, message, None);
        }
        let parsed = match PolicySet::from_str(&source.text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                let found = errors
                    .iter()
                    .map(|e| diagnosed(&source.name, &source.text, e));
                return self.problems.extend(found);
            }
        };
        for template in parsed.templates() {
            let start = source.text.find(&template.to_cedar()).unwrap_or(0);
            let help = "Write the principal and the resource out instead of `?principal`.";
            let message = "templates are not supported".to_owned();
            self.problem(source, start, message, Some(help.to_owned()));
        }
        let mut found: Vec<_> = parsed.policies().map(|p| (offset(source, p), p)).collect();
        found.sort_by_key(|(start, _)| *start);
        for (start, policy) in found {
            self.policy(source, start, policy);
        }
    }

    fn policy(&mut self, source: &PolicySource, start: usize, policy: &Policy) {
        let Some(id) = self.annotation(source, start, policy, "id") else {
            return;
        };
        let well_formed = id.len() <= MAX_ID_BYTES
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !well_formed {
            let message = format!("policy id {id:?} is not made of a-z, 0-9 and `-`");
            return self.problem(source, start, message, None);
        }
        let (Some(title), Some(remedy)) = (
            self.annotation(source, start, policy, "title"),
            self.annotation(source, start, policy, "remedy"),
        ) else {
            return;
        };
        let refusal = match policy
            .annotation("refusal")
            .map(Template::parse)
            .transpose()
        {
            Ok(refusal) => refusal,
            Err(error) => {
                let message = format!("policy `{id}`: {error}");
                return self.problem(source, start, message, Some(Template::help()));
            }
        };
        let policy = policy.new_id(PolicyId::new(&id));
        let key = policy.id().clone();
        if self.texts.contains_key(&key) {
            let (file, _) = &self.origin[&key];
            let message = format!("policy id `{id}` is already used in {file}");
            return self.problem(source, start, message, None);
        }
        if self.texts.len() >= MAX_POLICIES {
            let message = format!("there are more than {MAX_POLICIES} policies");
            return self.problem(source, start, message, None);
        }
        if let Err(error) = self.set.add(policy) {
            return self.problem(source, start, error.to_string(), None);
        }
        self.order.insert(key.clone(), self.order.len());
        self.origin
            .insert(key.clone(), (source.name.clone(), start));
        self.texts.insert(
            key,
            PolicyText {
                title,
                remedy,
                refusal,
            },
        );
    }

    /// A required annotation's text; its absence is a problem.
    fn annotation(
        &mut self,
        source: &PolicySource,
        start: usize,
        policy: &Policy,
        key: &str,
    ) -> Option<String> {
        let text = policy.annotation(key).unwrap_or_default().trim();
        if text.is_empty() || text.len() > MAX_ANNOTATION_BYTES {
            let what = match policy.effect() {
                Effect::Permit => "permit",
                Effect::Forbid => "forbid",
            };
            let message = if text.is_empty() {
                format!("this `{what}` policy has no `@{key}`")
            } else {
                format!("the `@{key}` of this `{what}` policy exceeds {MAX_ANNOTATION_BYTES} bytes")
            };
            let help =
                "Every policy has an @id, a @title and a @remedy for those who read answers.";
            self.problem(source, start, message, Some(help.to_owned()));
            return None;
        }
        Some(text.to_owned())
    }

    fn validate(&mut self, schema: &Schema, sources: &[PolicySource]) {
        let result = Validator::new(schema.clone()).validate(&self.set, ValidationMode::Strict);
        let mut found = Vec::new();
        for error in result.validation_errors() {
            found.push(self.checked(sources, error.policy_id(), error));
        }
        // A policy that can never apply is a mistake as well: what it means to refuse would pass.
        for warning in result.validation_warnings() {
            found.push(self.checked(sources, warning.policy_id(), warning));
        }
        found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.problems.extend(found);
    }

    fn checked(
        &self,
        sources: &[PolicySource],
        id: &PolicyId,
        error: &dyn Diagnostic,
    ) -> PolicyProblem {
        let (file, start) = self.origin.get(id).cloned().unwrap_or_default();
        let text = sources
            .iter()
            .find(|s| s.name == file)
            .map_or("", |s| s.text.as_str());
        let at = first_label(error).unwrap_or(start);
        PolicyProblem {
            help: help(error),
            ..located(&file, text, at, error.to_string())
        }
    }

    fn problem(
        &mut self,
        source: &PolicySource,
        start: usize,
        message: String,
        help: Option<String>,
    ) {
        let problem = located(&source.name, &source.text, start, message);
        self.problems.push(PolicyProblem { help, ..problem });
    }
}

/// Splits policies by the actions that they can apply to. A request is checked against the schema
/// before it is asked, so a policy left out could never have decided it.
fn by_action(
    schema: &Schema,
    policies: &PolicySet,
) -> Result<HashMap<EntityUid, PolicySet>, Box<PolicySetError>> {
    let mut sets: HashMap<EntityUid, PolicySet> = HashMap::new();
    for policy in policies.policies() {
        let actions: HashSet<EntityUid> = policy
            .get_valid_request_envs(schema)
            .map(|environment| environment.action().clone())
            .collect();
        for action in actions {
            sets.entry(action).or_default().add(policy.clone())?;
        }
    }
    Ok(sets)
}

/// Where a policy starts in its source. Its text is a verbatim part of the source.
fn offset(source: &PolicySource, policy: &Policy) -> usize {
    policy
        .to_cedar()
        .and_then(|text| source.text.find(&text))
        .unwrap_or(0)
}

fn diagnosed(file: &str, text: &str, error: &(impl Diagnostic + ?Sized)) -> PolicyProblem {
    let at = error
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or(0, |label| label.offset());
    let help = error.help().map(|help| help.to_string());
    PolicyProblem {
        help,
        ..located(file, text, at, error.to_string())
    }
}

fn first_label(error: &dyn Diagnostic) -> Option<usize> {
    error
        .labels()
        .and_then(|mut labels| labels.next())
        .map(|label| label.offset())
}

fn help(error: &dyn Diagnostic) -> Option<String> {
    error.help().map(|help| help.to_string())
}

fn located(file: &str, text: &str, offset: usize, message: String) -> PolicyProblem {
    let before = text.get(..offset.min(text.len())).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    PolicyProblem {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
        help: None,
    }
}

/// SHA-256 over schema and sources, each name and text preceded by its length, so that no two
/// different sets of files read the same.
fn text(sources: &[PolicySource]) -> String {
    let schema = ("policies/schema.cedarschema", SCHEMA);
    let sources = sources.iter().map(|source| (&*source.name, &*source.text));
    std::iter::once(schema)
        .chain(sources)
        .map(|(name, text)| format!("// ---- {name}\n{}\n", text.trim_end()))
        .collect()
}

fn digest(sources: &[PolicySource]) -> String {
    let mut hasher = Sha256::new();
    let mut field = |text: &str| {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    };
    field(SCHEMA);
    for source in sources {
        field(&source.name);
        field(&source.text);
    }
    format!("sha256:{}", hex::encode(hasher.finalize()))
}
