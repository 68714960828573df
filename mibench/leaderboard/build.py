"""The leaderboard's files: studies from shards, and tables and pages from studies and shards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError
from mibench.files import write_text
from mibench.leaderboard.claims import Judgement, judged
from mibench.leaderboard.collect import Collected, collect_shards, collect_studies, combined, parsed
from mibench.leaderboard.groups import Group, groups_of
from mibench.leaderboard.page import Reproduction
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.write import write_page
from mibench.leaderboard.pictures import local_pictures, public_pictures, public_sprites, write_pictures
from mibench.leaderboard.pivot import pivot_table
from mibench.leaderboard.reference import Published, collect_reference
from mibench.leaderboard.render import markdown
from mibench.leaderboard.rows import SENTENCES
from mibench.leaderboard.tables import decoded, write_table
from mibench.leaderboard.worst import worst_cases
from mibench.planning.identity import flat
from mibench.planning.veil import redacted, tells, texts

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Built:
    """What one build made.

    Attributes:
        scope: ``committed`` or ``local``.
        page: The page.
        cells: Cells in it.
        rows: Rows in it.
        groups: Groups in it.
        set_aside: Files that were left out, with the reason.
    """

    scope: str
    page: Path
    cells: int
    rows: int
    groups: int
    set_aside: Mapping[str, str]


def build(results: Path, command: Callable[[Mapping[str, Any]], Reproduction]) -> list[Built]:
    """Write ``leaderboard.parquet``, ``README.md``, ``index.html`` and ``page/numbers.js``; return what was built.

    From studies alone they lie in ``results``; from studies and one's own shards in ``results/local``. Each is built
    only where it has rows or files to name.

    Args:
        results: The folder ``paths.results``.
        command: Returns how a configuration (without its seed) is made again.
    """
    studies, own = collect_studies(results), collect_shards(results)
    figures, aside = collect_reference(results)
    committed = groups_of(studies.table)
    claims, unjudged = judged(results, committed)
    studies = replace(studies, set_aside={**studies.set_aside, **aside, **unjudged})
    built = []
    if len(studies.table) or studies.set_aside:
        built.append(_build(results, results, studies, committed, figures, claims, command))
    if len(own.table) or own.set_aside:
        both = combined(studies, own)
        built.append(_build(results, results / "local", both, groups_of(both.table), figures, claims, command))
    return built


def write_study(results: Path, name: str, cell_ids: Iterable[str]) -> tuple[Path, dict[str, str]]:
    """Write the rows of local shards as one committed file, with small pictures of what may be shown.

    Args:
        results: The folder ``paths.results``.
        name: The study's name, the stem of its file.
        cell_ids: The cells that belong to it.

    Returns:
        ``<results>/studies/<name>.parquet``, beside which pictures lie in a folder of the study's name, one per group;
        and by cell id the status of every cell in it.

    Raises:
        UserError: If the name is no file name, or no shard belongs to the study.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise UserError(f"Expected study to be a name of letters, digits, '-' and '_', but got '{name}'.")
    table = collect_shards(results).table
    table = table.filter(pc.is_in(decoded(table, "cell_id"), value_set=pa.array(sorted(cell_ids), pa.string())))
    if not len(table):
        raise UserError(f"No shard below {results}/shards belongs to study '{name}'; run its cells first.")
    path = results / "studies" / f"{name}.parquet"
    table = published(table)
    write_table(path, table)
    write_pictures(results, path.with_suffix(""), table)
    statuses: dict[str, str] = {}
    for row in table.select(["cell_id", "status"]).to_pylist():
        if statuses.get(row["cell_id"]) not in ("ok", "failed"):
            statuses[row["cell_id"]] = row["status"]
    return path, statuses


def published(table: pa.Table) -> pa.Table:
    """Return rows as a study may hold them: no sentence names a folder, a user or a machine.

    Raises:
        UserError: If another column does, as of rows of earlier versions; it names the cell and the column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in SENTENCES:
        told = pc.replace_substring_regex(decoded(table, column), r" \(log: [^)]*\)", "").to_pylist()
        safe = {one: redacted(one) for one in set(told)}
        whole = pa.array([safe[one] for one in told], pa.string()).dictionary_encode()
        table = table.set_column(table.schema.get_field_index(column), column, whole)
    for field in table.schema:
        text = pa.types.is_string(field.type) or pa.types.is_dictionary(field.type)
        if not text or field.name in SENTENCES:
            continue
        for value in pc.unique(decoded(table, field.name)).to_pylist():
            if odd := telling(value) if field.name == "config" else [field.name] * tells(value):
                row = table.filter(pc.equal(decoded(table, field.name), value)).slice(0, 1)
                raise UserError(
                    f"The rows of cell {decoded(row, 'cell_id')[0]} say in {odd[0]} where files lie, or who ran them, "
                    "and a study would publish that; run the cell again, or take it out of the grid."
                )
    return table


def telling(config: str) -> list[str]:
    """Return the keys of a stored configuration whose texts a study may not publish."""
    return [key for key, value in flat(parsed(config)) if any(tells(one) for one in texts(value))]


def _build(
    results: Path,
    folder: Path,
    rows: Collected,
    groups: Sequence[Group],
    figures: Sequence[Published],
    claims: Sequence[tuple[Judgement, Sequence[str]]],
    command: Callable[[Mapping[str, Any]], Reproduction],
) -> Built:
    local = folder != results
    there = {one.group_id for one in groups}
    made = {one.group_id: command({k: v for k, v in one.config.items() if k != "seed"}) for one in groups}
    pictures = local_pictures(results, groups) if local else public_pictures(results, groups)
    write_table(
        folder / "leaderboard.parquet",
        pivot_table(rows.table, groups, {group: one.options for group, one in made.items()}),
    )
    options = {group: ", ".join(one.options) for group, one in made.items()}
    cases = worst_cases(groups, {group: one.options for group, one in made.items()})
    write_text(folder / "README.md", markdown(groups, options, rows.set_aside, local, figures, cases))
    page = write_page(
        folder,
        Sources(
            groups=groups,
            made=made,
            rows=hashlib.sha256((folder / "leaderboard.parquet").read_bytes()).hexdigest()[:12],
            local=local,
            set_aside=rows.set_aside,
            figures=figures,
            cases=cases,
            claims=[(one, [group for group in about if group in there]) for one, about in claims],
            pictures=pictures,
            tiles=public_sprites(results, groups),
        ),
    )
    cells = sum(len(one.cells) for one in groups)
    scope = "local" if local else "committed"
    return Built(scope, page, cells, len(rows.table), len(groups), rows.set_aside)
