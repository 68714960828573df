"""The rows of cells as Python gets them: a data frame that a notebook shows as verdicts, numbers and a picture."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from mibench.card import headline_of
from mibench.leaderboard.language import COLOURS, WORDS, shown
from mibench.leaderboard.lines import interval, number
from mibench.leaderboard.pictures import inlined, may_show, small


class Result(pd.DataFrame):
    """Rows of cells. A selection of them is a plain data frame."""

    _metadata: ClassVar[list[str]] = ["_pictures", "_commands"]
    _pictures: dict[str, Path]
    _commands: dict[str, str]

    @classmethod
    def of(cls, rows: pd.DataFrame, results: Path, commands: Mapping[str, str]) -> Result:
        """Return rows with the pictures of their cells and the commands that make these again.

        Args:
            rows: The rows.
            results: The folder ``paths.results``.
            commands: By cell id.
        """
        made = cls(rows)
        made.attrs = rows.attrs
        there = {cell: results / "pictures" / f"{cell}.png" for cell in dict.fromkeys(rows["cell_id"])}
        made._pictures = {cell: path for cell, path in there.items() if path.is_file()}
        made._commands = dict(commands)
        return made

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def pictures(self) -> Mapping[str, Path]:
        """Where the picture sheets of the cells lie, by cell id. They may show private pictures."""
        return self._pictures

    @property
    def picture(self) -> Path | None:
        """Where the picture sheet of the first cell that has one lies; None where none has."""
        return next(iter(self.pictures.values()), None)

    def _repr_mimebundle_(self, **_asked: object) -> dict[str, str]:
        """What a notebook keeps: no dates, no folders of this machine below the current one."""
        cells = self.drop_duplicates("cell_id")
        named = zip(*(cells[name] for name in ("attack", "defense", "cell_id")), strict=True)
        plain = "\n".join(f"{attack} before {defense}, cell {cell}" for attack, defense, cell in named)
        return {"text/html": self._repr_html_(), "text/plain": plain}

    def _repr_html_(self) -> str:
        return "\n".join(
            _cell(rows, self.pictures.get(str(cell)), str(self._commands.get(str(cell), "")))
            for cell, rows in self.groupby("cell_id", sort=False)
        )


def _cell(rows: pd.DataFrame, picture: Path | None, command: str) -> str:
    """Return one cell as HTML: what it is, its headline, all numbers, the picture and the command."""
    told = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    first = told[0]
    what = " ".join(f"{name}={first[name]}" for name in ("attack", "defense", "dataset", "target", "access", "budget"))
    headline = headline_of(first["task"], first["modality"])
    numbers = [one for one in told if one["status"] == "ok"]
    lead = [one for one in numbers if (one["metric"], one["variant"], one["evaluator"]) == headline]
    lead += [one for one in numbers if (one["metric"], one["variant"]) == ("target_accuracy", "victim")]
    reasons = [f"{one['status']}: {one['reason']}" for one in told if one["status"] != "ok"] if not numbers else []
    return "".join(
        [
            f"<p><b>{_text(what)}</b>, seed {first['seed']}, cell <code>{_text(first['cell_id'])}</code></p>",
            _table(lead) if lead else "",
            *(f"<p>{_text(reason)}</p>" for reason in reasons),
            f"<details><summary>all {len(numbers)} numbers</summary>{_table(numbers)}</details>" if numbers else "",
            _picture(picture, first["config"]),
            f"<pre>{_text(command.replace(f'{Path.cwd()}{os.sep}', ''))}</pre>" if command else "",
        ]
    )


def _table(numbers: list[dict[str, Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("number", "value", "control", "lift", "null", "evidence"))
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _line(one))}</tr>" for one in numbers)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _line(one: Mapping[str, Any]) -> Iterator[str]:
    yield _text(" ".join(filter(None, (one["metric"], one["variant"], one["evaluator"]))))
    yield _text(f"{number(one['value'])} {one['unit']} {interval(one['ci_low'], one['ci_high'])}")
    yield number(one["control"])
    yield f"{number(one['lift'], signed=True)} {interval(one['lift_low'], one['lift_high'])}".strip()
    yield _text(f"{number(one['null'])} ({one['null_name']})") if one["null_name"] else ""
    word = str(one["evidence"])
    colour = COLOURS[WORDS[word].tone] if word in WORDS else "inherit"
    yield f'<span style="color:{colour}">{_text(shown(word))}</span>' if word else ""


def _picture(picture: Path | None, config: str) -> str:
    """Return the picture: inside where its dataset may be shown, else by its path, so that no notebook holds it."""
    if picture is None:
        return ""
    if may_show(json.loads(config)):
        return f'<img alt="original, reconstruction and control" src="{inlined(small(picture))}">'
    path = os.path.relpath(picture) if picture.is_relative_to(Path.cwd()) else str(picture)
    said = "the picture shows private data and stays a file of its own"
    return f"<p>{_text(path)}: {said}</p>"


def _text(value: object) -> str:
    return html.escape(" ".join(str(value).split()))
