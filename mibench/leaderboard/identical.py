"""Groups whose numbers agree to the last bit: settings of a defense that changed nothing against the setting before."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.leaderboard.groups import Group


def identical(groups: Sequence[Group]) -> list[list[Group]]:
    """Return which groups have the same numbers bit for bit, each class of two or more in the order given.

    Settings of a defense that come out identical are one measurement: what differs between them did nothing there.
    They are drawn once, and the page says which they are. A group without a number is in no class.
    """
    seen: dict[tuple[object, ...], list[Group]] = {}
    for one in groups:
        numbers = tuple(
            sorted(
                (*number.key, number.seeds, float(number.score.value).hex()) for number in one.numbers if number.seeds
            )
        )
        if numbers:
            seen.setdefault(numbers, []).append(one)
    return [own for own in seen.values() if len(own) > 1]
