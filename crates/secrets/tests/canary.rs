//! A canary in every operation, searched for in every byte that was written and in everything
//! that can be printed.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Mutex;

use barecount_secrets::{
    Access, Argon2Cost, EmbeddedProvider, Gate, KeyFile, Lease, Limits, MemoryFolder, Passphrase,
    Redactor, Reference, Scope, SecretName, Store, WrappingKey,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};

const CANARY: &[u8] = b"canary+4711/\"yellow\\bird?~ and feathers";
const LATER: &[u8] = b"another>canary&of%the{second}version";
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The texts in which a value would show.
fn traces(value: &[u8]) -> Vec<Vec<u8>> {
    let mut traces = vec![
        value.to_vec(),
        value[..12].to_vec(),
        value[value.len() - 12..].to_vec(),
    ];
    traces.push(hex::encode(value).into_bytes());
    traces.push(hex::encode_upper(value).into_bytes());
    for before in 0..3 {
        let padded = [&[0; 3][..before], value].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let digits = engine.encode(&padded);
            traces.push(digits.as_bytes()[4..digits.len() - 4].to_vec());
        }
    }
    let json = serde_json::to_string(&String::from_utf8_lossy(value)).unwrap_or_default();
    traces.push(json.trim_matches('"').as_bytes().to_vec());
    // As `{:?}` prints bytes.
    let numbers: Vec<_> = value[..6].iter().map(u8::to_string).collect();
    traces.push(numbers.join(", ").into_bytes());
    traces
}

fn shows(bytes: &[u8], value: &[u8]) -> bool {
    traces(value)
        .iter()
        .any(|trace| bytes.windows(trace.len()).any(|window| window == trace))
}

fn assert_clean(folder: &Path, step: &str) -> Result<(), Box<dyn Error>> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        for value in [CANARY, LATER] {
            assert!(
                !shows(&bytes, value),
                "{step}: a value is in {}",
                path.display()
            );
        }
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let named = [name, &bytes].concat();
        let needle = b"netsuite";
        let named = named.windows(needle.len()).any(|window| window == needle);
        assert!(!named, "{step}: the secret's name is in {}", path.display());
        files += 1;
    }
    assert!(files > 0, "{step}: there is a store to be searched");
    Ok(())
}

fn scope(declared: &[&str]) -> Result<Scope, Box<dyn Error>> {
    let declared: Result<BTreeSet<Reference>, _> =
        declared.iter().map(|text| text.parse()).collect();
    Ok(Scope {
        tenant: "acme".parse()?,
        pipeline: "orders".parse()?,
        stage: "poll".parse()?,
        run: "run_00000000000000000000000000000007".parse()?,
        attempt: 2,
        declared: declared?,
        lasts: SignedDuration::from_mins(15),
    })
}

fn store(home: &Path) -> Result<(KeyFile, Store), Box<dyn Error>> {
    let key = KeyFile::create(home.join("key"))?;
    let folder = home.join("secrets");
    let keys = Box::new(key.clone());
    let store = Store::create(&folder, "acme".parse()?, keys, Limits::default(), NOW)?;
    Ok((key, store))
}

#[test]
fn no_byte_of_the_store_ever_shows_a_value_or_a_name() -> Result<(), Box<dyn Error>> {
    assert!(
        shows(format!("<{}>", hex::encode(CANARY)).as_bytes(), CANARY),
        "the control"
    );
    let home = tempfile::tempdir()?;
    let (key, store) = store(home.path())?;
    let folder = home.path().join("secrets");
    let name: SecretName = "erp/netsuite".parse()?;
    store.set(&name, &mut &CANARY[..], NOW)?;
    assert_clean(&folder, "set")?;
    store.set(&name, &mut &LATER[..], NOW)?;
    assert_clean(&folder, "set again")?;
    assert_eq!(
        store.get(&Reference::current(name.clone()))?.1.expose(),
        LATER
    );
    assert_eq!(
        store.get(&Reference::exact(name.clone(), 1))?.1.expose(),
        CANARY
    );
    assert_clean(&folder, "get")?;
    key.add()?;
    assert_eq!(store.rotate(NOW)?.rewrapped, 2);
    assert_clean(&folder, "rotate")?;
    store.remove(&name)?;
    assert_clean(&folder, "remove")?;
    Ok(())
}

#[test]
fn nothing_that_is_printed_or_serialized_shows_a_value() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let (key, store) = store(home.path())?;
    let key_text = std::fs::read_to_string(key.path())?;
    let key_line = key_text.lines().nth(1).ok_or("a key")?;
    let name: SecretName = "erp/netsuite".parse()?;
    store.set(&name, &mut &CANARY[..], NOW)?;
    let (reference, secret) = store.get(&Reference::current(name))?;
    let redactor = Redactor::new([("erp/netsuite", &secret)])?;
    let mut stream = redactor.stream();
    stream.push(&CANARY[..20]);
    let phrase = Passphrase::new(
        secret.clone(),
        vec![secret.clone()],
        Argon2Cost::RECOMMENDED,
    )?;
    let listed = store.list()?;
    let mut shown = vec![
        format!("{secret:?} {redactor:?} {stream:?} {phrase:?} {key:?} {store:?} {listed:?}"),
        serde_json::to_string(&listed)?,
        format!("{:?}", WrappingKey::from_slice(&CANARY[..32])),
    ];
    let expires_at = NOW + SignedDuration::from_secs(60);
    let lease = Lease::new(secret, reference, expires_at);
    shown.push(format!("{lease:?} {lease:#?}"));
    shown.push(format!("{:?}", lease.value(expires_at)));
    shown.push(format!(
        "{:?}",
        Gate::new(EmbeddedProvider::new(store), Mutex::new(vec![]))
    ));
    for text in &shown {
        assert!(!shows(text.as_bytes(), CANARY), "{text}");
        assert!(!text.contains(key_line), "{text}");
    }
    Ok(())
}

type Log = Mutex<Vec<Access>>;

/// A gate to a store in which `a` has two versions and `b` one.
fn gate<'a>(home: &Path, log: &'a Log) -> Result<Gate<EmbeddedProvider, &'a Log>, Box<dyn Error>> {
    let (_, store) = store(home)?;
    store.set(&"a".parse()?, &mut &CANARY[..], NOW)?;
    store.set(&"a".parse()?, &mut &LATER[..], NOW)?;
    store.set(&"b".parse()?, &mut &LATER[..], NOW)?;
    let provider = EmbeddedProvider::new(store);
    Ok(Gate::new(provider, log))
}

#[test]
fn a_run_gets_what_it_declares_for_some_time() -> Result<(), Box<dyn Error>> {
    let (home, log) = (tempfile::tempdir()?, Log::default());
    let gate = gate(home.path(), &log)?;
    let lease = block_on(gate.fetch(&"a".parse()?, &scope(&["a"])?, NOW))?;
    assert_eq!(lease.reference().to_string(), "a@2");
    assert_eq!(lease.value(NOW)?.expose(), LATER);
    let end = NOW + SignedDuration::from_mins(15);
    assert_eq!(lease.expires_at(), end);
    let expired = lease.value(end).expect_err("its time is over");
    let message = format!("the lease of secret `a@2` ended at {end}");
    assert_eq!(expired.to_string(), message);
    let exact = block_on(gate.fetch(&"a@1".parse()?, &scope(&["a@1"])?, NOW))?;
    assert_eq!(exact.value(NOW)?.expose(), CANARY);
    Ok(())
}

#[test]
fn what_a_run_does_not_declare_is_refused() -> Result<(), Box<dyn Error>> {
    let (home, log) = (tempfile::tempdir()?, Log::default());
    let gate = gate(home.path(), &log)?;
    let scope = scope(&["a", "missing"])?;
    for (reference, problem) in [
        ("b", "stage `poll` does not declare secret `b`"),
        ("a@1", "stage `poll` does not declare secret `a@1`"),
        ("missing", "secret `missing` cannot be fetched"),
    ] {
        let refused = block_on(gate.fetch(&reference.parse()?, &scope, NOW));
        let refused = refused.expect_err("it is not to be had");
        assert_eq!(refused.to_string(), problem);
        assert!(refused.help().is_some(), "{refused}");
    }
    Ok(())
}

#[test]
fn every_access_is_on_record_without_its_value() -> Result<(), Box<dyn Error>> {
    let (home, log) = (tempfile::tempdir()?, Log::default());
    let gate = gate(home.path(), &log)?;
    let scope = scope(&["a", "missing"])?;
    assert!(block_on(gate.fetch(&"a".parse()?, &scope, NOW)).is_ok());
    for reference in ["b", "missing"] {
        assert!(block_on(gate.fetch(&reference.parse()?, &scope, NOW)).is_err());
    }
    let tenant = "umbrella".parse()?;
    let other = Scope { tenant, ..scope };
    assert!(block_on(gate.fetch(&"a".parse()?, &other, NOW)).is_err());
    let accesses = log.lock().map_err(|_| "poisoned")?;
    let verdicts: Vec<_> = accesses
        .iter()
        .map(|access| {
            let reason = access.reason.as_deref().unwrap_or_default();
            format!("{} {:?} {reason}", access.reference, access.verdict)
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            "a@2 Allowed ",
            "b Refused stage `poll` does not declare secret `b`",
            "missing Failed secret `missing` is not there",
            "a Failed the service has no secrets of tenant `umbrella`",
        ]
    );
    let text = serde_json::to_string(&*accesses)?;
    let first = concat!(
        r#"[{"reference":"a@2","tenant":"acme","pipeline":"orders","stage":"poll","#,
        r#""run":"run_00000000000000000000000000000007","attempt":2,"#,
        r#""at":"1970-01-01T00:00:00Z","verdict":"allowed"},"#
    );
    assert!(text.starts_with(first), "{text}");
    assert!(!shows(text.as_bytes(), CANARY) && !shows(text.as_bytes(), LATER));
    assert_eq!(serde_json::from_str::<Vec<Access>>(&text)?, *accesses);
    Ok(())
}

/// A log whose disk is full.
struct Full;

#[async_trait::async_trait]
impl barecount_secrets::AccessLog for Full {
    async fn record(&self, _: &Access) -> Result<(), barecount_secrets::NotRecorded> {
        Err(barecount_secrets::NotRecorded("the disk is full".into()))
    }
}

#[test]
fn what_cannot_be_recorded_is_not_given() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let (_, store) = store(home.path())?;
    store.set(&"a".parse()?, &mut &CANARY[..], NOW)?;
    let gate = Gate::new(EmbeddedProvider::new(store), Full);
    let refused = block_on(gate.fetch(&"a".parse()?, &scope(&["a"])?, NOW));
    assert_eq!(
        refused.expect_err("it fails closed").to_string(),
        "secret `a` is not given"
    );
    Ok(())
}

#[test]
fn a_secret_goes_from_the_store_to_a_file_and_out_of_the_log() -> Result<(), Box<dyn Error>> {
    let (home, within) = (tempfile::tempdir()?, tempfile::tempdir_in("/dev/shm")?);
    let memory = MemoryFolder::new(within.path(), "secrets");
    let (_, store) = store(home.path())?;
    store.set(&"erp/netsuite".parse()?, &mut &CANARY[..], NOW)?;
    let gate = Gate::new(EmbeddedProvider::new(store), Mutex::new(vec![]));
    let lease = block_on(gate.fetch(&"erp/netsuite".parse()?, &scope(&["erp/netsuite"])?, NOW))?;
    let file = "token".parse()?;
    let mounted = memory.mount("one", [(&file, lease.value(NOW)?)])?;
    assert_eq!(std::fs::read(mounted.folder().join("token"))?, CANARY);
    let redactor = Redactor::new([("erp/netsuite", lease.redactable())])?;
    let line = format!(
        "Basic {}\n",
        STANDARD_NO_PAD.encode([b"user:", CANARY].concat())
    );
    let redacted = redactor.redact_str(&line);
    assert!(redacted.contains("[redacted:erp/netsuite]") && !shows(redacted.as_bytes(), CANARY));
    mounted.remove()?;
    assert_eq!(std::fs::read_dir(memory.path())?.count(), 0);
    Ok(())
}
