"""Parts of a page in HTML; every text that enters one passes through :func:`text`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

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
