"""What one client sends: the gradient of its loss, or what several steps change; and its loss as attackers know it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.access import LocalTraining
from mibench.data import Examples
from mibench.defenses.base import Defense
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.nn.batch_norm import norms, running_buffers
from mibench.training import Batch

#: The names of running statistics among what a client sends.
BUFFERS = ("running_mean", "running_var")


@dataclass(frozen=True)
class ClientLoss:
    """The loss that clients train with, for an attacker who knows it: it holds no client and none of their data.

    Attributes:
        defense: The defense as it is known (:meth:`mibench.defenses.base.Defense.as_known`).
        progress: Share of the training that lies behind the attacked round, for losses with a schedule.
    """

    defense: Defense
    progress: float

    def __call__(self, model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of a model on inputs ``(N, ...)`` and class ids ``(N,)``, a scalar."""
        return self.defense.loss(Batch(model, x, y, self.progress))


def client_update(
    model: Classifier,
    batch: Examples,
    defense: Defense,
    local: LocalTraining,
    own_statistics: bool,
    progress: float = 0.0,
    orders: Sequence[Tensor] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what one client has learned, and the running statistics that its batches leave.

    Args:
        model: The global model, which stays as it is.
        batch: The client's examples.
        defense: Its loss is the client's.
        local: How the client trains.
        own_statistics: Whether batch norm uses the batch's own statistics, and remembers them.
        progress: Share of the training that lies behind this round, for losses with a schedule.
        orders: The order of the examples in every local epoch, shape ``(N,)`` each; none for that of the batch.

    Returns:
        The gradient by parameter name, or after several steps the parameters before minus those after; and buffers by
        name, none where ``own_statistics`` is off.
    """
    model = copy.deepcopy(model)
    for layer in norms(model).values():
        layer.train(own_statistics)
    steps = local.batches(len(batch))
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    moving = {name: value for name, value in model.named_parameters() if value.requires_grad}
    update: dict[str, Tensor] = {}
    for rows in _rows(steps, orders):
        loss = defense.loss(Batch(model, batch.x[rows], batch.y[rows], progress))
        gradient = torch.autograd.grad(loss, list(moving.values()))
        update = dict(zip(moving, gradient, strict=True))
        with torch.no_grad():
            for name, value in update.items():
                moving[name].sub_(local.lr * value)
    if len(steps) > 1:
        update = {name: value - moving[name].detach() for name, value in before.items()}
    return update, running_buffers(model) if own_statistics else {}


def _rows(steps: Sequence[slice], orders: Sequence[Tensor]) -> list[slice | Tensor]:
    """Return the examples of every step, those of each epoch in its own order where there are orders."""
    if not orders:
        return list(steps)
    each = len(steps) // len(orders)
    return [orders[place // each][rows] for place, rows in enumerate(steps)]


def named_as_the_model(update: Mapping[str, Tensor], model: Classifier) -> dict[str, Tensor]:
    """Return a captured update by the names that ``model`` has for its parameters, in its order.

    Raises:
        UserError: If a tensor is missing, unknown or of another shape.
    """
    own = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    foreign = getattr(model, "foreign", model)
    called = {name: (own[id(value)], value) for name, value in foreign.named_parameters() if id(value) in own}
    given = {name: value for name, value in update.items() if name in called}
    if missing := [name for name in called if name not in update]:
        shown = ", ".join(sorted(update)[:4])
        raise UserError(
            f"The captured update has no tensor '{missing[0]}' for the parameter of that name ({len(missing)} of "
            f"{len(called)} are missing; it holds {shown} ...); name its tensors as model.named_parameters() does."
        )
    for name, value in given.items():
        if value.shape != called[name][1].shape:
            raise UserError(
                f"Expected the captured update's '{name}' to have the parameter's shape "
                f"{tuple(called[name][1].shape)}, but got {tuple(value.shape)}; it is of another model."
            )
    return {called[name][0]: given[name] for name in called}


def is_buffer(name: str) -> bool:
    """Whether a tensor of a message is a batch-norm buffer rather than a parameter."""
    return name.endswith(BUFFERS)
