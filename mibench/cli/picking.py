"""Words that pick groups and a number: what ``table``, ``plot`` and ``bib`` have in common with ``compare``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mibench.cli.reproduction import Commands
from mibench.cli.stored import results_folder
from mibench.errors import UserError, nearest
from mibench.files import write_text
from mibench.leaderboard.compare import groups_in, picked
from mibench.leaderboard.exports.labels import Options
from mibench.leaderboard.groups import FACTS, Group


@dataclass(frozen=True)
class Picked:
    """What the words of a command pick.

    Attributes:
        groups: The groups that have all facts.
        key: Metric, variant and evaluator; None for the headline of each task.
        said: The command's own words, by name.
        results: The folder of studies and shards.
    """

    groups: Sequence[Group]
    key: tuple[str, str, str] | None
    said: dict[str, str]
    results: Path

    @property
    def options(self) -> Options:
        """Returns what of a group differs from today's defaults."""
        return options_in(self.results)


def pick(command: str, words: Sequence[str], own: Iterable[str], usage: str) -> Picked:
    """Return the groups and the number that the words of a command pick.

    Args:
        command: The command.
        words: Its words, as ``dataset=digits,lfw``.
        own: The names that the command itself takes.
        usage: Its words in one line, for the sentence on a mistake.

    Raises:
        UserError: If a word is none of them, or no group is picked.
    """
    own = (*own, "metric", "variant", "evaluator")
    asked: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{command} takes words like dataset=digits, but got '{word}'; {usage}")
        if not name.startswith("paths."):
            asked[name] = value
    if odd := [name for name in asked if "." not in name and name not in (*own, *FACTS)]:
        hint = nearest(odd[0], (*own, *FACTS), usage)
        raise UserError(f"{command} has no option '{odd[0]}'; {hint}")
    results = results_folder([word for word in words if word.startswith("paths.")])
    said = {name: asked.pop(name) for name in own if name in asked}
    named = [said.pop(name, "") for name in ("metric", "variant", "evaluator")]
    if not named[0] and any(named):
        raise UserError(f"{command} takes variant and evaluator beside metric=ID only.")
    there = groups_in(results)
    found = picked(there, asked)
    if not there:
        raise UserError(f"There are no rows below {results}; run a cell first, or set paths.results to where they lie.")
    if not found:
        facts = " ".join(f"{name}={value}" for name, value in asked.items())
        raise UserError(f"None of the {len(there)} groups below {results} has {facts}; leave a word out, or run them.")
    return Picked(found, (named[0], named[1], named[2]) if named[0] else None, said, results)


def options_in(results: Path) -> Options:
    """Return a function that says what of a group differs from today's defaults, as words of a command line."""
    commands = Commands(results / "local" / "cache" / "defaults.json")
    known: dict[str, Sequence[str]] = {}

    def options(group: Group) -> Sequence[str]:
        if group.group_id not in known:
            known[group.group_id] = commands({key: node for key, node in group.config.items() if key != "seed"}).options
        return known[group.group_id]

    return options


def chosen(said: dict[str, str], name: str, known: Sequence[str], usual: str) -> str:
    """Return one of several values of a word.

    Raises:
        UserError: If it is none of them.
    """
    value = said.get(name, usual)
    if value not in known:
        raise UserError(f"Expected {name} to be one of {', '.join(known)}, but got '{value}'.")
    return value


def put(text: str, out: str) -> None:
    """Print a text, or write it to a file and print where it lies.

    Raises:
        UserError: If the file cannot be written.
    """
    if not out:
        print(text, end="")
        return
    path = Path(out).expanduser()
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); set out to another file.") from error
    print(f"{'written':<10}{path}")
