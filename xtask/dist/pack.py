#!/usr/bin/env python3
"""Packs the binary as people install things: an archive, a Debian package, a wheel, an OCI image.

    pack.py --binary FILE --version V --machine x86_64 --to FOLDER

The same binary gives the same bytes: no time and no account of the host is in them.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile
import tempfile
import zipfile

NAME = "barecount"
SUMMARY = "Runs data pipelines in sandboxes, commits their outputs once, and proves what ran."
# 1980, before which a zip archive has no time.
EPOCH = 315532800
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = {"x86_64": "amd64", "aarch64": "arm64"}
SHELLS = {
    "bash": "usr/share/bash-completion/completions/barecount",
    "zsh": "usr/share/zsh/vendor-completions/_barecount",
    "fish": "usr/share/fish/vendor_completions.d/barecount.fish",
}
GLIBC = {"x86_64": "manylinux_2_17", "aarch64": "manylinux_2_17"}


def tree(binary: pathlib.Path) -> dict[str, tuple[bytes, int]]:
    """What a system gets, by its place below the root: the binary, its manual and completions."""
    files = {"usr/bin/barecount": (binary.read_bytes(), 0o755)}
    ask = lambda *words: subprocess.run([binary, *words], check=True, capture_output=True).stdout
    for shell, place in SHELLS.items():
        files[place] = (ask("completions", shell), 0o644)
    with tempfile.TemporaryDirectory() as folder:
        ask("man", "--to", folder)
        for page in sorted(pathlib.Path(folder).iterdir()):
            place = f"usr/share/man/man1/{page.name}.gz"
            files[place] = (gzip.compress(page.read_bytes(), mtime=0), 0o644)
    return files


def tar(files: dict[str, tuple[bytes, int]], prefix: str = "") -> bytes:
    """A tar archive with the folders of its files; everything is root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders = {parent for name in files for parent in pathlib.PurePosixPath(prefix + name).parents}
        for folder in sorted(folders - {pathlib.PurePosixPath(".")}):
            entry = tarfile.TarInfo(str(folder))
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            archive.addfile(entry)
        for name, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(prefix + name)
            entry.size, entry.mode, entry.mtime = len(content), mode, EPOCH
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive(files, version, machine, to):
    stem = f"{NAME}-{version}-{machine}-linux"
    path = to / f"{stem}.tar.gz"
    path.write_bytes(gzip.compress(tar(files, f"{stem}/"), mtime=0))
    return path


def debian(files, version, machine, to):
    """deb(5): an ar archive of a version, what dpkg is told, and what it unpacks."""
    size = sum(len(content) for content, _ in files.values()) // 1024 + 1
    control = (
        f"Package: {NAME}\nVersion: {version}\nArchitecture: {DEBIAN[machine]}\n"
        f"Maintainer: BareCount <packages@barecount.dev>\nInstalled-Size: {size}\n"
        "Section: utils\nPriority: optional\nHomepage: https://barecount.dev\n"
        f"Description: execution layer of a data platform\n {SUMMARY}\n"
    )
    sums = "".join(f"{hashlib.md5(content).hexdigest()}  {name}\n" for name, (content, _) in sorted(files.items()))
    told = {"control": (control.encode(), 0o644), "md5sums": (sums.encode(), 0o644)}
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar(told, "./"), mtime=0),
        "data.tar.gz": gzip.compress(tar(files, "./"), mtime=0),
    }
    path = to / f"{NAME}_{version}_{DEBIAN[machine]}.deb"
    with open(path, "wb") as out:
        out.write(b"!<arch>\n")
        for name, content in members.items():
            out.write(f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            out.write(content + b"\n" * (len(content) % 2))
    return path


def wheel(files, version, machine, to):
    """The binary distribution format of Python packages, whose one script is the binary."""
    info = f"{NAME}-{version}.dist-info"
    tag = f"py3-none-{GLIBC[machine]}_{machine}"
    metadata = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\nSummary: {SUMMARY}\n"
    wheel = f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: false\nTag: {tag}\n"
    members = {
        f"{NAME}-{version}.data/scripts/{NAME}": files["usr/bin/barecount"],
        f"{info}/METADATA": (metadata.encode(), 0o644),
        f"{info}/WHEEL": (wheel.encode(), 0o644),
    }
    digest = lambda content: base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record = "".join(f"{name},sha256={digest(content)},{len(content)}\n" for name, (content, _) in members.items())
    members[f"{info}/RECORD"] = (f"{record}{info}/RECORD,,\n".encode(), 0o644)
    path = to / f"{NAME}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (content, mode) in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, (0o100000 | mode) << 16
            archive.writestr(entry, content)
    return path


def image(files, version, machine, to):
    """An OCI image layout of one layer, in a tar archive."""
    layer = tar({"usr/bin/barecount": files["usr/bin/barecount"]})
    layout = {"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644)}

    def blob(content: bytes, kind: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        layout[f"blobs/sha256/{digest}"] = (content, 0o644)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    packed = gzip.compress(layer, mtime=0)
    config = {
        "architecture": OCI[machine],
        "os": "linux",
        "config": {"Entrypoint": ["/usr/bin/barecount"], "Env": ["PATH=/usr/bin"], "WorkingDir": "/work"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [blob(packed, "layer.v1.tar+gzip")],
    }
    named = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": version}
    index = {"schemaVersion": 2, "manifests": [named]}
    layout["index.json"] = (json.dumps(index).encode(), 0o644)
    path = to / f"{NAME}-{version}-{machine}.oci.tar"
    path.write_bytes(tar(layout))
    return path


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--version", required=True)
    arguments.add_argument("--machine", choices=sorted(DEBIAN), required=True)
    arguments.add_argument("--to", type=pathlib.Path, required=True)
    given = arguments.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    files = tree(given.binary.resolve())
    made = [pack(files, given.version, given.machine, given.to) for pack in (archive, debian, wheel, image)]
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    (given.to / "SHA256SUMS").write_text(sums)
    for path in made:
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path.name}")


if __name__ == "__main__":
    main()
