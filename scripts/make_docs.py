"""The parts of the pages that repeat what cards, classes and rules say: written from these, so that they cannot differ.

A page holds a part between ``<!-- generated: NAME -->`` and ``<!-- end -->``; NAME is a key of ``PARTS``, and a word
behind it is its argument (``<!-- generated: catalogue attack -->``). Nothing is imported that a card describes.

    python scripts/make_docs.py            writes the parts of README.md, CONTRIBUTING.md and docs/*.md
    python scripts/make_docs.py --check    exits with 1 and names every page that is not up to date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from sources import classes_in, sentences_of

from mibench.card import ACCESS, ACCESSES, HOOKS, HOOKS_ON_PATH, AttackCard, DefenseCard, SettingCard
from mibench.cli.list_command import facts_of, shortened, title_of
from mibench.knowledge import GRANTS
from mibench.options import in_words, shown
from mibench.planning.cards import setting_of
from mibench.planning.catalogue import Entry, entries
from mibench.planning.compatibility import RULES
from mibench.planning.sources import source_of, summary_of

ROOT = Path(__file__).parent.parent

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

#: Keys of a yaml that are no options: the catalogue's own, and what the card says already.
NO_OPTIONS = ("name", "_target_", "variant_of", "access")

#: Of options that no class has as a field.
USUAL = {"recipe": "How the target is trained."}


# Components


def class_of(one: Entry) -> tuple[Path, str]:
    """Return the file and the name of a component's class."""
    module, _, name = str(one.node["_target_"]).rpartition(".")
    return source_of(module), name


def options_of(one: Entry) -> list[tuple[str, str, str]]:
    """Return name, default and sentence of every option: the sentence of its class, else the comment of its yaml."""
    sentences = sentences_of(*class_of(one))
    lines = one.file.read_text(encoding="utf-8").splitlines()
    comments = {found[1]: found[2] for line in lines if (found := re.match(r" *(\w+):.*? # ?(.*)", line))}
    return [
        (code(name), default_of(value), plain(sentences.get(name) or comments.get(name) or USUAL.get(name, "")))
        for name, value in one.node.items()
        if name not in NO_OPTIONS
    ]


def default_of(value: Any) -> str:
    """Return an option's default: as it is written on the command line, or its values by budget."""
    if isinstance(value, Mapping) and "_target_" in value:
        return code(value["name"])
    if isinstance(value, Mapping):
        return code(" ".join(f"{key}={shown(item)}" for key, item in value.items()) or "{}")
    if by_budget := re.fullmatch(r"\$\{by_budget:(.*)\}", str(value)):
        return " / ".join(code(one.strip()) for one in by_budget[1].split(","))
    return code("[" + ",".join(map(shown, value)) + "]" if isinstance(value, list) else shown(value))


@cache
def papers() -> dict[str, str]:
    """Return the title, the venue and the year of every entry of ``references.bib``."""
    found = {}
    for text in re.split(r"^@\w+\{", (ROOT / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^ +(\w+) *= \{(.*?)\},?\n(?= +\w+ *=|\})", text, flags=re.MULTILINE | re.DOTALL))
        venue = next((fields[key] for key in ("booktitle", "journal", "note", "institution", "howpublished")
                      if key in fields), "")  # fmt: skip
        said = f"*{fields['title']}*, {venue}, {fields['year']}"
        found[text.partition(",")[0]] = " ".join(re.sub(r"[{}\\]|\$", "", said).split())
    return found


# Markdown


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def codes(words: Sequence[str]) -> str:
    return ", ".join(map(code, words))


def plain(text: str) -> str:
    """Return a docstring's sentence without the marks of reStructuredText."""
    text = re.sub(r":math:`([^`]*)`", r"`\1`", text)
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *escaped))


def listed(axis: str) -> dict[str, Any]:
    """Return the cards of an axis by name, without ``none`` and without ``stack``, which is what its parts are."""
    return {one.name: one.card for one in entries(axis) if one.name not in ("none", "stack")}


def defense_cards() -> dict[str, DefenseCard]:
    return cast(dict[str, DefenseCard], listed("defense"))


# The parts


def catalogue(axis: str) -> str:
    """Every component of an axis: its paper, its facts and its options."""
    return "\n\n".join(section(one) for one in entries(axis))


def section(one: Entry) -> str:
    facts = facts_of(one.card)
    official = f", [official code]({facts.pop('code')})" if "code" in facts else ""
    paper = f"{papers()[one.card.bib]}. " if one.card.bib in papers() else ""
    parts = [
        f"### {code(one.name)}: {title_of(one.card)}",
        f"{plain(summary_of(*class_of(one)))} {paper}([source]({link(class_of(one)[0])}){official})",
        "\n".join(f"- {what}: {words}" for what, words in facts.items()),
    ]
    if options := options_of(one):
        parts.append(table(("option", "default", "what it is"), options))
    return "\n\n".join(parts)


def link(file: Path) -> str:
    """Return the address of a file as a page in ``docs`` writes it."""
    return f"../{file.relative_to(ROOT).as_posix()}"


@cache
def views() -> dict[str, tuple[str, Path, str]]:
    """Return the view class, its file and its words for every access."""
    found = {}
    for name, access in ACCESS.items():
        module, _, view = access.view.partition(":")
        file = ROOT / "mibench" / "access" / f"{module}.py"
        if not file.is_file() or view not in classes_in(file):
            raise SystemExit(
                f"mibench/access has no {access.view}, which ACCESS in mibench/card.py names for '{name}'."
            )
        found[name] = (view, file, access.words)
    return found


def attacks_with(access: str) -> list[str]:
    """Return the attacks that work with an access, the oldest paper first, those without a paper last."""
    cards = cast(dict[str, AttackCard], listed("attack"))
    found = (name for name, card in cards.items() if access in card.access)
    return sorted(found, key=lambda name: cards[name].year or float("inf"))


def defenses_against(access: str) -> dict[str, list[str]]:
    """Return the defenses that change what an access shows, by the last hook on its path where they act."""
    found: dict[str, list[str]] = {hook: [] for hook in HOOKS_ON_PATH[access]}
    for name, card in defense_cards().items():
        if access in card.affects:
            found[[hook for hook in HOOKS_ON_PATH[access] if hook in card.hooks][-1]].append(name)
    return {hook: names for hook, names in found.items() if names}


def threat_models() -> str:
    """One line per access, for the first page."""
    rows = []
    for access in ACCESSES:
        attacks, defenses = attacks_with(access), defenses_against(access)
        count = sum(map(len, defenses.values()))
        more = f" and {len(attacks) - 3} more" if len(attacks) > 3 else ""
        acting = f"{', '.join(defenses)} ({count})" if count else "nothing: such cells are refused as vacuous"
        rows.append((f"[{code(access)}](docs/threat_models.md#{access})", views()[access][2],
                     (codes(attacks[:3]) or "none yet") + more, acting))  # fmt: skip
    return table(("access", "the attacker sees", "attacks, the oldest first", "defenses that change it act on"), rows)


def accesses() -> str:
    """A section per access: what it shows, where it is offered, who works with it and what changes it."""
    sections = []
    for access, (view, file, words) in views().items():
        settings = [name for name, card in listed("setting").items() if access in cast(SettingCard, card).access]
        cards = listed("attack")
        attacks = [f"{code(name)} ({cards[name].task})" for name in attacks_with(access)]
        defenses = [f"  - {hook}: {codes(names)}" for hook, names in defenses_against(access).items()]
        withheld = [name for name, card in defense_cards().items() if access in card.withholds]
        sections.append("\n".join([
            f"### {access}",
            "",
            f"- The attacker sees {words} ([`{view}`]({link(file)})).",
            f"- Settings that offer it: {codes(settings)}.",
            f"- Hooks on its path: {', '.join(HOOKS_ON_PATH[access]) or 'none'}.",
            f"- Attacks, the oldest first: {', '.join(attacks) or 'none'}.",
            *(["- Defenses that can change what is seen, by the last of these hooks where they act:", *defenses]
              if defenses else ["- Defenses that can change what is seen: none."]),
            *([f"- Defenses that withhold it: {codes(withheld)}."] if withheld else []),
        ]))  # fmt: skip
    return "\n\n".join(sections)


def defenses() -> str:
    """A line per defense, in the order of the last hook where it acts."""
    rows = []
    for name, card in sorted(defense_cards().items(), key=lambda item: max(map(HOOKS.index, item[1].hooks))):
        levels = ", ".join(f"{level:g}" for level in card.levels)
        strength = f"{code(card.strength)}, {card.stronger}" if card.strength else ""
        strength += f": {levels}" if levels else ""
        strength += "".join(f"; baseline {code(setting_of(*one))}" for one in card.baselines)
        affects = shortened(card.affects, [one for one in ACCESSES if one != "none"], "all")
        rows.append((", ".join(card.hooks), code(name), title_of(card), strength, affects, card.fidelity))
    heads = (
        "acts on",
        "defense",
        "title",
        "strength, what is stronger, and levels from weak to strong",
        "changes what is seen with",
        "fidelity",
    )
    return table(heads, rows)


def adaptive() -> str:
    """A line per attacker who knows of the defense, with the defenses whose cards name them."""
    named: dict[str, list[str]] = {}
    for name, card in defense_cards().items():
        for words in card.adaptive:
            named.setdefault(words, []).append(name)
    rows = [(code(words), codes(names)) for words, names in sorted(named.items())]
    return table(("the attacker who knows of it", "defenses"), rows)


def grants() -> str:
    """A line per side fact that a cell can grant."""
    rows = [(code(f"knowledge.{name}"), one.words, in_words(one.kind), default_of(one.default))
            for name, one in GRANTS.items()]  # fmt: skip
    return table(("key", "what it grants", "value", "default"), rows)


def rules() -> str:
    """The rules that decide which components can meet, in the order in which they are asked."""
    lines = [" ".join(plain(rule.__doc__ or rule.__name__).split()) for rule in RULES]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


PARTS: dict[str, Callable[..., str]] = {
    "catalogue": catalogue,
    "threat_models": threat_models,
    "accesses": accesses,
    "defenses": defenses,
    "adaptive": adaptive,
    "grants": grants,
    "rules": rules,
}


def written(page: str) -> str:
    """Return a page with its generated parts made afresh."""

    def part(match: re.Match[str]) -> str:
        name, *arguments = match[1].split()
        if name not in PARTS:
            raise SystemExit(f"There is no generated part called '{name}'; there are {', '.join(PARTS)}.")
        body = PARTS[name](*arguments)
        return "\n".join([f"<!-- generated: {match[1]} -->", *([body] if body else []), "<!-- end -->"])

    return re.sub(r"<!-- generated: ([\w ]+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main(words: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` name those that are not up to date."""
    status = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = written(before)
        if after == before:
            continue
        if "--check" in words:
            print(f"{page.relative_to(ROOT)} is not what the cards give; run: make docs", file=sys.stderr)
            status = 1
        else:
            page.write_text(after, encoding="utf-8")
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
