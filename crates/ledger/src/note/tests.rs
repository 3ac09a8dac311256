use super::*;
use proptest::prelude::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Key pair and note of the Go module `golang.org/x/mod/sumdb/note`, whose form this is.
const GO_SIGNER: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n";
const GO_SIGNATURE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, &[seed; 32]).expect("a fit name")
}

#[test]
fn the_go_implementations_key_makes_the_go_implementations_note() -> TestResult {
    let signer = SigningKey::parse(GO_SIGNER)?;
    assert_eq!(signer.encode().as_str(), GO_SIGNER);
    assert_eq!(signer.verifier().to_string(), GO_VERIFIER);
    let mut note = Note::new(GO_TEXT)?;
    note.sign(&signer);
    assert_eq!(note.to_string(), format!("{GO_TEXT}\n{GO_SIGNATURE}"));
    let trusted = [GO_VERIFIER.parse()?];
    assert_eq!(
        Note::parse(&note.to_bytes())?.verify(&trusted)?,
        [&trusted[0]]
    );
    Ok(())
}

#[test]
fn a_signing_key_never_shows_itself() {
    let key = key("log", 7);
    let secret = key.encode();
    let encoded = secret.rsplit('+').next().expect("a last part");
    assert!(!format!("{key:?}").contains(encoded));
    assert_eq!(
        format!("{key:?}"),
        format!(
            "SigningKey {{ verifier: {:?}, .. }}",
            key.verifier().label()
        )
    );
}

#[test]
fn text_with_empty_lines_ends_at_the_last_of_them() -> TestResult {
    let mut note = Note::new("a\n\nb\n\n")?;
    note.sign(&key("log", 1));
    let read = Note::parse(&note.to_bytes())?;
    assert_eq!(read.text(), "a\n\nb\n\n");
    assert_eq!(read, note);
    Ok(())
}

#[test]
fn signatures_of_strangers_are_kept_and_passed_over() -> TestResult {
    let log = key("log", 1);
    let mut note = Note::new("text\n")?;
    note.add(Signature {
        name: "witness".parse()?,
        key_id: 5,
        bytes: vec![4; 72],
    })?;
    note.sign(&log);
    // The same name under another id is another key, and so is the same id under another name.
    note.add(Signature {
        name: "log".parse()?,
        key_id: 9,
        bytes: vec![1; 64],
    })?;
    let id = log.verifier().key_id();
    note.add(Signature {
        name: "other".parse()?,
        key_id: id,
        bytes: vec![1; 64],
    })?;
    let read = Note::parse(&note.to_bytes())?;
    assert_eq!(read.signatures().len(), 4);
    assert_eq!(read.verify(&[log.verifier().clone()])?, [log.verifier()]);
    Ok(())
}

#[test]
fn a_failing_signature_of_a_trusted_key_condemns_the_note() -> TestResult {
    let (good, bad) = (key("good", 1), key("bad", 2));
    let mut note = Note::new("text\n")?;
    note.sign(&good);
    let id = bad.verifier().key_id();
    note.add(Signature {
        name: "bad".parse()?,
        key_id: id,
        bytes: vec![0; 64],
    })?;
    let trusted = [good.verifier().clone(), bad.verifier().clone()];
    assert_eq!(
        note.verify(&trusted),
        Err(SignatureError::Invalid {
            key: trusted[1].label()
        })
    );
    assert!(note.verify(&trusted[..1]).is_ok());
    let stranger = [key("stranger", 3).verifier().clone()];
    assert!(matches!(
        note.verify(&stranger),
        Err(SignatureError::UnknownKey { .. })
    ));
    Ok(())
}

#[test]
fn signing_twice_leaves_one_signature() -> TestResult {
    let mut note = Note::new("text\n")?;
    note.sign(&key("log", 1));
    note.sign(&key("log", 1));
    assert_eq!(note.signatures().len(), 1);
    Ok(())
}

#[test]
fn what_is_not_a_note_is_refused_with_its_place() {
    let line = "\u{2014} log AAAAAQIDBAU=\n";
    let cases: [(String, NoteError); 9] = [
        ("text\n".into(), NoteError::NoSignatures),
        ("text\n\n".into(), NoteError::NoSignatures),
        (format!("text\n{line}"), NoteError::NoSignatures),
        (
            format!("te\tt\n\n{line}"),
            NoteError::ControlCharacter { byte: 2 },
        ),
        (
            format!("text\r\n\n{line}"),
            NoteError::ControlCharacter { byte: 4 },
        ),
        (
            format!("text\n\n{line}x\n"),
            NoteError::MalformedSignature { line: 4 },
        ),
        (
            "text\n\n- log AAAAAQIDBAU=\n".into(),
            NoteError::MalformedSignature { line: 3 },
        ),
        (
            "text\n\n\u{2014} log AAAAAQ==\n".into(),
            NoteError::MalformedSignature { line: 3 },
        ),
        (
            "text\n\n\u{2014} l+g AAAAAQIDBAU=\n".into(),
            NoteError::MalformedSignature { line: 3 },
        ),
    ];
    for (text, error) in cases {
        assert_eq!(Note::parse(text.as_bytes()), Err(error), "{text:?}");
    }
    assert_eq!(
        Note::parse(b"a\xff\n\n"),
        Err(NoteError::NotUtf8 { byte: 1 })
    );
    let many = format!("text\n\n{}", line.repeat(MAX_SIGNATURES + 1));
    assert_eq!(
        Note::parse(many.as_bytes()),
        Err(NoteError::TooManySignatures)
    );
    let long = vec![b'a'; MAX_NOTE_BYTES + 1];
    assert_eq!(
        Note::parse(&long),
        Err(NoteError::TooLong {
            bytes: MAX_NOTE_BYTES + 1
        })
    );
    assert_eq!(Note::new("text"), Err(NoteError::UnterminatedText));
}

#[test]
fn a_verifier_key_has_one_spelling_and_no_weak_point() {
    let good = key("log", 1).verifier().to_string();
    let (name, rest) = good.split_once('+').expect("a name");
    let (id, point) = rest.split_once('+').expect("an id");
    let weak = {
        let name: KeyName = "log".parse().expect("a name");
        let mut bytes = [0; 33];
        (bytes[0], bytes[1]) = (1, 1);
        let digest = sha2::Sha256::new_with_prefix(name.as_str());
        let id = digest.chain_update([b'\n']).chain_update(bytes).finalize();
        format!(
            "log+{:02x}{:02x}{:02x}{:02x}+{}",
            id[0],
            id[1],
            id[2],
            id[3],
            BASE64.encode(bytes)
        )
    };
    assert_eq!(weak.parse::<VerifierKey>(), Err(KeyError::Point));
    for text in [
        format!(
            "{name}+{}+{point}",
            id.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")
        ),
        format!("{name}+{id}+{point}\n"),
        format!("{name}x+{id}+{point}"),
        format!("{name}+{id}+{}", &point[1..]),
        format!("+{id}+{point}"),
        String::new(),
    ] {
        assert!(text.parse::<VerifierKey>().is_err(), "{text:?}");
    }
}

use sha2::Digest as _;

proptest! {
    #[test]
    fn any_bytes_are_refused_or_write_back_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_bytes(), bytes);
        }
    }

    #[test]
    fn any_text_that_looks_like_a_note_writes_back_unchanged(text in "[a\n]{0,6}\n\n(\u{2014} [a-z+ ]{0,4} [A-Da-d/=]{0,12}\n){0,3}") {
        if let Ok(note) = Note::parse(text.as_bytes()) {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn any_changed_byte_of_a_signed_note_is_refused(at in any::<prop::sample::Index>(), mask in 1u8..) {
        let signer = key("example.com/log", 3);
        let mut note = Note::new("first\n\nlast\n")?;
        note.sign(&signer);
        let mut bytes = note.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        let believed = Note::parse(&bytes).ok().is_some_and(|n| n.verify(&[signer.verifier().clone()]).is_ok());
        prop_assert!(!believed);
    }

    #[test]
    fn keys_read_back(seed in any::<[u8; 32]>(), name in "[^\\s+\\p{Cc}]{1,20}") {
        let key = SigningKey::from_seed(&name, &seed)?;
        let read = SigningKey::parse(&key.encode())?;
        prop_assert_eq!(read.verifier(), key.verifier());
        prop_assert_eq!(&key.verifier().to_string().parse::<VerifierKey>()?, key.verifier());
    }

    #[test]
    fn any_text_is_a_key_in_its_own_spelling_or_none(text in ".{0,60}|[a-z]{1,4}\\+[0-9a-f]{8}\\+[A-Za-z0-9+/]{44}") {
        if let Ok(key) = text.parse::<VerifierKey>() {
            prop_assert_eq!(key.to_string(), &*text);
        }
        prop_assert!(SigningKey::parse(&text).is_err());
    }
}
