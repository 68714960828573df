"""Damaged and hostile files: what every reader of files is fed."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

#: Bytes that a bomb inflates to.
BOMB = 1 << 30

SCRIPT = b"<script>window.harmed=1</script><img src=x onerror=harm()>,nan\n\"'${oc.env:HOME}',inf\n"


class Runs:
    """What a pickle runs where it is read: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def bomb() -> bytes:
    """A raw deflate stream of zeros: one compressed block again and again."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(1 << 23)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB >> 23) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    return made.getvalue()


def zip_bomb(name: str) -> bytes:
    """A zip with one member that inflates to ``BOMB`` bytes, beside a plain one."""
    raw, label = bomb(), name.encode()
    sizes = struct.pack("<LLL", 0, len(raw), BOMB)
    local = struct.pack("<LHHHHH", 0x04034B50, 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", len(label), 0) + label
    central = (struct.pack("<LHHHHHH", 0x02014B50, 20, 20, 0, 8, 0, 33) + sizes
               + struct.pack("<HHHHHLL", len(label), 0, 0, 0, 0, 0, 0) + label)  # fmt: skip
    end = struct.pack("<LHHHHLLH", 0x06054B50, 0, 0, 1, 1, len(central), len(local) + len(raw), 0)
    return local + raw + central + end


def png(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, held: bytes) -> bytes:
        return struct.pack(">L", len(held)) + kind + held + struct.pack(">L", zlib.crc32(kind + held))

    head = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def hostile_bytes(tmp_path_factory):
    """By name the contents of hostile files that do not depend on their format, and the folder that code would make."""
    ran = tmp_path_factory.mktemp("hostile") / "ran"
    code = pickle.dumps(Runs(ran), 2)
    return ran, {
        "empty": b"",
        "one byte": b"\x01",
        "random bytes": random.Random(0).randbytes(4096),
        "foreign format": zipped(a=b"1"),
        "giant header": struct.pack("<Q", 1 << 60) + b"{" * 64,
        "large header": struct.pack("<Q", 1 << 27) + b" " * (1 << 20),
        "deep nesting": b"[" * 200_000,
        "deep nesting in a header": struct.pack("<Q", 100_000) + b'{"a":' * 20_000,
        "a pickle that runs code": code,
        "a zip that runs code": zipped(**{"archive/data.pkl": code, "archive/version": b"3"}),
        "a zip bomb": zip_bomb("archive/data/0"),
        "a climbing archive": zipped(**{"../climbed": b"1"}),
        "a picture bomb": png(60_000, 60_000),
        "nan and inf": b"nan,inf\n1e999,-inf\n" * 9,
        "scripts": SCRIPT * 9,
        "null bytes": bytes(4096),
        "another version": b"PAR9" + bytes(64) + b"PAR9",
        "other JSON": json.dumps([{"a": 1e999, "b": None}]).encode(),
    }


@pytest.fixture
def place(hostile_bytes, tmp_path):
    """Puts a hostile file somewhere: ``place("empty", path, good)``; ``good`` is what an honest file holds."""

    def put(kind: str, path: Path, good: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in hostile_bytes[1]:
            path.write_bytes(hostile_bytes[1][kind])
        elif kind == "truncated":
            path.write_bytes(good[: len(good) // 2])
        elif kind == "another byte at the head":
            path.write_bytes(bytes([good[0] ^ 0xFF]) + good[1:])
        elif kind == "a folder":
            path.mkdir()
        elif kind == "dangling":
            path.symlink_to(tmp_path / "nowhere")
        elif kind == "a loop":
            path.symlink_to(path)
        elif kind == "endless":
            path.symlink_to("/dev/zero")
        elif kind == "a pipe":
            os.mkfifo(path)
        elif kind == "unreadable":
            path.write_bytes(good)
            path.chmod(0)
        else:
            raise AssertionError(kind)
        return path

    return put


@pytest.fixture
def peak():
    """Runs a function and returns the memory in MiB by which the process grew at most meanwhile, with what it gave."""

    def resident(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

    def run(call):
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before = resident("VmRSS")
        except OSError:
            before = None
        try:
            return call(), 0 if before is None else resident("VmHWM") - before
        except Exception as error:
            return error, 0 if before is None else resident("VmHWM") - before

    return run
