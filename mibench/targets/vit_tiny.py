r"""ViT-Tiny on patches of 4x4 pixels: a vision transformer for small images.

A. Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; the width of 192, 12 layers and 3 heads are DeiT-Ti's
(Touvron et al., ICML 2021). Patches are projected linearly, a class token is put before them and a learned position
added to each; then pre-norm layers

.. math:: h \leftarrow h + \mathrm{MSA}(\mathrm{LN}(h)), \qquad h \leftarrow h + \mathrm{MLP}(\mathrm{LN}(h))

with GELU and a hidden width four times as large, and the head reads the normalised class token. Weights, token and
positions begin normal with deviation 0.02, as in DeiT, biases at zero. At 32 pixels, 3 channels and 10 classes these
are 5,362,762 weights; at DeiT's 224 pixels, patches of 16 and 1,000 classes its 5.7 million.

Attention is written out: torch's fused kernels have no second derivative. Deviations: no dropout and no stochastic
depth, inputs mapped to [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.options import Count
from mibench.targets.base import Target, centred


class VitTiny(Target):
    """A small vision transformer, untrained: one stage for the tokens and one per layer.

    Args:
        spec: Facts of the input; images whose sides are multiples of ``patch``.
        patch: Pixels per side of a patch.
        dim: Width of a token.
        depth: Layers.
        heads: Heads of attention; they share ``dim`` evenly.
    """

    card = TargetCard(
        name="vit_tiny",
        title="ViT-Tiny for small images",
        modalities=("image",),
        bib="vit",
        year=2021,
        family="transformer",
    )

    def __init__(
        self, *, spec: InputSpec, patch: Count = 4, dim: Count = 192, depth: Count = 12, heads: Count = 3
    ) -> None:
        super().__init__(spec=spec)
        height, width = spec.shape[1:]
        if height % patch or width % patch:
            raise UserError(
                f"target=vit_tiny cuts images into patches of {patch}x{patch} pixels, but these have {width}x{height}; "
                "set target.patch to a divisor of both sides."
            )
        if dim % heads:
            raise UserError(f"Expected target.dim to be a multiple of target.heads={heads}, but got {dim}.")
        self.normalise = centred(spec)
        tokens = _Tokens(spec.shape[0], patch, (height // patch) * (width // patch), dim)
        self.stages = nn.ModuleList([tokens, *(_Layer(dim, heads) for _ in range(depth))])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                _draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def pool(self, last: Tensor) -> Tensor:
        """Return the normalised class token."""
        feature: Tensor = self.norm(last[:, 0])
        return feature


class _Tokens(nn.Module):
    """From images ``(N, C, H, W)`` to tokens ``(N, 1 + patches, dim)``, the class token first."""

    def __init__(self, channels: int, patch: int, patches: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, dim, patch, patch)
        self.position = _Position(patches, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.position(self.project(x).flatten(2).transpose(1, 2))
        return tokens


class _Position(nn.Module):
    """Puts the class token before the patches' tokens and adds the positions."""

    def __init__(self, patches: int, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        self.embedding = nn.Parameter(torch.empty(1, 1 + patches, dim))
        _draw(self.token)
        _draw(self.embedding)

    def forward(self, patches: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(patches), -1, -1), patches], 1) + self.embedding


class _Layer(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside an identity."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attention(self.norm1(h))
        result: Tensor = h + self.mlp(self.norm2(h))
        return result


class _Attention(nn.Module):
    """Multi-head self-attention in plain products, which every transform of torch can differentiate."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, h: Tensor) -> Tensor:
        split = self.qkv(h).unflatten(2, (3, self.heads, -1))  # (N, tokens, 3, heads, dim of a head)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1)
        result: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return result


def _draw(weights: Tensor) -> None:
    nn.init.trunc_normal_(weights, std=0.02)
