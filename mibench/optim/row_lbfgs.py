"""L-BFGS on every row of a batched problem (:mod:`mibench.optim.problems`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mibench.optim.problems import Dropping, Found, Objective


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS on every row (Liu and Nocedal, 1989), in the compact form of Byrd, Nocedal and Schnabel (1994).

    Attributes:
        iterations: Outer steps.
        inner: Moves inside each.
        lr: Step length.
        history: Pairs of differences remembered.
        line_search: Whether a step is halved until the objective falls (Armijo), at most ten times.
        dropping: Which problems end early; it looks after every outer step.
    """

    iterations: int
    inner: int
    lr: float
    history: int
    line_search: bool = False
    dropping: Dropping = field(default_factory=Dropping)

    def minimise(self, objective: Objective, variables: Sequence[Tensor], found: Found, steps: Iterable[int]) -> None:
        """Descend in ``variables`` and offer every point to ``found``: arguments are those of Adam's.

        A row ends where its objective is no longer finite and where a step changes nothing.
        """
        shapes = [variable.shape[1:] for variable in variables]
        sizes = [shape.numel() for shape in shapes]
        rows = found.problems.rows
        x = torch.cat([variable.detach().flatten(1) for variable in variables], 1)
        memory = _Memory(self.history, x)

        def look_at(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            parts = [part.reshape(-1, *shape) for part, shape in zip(x.split(sizes, 1), shapes, strict=True)]
            losses, gradients = found.look(objective, rows, parts)
            return losses, torch.cat([gradient.flatten(1) for gradient in gradients], 1)

        loss, gradient = look_at(rows, x)
        for step in steps:
            before = x
            for _ in range(self.inner):
                direction, length = memory.direction(gradient, self.lr)
                slope = (direction * gradient).sum(1)
                good = (slope < 0) & loss.isfinite()
                direction = torch.where(good[:, None], direction, 0.0)
                reached = x + length[:, None] * direction
                new_loss, new_gradient = look_at(rows, reached)
                if self.line_search:
                    for _ in range(10):
                        short = ~(new_loss <= loss + 1e-4 * length * slope) & good
                        if not bool(short.any()):
                            break
                        length = torch.where(short, length / 2, length)
                        reached = x + length[:, None] * direction
                        new_loss, new_gradient = look_at(rows, reached)
                    stuck = ~(new_loss <= loss) & good  # at the precision of the numbers
                    reached = torch.where(stuck[:, None], x, reached)
                    new_loss = torch.where(stuck, loss, new_loss)
                    new_gradient = torch.where(stuck[:, None], gradient, new_gradient)
                memory.remember(reached - x, new_gradient - gradient)
                x, loss, gradient = reached, new_loss, new_gradient
            look = self.dropping.look
            going = self.dropping.survivors(found, rows, (step + 1) * look, self.iterations * look)
            going &= (loss.isfinite() & (x != before).any(1)).cpu()
            if not bool(going.all()):
                kept = going.to(x.device)
                x, loss, gradient, rows = x[kept], loss[kept], gradient[kept], rows[going]
                memory.keep(kept)
            if not len(rows):
                return


class _Memory:
    """The differences that L-BFGS remembers, of every row."""

    def __init__(self, history: int, like: Tensor) -> None:
        rows, size = like.shape
        self.moves, self.changes = (like.new_zeros(rows, 0, size) for _ in range(2))
        self.products, self.squares = (like.new_zeros(rows, 0, 0, dtype=torch.float64) for _ in range(2))
        self.scale = like.new_ones(rows)
        self.history, self.slot = history, 0
        self.begun = False

    def keep(self, kept: Tensor) -> None:
        """Forget the other rows."""
        for name in ("moves", "changes", "products", "squares", "scale"):
            setattr(self, name, getattr(self, name)[kept])

    def remember(self, move: Tensor, change: Tensor) -> None:
        """Take a step and the change of the gradient along it; where the curvature is not positive, an empty pair."""
        along = (move * change).sum(1)
        good = (along > 1e-10)[:, None]
        move, change = torch.where(good, move, 0.0), torch.where(good, change, 0.0)
        self.scale = torch.where(good[:, 0], along / change.square().sum(1).clamp_min(1e-30), self.scale)
        filled = self.moves.shape[1]
        if filled < self.history:
            self.moves = torch.cat([self.moves, move[:, None]], 1)
            self.changes = torch.cat([self.changes, change[:, None]], 1)
            self.products, self.squares = (_grown(one) for one in (self.products, self.squares))
            self.slot = filled
        else:
            self.slot = (self.slot + 1) % self.history
            self.moves[:, self.slot], self.changes[:, self.slot] = move, change
        self.products[:, :, self.slot] = (self.moves @ change[..., None])[..., 0].double()
        self.products[:, self.slot] = (self.changes @ move[..., None])[..., 0].double()
        squares = (self.changes @ change[..., None])[..., 0].double()
        self.squares[:, :, self.slot] = self.squares[:, self.slot] = squares
        self.begun = True

    def direction(self, gradient: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Return where every row goes and how far: the gradient, short, before anything is remembered."""
        if not self.begun:
            return -gradient, lr * (1 / gradient.abs().sum(1)).clamp_max(1)
        filled = self.moves.shape[1]
        order = (torch.arange(filled, device=gradient.device) + self.slot + 1) % filled  # the oldest pair first
        products = self.products[:, order][:, :, order]
        diagonal = products.diagonal(dim1=1, dim2=2)
        upper = products.triu() + torch.diag_embed((diagonal == 0).double())
        along = (self.moves @ gradient[..., None])[:, order].double()
        across = self.scale[:, None, None].double() * (self.changes @ gradient[..., None])[:, order].double()
        p = torch.linalg.solve_triangular(upper, along, upper=True)
        squares = self.scale[:, None, None].double() * self.squares[:, order][:, :, order]
        q = torch.linalg.solve_triangular(
            upper.transpose(1, 2), diagonal[..., None] * p + squares @ p - across, upper=False
        )
        back = order.argsort()
        p, q = p[:, back].to(gradient.dtype), q[:, back].to(gradient.dtype)
        step = self.scale[:, None] * gradient
        step = (
            step
            + (q.transpose(1, 2) @ self.moves)[:, 0]
            - self.scale[:, None] * (p.transpose(1, 2) @ self.changes)[:, 0]
        )
        return -step, gradient.new_full((len(gradient),), lr)


def _grown(square: Tensor) -> Tensor:
    """Return a square matrix per row with one row and one column of zeros more."""
    return torch.nn.functional.pad(square, (0, 1, 0, 1))
