"""The pages of attacks, defenses and datasets: what their cards and docstrings say, and their references."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mibench.card import AttackCard, Card, DatasetCard, DefenseCard
from mibench.errors import UserError
from mibench.leaderboard.exports.references import SOFTWARE, references
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.names import card_in
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.pictures import may_show
from mibench.planning.sources import parsed, source_of, summary_of
from mibench.version import __version__

#: What an attacker needs or may use, as cards name it.
NEEDS: Mapping[str, str] = {
    "public": "public data", "prior": "a generator trained on public data", "marginals": "published frequencies",
    "transcript": "all uploads",
}  # fmt: skip


def method_pages(sources: Sources) -> dict[str, dict[str, Any]]:
    """Return what the page of every attack and defense says beside its numbers, by ``attack/NAME``."""
    axes = sources.axes
    found: dict[str, dict[str, Any]] = {}
    for axis, names in (("attack", axes.attacks), ("defense", axes.defenses)):
        own: dict[str, list[Record]] = {}
        for one in sources.records:
            if one.known:
                own.setdefault(one.group.facts[axis], []).append(one)
        for name in names:
            if name != "none":
                config = axes.config(axis, name)
                found[f"{axis}/{name}"] = _page(config, axis) | _ends(own.get(name, []))
    return found


def _page(config: Mapping[str, Any], axis: str) -> dict[str, Any]:
    card = card_in(config, axis)
    if card is None:
        return {"summary": "", "equation": "", "knows": "", "fidelity": "", "paper": None, "code": ""}
    module, _, name = str(config[axis]["_target_"]).rpartition(".")
    file = source_of(module)
    return {
        "summary": plain(summary_of(file, name)),
        "equation": equation_of(file),
        "knows": _knows(card),
        "fidelity": card.fidelity if card.bib else "",
        "paper": paper(card.bib),
        "code": card.code.removeprefix("https://"),
    }


def _ends(records: Sequence[Record]) -> dict[str, int | None]:
    """Return the groups of the highest and of the lowest lift, among those of the unit that most groups have."""
    if not records:
        return {"best": None, "worst": None}
    units = Counter(one.score.unit for one in records if one.score is not None)
    unit = min(units, key=lambda name: (-units[name], name))
    own = [one for one in records if one.score is not None and one.score.unit == unit]
    order = sorted(own, key=lambda one: (-one.lift, one.place))
    return {"best": order[0].place, "worst": order[-1].place}


def dataset_pages(sources: Sources) -> dict[str, dict[str, Any]]:
    """Return what the page of every dataset says, by name."""
    found = {}
    for name in sources.axes.datasets:
        config = sources.axes.config("dataset", name)
        page = _page(config, "dataset")
        card = card_in(config, "dataset")
        found[name] = {
            "summary": plain(_first_sentence(config)),
            "licence": card.licence if isinstance(card, DatasetCard) else "",
            "mayShow": may_show(config),
            "paper": page["paper"],
            "code": page["code"],
        }
    return found


def _first_sentence(config: Mapping[str, Any]) -> str:
    module = str(config["dataset"]["_target_"]).rpartition(".")[0]
    try:
        text = ast.get_docstring(parsed(source_of(module))) or ""
    except (UserError, OSError):
        return ""
    return " ".join(text.partition("\n\n")[0].split())


def _knows(card: Card) -> str:
    """Return what a method's card says of who it is about: an attacker's means, a defense's hooks."""
    if isinstance(card, AttackCard):
        needs = [NEEDS.get(one, one) for one in card.needs]
        uses = [one.replace("_", " ") for one in card.uses]
        return "; ".join([*([f"needs {', '.join(needs)}"] if needs else []),
                          *([f"uses, where granted, {', '.join(uses)}"] if uses else [])])  # fmt: skip
    return f"acts on {', '.join(card.hooks)}" if isinstance(card, DefenseCard) else ""


def equation_of(file: Path) -> str:
    """Return the first formula of a module's docstring as LaTeX, on one line; empty where there is none."""
    text = ast.get_docstring(parsed(file)) or ""
    found = re.search(r"^\.\. math::[ ]?(.*(?:\n(?:[ ]+.*)?)*)", text, flags=re.MULTILINE)
    return " ".join(found[1].split("\n\n")[0].split()) if found else ""


def plain(text: str) -> str:
    """Return a docstring's sentence without the marks of reStructuredText.

    >>> plain("The loss of :class:`~mibench.nn.Head` at :math:`x`, ``beta``.")
    'The loss of mibench.nn.Head at x, beta.'
    """
    return re.sub(r":\w+:`~?([^`<]*)(?: <[^`]*>)?`", r"\1", text).replace("``", "")


# References


def paper(key: str) -> dict[str, str] | None:
    """Return key, title, authors, year, venue and address of a paper; None where there is none of that key."""
    entry = references().get(key)
    if entry is None:
        return None
    told = dict(re.findall(r"^ +(\w+) *= \{(.*?)\},?\n(?= +\w+ *=|\})", entry, flags=re.MULTILINE | re.DOTALL))
    said = {name: _untexed(told.get(name, "")) for name in ("title", "year")}
    venue = next((told[name] for name in ("booktitle", "journal", "howpublished", "note") if name in told), "")
    authors = " and ".join(
        " ".join(reversed(one.strip().split(", ", 1))) for one in _untexed(told.get("author", "")).split(" and ")
    )
    url = told.get("url") or (f"https://doi.org/{told['doi']}" if "doi" in told else "")
    return {"key": key, **said, "authors": authors.replace(" and ", ", "), "venue": _untexed(venue),
            "url": url.removeprefix("https://")}  # fmt: skip


#: Accents of LaTeX and the letters that Unicode combines.
ACCENTS: Mapping[str, str] = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303", "c": "\u0327",
                              "v": "\u030c", "r": "\u030a", "u": "\u0306", "H": "\u030b", "=": "\u0304"}  # fmt: skip


def _untexed(text: str) -> str:
    r"""Return BibTeX text as plain text.

    >>> _untexed(r"{AGIC}: J{\'e}r{\'e}mie")
    'AGIC: Jérémie'
    """

    def accented(found: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", found[2] + ACCENTS[found[1]])

    text = re.sub(r"\\([\"'`^~=]|[cvruH](?=[ {]))\s*\{?\\?(\w)\}?", accented, text)
    text = text.replace(r"\ss", "ß").replace(r"\&", "&").replace(r"\o", "ø").replace(r"\l", "ł")
    return " ".join(re.sub(r"[{}\\$]", "", text).split())


def bib_of(sources: Sources) -> dict[str, str]:
    """Return the keys of ``references.bib`` by ``attack/NAME``, ``defense/NAME`` and ``dataset/NAME``."""
    axes = sources.axes
    found = {}
    for axis, names in (("attack", axes.attacks), ("defense", axes.defenses), ("dataset", axes.datasets)):
        for name in names:
            card = card_in(axes.config(axis, name), axis)
            if card is not None and card.bib in references():
                found[f"{axis}/{name}"] = card.bib
    return found


def reference_entries(sources: Sources) -> dict[str, str]:
    """Return the entries of all methods and datasets, claims and published figures, by key."""
    keys = {*bib_of(sources).values(), *(one.claim.source for one, _ in sources.claims)}
    keys |= {one.source_bib for one in sources.figures}
    return {key: entry for key, entry in sorted(references().items()) if key in keys}


def own_entry() -> str:
    """Return how this benchmark is cited."""
    return SOFTWARE.format(version=__version__)
