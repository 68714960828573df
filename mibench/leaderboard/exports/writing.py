"""Tables as text: LaTeX with booktabs, Markdown, and tidy CSV with one line per group."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from mibench.leaderboard.exports.crosstab import Cell, Crosstab, parted
from mibench.leaderboard.exports.labels import Label
from mibench.leaderboard.exports.marks import Mark, caption_of, legend_of, marks_of, notes_of, value_of
from mibench.version import __version__

#: The keys in ``references.bib`` of what a cell has on an axis: ``cite("attack", cell)``.
Cite = Callable[[str, Cell], Sequence[str]]

#: Characters that LaTeX reads as commands, or that end an option.
LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\char34{}", "`": r"\char96{}",
    "[": "{[}", "]": "{]}",
}  # fmt: skip

#: The marks of verdicts in LaTeX's own symbols.
SIGNS: Mapping[str, str] = {"●": r"\bullet", "◐": r"\odot", "◌": r"\oslash", "○": r"\circ", "·": r"\cdot", "-": "-"}


def latex_text(text: str) -> str:
    r"""Return a text in which LaTeX finds no command, in one line of printable characters.

    >>> latex_text("50 % of a_1 & \\input{x}")
    '50 \\% of a\\_1 \\& \\textbackslash{}input\\{x\\}'
    """
    line = " ".join(text.split())
    return "".join(LATEX.get(one, one if one.isprintable() else " ") for one in line)


def latex(tables: Sequence[Crosstab], cite: Cite | None = None) -> str:
    r"""Return one ``table`` environment per table, for a document with ``\usepackage{booktabs}``.

    Args:
        tables: The tables.
        cite: Returns the keys that a row or a column cites; None cites nothing.
    """
    lines = [f"% mibench {__version__}; needs \\usepackage{{booktabs}}"]
    if why := why_parted(tables):
        lines.append(f"% {latex_text(why)}")
    for place, table in enumerate(tables, start=1):
        lines += ["", *_environment(table, place, cite)]
    return "\n".join(lines) + "\n"


def _environment(table: Crosstab, place: int, cite: Cite | None) -> list[str]:
    marks = marks_of(one.verdict for one in table.measured)

    def named(label: Label, axis: str) -> str:
        own = next(cell for (row, column), cell in table.cells.items() if label == (row, column)[table.by.index(axis)])
        keys = [key for key in (cite(axis, own) if cite else ()) if re.fullmatch(r"[\w:.+-]+", key)]
        return latex_text(label.text) + (f"~\\cite{{{','.join(keys)}}}" if keys else "")

    def written(cell: Cell | None) -> str:
        if cell is None or not cell.measured:
            return "--"
        value, interval = (re.sub(r"e([+-]\d+)", r"\\mathrm{e}\1", one) for one in value_of(cell))
        span = f" {{\\scriptsize${interval}$}}" if interval else ""
        return f"${value}${span}{_sign(marks.get(cell.verdict))}"

    def line(row: Label) -> list[str]:
        return [named(row, rows), *(written(table.cells.get((row, column))) for column in table.columns)]

    rows, columns = table.by
    legend = [f"{_sign(mark).strip()} {word}: {latex_text(meaning)}" for mark, word, meaning in legend_of(table)]
    legend += [latex_text(note) for note in notes_of(table)]
    head = [latex_text(rows), *(named(one, columns) for one in table.columns)]
    return [
        r"\begin{table}[t]",
        r"  \centering",
        f"  \\caption{{{latex_text(caption_of(table))}}}",
        f"  \\label{{tab:mibench-{place}}}",
        r"  \small",
        f"  \\begin{{tabular}}{{l{'l' * len(table.columns)}}}",
        r"    \toprule",
        f"    {' & '.join(head)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(line(row))} \\\\" for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        "",
        r"  \smallskip",
        r"  \begin{minipage}{\linewidth}",
        r"    \footnotesize",
        *(f"    {line}\\par" for line in legend),
        r"  \end{minipage}",
        r"\end{table}",
    ]


def _sign(mark: Mark | None) -> str:
    if mark is None:
        return ""
    return f" ${SIGNS[mark.sign]}{f'^{{{mark.place}}}' if mark.place else ''}$"


def markdown(tables: Sequence[Crosstab]) -> str:
    """Return one Markdown table per table, with its caption above and the meaning of the marks below."""
    parts = [f"{_plain(why)}\n"] if (why := why_parted(tables)) else []
    for table in tables:
        marks = marks_of(one.verdict for one in table.measured)
        head = [table.by[0], *(one.text for one in table.columns)]
        lines = [_plain(caption_of(table)), "", _line(head), f"|{' --- |' * len(head)}"]
        for row in table.rows:
            cells = [_markdown_cell(table.cells.get((row, column)), marks) for column in table.columns]
            lines.append(_line([row.text, *cells]))
        notes = [f"{mark.text} {word}: {meaning}" for mark, word, meaning in legend_of(table)] + notes_of(table)
        lines += ["", *(f"- {_plain(note)}" for note in notes), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _markdown_cell(cell: Cell | None, marks: Mapping[str, Mark]) -> str:
    if cell is None or not cell.measured:
        return "-"
    mark = marks.get(cell.verdict)
    return " ".join(filter(None, (*value_of(cell), mark.text if mark else "")))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Return text in one line, in which Markdown finds neither a cell's end nor HTML nor a link."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


#: What a line of the CSV says of a group beside its names and facts, from its number.
SCORED = (
    "metric", "variant", "evaluator", "unit", "value", "ci_low", "ci_high", "control", "lift", "lift_low", "lift_high",
    "null", "null_name", "null_lift", "null_lift_low", "n",
)  # fmt: skip

TOLD = ("task", "dataset", "setting", "target", "attack", "access", "defense", "budget")


def tidy(tables: Sequence[Crosstab]) -> str:
    """Return CSV with one line per group, numbers in full; ``table`` counts the tables, from 1."""
    out = io.StringIO()
    head = ["table", "row", "column", *TOLD, *SCORED, "seeds", "verdict", "accuracy", "reason", "options", "group_id"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for place, table in enumerate(tables, start=1):
        for row in table.rows:
            for column in table.columns:
                if (cell := table.cells.get((row, column))) is not None:
                    writer.writerow([place, row.text, column.text, *_values(table, cell)])
    return out.getvalue()


def _values(table: Crosstab, cell: Cell) -> list[object]:
    group, number = cell.group, cell.number
    facts = [group.facts[name] for name in TOLD]
    scored = [getattr(number.score, name) for name in SCORED] if number else [*table.key, *[""] * (len(SCORED) - 3)]
    known = ["" if isinstance(one, float) and one != one else one for one in scored]
    accuracy = "" if group.accuracy != group.accuracy else group.accuracy
    return [
        *facts, *known, number.seeds if number else 0, cell.verdict, accuracy, "" if cell.measured else cell.reason,
        " ".join(table.options), group.group_id,
    ]  # fmt: skip


def why_parted(tables: Sequence[Crosstab]) -> str:
    """Return why there is more than one table; empty where there is one."""
    if len(tables) < 2:
        return ""
    return f"{len(tables)} tables, because groups that differ in more than rows and columns cannot be compared: " \
           f"they differ in {parted([(one.facts, one.options) for one in tables])}."  # fmt: skip
