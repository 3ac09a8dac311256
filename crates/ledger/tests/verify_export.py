"""Verify an exported log with nothing but Python's standard library.

    python3 verify_export.py FOLDER VKEY

Written from the C2SP texts (signed-note, tlog-checkpoint, tlog-tiles), RFC 6962 and RFC 8032, and
sharing nothing with the crate beside it. Prints the number of entries and the root hash, and exits
with 1 and a reason when anything does not hold.
"""

import base64
import hashlib
import pathlib
import sys

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def add(a, b):
    """Add two points of edwards25519 in affine coordinates."""
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def multiply(n, point):
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def point_from(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_ONE % P
    require(y < P and x * x % P == square, "not a point on the curve")
    return (P - x if x & 1 != sign else x, y)


def ed25519_verifies(public, message, signature):
    base = point_from((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % Q
    right = add(point_from(r), multiply(k, point_from(public)))
    return len(signature) == 64 and s < Q and multiply(s, base) == right


def require(condition, reason):
    if not condition:
        sys.exit(reason)


def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def root_of(hashes):
    """The Merkle tree hash as RFC 6962 defines it, hashes standing for the leaves."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(hashes[:split]) + root_of(hashes[split:])).digest()


def tile_name(index, width):
    name = "%03d" % (index % 1000)
    while index >= 1000:
        index //= 1000
        name = "x%03d/%s" % (index % 1000, name)
    return name if width == 256 else "%s.p/%d" % (name, width)


def read_checkpoint(folder, vkey):
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    require(key[:1] == b"\1" and expected.hex() == key_id, "not an Ed25519 verifier key")
    text, signatures = (folder / "checkpoint").read_text("utf-8").rsplit("\n\n", 1)
    text += "\n"
    for line in signatures.splitlines():
        mark, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if mark == "\N{EM DASH}" and signer == name and signature[:4] == expected:
            require(ed25519_verifies(key[1:], text.encode(), signature[4:]), "bad signature")
            break
    else:
        sys.exit("not signed by the key")
    origin, size, root = text.splitlines()[:3]
    require(origin == name, "another log's checkpoint")
    return int(size), base64.b64decode(root, validate=True)


def read_entries(folder, size):
    for index in range((size + 255) // 256):
        width = min(256, size - index * 256)
        data = (folder / "tile/entries" / tile_name(index, width)).read_bytes()
        at = 0
        for _ in range(width):
            length = int.from_bytes(data[at : at + 2], "big")
            require(at + 2 + length <= len(data), f"bundle {index} is too short")
            yield data[at + 2 : at + 2 + length]
            at += 2 + length
        require(at == len(data), f"bundle {index} is too long")


def main():
    folder, vkey = pathlib.Path(sys.argv[1]), sys.argv[2].strip()
    require((folder / "key.vkey").read_text("utf-8") == vkey + "\n", "another key beside the log")
    size, root = read_checkpoint(folder, vkey)
    hashes = [leaf(entry) for entry in read_entries(folder, size)]
    require(root_of(hashes) == root, "the entries do not make the signed root")
    needed = {"checkpoint", "key.vkey"}
    needed |= {
        "tile/entries/" + tile_name(i, min(256, size - i * 256)) for i in range((size + 255) // 256)
    }
    level = 0
    while hashes:
        for index in range((len(hashes) + 255) // 256):
            tile = hashes[index * 256 : index * 256 + 256]
            name = f"tile/{level}/" + tile_name(index, len(tile))
            require((folder / name).read_bytes() == b"".join(tile), f"{name} is wrong")
            needed.add(name)
        full = len(hashes) // 256
        hashes = [root_of(hashes[i * 256 : i * 256 + 256]) for i in range(full)]
        level += 1
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    require(found == needed, f"files that do not belong: {sorted(found ^ needed)}")
    print(size, root.hex())


main()
