//! Images that run a Python script, with packages that a list pins.

use std::{path::Path, process::Command};

use barecount_e2e::{Outcome, place::Place, python};

const MANIFEST: &str = "
apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: greeting, tenant: demo, owner: you@example.com }
spec:
  classification: public
  stages:
    - name: greet
      phase: ingestion
      runner: { class: container, size: small, network_profile: private_vpc, image: images/greet }
      outputs:
        - dataset: raw.greetings
          format: csv
          columns: [{ name: greeting, type: string, nullable: false }]
";

const SCRIPT: &str = r#"
import csv, hashlib, json, os, pathlib, sqlite3, sys, zlib
import greeter

# Names of the installer's and of the standard library mean nothing in a package.
own = pathlib.Path(greeter.__file__).parent
assert (own / "bin/tests").is_file()
name = (own / "config-name/RECORD").read_text().strip()
import other

# Nothing of the host's own Python is there.
assert sys.prefix == "/opt/python", sys.prefix
assert not [path for path in sys.path if not path.startswith(("/opt/python", "/app"))], sys.path
folder = pathlib.Path(os.environ["BARECOUNT_OUTPUT_DIR"]) / "raw.greetings"
folder.mkdir(exist_ok=True)
(folder / "greetings.csv").write_text(f"greeting\n{greeter.GREETING} {name}{other.MARK}\n")
"#;

/// Makes a wheel of one module, as any build tool would; answers with its hash.
fn wheel(place: &Place, greeting: &str) -> String {
    let script = r#"
import hashlib, sys, zipfile
folder, greeting = sys.argv[1:]
name = folder + "/greeter-1.0-py3-none-any.whl"
info = "greeter-1.0.dist-info"
files = {
    "greeter/__init__.py": f"GREETING = {greeting!r}\n",
    "greeter/config-name/RECORD": "world\n",
    "greeter/bin/tests": "",
    info + "/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
    info + "/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    info + "/RECORD": "",
}
with zipfile.ZipFile(name, "w") as wheel:
    for file, text in files.items():
        wheel.writestr(zipfile.ZipInfo(file), text)
print(hashlib.sha256(open(name, "rb").read()).hexdigest())
"#;
    let folder = place.join("wheels");
    fs_err::create_dir_all(&folder).expect("a folder in the test's own");
    let made = Command::new(python::interpreter())
        .args(["-c", script])
        .arg(&folder)
        .arg(greeting)
        .output()
        .expect("a Python for the tests");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

fn greeting(greeting: &str) -> Place {
    let place = Place::new();
    let hash = wheel(&place, greeting);
    place.write("pipeline.yaml", MANIFEST);
    place.write("images/greet/greet.py", SCRIPT);
    place.write("images/greet/other.py", "MARK = '!'\n");
    place.write(
        "images/greet/build.yaml",
        "kind: image\npython: { script: greet.py, requirements: requirements.txt }\n\
         files: [{ from: other.py, to: /app/other.py }]\n",
    );
    place.write(
        "images/greet/requirements.txt",
        format!("greeter==1.0 --hash=sha256:{hash}\n"),
    );
    place
}

fn barecount(place: &Place, arguments: &[&str]) -> barecount_e2e::process::Finished {
    let folder = fs_err::canonicalize(python::interpreter()).expect("a Python for the tests");
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    place
        .barecount(arguments)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("PIP_FIND_LINKS", place.join("wheels"))
        .finish()
}

#[test]
fn a_script_runs_with_its_packages_and_two_builds_give_one_image() -> Outcome {
    let place = greeting("hello");
    barecount(&place, &["run", "pipeline.yaml"]).exits_with(0);
    barecount(&place, &["outputs", "export", "raw.greetings"]).tells("hello world!");
    let again = barecount(&place, &["build", "pipeline.yaml"]).exits_with(0);
    assert_eq!(again.stderr, "", "what is there already is not built again");
    let other = greeting("hello");
    barecount(&other, &["build", "pipeline.yaml"]).exits_with(0);
    let lock = |place: &Place| fs_err::read_to_string(place.join("pipeline.lock"));
    assert_eq!(lock(&place)?, lock(&other)?);
    place.nothing_is_left();
    Ok(())
}

#[test]
fn a_package_that_is_another_than_the_list_pins_is_not_taken() -> Outcome {
    let place = greeting("hello");
    wheel(&place, "good day");
    barecount(&place, &["run", "pipeline.yaml"])
        .fails_with(1, "BC0503")
        .tells("DO NOT MATCH THE HASHES");
    place.write("images/greet/requirements.txt", "greeter==1.0\n");
    barecount(&place, &["run", "pipeline.yaml"])
        .fails_with(1, "BC0503")
        .tells("--require-hashes");
    place.write("images/greet/greet.py", "import nobody_has_this\n");
    place.write(
        "images/greet/build.yaml",
        "kind: image\npython: { script: greet.py }\n",
    );
    barecount(&place, &["run", "pipeline.yaml"])
        .exits_with(1)
        .tells("No module named 'nobody_has_this'");
    Ok(())
}
