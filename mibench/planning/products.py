"""The cells that the words of a sweep stand for, counted before they are written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from mibench.errors import UserError
from mibench.planning.catalogue import choices

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

#: Cells of one sweep, ten times those of the largest grid that is planned; a hundred thousand take a day to plan.
MOST_CELLS = 250_000


class _Groups:
    """What Hydra asks for the names that ``glob(...)`` may match."""

    def get_group_options(self, group_name: str, *_args: Any, **_more: Any) -> list[str]:
        return list(choices(group_name))


def products_of(words: Sequence[str]) -> list[list[str]]:
    """Return every combination of what the command line writes with commas, ``range()``, ``choice()`` and ``glob()``.

    Raises:
        hydra.errors.OverrideParseException: If a word cannot be read.
        UserError: If there are more than :data:`MOST_CELLS`, which are not counted out.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=cast(Any, _Groups()))
    overrides = parser.parse_overrides(list(words))
    counts = {one.input_line: values_of(one) for one in overrides}
    if (count := math.prod(counts.values())) > MOST_CELLS:
        most = max(counts, key=lambda word: counts[word])
        raise UserError(
            f"These words make {f'{count:,.0f}' if count < 1e15 else 'endlessly many'} cells, and a sweep has at most "
            f"{MOST_CELLS:,}; {most} has the most values: write fewer."
        )
    products: list[list[str]] = BasicSweeper.split_arguments(overrides, None)[0]
    return products


def values_of(override: Override) -> float:
    """Return how many values a word has, of a range without going through them.

    Raises:
        UserError: If a range has no end, or does not move.
    """
    from hydra.core.override_parser.types import RangeSweep

    value = override.value()
    if not isinstance(value, RangeSweep):
        return sum(1 for _ in override.sweep_string_iterator()) if override.is_sweep_override() else 1
    start, stop, step = (float(one or 0) for one in (value.start, value.stop, value.step))
    if not step or not all(math.isfinite(one) for one in (start, stop, step)):
        raise UserError(f"{override.input_line} has no end; write range(FIRST,STOP,STEP) with numbers and a step.")
    return max(0, math.ceil((stop - start) / step))
