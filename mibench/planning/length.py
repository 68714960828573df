"""How long an attack searches: the options that count its steps, and the same search at another length."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mibench.errors import UserError
from mibench.planning.plan import Plan


def length_of(node: Mapping[str, Any]) -> dict[str, int]:
    """Return the length of an attack from its block: the options that its class names, those at 0 left out.

    Those of an attack that it wraps are named ``base.OPTION``.

    Raises:
        UserError: If the class does not say which they are.
    """
    from hydra.utils import get_class

    component = get_class(node["_target_"])
    names = component.length  # type: ignore[attr-defined]
    if names is None:
        raise UserError(
            f"Attack '{node['name']}' does not say which of its options are its length; write them into its class: "
            'length = ("iterations",), or () where nothing is searched.'
        )
    found = {name: int(node[name]) for name in names if node[name]}
    if isinstance(base := node.get("base"), Mapping):
        found |= {f"base.{name}": steps for name, steps in length_of(base).items()}
    return found


def with_length(plan: Plan, length: Mapping[str, int]) -> Plan:
    """Return a plan whose attack searches at another length and is not scaled to any budget of gradients.

    Args:
        plan: The plan.
        length: The options to set, as :func:`length_of` names them.
    """
    node = {**plan.config["attack"]}
    for name, steps in length.items():
        if name.startswith("base."):
            node["base"] = {**node["base"], name.removeprefix("base."): steps}
        else:
            node[name] = steps
    budget = {**plan.config["budget"], "gradients": None}
    return dataclasses.replace(plan, config={**plan.config, "attack": node, "budget": budget})


def doubled(length: Mapping[str, int]) -> dict[str, int]:
    """Return twice a length."""
    return {name: 2 * steps for name, steps in length.items()}


def probes(length: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the shortest lengths from whose gradients those of any length follow.

    Under ``""`` every option is 1; under an option's name this one is 2.
    """
    shortest = dict.fromkeys(length, 1)
    return {"": shortest, **{name: {**shortest, name: 2} for name in length}}


def fitting(length: Mapping[str, int], probed: Mapping[str, int], most: int) -> dict[str, int] | None:
    """Return a length times the largest factor at which an attack takes at most ``most`` gradients.

    Gradients are linear in every option: those of the shortest length, and for every further step as many as one more
    step added to it. All options are multiplied by the same factor, rounded down, and 1 at the least.

    Args:
        length: The length.
        probed: The gradients at each of :func:`probes`.
        most: The budget.

    Returns:
        The length; None where even the shortest one takes more.
    """
    more = {name: probed[name] - probed[""] for name in length}
    unit = math.lcm(*length.values())  # so that every rounding changes at a whole number of units

    def at(units: int) -> dict[str, int]:
        return {name: max(1, steps * units // unit) for name, steps in length.items()}

    def gradients(units: int) -> int:
        return probed[""] + sum(more[name] * (steps - 1) for name, steps in at(units).items())

    if probed[""] > most:
        return None
    high = 1
    while gradients(high) <= most:
        high *= 2
    return at(bisect.bisect_right(range(high), most, key=gradients) - 1)
