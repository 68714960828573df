"""A model of one's own: any ``torch.nn.Module`` that a factory function builds, with the weights of a file.

``factory="package.module:function"`` is called for the architecture, ``weights`` (``.safetensors``, or a ``.pt`` file
read with ``weights_only=True``, so that nothing in it is executed) is loaded into it, and the module is wrapped without
being changed: the wrapper's logits are the module's own for the normalised input. With weights the target is used as it
is; without them the factory's architecture is trained like any other, which is how the control victim comes about.

A module of records takes them as they are, scaled by column, or encoded: where ``mean`` and ``std`` hold one value for
every encoded column, categories enter one-hot, and attacks that search soft records can search them.

The feature is the input of the last linear layer that runs, flattened, or the output of the module that ``features``
names. Fresh weights for another number of classes (the control's) get a last linear layer of that size. A module with
one output ``z`` is taken as two classes with the logits 0 and ``z``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.entry import Normalise
from mibench.errors import UserError
from mibench.nn.answers import WRAPPERS, asked, trial_inputs, with_two_logits
from mibench.nn.foreign import built, load
from mibench.nn.records import ScaledRecords, encoded_width
from mibench.targets.base import Target

log = logging.getLogger("mibench")


class Checkpoint(Target):
    """A foreign module behind the classifier's contract.

    It has one stage, the module up to its feature.

    Args:
        spec: Facts of the input and the number of classes.
        factory: ``package.module:function``, a function or class that returns the module.
        arguments: Keyword arguments of the factory.
        weights: File of the trained weights; None leaves the module as the factory built it, to be trained.
        mean: Subtracted from inputs in [0, 1] (or raw records), one value per channel or column, or one for all; None
            leaves them as they are. One value per encoded column (one per category, one per number) has categories
            enter one-hot.
        std: What they are then divided by, likewise.
        size: Pixels per side to which the model resizes its input itself (bilinear, antialiased); attacks keep working
            at the dataset's size.
        features: Dotted name of the module whose output is the feature; None takes the last linear layer's input.

    Attributes:
        remarks: Sentences on the module that a reader of its numbers must know.
    """

    card = TargetCard(name="checkpoint", title="A model of one's own", modalities=("image", "tabular"))

    def __init__(
        self,
        *,
        spec: InputSpec,
        factory: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        weights: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        features: str | None = None,
    ) -> None:
        super().__init__(spec=spec)
        self.normalise = _Inputs(spec, mean, std, size)
        inner = built(factory, arguments or {})
        if weights is not None:
            load(inner, weights)
        inner.float().eval()
        x = self.normalise(trial_inputs(spec))
        answers = asked(inner, x, spec)
        outputs = answers.logits.shape[1]
        if outputs == 1 and spec.classes == 2 and weights is not None:
            answers = with_two_logits(inner, answers, x)
        elif outputs != spec.classes and weights is not None:
            tells = "2 classes apart, with one output," if outputs == 1 else f"{outputs} classes apart,"
            raise UserError(
                f"The model tells {tells} but the data have {spec.classes} private ones; dataset.root less "
                "dataset.public_classes must be the class folders that it was trained on, or its outputs have to be "
                f"picked: {WRAPPERS}."
            )
        elif outputs != spec.classes and not _resized(inner, answers.layer, spec.classes):
            raise UserError(
                f"The model tells {outputs} classes apart, but is to be trained on {spec.classes}, and its "
                "last layer is no linear one that could be resized; set control=none."
            )
        self.remarks = answers.remarks
        if weights is None and _same(inner, built(factory, arguments or {})):
            log.warning("The model's factory returns the same weights every time; it must return an untrained model.")
        if features is not None and features not in dict(inner.named_modules()):
            near = ", ".join(child for child, _ in inner.named_children())
            raise UserError(f"The model has no module target.features={features}; its outermost ones are {near}.")
        self.head = inner.get_submodule(answers.layer)
        self.stages = nn.ModuleList([_Trunk(inner, answers.layer, features)])
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            self.trunk.both(x)
        self.train()

    @property
    def trunk(self) -> _Trunk:
        """The only stage."""
        return cast(_Trunk, self.stages[0])

    @property
    def foreign(self) -> nn.Module:
        """The module as the user built it."""
        return self.trunk.inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the foreign module's own output for the normalised input."""
        logits: Tensor = self.trunk.inner(self.normalise(x))
        return logits

    def forward_with_blocks(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits and the feature from one forward pass."""
        logits, feature = self.trunk.both(self.normalise(x))
        return logits, (feature,)


class _Inputs(nn.Module):
    """From canonical inputs to those that the foreign module was trained on: resized, then normalised."""

    def __init__(
        self, spec: InputSpec, mean: Sequence[float] | None, std: Sequence[float] | None, size: int | None
    ) -> None:
        super().__init__()
        image, count, width = spec.modality == "image", spec.shape[0], encoded_width(spec.columns)
        lengths = [len(values) for values in (mean, std) if values is not None]
        encodes = bool(width) and width in lengths
        for key, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) not in (1, width if encodes else count):
                what = "channels" if image else "encoded columns" if encodes else "columns"
                raise UserError(
                    f"Expected target.{key} to hold one value, or one for each of the {width if encodes else count} "
                    f"{what} of the data, but it holds {len(values)}."
                )
        if std is not None and min(std) <= 0:
            raise UserError(f"Expected target.std to be positive, but got {list(std)}.")
        if size is not None and (size < 1 or not image):
            raise UserError(f"Expected target.size to be null or pixels per side of images, but got {size}.")
        self.size = size
        self.scale: nn.Module = nn.Identity()
        if lengths:
            by = torch.tensor(mean or [0.0]), torch.tensor(std or [1.0])
            self.scale = ScaledRecords(spec.columns, *by) if encodes else Normalise(*by, image)

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = nn.functional.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        result: Tensor = self.scale(x)
        return result


class _Trunk(nn.Module):
    """The foreign module up to its feature, which is read off while the module runs as it is.

    Args:
        inner: The foreign module.
        head: Dotted name of its last layer.
        features: Dotted name of the module whose output is the feature; None takes the input of ``head``.
    """

    def __init__(self, inner: nn.Module, head: str, features: str | None) -> None:
        super().__init__()
        self.inner = inner
        self.head = head
        self.features = features

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and feature."""
        seen: list[Any] = []
        if self.features is None:
            handle = self.inner.get_submodule(self.head).register_forward_pre_hook(
                lambda _m, given: seen.append(given[0])
            )
        else:
            handle = self.inner.get_submodule(self.features).register_forward_hook(lambda _m, _i, out: seen.append(out))
        try:
            logits = self.inner(x)
        finally:
            handle.remove()
        if not seen or not isinstance(seen[-1], Tensor) or len(seen[-1]) != len(x):
            raise UserError(
                f"The module target.features={self.features} gives no tensor with one row per example when the model "
                "runs; name another one, or null for the last linear layer's input."
            )
        return logits, seen[-1].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)[1]


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two modules have the same weights in every layer but the last, biases and the like aside."""
    weights = [[p for p in module.parameters() if p.dim() > 1][:-1] for module in (one, other)]
    return bool(weights[0]) and all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def _resized(inner: nn.Module, name: str, classes: int) -> bool:
    """Replace the linear layer ``name`` by a fresh one of ``classes`` outputs; return whether it was linear."""
    layer = inner.get_submodule(name)
    if not isinstance(layer, nn.Linear) or not name:
        return False
    parent, _, last = name.rpartition(".")
    fresh = nn.Linear(layer.in_features, classes, layer.bias is not None)
    setattr(inner.get_submodule(parent), last, fresh)
    return True
