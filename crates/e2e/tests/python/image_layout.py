"""Writes an image as other tools make them: image_layout.py FOLDER PROGRAM ROWS

Two layers: a program with its rows, and what layers of ordinary images have that files of a recipe
have not. Names begin at the root, there is an entry for the root, a hard link by its absolute path,
a name with a backslash, a device and a named pipe.
"""

import hashlib
import io
import json
import pathlib
import platform
import sys
import tarfile

folder, program, rows = (pathlib.Path(argument) for argument in sys.argv[1:])


def layer(entries):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, link, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, 0o755
            entry.size, entry.devmajor, entry.devminor = len(content), 10, 175
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def put(content):
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE
layers = [
    layer(
        [
            ("/", FOLDER, "", b""),
            ("/app/worker.real", FILE, "", program.read_bytes()),
            ("app/worker", tarfile.LNKTYPE, "/app/worker.real", b""),
            ("app/rows/raw.rows/part.csv", FILE, "", rows.read_bytes()),
        ]
    ),
    layer(
        [
            ("usr/lib/units/a\\x2db.slice", FILE, "", b"[Unit]\n"),
            ("dev/agpgart", tarfile.CHRTYPE, "", b""),
            ("run/pipe", tarfile.FIFOTYPE, "", b""),
        ]
    ),
]
(folder / "blobs/sha256").mkdir(parents=True)
machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
config = {
    "architecture": machine,
    "os": "linux",
    "config": {"Entrypoint": ["/app/worker"]},
    "rootfs": {
        "type": "layers",
        "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers],
    },
}
OCI = "application/vnd.oci.image"
manifest = {
    "schemaVersion": 2,
    "config": {"mediaType": f"{OCI}.config.v1+json", **put(json.dumps(config).encode())},
    "layers": [{"mediaType": f"{OCI}.layer.v1.tar", **put(tar)} for tar in layers],
}
entry = {"mediaType": f"{OCI}.manifest.v1+json", **put(json.dumps(manifest).encode())}
(folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
(folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
