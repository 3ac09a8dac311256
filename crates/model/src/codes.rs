//! The one table of codes that diagnostics, refusals and failures carry.
//!
//! A code is stable: its meaning never changes and a retired code is not given out again. Each has
//! a page, `docs/errors/<code>.md`, and a test that the page exists. Ranges: `BC01xx` document
//! syntax, `BC02xx` manifest, `BC03xx` environment, `BC04xx` policy, `BC05xx` artifacts and lock,
//! `BC06xx` runners and sandbox, `BC07xx` data, `BC08xx` state and control, `BC09xx` ledger,
//! `BC10xx` secrets.

/// A stable code with its title and meaning, as its page tells at length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    /// `BC` and four digits.
    pub id: &'static str,
    /// A few words, the heading of the page.
    pub title: &'static str,
    /// One sentence: what is wrong when this code is reported.
    pub meaning: &'static str,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.id)
    }
}

/// The code with this id, if there is one.
pub fn find(id: &str) -> Option<&'static Code> {
    ALL.iter().find(|code| code.id == id)
}

macro_rules! codes {
    ($($name:ident = $id:literal, $title:literal, $meaning:literal;)+) => {
        $(#[doc = $meaning] pub const $name: Code = Code { id: $id, title: $title, meaning: $meaning };)+

        /// Every code, in ascending order.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    // BC01xx: document syntax
    SYNTAX = "BC0101", "not well-formed YAML", "The file cannot be read as YAML or JSON.";
    NOT_UTF8 = "BC0102", "not UTF-8", "The file is not encoded as UTF-8.";
    TOO_LARGE = "BC0103", "file too large", "The file is larger than any such document needs to be.";
    TOO_DEEP = "BC0104", "nested too deeply", "Lists and mappings are nested deeper than any such document needs.";
    TOO_MANY_NODES = "BC0105", "too many values", "The document holds more values than any such document needs.";
    DUPLICATE_KEY = "BC0106", "duplicate key", "A mapping has the same key twice, so that one of the two would be lost.";
    ALIAS = "BC0107", "anchor or alias", "The document uses a YAML anchor or alias; values are written out where they apply.";
    TAG = "BC0108", "YAML tag", "The document uses a YAML tag; types follow from the schema.";
    SEVERAL_DOCUMENTS = "BC0109", "more than one document", "The file holds several YAML documents where one is expected.";
    EMPTY = "BC0110", "empty document", "The file holds no document.";
    BAD_KEY = "BC0111", "key is not text", "A key of a mapping is a list, a mapping or empty.";
    BAD_NUMBER = "BC0112", "number out of range", "A number is not finite, or too large to be held exactly.";
    BAD_CHARACTER = "BC0113", "character not allowed", "The file holds a control character or one that reverses the direction of text.";

    // BC02xx: manifest
    UNKNOWN_KEY = "BC0201", "unknown key", "A mapping has a key that its schema does not know.";
    MISSING_KEY = "BC0202", "missing key", "A mapping lacks a key that its schema requires.";
    WRONG_TYPE = "BC0203", "wrong type of value", "A value is of another type than its schema asks for.";
    UNKNOWN_VALUE = "BC0204", "unknown value", "A value is not one of those that the schema lists.";
    INVALID_VALUE = "BC0205", "invalid value", "A value does not have the form that its schema asks for.";
    OUT_OF_RANGE = "BC0206", "value out of range", "A number, text or list is smaller or larger than allowed.";
    INVALID_NAME = "BC0207", "invalid name", "A name does not follow the rule for names of its kind.";
    INVALID_PATH = "BC0208", "path leaves the pipeline's folder", "A path is absolute, climbs with `..`, or is not written in its plain form.";
    WRONG_KIND = "BC0209", "another kind of document", "The `kind` names another document than the one expected here.";
    DUPLICATE_STAGE = "BC0210", "duplicate stage", "Two stages have the same name.";
    CYCLE = "BC0211", "stages depend on each other in a circle", "No stage of the circle could ever start.";
    UNKNOWN_DATASET = "BC0212", "dataset that no stage writes", "A stage reads a dataset that no stage of the pipeline writes.";
    DATASET_WRITTEN_TWICE = "BC0213", "dataset written by two stages", "A dataset has exactly one stage that writes it.";
    MISSING_ARTIFACT = "BC0214", "runner class without its artifact", "A runner class lacks what it runs: a package, an image, a job or a command.";
    FIELD_NOT_OF_CLASS = "BC0215", "field of another runner class", "A stage sets a field or a contract that has no meaning for its runner class.";
    MISSING_RUNNER = "BC0216", "runner not decided", "Neither the stage nor the pipeline's defaults say the class, size or network profile.";
    UNKNOWN_COLUMN = "BC0217", "unknown column", "A partition or an acceptance test names a column that the output does not declare.";
    DUPLICATE_COLUMN = "BC0218", "duplicate column", "An output declares a column twice.";
    TIMEOUT_ABOVE_CLASS = "BC0219", "timeout above the limit of the class", "The timeout is longer than the runner class can keep.";
    INVALID_EGRESS = "BC0220", "invalid egress", "A stage declares one host and port as a destination twice, or more ports than a sandbox has.";
    INVALID_SIZE = "BC0221", "size does not fit the class", "The size `custom` is declared in full, and for dedicated compute only.";
    INVALID_SCHEDULE = "BC0222", "invalid schedule", "A cron expression or a time zone does not exist.";
    INVALID_PARTITIONS = "BC0223", "invalid partitions", "The partitions of a stage, an input or an output contradict each other.";
    INVALID_COLUMNS = "BC0224", "invalid columns", "The columns of an output do not describe it.";
    INVALID_TEST = "BC0225", "invalid acceptance test", "An acceptance test could never hold, or does not fit its column.";
    INVALID_INPUT = "BC0226", "invalid input", "An input is neither a dataset nor a named file, or is both, or is read in an impossible format.";
    UNKNOWN_STAGE = "BC0227", "unknown stage", "`needs` names a stage that the pipeline does not have.";
    INVALID_EVENT = "BC0228", "invalid event", "An event lacks what its type needs, or sets what another type has.";
    RESERVED_VARIABLE = "BC0229", "reserved environment variable", "The stage sets an environment variable that belongs to the platform, or whose name is impossible.";
    INVALID_RETRIES = "BC0230", "invalid retries", "The backoff of a stage's retries contradicts itself.";
    DUPLICATE_INPUT = "BC0231", "input read twice", "A stage declares the same input twice.";
    CROSSING_UNDECLARED = "BC0232", "data would cross a boundary", "A stage reads a dataset from within a stricter boundary than its own, and the manifest does not say that it may.";
    JOB_NOT_PLANNABLE = "BC0233", "job that could never run", "A job's SQL is not there, cannot be read, or does not fit the datasets that the manifest declares.";
    SECRET_IN_MANIFEST = "BC0280", "secret in the manifest", "A literal value looks like a secret, and a manifest is kept for ever.";
    OVERSIZED = "BC0281", "exceptional size", "The size `xlarge` or `custom` is for exceptional work and needs an approval.";
    LONG_SERVERLESS = "BC0282", "long work on serverless", "A serverless stage may run long enough that another class is the cheaper and safer one.";
    TINY_CONTAINER = "BC0283", "control task in a container", "A container or a dedicated host is started for a small control task that serverless runs at a fraction of the cost.";
    UNTESTED_OUTPUT = "BC0284", "output without an acceptance test", "Nothing gates the commit of this dataset but its schema.";
    CROSSING_NEEDLESS = "BC0285", "crossing that is none", "An input declares a crossing, and its data stays in a boundary that is as strict.";

    // BC03xx: environment
    INVALID_ENVIRONMENT = "BC0301", "environment contradicts itself", "Two settings of the environment file cannot both hold.";
    LOCK_REFRESH_OUTSIDE_DEVELOPMENT = "BC0302", "lock refreshed outside development", "Only a development environment may let `run` refresh the lock.";
    PROCESS_ISOLATION_IN_PRODUCTION = "BC0303", "process isolation in production", "A production environment may not run work without a sandbox.";
    BACKEND_MISSING = "BC0304", "class without a backend", "The environment has no backend for a runner class that the pipeline uses.";
    INVALID_CATALOG = "BC0305", "catalog override contradicts itself", "An override of the catalog names a size that the class does not have, or limits nothing can run in.";
    PROCESS_ISOLATION_REFUSED = "BC0306", "process isolation refused", "A stage asks to run without a sandbox, and the environment does not allow it.";
    EGRESS_UNREACHABLE = "BC0307", "destination cannot be reached", "A stage declares a destination that its network profile does not lead to in this environment.";
    EGRESS_AUDIT_REFUSED = "BC0308", "egress audit refused", "A stage asks to reach what it does not declare, and the environment does not allow it.";
    SECRETS_UNAVAILABLE = "BC0309", "no secrets service", "A stage declares secrets, and the environment has no service to fetch them from.";
    TUNNEL_UNAVAILABLE = "BC0310", "tunnel cannot be set up", "The tunnel that the environment describes cannot be set up on this host.";
    RESIDENCY_UNMET = "BC0311", "residency not met", "A stage says where its data must stay, and the environment does not say that it is there.";
    APPROVAL_IN_FILE = "BC0312", "approval in the environment file", "The environment file holds approvals, which are acts on record and no lines of a file.";

    // BC04xx: policy
    REFUSED = "BC0401", "refused by policy", "Governance does not permit what was asked.";
    POLICIES_UNUSABLE = "BC0402", "policies cannot be used", "A policy file does not parse, or does not fit the schema.";
    ACCESS_OUT_OF_SCOPE = "BC0403", "access out of scope", "An attempt asked for an object that its identity has no access to.";
    IDENTITY_INVALID = "BC0404", "identity not valid", "An attempt came with an identity that has expired, was changed, or is another attempt's.";
    APPROVAL_NOT_NEEDED = "BC0405", "nothing to approve", "An approval was asked for that would change nothing: policy permits the stage without one, or refuses it with any.";
    APPROVAL_OVER = "BC0406", "approval is answered", "An approval was to be granted, denied or revoked that has been denied, granted or revoked already.";
    APPROVAL_INVALID = "BC0407", "approval is not as it was signed", "An approval in the state folder is not what the entries of the ledger make it.";
    APPROVAL_UNCOUNTED = "BC0408", "approval does not count any more", "A run was to begin by an approval that had ended, or was used as often as it was granted for.";

    // BC05xx: artifacts and lock
    INVALID_LOCK = "BC0501", "lock file is not valid", "The lock file contradicts itself or the manifest.";
    LOCK_INCOMPLETE = "BC0502", "lock file does not cover the manifest", "An artifact that the manifest names is not pinned in the lock file.";
    BUILD_FAILED = "BC0503", "artifact cannot be made", "A package, image, driver or job cannot be built or imported.";
    ARTIFACT_UNUSABLE = "BC0504", "artifact cannot be used", "An artifact that is pinned is not in the store, or is not what its digest says.";

    // BC06xx: runners and sandbox
    PROGRAM_FAILED = "BC0601", "program failed", "A program exited with a status other than 0.";
    PROGRAM_SIGNALLED = "BC0602", "program ended by a signal", "A signal ended a program that nobody had asked to stop.";
    OUT_OF_MEMORY = "BC0603", "out of memory", "A program needed more memory than its size has.";
    FUNCTION_FAILED = "BC0604", "function failed", "A function reported an error, or broke the protocol by which it is invoked.";
    DATA_BAD = "BC0605", "data is bad", "A program says that its data is at fault (exit status 65).";
    TRY_AGAIN = "BC0606", "program asks to be tried again", "A program exited with status 75.";
    PERMISSION = "BC0607", "program lacks a permission", "A program exited with status 77.";
    CONFIGURATION = "BC0608", "program is not configured right", "A program exited with status 78.";
    TIMEOUT = "BC0609", "attempt took too long", "An attempt did not end within its timeout.";
    NO_RUNNER = "BC0610", "no runner for the class", "No runner here serves the class of a stage.";
    LAUNCH_FAILED = "BC0611", "launch failed", "A runner could not start or watch an attempt.";
    FOLDERS_FAILED = "BC0612", "attempt's folders cannot be made", "The folders of an attempt cannot be made, filled or removed.";
    LAUNCHER_FAILED = "BC0613", "launcher cannot be started", "The process that starts sandboxes could not be started.";
    RUNNER_UNFIT = "BC0614", "no runner can carry the stage out", "No runner here can carry a stage out as it is declared.";
    DISK_USED_UP = "BC0615", "attempt used up its disk", "An attempt wrote more to its folders than its size has.";
    DISK_FULL = "BC0616", "host's disk is full", "The disk under the state folder has no room left for attempts.";

    // BC07xx: data
    DATASET_UNAVAILABLE = "BC0701", "dataset cannot be read", "A dataset has no committed version, or its table cannot be read.";
    FILE_CHANGED = "BC0702", "input file cannot be used", "A file beside the manifest cannot be read, or has changed since the run was submitted.";
    OUTPUT_NOT_AS_DECLARED = "BC0703", "output is not as declared", "What an attempt wrote for an output is not of the declared format or columns, or there is nothing.";
    ACCEPTANCE_FAILED = "BC0704", "acceptance test failed", "An output does not hold what its acceptance tests ask for.";
    STAGING_FAILED = "BC0705", "output cannot be staged", "What an attempt wrote could not be made durable.";
    COMMIT_NOT_ROLLED_FORWARD = "BC0706", "commit decision is not rolled forward", "Outputs are decided for, but not yet versions of their tables.";
    DEAD_LETTERS_UNREADABLE = "BC0707", "dead letters cannot be read", "What an attempt wrote to `_dead_letters` is not as the task contract says.";
    CHECKPOINT_BAD = "BC0708", "checkpoint cannot be kept", "What an attempt saved as its checkpoint is too large, or holds something that is no file.";
    CHECKPOINT_FAILED = "BC0709", "checkpoint cannot be read or written", "A checkpoint in the state folder is damaged, or cannot be written.";
    TOO_MANY_DEAD_LETTERS = "BC0710", "too many rows do not fit", "More rows of an output are dead letters than may be, or they take more than the stage's own disk.";
    DATA_ALTERED = "BC0711", "data file was altered", "A data file of a dataset is not the one that was committed.";
    SCHEMA_NOT_TAKEN = "BC0720", "dataset cannot take the declared schema", "An output declares columns that do not fit the rows that stay in its dataset.";
    COMMIT_ABANDONED = "BC0721", "commit decision given up", "Outputs were decided for and could not become versions of their tables, and somebody gave them up.";

    DATASET_OWNED = "BC0730", "dataset of another pipeline", "An output names a dataset that another pipeline of the tenant writes.";
    VERSION_GONE = "BC0731", "version cannot be restored", "A version of a dataset holds files that were removed since.";
    DATASET_UNWRITTEN = "BC0732", "dataset that no run wrote", "A dataset was to be changed by hand that no run on record has written.";
    IMPORT_MISSING = "BC0733", "dataset of another pipeline is not there", "A stage reads a dataset of another pipeline that the tenant does not have.";
    IMPORT_OWNER = "BC0734", "dataset of a third pipeline", "A stage reads a dataset as one pipeline's that belongs to another.";

    // BC08xx: state and control
    INTERRUPTED = "BC0801", "attempt was interrupted", "The platform's own process ended while the attempt was under way.";
    STATE_UNREADABLE = "BC0802", "state cannot be read", "The store in the state folder holds something that this program did not write.";
    STATE_IN_USE = "BC0803", "state folder is in use", "Another process works on the state folder.";
    STATE_UNWRITABLE = "BC0804", "state cannot be written", "The state folder cannot be made or written.";
    STATE_NEWER = "BC0805", "state is of a newer format", "A newer program wrote the state folder.";
    TOKEN_TAKEN = "BC0806", "token is taken", "The run token names a run of another version.";
    STATE_EXPOSED = "BC0808", "state folder is open to others", "Other users of the machine can enter or read the state folder.";
    STATE_CLOSED = "BC0815", "state folder is closed to this account", "The account that looks may not look into the state folder, or into something in it.";
    TABLE_UNOWNED = "BC0820", "dataset of no known tenant", "A dataset of an older state folder was written by several tenants, or by none on record.";
    TENANT_AMBIGUOUS = "BC0821", "several tenants have it", "What was named exists for several tenants.";
    OTHER_ENVIRONMENT = "BC0822", "state folder of another environment", "The state folder belongs to another environment than the one that was asked for.";

    RUN_OVER = "BC0830", "run has ended", "A run was to be cancelled or given up that has come to its end already.";
    RUN_IN_HAND = "BC0831", "run is worked on", "A run was to be cancelled or given up that a living process works on.";

    // BC09xx: ledger
    LEDGER_KEY = "BC0901", "ledger key cannot be used", "The key that signs or verifies the ledger is missing or is not a key.";
    LEDGER_UNWRITABLE = "BC0902", "ledger cannot be written", "Entries could not be integrated into the log.";
    LEDGER_INVALID = "BC0903", "ledger does not verify", "The log is not what a trusted key signed.";
    RECORD_INVALID = "BC0904", "record does not fit its evidence", "A record that lies beside the ledger is not the one whose digest is in it.";
    LEDGER_OLDER = "BC0905", "ledger is older than what was signed", "The log lacks entries that were signed here, or has others in their place.";
    JOURNAL_FOREIGN = "BC0906", "journal was changed", "What waits to be signed was not written by who holds the ledger's key, or nobody can tell.";
    RUN_ALTERED = "BC0907", "run is not what was signed", "What the store has of a run differs from what the ledger has of it.";

    // BC10xx: secrets
    SECRETS_STORE = "BC1001", "secrets store cannot be used", "The encrypted store of secrets is damaged, exposed to others, or cannot be read or written.";
    SECRET_NOT_FOUND = "BC1002", "secret is not there", "The store has no secret of that name, or not that version of it.";
    SECRET_REFUSED = "BC1003", "secret is not given", "An attempt asked for a secret that is not for it, or its access could not be recorded.";
    SECRETS_KEY = "BC1004", "key of the secrets store cannot be used", "The key file or passphrase is missing, exposed to others, or not the one that the store is encrypted under.";
    SECRET_VALUE = "BC1005", "value cannot be kept", "What was given as a secret's value is too short, too long, or was not given on standard input.";
    SECRETS_MEMORY = "BC1006", "secrets cannot be mounted", "There is no folder in memory that is the platform's alone for an attempt's secrets.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_well_formed_and_in_order() {
        for pair in ALL.windows(2) {
            assert!(
                pair[0].id < pair[1].id,
                "{} comes before {}",
                pair[0].id,
                pair[1].id
            );
        }
        for code in ALL {
            assert!(
                code.id.len() == 6 && code.id.starts_with("BC"),
                "{}",
                code.id
            );
            assert!(
                code.id[2..].bytes().all(|b| b.is_ascii_digit()),
                "{}",
                code.id
            );
            assert!(
                code.meaning.ends_with('.'),
                "{}: the meaning is a sentence",
                code.id
            );
        }
    }

    #[test]
    fn every_code_has_a_page_headed_by_its_title() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        for code in ALL {
            let path = pages.join(format!("{}.md", code.id));
            let page = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let heading = format!("# {}: {}\n", code.id, code.title);
            assert!(
                page.starts_with(&heading),
                "{} does not start with {heading:?}",
                path.display()
            );
        }
    }
}
