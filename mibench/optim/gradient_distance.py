"""Distances between the gradients of several problems and those that were sent, one number per problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

#: Gradients by parameter name, one row per problem, in the model's order.
Gradients = Mapping[str, Tensor]

#: Entries up to which the tensors of a gradient are laid end to end: fewer, larger operations.
FLAT = 1_000_000

#: Returns the distance of every problem, shape ``(n,)``, from ours ``(n, ...)`` and theirs ``(n or 1, ...)``.
Distance = Callable[[Gradients, Gradients], Tensor]


def squared(ours: Gradients, theirs: Gradients) -> Tensor:
    """Return the squared l2 distance over all entries of all tensors of ``theirs``."""
    terms = []
    for name, sent in theirs.items():
        own = ours[name]
        if len(own) == 1:  # one pass over the memory
            terms.append(nn.functional.mse_loss(own, sent, reduction="sum").reshape(1))
        else:
            terms.append((own - sent).square().flatten(1).sum(1))
    return torch.stack(terms).sum(0)


def absolute(ours: Gradients, theirs: Gradients) -> Tensor:
    """Return the l1 distance over all entries of all tensors of ``theirs``."""
    return torch.stack([(ours[name] - sent).abs().flatten(1).sum(1) for name, sent in theirs.items()]).sum(0)


def cosine(ours: Gradients, theirs: Gradients, weights: Sequence[float] = ()) -> Tensor:
    r"""Return :math:`1 - \langle g, g^* \rangle / (\|g\| \|g^*\|)` over all tensors together.

    A gradient of zeros has no direction: the distance is 1 then.

    Args:
        ours: Gradients of the problems.
        theirs: Gradients that were sent.
        weights: One per tensor of ``theirs``, for inner product and norms alike; all 1 where none are given.
    """
    if not weights and sum(one.numel() for one in ours.values()) <= FLAT and len(next(iter(ours.values()))) == 1:
        g = torch.cat([ours[name].flatten() for name in theirs])
        t = torch.cat([sent.flatten() for sent in theirs.values()])
        return 1 - (g @ t).reshape(1) / _root((g @ g) * (t @ t)).reshape(1)
    products, own, sent = _moments(ours, theirs)
    if weights:
        factor = torch.tensor(list(weights), device=products.device)[:, None]
        products, own, sent = factor * products, factor * own, factor * sent
    return 1 - products.sum(0) / _root(own.sum(0) * sent.sum(0))


def layer_cosine(ours: Gradients, theirs: Gradients) -> Tensor:
    """Return the mean over tensors of each one's cosine distance; tensors that were sent as zeros are left out."""
    products, own, sent = _moments(ours, theirs)
    there = (sent > 0).to(products.dtype)
    each = 1 - products / _root(own * sent)
    return (each * there).sum(0) / there.sum(0).clamp_min(1)


def on_sent(distance: Distance) -> Distance:
    """Return ``distance`` on the entries alone that were sent as other than zero, which our gradients have too.

    What a client pruned away then tells nothing, rather than that the gradient is zero there (the adaptive attacker of
    Fang et al., GIFD, ICCV 2023).
    """

    def apart(ours: Gradients, theirs: Gradients) -> Tensor:
        return distance({name: ours[name] * (sent != 0) for name, sent in theirs.items()}, theirs)

    return apart


def _moments(ours: Gradients, theirs: Gradients) -> tuple[Tensor, Tensor, Tensor]:
    """Return inner products and both squared norms of every tensor, each of shape ``(tensors, n)``."""
    products, own, sent = [], [], []
    for name, target in theirs.items():
        if len(ours[name]) == 1:  # plain inner products: half the passes over the memory
            one, other = ours[name].flatten(), target.flatten()
            products.append((one @ other).reshape(1))
            own.append((one @ one).reshape(1))
            sent.append((other @ other).reshape(1))
            continue
        g, t = ours[name].flatten(1), target.flatten(1)
        products.append((g[:, None] @ t[..., None]).flatten() if len(t) == len(g) else (g @ t[0]))
        own.append((g[:, None] @ g[..., None]).flatten())
        sent.append(t.square().sum(1).expand(len(g)))
    return torch.stack(products), torch.stack(own), torch.stack(sent)


def _root(squares: Tensor) -> Tensor:
    """Return square roots whose derivative is finite at 0."""
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


DistanceName = Literal["squared", "cosine", "layer_cosine"]

#: The distances by their name in the configuration.
DISTANCES: Mapping[str, Distance] = {"squared": squared, "cosine": cosine, "layer_cosine": layer_cosine}
