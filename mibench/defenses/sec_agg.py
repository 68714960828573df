r"""Secure aggregation (Bonawitz et al., Practical Secure Aggregation, CCS 2017), with a sparse graph of keys.

The server learns the sum of the updates of a round's clients and nothing else of them. Every client encodes its update
in the ring of integers modulo :math:`M = 2^{32}` and adds masks that cancel in the sum:

.. math:: q_i = \mathrm{round}(\mathrm{clip}(u_i, -B, B) \cdot S) \bmod M, \qquad
          y_i = q_i + r_i + \sum_{j \in N(i)} \mathrm{sgn}(j - i) \, \mathrm{PRG}(k_{ij}) \bmod M

with a key :math:`k_{ij}` that :math:`i` and :math:`j` have agreed on for this round, and a mask :math:`r_i` of its own.
Clients stand in a ring and agree on keys with ``neighbours`` of them to either side alone (Bell et al., CCS 2020; Yang
et al., IJIS 2023), where the first paper takes all. Once the masked updates are there, the survivors reveal their own
masks :math:`r_i`, and of a client that dropped out after the agreement the keys that it shared with them, so that

.. math:: \sum_i q_i = \sum_i \Bigl( y_i - r_i - \sum_{d \in N(i) \cap D} \mathrm{sgn}(d - i) \, \mathrm{PRG}(k_{id})
          \Bigr) \bmod M

whose signed value divided by :math:`S` is the sum of the survivors' updates, up to the rounding: :math:`1 / (2S)` for
each. With :math:`n` clients, :math:`n B S < 2^{31}` keeps the sum from wrapping.

The message is the sum of a cohort; who attacks it faces all of its examples at once, and the column ``senders`` says of
how many clients. The key agreement and the secret sharing of the papers are not simulated: keys are drawn from the
round's seed. A server that plants a model of its own gets at single examples nevertheless
(:mod:`mibench.attacks.imprint`), and a sum of one client is its update.

There is no official code of the sparse form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.defenses.base import Defense, DefenseCard, Message, Round, Update
from mibench.errors import UserError
from mibench.options import Count, Positive
from mibench.seeding import derive, generator

#: The size of the ring.
MODULUS = 2**32


class SecAgg(Defense):
    """The sum of all clients' updates, and no update by itself."""

    card = DefenseCard(
        name="sec_agg",
        title="Secure aggregation",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2017,
        fidelity="reconstruction",
        hooks=("protocol",),
        affects=("gradients",),
        cohort=True,
        adaptive=("attack=imprint",),
    )

    neighbours: Count = 2
    """Clients to either side in the ring that a client shares keys with."""
    scale: Count = 65536
    """Steps of the encoding per unit of an update (S)."""
    bound: Positive = 8.0
    """Size to which an update's entries are clipped (B)."""

    def protocol(self, updates: Sequence[Update], this: Round) -> Sequence[Message]:
        """Return the one message of a round: the sum of the updates of the clients that are there.

        Raises:
            UserError: If the sum could leave the ring.
        """
        if this.clients * self.bound * self.scale >= MODULUS / 2:
            raise UserError(
                f"The sum of {this.clients} clients does not fit 32 bits with defense.bound={self.bound:g} and "
                f"defense.scale={self.scale}; lower one of them."
            )
        total = unmasked(
            {
                client: self.masked(self.encoded(update), client, this)
                for client, update in zip(this.present, updates, strict=True)
            },
            this,
            self.neighbours,
        )
        like = updates[0]
        signed = torch.where(total >= MODULUS // 2, total - MODULUS, total).double() / self.scale
        parts = signed.split([value.numel() for value in like.values()])
        summed = {name: part.reshape(like[name].shape).to(like[name]) for name, part in zip(like, parts, strict=True)}
        return [Message(summed, senders=len(updates), weight=len(updates))]

    def encoded(self, update: Update) -> Tensor:
        """Return an update as ring elements, all its tensors end to end, shape ``(d,)``."""
        flat = torch.cat([value.detach().flatten().double().cpu() for value in update.values()])
        return (flat.clamp(-self.bound, self.bound) * self.scale).round().long() % MODULUS

    def masked(self, encoded: Tensor, client: int, this: Round) -> Tensor:
        """Return what a client sends, shape ``(d,)``: uniform in the ring for who has none of its keys."""
        total = encoded + own_mask(client, this, len(encoded))
        for other in neighbours_of(client, this.clients, self.neighbours):
            total = total + sign(client, other) * pair_mask(client, other, this, len(encoded))
        return total % MODULUS


def unmasked(sent: dict[int, Tensor], this: Round, neighbours: int) -> Tensor:
    """Return the sum of what survivors encoded, from what they sent and what they reveal, shape ``(d,)``.

    Args:
        sent: What every survivor sent.
        this: The round, with who dropped out.
        neighbours: Clients to either side that share keys.
    """
    size = len(next(iter(sent.values())))
    total = torch.zeros(size, dtype=torch.long)
    for client, value in sent.items():
        total = total + value - own_mask(client, this, size)
        for other in neighbours_of(client, this.clients, neighbours):
            if other in this.dropped:
                total = total - sign(client, other) * pair_mask(client, other, this, size)
    return total % MODULUS


def neighbours_of(client: int, clients: int, each_side: int) -> list[int]:
    """Return whom a client in a ring shares keys with.

    >>> neighbours_of(0, 6, 2), neighbours_of(1, 3, 5)
    ([1, 2, 4, 5], [0, 2])
    """
    near = {(client + step) % clients for step in range(-each_side, each_side + 1)} - {client}
    return sorted(near)


def sign(client: int, other: int) -> int:
    """Return the sign that a client gives the mask that it shares with another: the other gives the opposite one."""
    return 1 if other > client else -1


def pair_mask(client: int, other: int, this: Round, size: int) -> Tensor:
    """Return the mask of a pair in this round, uniform in the ring, shape ``(size,)``."""
    low, high = sorted((client, other))
    return _uniform(derive(this.seed, "pair", low, high), size)


def own_mask(client: int, this: Round, size: int) -> Tensor:
    """Return a client's own mask in this round, uniform in the ring, shape ``(size,)``."""
    return _uniform(derive(this.seed, "own", client), size)


def _uniform(seed: int, size: int) -> Tensor:
    return torch.randint(MODULUS, (size,), generator=generator(seed))
