"""Any classifier of torchvision by its name, untrained: ``arch=resnet152``, ``densenet169``, ``vit_b_16`` ...

The high-resolution literature attacks such networks at 224x224 pixels (PPA, Struppek et al., ICML 2022, ResNet-152 and
others, begun with ImageNet's weights and normalised to [-1, 1]); here they begin at random. Heads that only help in
training are left out (GoogLeNet, Inception). A grey image is shown as three equal channels. The feature is what the
last linear layer is given; the blocks are the outputs of the outermost modules with weights before it, ``features``
opened, and the feature.

ResNets and their kin add in place inside their blocks, which per-example gradients forbid: DP-SGD takes ``resnet18``.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.errors import UnknownNameError, UserError
from mibench.nn.foreign import first_line
from mibench.options import Count
from mibench.targets.base import Target, centred


class TorchvisionModel(Target):
    """A torchvision classifier; its one stage is the network without its last linear layer.

    Args:
        spec: Facts of the input; images with 1 or 3 channels.
        arch: A name of ``torchvision.models.list_models(module=torchvision.models)``.
        size: Pixels per side to which it resizes its input itself (bilinear, antialiased); None takes the dataset's.
    """

    card = TargetCard(name="torchvision_model", title="A torchvision classifier", modalities=("image",))

    def __init__(self, *, spec: InputSpec, arch: str = "resnet152", size: Count | None = None) -> None:
        super().__init__(spec=spec)
        from torchvision import models

        if arch not in (known := models.list_models(module=models)):
            raise UnknownNameError("torchvision classifier (target.arch)", arch, known)
        more = {"aux_logits": False, "init_weights": True} if arch in ("googlenet", "inception_v3") else {}
        inner: nn.Module = models.get_model(arch, weights=None, num_classes=spec.classes, **more)
        for module in inner.modules():
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010 (a module's attributes are tensors to mypy)
        linear = [(name, module) for name, module in inner.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise UserError(f"target.arch={arch} does not end in a linear layer; choose another one.")
        last, self.head = linear[-1]
        inner.set_submodule(last, nn.Identity())
        self.normalise = nn.Sequential(_Colour(size), centred(spec))
        self.stages = nn.ModuleList([inner])
        self.points = tuple(_points(inner, last))
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(2, *spec.shape))
        except (RuntimeError, AssertionError) as error:
            shape = "x".join(str(side) for side in spec.shape[1:])
            raise UserError(
                f"target.arch={arch} cannot take images of {shape} pixels ({first_line(error)}); set target.size=224, "
                "to which it then resizes them."
            ) from error
        self.train()

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the outermost modules and the feature for images ``(N, C, H, W)``."""
        seen: list[Tensor] = []
        inner = self.stages[0]
        with contextlib.ExitStack() as hooks:
            for name in self.points:
                handle = inner.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(out))
                hooks.callback(handle.remove)
            feature = inner(self.normalise(x))
        return (*seen, feature)


class _Colour(nn.Module):
    """From images of 1 or 3 channels to images of 3, resized to ``size`` where it is not None."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = nn.functional.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return x.expand(-1, 3, -1, -1)


def _points(inner: nn.Module, last: str) -> list[str]:
    """Return the outermost modules with weights that do not hold ``last``; those of ``features`` instead of it."""
    found: list[str] = []
    for name, child in inner.named_children():
        if last.partition(".")[0] == name:
            continue
        opened = child.named_children() if name == "features" else [("", child)]
        found += [f"{name}.{part}".rstrip(".") for part, one in opened if any(True for _ in one.parameters())]
    return found
