r"""DGP: dual gradient pruning (Xue et al., Revisiting Gradient Pruning, AAAI 2024).

The largest entries of a gradient tell most of the data, the smallest are not worth their upload: a client sends the
middle. Per layer, with its gradient :math:`g_t` and what it has not sent so far, :math:`e_t` (:math:`e_0 = 0`),

.. math:: p_t = g_t + e_t, \qquad \tilde g_t = p_t \, [\, k_2 < \mathrm{rank}(|p_t|) \le 1 - k_1 \,], \qquad
    e_{t+1} = p_t - \tilde g_t,

where the rank runs from 0 (smallest) to 1 (largest): the top share :math:`k_1` and the bottom share :math:`k_2` are
zeros in the message and wait. Error feedback lets an entry through once others have outgrown it; one that
is by far the largest in every round only grows, and is never sent. It is a heuristic, not a privacy mechanism: what is
sent is exact.

There is no official code. Inferred: the defaults 5 % and 75 %; that a layer is one module's weight and bias together;
that of :math:`n` entries :math:`\lfloor k_1 n \rfloor` and :math:`\lfloor k_2 n \rfloor` are pruned, so that small
layers send something. The paper adds :math:`\eta g_t` with the step size, which here the server applies: a constant one
scales everything alike. The variant ADGP, whose users prune at the same places, is left out.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

from mibench.defenses.base import Client, Defense, DefenseCard, Update
from mibench.errors import UserError
from mibench.optim.compression import by_group
from mibench.options import Decay


class Dgp(Defense):
    """The middle of every layer's gradient, with error feedback."""

    card = DefenseCard(
        name="dgp",
        title="Dual gradient pruning",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2024,
        fidelity="reconstruction",
        hooks=("update",),
        affects=("gradients",),
        strength="top",
        stronger="higher",
        adaptive=("setting=federated attack=inverting_gradients attack.mask_sent=true",),
    )

    top: Decay = 0.05
    """Share of the entries of largest magnitude that is pruned (k1)."""
    bottom: Decay = 0.75
    """Share of the entries of smallest magnitude that is pruned (k2)."""

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing."""
        super().__post_init__()
        if not self.top + self.bottom < 1:
            raise UserError(
                "Expected defense.top and defense.bottom to be less than 1 together, but got "
                f"{self.top} and {self.bottom}."
            )

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the pruned update; ``client.state`` keeps ``error.<name>``."""
        layers: dict[str, list[str]] = defaultdict(list)
        for name in gradient:
            layers[name.rpartition(".")[0]].append(name)
        waiting = {name: value + client.state.get(f"error.{name}", 0) for name, value in gradient.items()}
        sent = by_group(waiting, layers.values(), lambda entries: entries * self._middle(entries.abs()))
        client.state |= {f"error.{name}": value - sent[name] for name, value in waiting.items()}
        return sent

    def _middle(self, magnitudes: Tensor) -> Tensor:
        """Return where the entries stand that are sent, a mask like ``magnitudes``."""
        count = len(magnitudes)
        order = magnitudes.argsort(stable=True)
        mask = torch.zeros_like(magnitudes, dtype=torch.bool)
        mask[order[whole(self.bottom * count) : count - whole(self.top * count)]] = True
        return mask


def whole(product: float) -> int:
    """Return the whole part of a share of a number, which floating point may have put just below it."""
    return math.floor(product + 1e-9)
