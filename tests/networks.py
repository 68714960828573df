"""Targets of which some are one network, trained by several recipes."""

from collections.abc import Sequence
from typing import Any

import pytest

from mibench.planning.composition import DESCRIPTIONS


def once(targets: Sequence[Any]) -> list[Any]:
    """Return targets of the catalogue as parameters of a test, slow where an earlier one is the same network."""
    networks = [{key: value for key, value in one.node.items() if key not in DESCRIPTIONS} for one in targets]
    again = [networks.index(network) < number for number, network in enumerate(networks)]
    return [
        pytest.param(one, id=one.name, marks=[pytest.mark.slow] if seen else [])
        for one, seen in zip(targets, again, strict=True)
    ]
