"""What training a generator against a discriminator on public images takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.precision import widened


def refuse_oblong(who: str, spec: InputSpec) -> None:
    """Refuse images that are not square.

    Raises:
        UserError: Naming who needs square ones (``prior=wgan_gp``) and the size.
    """
    if spec.shape[1] != spec.shape[2]:
        size = f"{spec.shape[2]}x{spec.shape[1]}"
        key = "dataset.size" if spec.modality == "image" else "dataset.frames to as many as dataset.mels"
        raise UserError(f"{who} needs square images, but got {size}; set {key}.")


def fitted(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images ``(N, C, H, W)`` at ``size``, resized where they have another (bilinear, antialiased).

    What a network made in bfloat16 comes back in float32.
    """
    images = widened(images)
    if tuple(images.shape[-2:]) == size:
        return images
    return nn.functional.interpolate(images, size, mode="bilinear", antialias=True)


def random_images(public: Tensor, count: int, flip: bool, draws: torch.Generator) -> Tensor:
    """Return ``count`` random rows of ``public``, with repetition, each mirrored with probability 1/2 if ``flip``."""
    rows = torch.randint(len(public), (count,), generator=draws, device=public.device)
    images = public[rows]
    if flip:
        mirrored = torch.rand(len(images), 1, 1, 1, generator=draws, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    return images


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, draws: torch.Generator) -> Tensor:
    """Return the mean squared deviation from 1 of the critic's gradient norm between real and generated images."""
    alpha = torch.rand(len(real), 1, 1, 1, generator=draws, device=real.device)
    between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
    return penalty


def random_window(side: int, window: int, draws: torch.Generator) -> tuple[slice, slice]:
    """Return rows and columns of a random square of ``window`` pixels per side; ``draws`` is on the CPU."""
    top, left = torch.randint(side - window + 1, (2,), generator=draws).tolist()
    return slice(top, top + window), slice(left, left + window)


def step_along(optimizer: torch.optim.Optimizer, loss: Tensor, module: nn.Module) -> None:
    """Take one step along the gradient of ``loss`` in the parameters of ``module`` only."""
    parameters = list(module.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
