"""Changes of files: of bytes, and of what they mean (JSON, PNG, zip and npz, safetensors). A seed is a change."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

VALUES = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, 10**400, 1e308, "", "x",
    "../x", "/etc/passwd", "\x00", "\x1b[2J", "a" * 5000,
    [], [[]], {}, [None], {"a": []}, "0" * 64,
)  # fmt: skip
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**53, 2**63 - 1, 2**64 - 1)
Mutation = Callable[[bytes, random.Random], bytes]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes, half of them of the structure that the file has."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kinds = [change for begins, change in STRUCTURES if data.startswith(begins)]
        change = rng.choice(kinds) if kinds and rng.random() < 0.5 else rng.choice(BYTES)
        data = change(data, rng)
    return data


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change single bits."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off, or a part out."""
    first, second = sorted(rng.randrange(len(data) + 1) for _ in "12")
    return data[:first] if rng.random() < 0.5 else data[:first] + data[second:]


def swap(data: bytes, rng: random.Random) -> bytes:
    """Exchange two parts."""
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in "123")
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def double(data: bytes, rng: random.Random) -> bytes:
    """Repeat a part, now and then many times."""
    first, second = sorted(rng.randrange(len(data) + 1) for _ in "12")
    return data[:second] + data[first:second] * rng.choice((1, 1, 3, 50)) + data[second:]


def number(data: bytes, rng: random.Random) -> bytes:
    """Put a remarkable number in the place of 1, 2, 4 or 8 bytes."""
    form = rng.choice("BHIQ")
    value = rng.choice(NUMBERS) % 2 ** (8 * struct.calcsize(form))
    place = rng.randrange(len(data) + 1)
    new = struct.pack(rng.choice("<>") + form, value)
    return data[:place] + new + data[place + len(new) :]


def json_part(data: bytes, rng: random.Random) -> bytes:
    """Exchange, remove or repeat a value of JSON (or of its first line)."""
    try:
        content = json.loads(data)
    except ValueError:
        return flip(data, rng)
    inner: Any = content
    while isinstance(inner, dict | list) and inner:
        key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.3:
            if rng.random() < 0.2:
                del inner[key]
            elif isinstance(inner, list) and rng.random() < 0.2:
                inner.append(inner[key])
            else:
                inner[key] = rng.choice(VALUES)
            break
        inner = inner[key]
    return json.dumps(content, indent=rng.choice((None, 1))).encode()


def png_chunk(data: bytes, rng: random.Random) -> bytes:
    """Change, remove or repeat a chunk of a PNG, its checksum made right."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        size = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    if not chunks:
        return flip(data, rng)
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    if kind == b"IDAT" and rng.random() < 0.5:  # other pixels, well packed
        try:
            content = zlib.compress(rng.choice(BYTES)(zlib.decompress(content), rng))
        except zlib.error:
            content = flip(content, rng)
    else:
        content = rng.choice(BYTES)(content, rng)
    chunks[at : at + 1] = [(kind, content)] * rng.choice((0, 1, 1, 1, 2))
    if rng.random() < 0.1:
        chunks.insert(1, (rng.choice((b"tEXt", b"eXIf", b"iCCP", b"acTL")), rng.randbytes(rng.randrange(200))))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(parts)


def zip_member(data: bytes, rng: random.Random) -> bytes:
    """Pack a zip anew with one member changed, renamed, repeated or left out."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return flip(data, rng)
    if members:
        at = rng.randrange(len(members))
        name, content = members[at]
        name = rng.choice((name, name, name, "../" + name, "/" + name, name + "\x1b", name.upper()))
        members[at : at + 1] = [(name, mutate(content, rng))] * rng.choice((0, 1, 1, 1, 2))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, its length made right."""
    size = int.from_bytes(data[:8], "little")
    header = json_part(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def line(data: bytes, rng: random.Random) -> bytes:
    """Exchange, remove or repeat lines of a text, or the value of one."""
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[at], lines[other] = lines[other], lines[at]
        case 1:
            del lines[at]
        case 2:
            lines.insert(at, lines[other])
        case _:
            name, sign, _ = lines[at].partition(b"=")
            if sign:
                lines[at] = name + b"= " + json.dumps(rng.choice(VALUES)).encode()
    return b"\n".join(lines)


BYTES: tuple[Mutation, ...] = (flip, cut, swap, double, number)
STRUCTURES: tuple[tuple[bytes, Mutation], ...] = (
    (b"{", json_part),
    (b"\x89PNG", png_chunk),
    (b"PK", zip_member),
    (b"epochs", line),
    (b"-----BEGIN", line),
    (b"age-encryption", line),
    (b"---", line),
)
