"""Strips of pictures for the first screen: what was private, what was recovered, and what comes out anyway."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.names import Segment, amount, headline_name, joined, link
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.pictures import inlined, may_show
from mibench.leaderboard.sprites import ROWS
from mibench.limits import open_image

#: The tasks of which a strip is shown, with what their pictures were recovered from.
TASKS: Mapping[str, str] = {"instance": "one client's update", "class": "a model's weights"}

#: What the rows of a sprite hold, by task.
LABELS: Mapping[str, tuple[str, str, str]] = {
    "instance": ("private", "recovered", "control"), "class": ("nearest private", "recovered", "control"),
}  # fmt: skip

#: Where the control of a task comes from.
CONTROLS: Mapping[str, str] = {
    "instance": "from another client's update", "class": "from a model that never saw these classes",
}  # fmt: skip


def strips(sources: Sources) -> list[dict[str, Any]]:
    """Return a strip of every task of :data:`TASKS` that has pictures which may be shown.

    It is the group of the highest lift among those on undefended models that see updates or weights. The value beside
    the control says how good the pictures are.
    """
    return [_strip(sources, one) for one in (_chosen(sources, task) for task in TASKS) if one is not None]


def _chosen(sources: Sources, task: str) -> Record | None:
    own = [
        one for one in sources.records
        if one.group.group_id in sources.tiles and one.group.facts["task"] == task and one.defense == "none"
        and one.group.facts["access"] in ("gradients", "white_box") and one.score is not None
        and one.score.lift_low > 0 and may_show(one.group.config)
    ]  # fmt: skip
    return min(own, key=lambda one: (-one.lift, one.group.group_id)) if own else None


def _strip(sources: Sources, record: Record) -> dict[str, Any]:
    facts, score = record.group.facts, record.score
    assert score is not None
    task, data = facts["task"], sources.axes.title("dataset", facts["dataset"])
    caption: list[Segment] = [
        f"{data}, recovered from ", [TASKS[task], ""], " by ",
        link("attack", record.attack, sources.axes.title("attack", record.attack)),
        f": {headline_name((score.metric, score.variant, ''))} {amount(score.value, score.unit)}, "
        f"{amount(score.control, score.unit)} {CONTROLS[task]}.",
    ]  # fmt: skip
    rows = rows_of(sources.tiles[record.group.group_id])
    return {
        "caption": joined(caption),
        "group": record.place,
        "rows": [
            {"label": label, "image": image, "alt": f"{data}: {label}", "recovered": label == "recovered"}
            for label, image in zip(LABELS[task], rows, strict=True)
        ],
    }


def rows_of(sprite: bytes) -> list[str]:
    """Return the three rows of a sprite as data addresses.

    The images are written without compression, so that the same sprite gives the same bytes whatever zlib is there.
    """
    with open_image(sprite) as opened:
        whole = opened if opened.mode == "P" else opened.convert("RGB").quantize(16)
        height = whole.height // ROWS
        found = []
        for row in range(ROWS):
            part = whole.crop((0, row * height, whole.width, (row + 1) * height))
            palette = bytes(part.getpalette() or b"")[: 3 * 16]
            image = _png(part.width, height, palette, part.tobytes())
            found.append(inlined(image))
    return found


def _png(width: int, height: int, palette: bytes, places: bytes) -> bytes:
    """Return a PNG of at most sixteen colours, four bits a pixel, not compressed."""
    lines = b""
    for start in range(0, width * height, width):
        line = places[start : start + width] + b"\0" * (width % 2)
        lines += b"\0" + bytes(line[at] << 4 | line[at + 1] for at in range(0, len(line), 2))
    stored = b"\x78\x01" + b"\x01" + struct.pack("<HH", len(lines), len(lines) ^ 0xFFFF) + lines
    stored += struct.pack(">I", zlib.adler32(lines))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)), (b"PLTE", palette), (b"IDAT", stored),
             (b"IEND", b"")]  # fmt: skip
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
