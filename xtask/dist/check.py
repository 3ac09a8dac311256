#!/usr/bin/env python3
"""Installs each of the packages in a folder as its users do, and runs a pipeline with it.

    check.py FOLDER

The archive's binary runs in a root folder with nothing else in it, which shows that it needs no
library of the host. Debian's package goes into a root folder of dpkg's own, the wheel into a virtual
environment, the image is started by runc.
"""

import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import venv


def run(*command, **options) -> str:
    options.setdefault("timeout", 120)
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if ended.returncode != 0:
        sys.exit(f"{command} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def works(binary: pathlib.Path, scratch: pathlib.Path) -> None:
    """Runs the pipeline that `init` writes, and verifies what it left."""
    place = scratch / "place"
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "XDG_CONFIG_HOME": str(scratch / "config")}
    place.mkdir()
    for words in ("init", "run pipeline.yaml", "outputs export kpi.weekdays", "evidence verify"):
        told = run(binary, *words.split(), cwd=place, env=environment)
    if not told.startswith("valid"):
        sys.exit(f"the evidence does not verify: {told}")


def archive(path: pathlib.Path, scratch: pathlib.Path) -> None:
    with tarfile.open(path) as packed:
        packed.extractall(scratch / "unpacked", filter="data")
    (binary,) = (scratch / "unpacked").glob("*/usr/bin/barecount")
    works(binary, scratch)
    empty = scratch / "empty"
    empty.mkdir()
    os.link(binary, empty / "barecount")
    # A program that is linked statically asks the devices for random numbers.
    (empty / "dev").mkdir()
    for device in ("random", "urandom"):
        (empty / "dev" / device).touch()
    enter = 'for d in random urandom; do mount --bind "/dev/$d" "$1/dev/$d"; done && exec chroot "$@"'
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", enter, "sh", empty, "/barecount"]
    run(*alone, "init", "/one")
    run(*alone, "validate", "/one/pipeline.yaml")


def debian(path: pathlib.Path, scratch: pathlib.Path) -> None:
    root = scratch / "root"
    for folder in ("info", "updates"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    run("dpkg", f"--root={root}", "--force-not-root", "--log=/dev/null", "--install", path)
    works(root / "usr/bin/barecount", scratch)
    page = gzip.decompress((root / "usr/share/man/man1/barecount-run.1.gz").read_bytes())
    if b"dry" not in page or not (root / "usr/share/bash-completion/completions/barecount").is_file():
        sys.exit("the package has no manual or no completions")
    if (left := run("dpkg", f"--root={root}", "--verify", "barecount")) != "":
        sys.exit(f"what dpkg unpacked is not what it was told: {left}")


def wheel(path: pathlib.Path, scratch: pathlib.Path) -> None:
    venv.create(scratch / "venv", with_pip=True)
    pip = [scratch / "venv/bin/pip", "--disable-pip-version-check", "install", "--no-index"]
    run(*pip, path)
    works(scratch / "venv/bin/barecount", scratch)


def image(path: pathlib.Path, scratch: pathlib.Path) -> None:
    layout = scratch / "layout"
    with tarfile.open(path) as packed:
        packed.extractall(layout, filter="data")

    def blob(named: dict) -> bytes:
        content = (layout / "blobs" / named["digest"].replace(":", "/")).read_bytes()
        if named["digest"] != "sha256:" + hashlib.sha256(content).hexdigest() or named["size"] != len(content):
            sys.exit(f"{named} is not what is there")
        return content

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    bundle = scratch / "bundle"
    bundle.mkdir()
    for layer, diff in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        content = gzip.decompress(blob(layer))
        if diff != "sha256:" + hashlib.sha256(content).hexdigest():
            sys.exit(f"the layer is not {diff}")
        (scratch / "layer.tar").write_bytes(content)
        with tarfile.open(scratch / "layer.tar") as packed:
            packed.extractall(bundle / "rootfs", filter="tar")
    run("runc", "spec", cwd=bundle)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"]["args"] = [*config["config"]["Entrypoint"], "--version"]
    spec["process"]["terminal"] = False
    (bundle / "config.json").write_text(json.dumps(spec))
    name = f"barecount-dist-{os.getpid()}"
    told = run("runc", "run", name, cwd=bundle, stdin=subprocess.DEVNULL)
    if not told.startswith("barecount "):
        sys.exit(f"the image says {told}")


def main() -> None:
    folder = pathlib.Path(sys.argv[1]).resolve()
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} is not what SHA256SUMS says")
    for pattern, check in {"*.tar.gz": archive, "*.deb": debian, "*.whl": wheel, "*.oci.tar": image}.items():
        (path,) = folder.glob(pattern)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            check(path, pathlib.Path(scratch))
        print(f"{path.name} works")


if __name__ == "__main__":
    main()
