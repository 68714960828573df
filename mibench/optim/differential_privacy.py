r"""What makes a client's update differentially private: clipped per-example gradients, noise, and an accountant.

The mean of vectors whose norm is at most :math:`C` lies in a ball of radius :math:`C`, whatever the batch: replacing
all of it moves the mean by at most :math:`2 C`. Gaussian noise of deviation :math:`s` on that mean is a Gaussian
mechanism of multiplier :math:`s / 2 C`, and the message is locally private for everything behind it.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mibench.data import Examples
from mibench.model import Classifier

#: Below this noise (above this budget) PRV's grid takes minutes or does not fit the memory; RDP accounts instead.
LEAST_PRV_NOISE = 0.3

#: The delta at which every guarantee is reported beside its own, so that epsilons can be compared. It is far below one
#: over the number of examples of every dataset with fewer than 10,000 of them, and below it up to 100,000.
COMMON_DELTA = 1e-5

#: What a guarantee hides: one example, one record of a table, all examples of a class or of a part of one, or all that
#: stands behind a client's message.
Unit = Literal["example", "record", "class", "subclass", "client"]

#: How two data sets differ that must look alike: by a unit that is there or not, or by one in another's place.
Neighbours = Literal["add or remove", "replace"]


def clipped_sum(model: Classifier, batch: Examples, norm: float) -> dict[str, Tensor]:
    """Return the sum over a batch of each example's gradient of the cross-entropy, clipped over all parameters.

    One example is differentiated after another, not all at once under ``vmap``, which encoders of records and many
    foreign modules do not allow.

    Args:
        model: The classifier, in evaluation mode.
        batch: The examples.
        norm: The l2 norm that no example's gradient exceeds.
    """
    return sum_of_clipped(model, zip(batch.x.split(1), batch.y.split(1), strict=True), norm)


def sum_of_clipped(model: Classifier, parts: Iterable[tuple[Tensor, Tensor]], norm: float) -> dict[str, Tensor]:
    """Return the sum over parts of each one's gradient of the mean cross-entropy, clipped over all parameters.

    Args:
        model: The classifier.
        parts: Inputs ``(n, ...)`` and class ids ``(n,)`` of every part: an example, or the examples of a group.
        norm: The l2 norm that no part's gradient exceeds.
    """
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for x, y in parts:
        values = torch.autograd.grad(model.objective.mean(model(x), y), list(parameters.values()),
                                     materialize_grads=True)  # fmt: skip
        for name, value in clipped(dict(zip(parameters, values, strict=True)), norm).items():
            total[name] += value
    return total


def clipped(update: Mapping[str, Tensor], norm: float) -> dict[str, Tensor]:
    """Return an update (parameter name -> tensor), scaled so that its norm over all tensors is at most ``norm``."""
    length = torch.stack([value.norm() for value in update.values()]).norm()
    factor = (norm / length.clamp_min(1e-12)).clamp_max(1)
    return {name: value * factor for name, value in update.items()}


def clipped_mean(model: Classifier, batch: Examples, norm: float) -> dict[str, Tensor]:
    """Return the mean of each example's clipped gradient; the arguments are those of :func:`clipped_sum`."""
    return {name: value / len(batch) for name, value in clipped_sum(model, batch, norm).items()}


def with_gaussian(update: Mapping[str, Tensor], deviation: float, draws: torch.Generator) -> dict[str, Tensor]:
    """Return an update (parameter name -> tensor) with Gaussian noise of a standard deviation on every entry."""
    return {
        name: value + deviation * torch.randn(value.shape, generator=draws, device=value.device, dtype=value.dtype)
        for name, value in update.items()
    }


def laplace_like(values: Tensor, draws: torch.Generator | None = None) -> Tensor:
    """Return Laplace noise of scale 1 in the shape of ``values``: the difference of two exponential draws."""
    first, second = (torch.empty_like(values).exponential_(generator=draws) for _ in range(2))
    return first - second


def without_batch_norm(model: Classifier) -> Classifier:
    """Return a copy with group norm in the place of batch norm, which mixes examples and has no private form.

    In-place activations, which Opacus' hooks forbid, are switched off, and what else Opacus has a replacement for is
    replaced.
    """
    fixed = copy.deepcopy(model)
    with quiet():
        from opacus.validators import ModuleValidator

        replaced: dict[nn.Module, nn.Module] = {}
        for name, module in list(fixed.named_modules(remove_duplicate=False)):
            fix = ModuleValidator.FIXERS.get(type(module))
            if module in replaced:
                fresh: nn.Module = replaced[module]
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                groups = math.gcd(32, module.num_features)
                fresh = nn.GroupNorm(groups, module.num_features, affine=module.affine)
            elif fix is not None and any(one.requires_grad for one in module.parameters(recurse=False)):
                fresh = fix(module)
            else:
                continue
            replaced[module] = fresh
            parent, _, last = name.rpartition(".")
            setattr(fixed.get_submodule(parent), last, fresh.to(model.device))
    for module in fixed.modules():
        if "inplace" in vars(module):
            vars(module)["inplace"] = False
    return fixed


def guarantee(
    epsilon: float,
    delta: float,
    common: float,
    accountant: str,
    unit: Unit,
    neighbours: Neighbours,
    name: str = "epsilon",
) -> dict[str, float | str]:
    """Return what a defense reports of its guarantee.

    Args:
        epsilon: At ``delta``; infinity without noise.
        delta: From 0 to below 1.
        common: Epsilon at :data:`COMMON_DELTA`.
        accountant: What computed both.
        unit: What the guarantee hides.
        neighbours: How neighbouring data sets differ.
        name: What epsilon is called: ``local_epsilon`` of a single message.
    """
    return {
        name: epsilon,
        "delta": delta,
        f"{name}_common": common,
        "delta_common": COMMON_DELTA,
        "accountant": accountant,
        "unit": unit,
        "neighbours": neighbours,
    }


def pure_guarantee(epsilon: float | None, unit: Unit, neighbours: Neighbours) -> dict[str, float | str]:
    """Return the facts of a training whose mechanisms compose to ``epsilon`` at a delta of 0; None is without noise.

    What holds at 0 holds at every delta, :data:`COMMON_DELTA` included.
    """
    spent = math.inf if epsilon is None else epsilon
    return guarantee(spent, 0.0, spent, "pure composition", unit, neighbours)


def rdp_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Return Opacus' epsilon of a training by Renyi differential privacy (Mironov et al., 2019).

    Args:
        noise_multiplier: Standard deviation of the noise over the most that one record moves the sum.
        sample_rate: Probability with which a record takes part in a step.
        steps: Number of steps.
        delta: In (0, 1).
    """
    if not steps:
        return 0.0
    if not noise_multiplier:
        return math.inf
    with quiet():
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        accountant.history = [(noise_multiplier, sample_rate, steps)]
        return float(accountant.get_epsilon(delta))


def finite_epsilon(accountant: Any, delta: float) -> tuple[float, str]:
    """Return an Opacus accountant's epsilon at ``delta`` and who accounted for it.

    PRV gives infinity where little noise and many steps leave its grid; the looser RDP then accounts instead.
    """
    epsilon, mechanism = float(accountant.get_epsilon(delta)), str(accountant.mechanism())
    if math.isfinite(epsilon) or mechanism == "rdp":
        return epsilon, mechanism
    from opacus.accountants import RDPAccountant

    looser = RDPAccountant()
    looser.history = list(accountant.history)
    return float(looser.get_epsilon(delta)), "rdp"


def local_guarantee(deviation: float, norm: float, delta: float) -> dict[str, float | str]:
    """Return the facts of one message, ``local_epsilon`` at ``delta`` by Opacus' accountant; nothing without noise.

    It hides all that is behind the message: any other batch in its place would look alike.

    Args:
        deviation: Standard deviation of the Gaussian noise on the mean.
        norm: What each example's gradient was clipped to.
        delta: In (0, 1).
    """
    if not deviation:
        return {}
    multiplier = deviation / (2 * norm)
    with quiet():
        from opacus.accountants import PRVAccountant, RDPAccountant

        accountant = PRVAccountant() if multiplier >= LEAST_PRV_NOISE else RDPAccountant()
        accountant.history = [(multiplier, 1.0, 1)]
        epsilon, mechanism = finite_epsilon(accountant, delta)
        common = epsilon if delta == COMMON_DELTA else finite_epsilon(accountant, COMMON_DELTA)[0]
    return guarantee(epsilon, delta, common, mechanism, "client", "replace", name="local_epsilon")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what Opacus says on every use and no user can act on."""
    logger = logging.getLogger("opacus")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Secure RNG turned off")
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            warnings.filterwarnings("ignore", message="Optimal order is the")
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="opacus.accountants")
            yield
    finally:
        logger.setLevel(level)
