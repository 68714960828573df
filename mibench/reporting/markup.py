"""Parts of a page in HTML; every text that enters one passes through :func:`text`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mibench.leaderboard.language import WORDS


def text(value: object) -> str:
    """Return a text that cannot become markup."""
    return html.escape(str(value))


def verdict(word: str) -> str:
    """Return a verdict with its mark in the colour of its tone; other words (a status) in that of what is calm."""
    one = WORDS.get(word)
    if one is None:
        return f'<span class="verdict calm">{text(word)}</span>'
    return f'<span class="verdict {one.tone}">{text(one.shown)}</span>'


def table(head: Sequence[str], lines: Iterable[Sequence[str]], right: Sequence[str] = (), caption: str = "") -> str:
    """Return a table; on a narrow screen each line becomes a block in which every entry is named.

    Args:
        head: Names of the columns.
        lines: Entries; those of a column ``verdict`` are verdicts' words.
        right: Columns that are aligned to the right.
        caption: What stands above it.
    """
    kind = dict.fromkeys(right, ' class="number"')
    top = "".join(f'<th scope="col"{kind.get(name, "")}>{text(name)}</th>' for name in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-name="{text(name)}"{kind.get(name, "")}>'
            + (verdict(cell) if name == "verdict" and cell else text(cell if name not in right else whole(cell)))
            + "</td>"
            for name, cell in zip(head, line, strict=True)
        )
        + "</tr>"
        for line in lines
    )
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def whole(numbers: str) -> str:
    """Return numbers of which an interval is not broken between two lines."""
    return numbers.replace(", ", ",\N{NO-BREAK SPACE}").replace(" dB", "\N{NO-BREAK SPACE}dB")


def items(lines: Iterable[str]) -> str:
    """Return a list of texts."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def pairs(facts: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and what they are; the second of each pair is markup."""
    return "<dl>" + "".join(f"<div><dt>{text(name)}</dt><dd>{said}</dd></div>" for name, said in facts) + "</dl>"


def legend(words: set[str]) -> str:
    """Return what the verdicts among some words mean, in the language's order."""
    lines = [
        f"<div><dt>{verdict(word)}</dt><dd>{text(one.meaning)}</dd></div>"
        for word, one in WORDS.items()
        if word in words
    ]
    return f'<div class="legend"><dl>{"".join(lines)}</dl></div>'


def impersonal(command: str) -> str:
    """Return a command without the name of a person's folder, which often is that of a login.

    >>> impersonal("dataset.root=/home/ann/data x=/Users/ann/y")
    'dataset.root=~/data x=~/y'
    """
    return re.sub(r"/(?:home|Users)/[^/\s'\"]+", "~", command.replace(str(Path.home()), "~"))


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(count: int, noun: str) -> str:
    """Return a number of things: ``1 test``, ``2 tests``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
