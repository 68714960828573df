"""No defense: the identity on every hook, a defense like any other."""

from __future__ import annotations

from mibench.defenses.base import Defense, DefenseCard


class NoDefense(Defense):
    """The undefended victim."""

    card = DefenseCard(
        name="none",
        title="No defense",
        modalities=("image", "text", "tabular", "audio", "graph"),
        hooks=(),
        affects=(),
    )
