"""The networks of StyleGAN2: a mapping to styles, a synthesis that can be entered at any block, a discriminator.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, with the details of
https://github.com/NVlabs/stylegan2-ada-pytorch (``training/networks.py``): the layers of
:mod:`mibench.nn.style_layers`, a sum of RGB skips. Images are in [-1, 1] inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mibench.model import StylePrior, StyleState
from mibench.nn.adversarial import fitted
from mibench.nn.style_layers import EqualConv, EqualLinear, ModulatedConv, activated, clamped, smoothing
from mibench.precision import widened


class Mapping(nn.Module):
    """From latents to styles: normalisation, then leaky linear layers.

    Args:
        latent_dim: Dimension of z.
        w_dim: Dimension of a style.
        layers: Number of layers.
    """

    def __init__(self, latent_dim: int, w_dim: int, layers: int) -> None:
        super().__init__()
        widths = [latent_dim, *[w_dim] * layers]
        self.layers = nn.ModuleList([EqualLinear(*pair, lr_multiplier=0.01) for pair in pairwise(widths)])

    def forward(self, z: Tensor) -> Tensor:
        """Return one style of shape ``(N, w_dim)`` per latent."""
        h = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            h = activated(layer(h))
        return widened(h)


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution with noise and activation; noise is drawn in training and constant afterwards.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        w_dim: Dimension of a style.
        size: Pixels per side of the output.
        up: Whether it doubles the size.
        limit: Largest size of a value that leaves it; None for none.
    """

    noise: Tensor

    def __init__(
        self, before: int, after: int, w_dim: int, size: int, up: bool = False, limit: float | None = None
    ) -> None:
        super().__init__()
        self.limit = limit
        self.conv = ModulatedConv(before, after, 3, w_dim, up=up)
        self.bias = nn.Parameter(torch.zeros(after))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return feature maps ``(N, after, size, size)``."""
        x = self.conv(x, w)
        noise = torch.randn_like(x[:, :1]) if self.training else self.noise
        x = x + (noise * self.strength).to(x.dtype) + self.bias.to(x.dtype)[:, None, None]
        return clamped(activated(x), self.limit)


class SynthesisBlock(nn.Module):
    """The layers of one size: the first block has a learned constant and one convolution, all others two.

    Args:
        before: Channels of the block before; 0 for the first block.
        after: Channels of this one.
        w_dim: Dimension of a style.
        size: Pixels per side.
        channels: Channels of the image.
        limit: Largest size of a value that leaves a layer; None for none.
    """

    blur: Tensor

    def __init__(
        self, before: int, after: int, w_dim: int, size: int, channels: int, limit: float | None = None
    ) -> None:
        super().__init__()
        self.limit = limit
        self.constant = None if before else nn.Parameter(torch.randn(after, size, size))
        first = [SynthesisLayer(before, after, w_dim, size, True, limit)] if before else []
        self.layers = nn.ModuleList([*first, SynthesisLayer(after, after, w_dim, size, False, limit)])
        self.paint = ModulatedConv(after, channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("blur", 4 * smoothing(), persistent=False)

    def forward(self, state: StyleState | None, ws: Tensor) -> StyleState:
        """Return the state after this block, whose layers take the first of ``ws`` in turn and its colours the next.

        Args:
            state: The state before; None for the first block.
            ws: Styles ``(N, number of layers + 1, w_dim)``.
        """
        if self.constant is not None:
            h = self.constant.expand(len(ws), -1, -1, -1)
        else:
            assert state is not None
            h = state.hidden
        for layer, w in zip(self.layers, ws.unbind(1), strict=False):
            h = layer(h, w)
        image = clamped(self.paint(h, ws[:, -1]) + self.bias[:, None, None], self.limit)
        if state is not None and state.image is not None:
            channels = image.shape[1]
            blur = self.blur.expand(channels, -1, -1, -1)
            image = image + functional.conv_transpose2d(state.image, blur, stride=2, padding=1, groups=channels)
        return StyleState(h, image)


class Synthesis(nn.Module):
    """From one style per layer to an image, in blocks of doubling size.

    Args:
        widths: Channels of the blocks, from 4x4 pixels on.
        w_dim: Dimension of a style.
        channels: Channels of the image.
        limit: Largest size of a value that leaves a layer; None for none.
    """

    def __init__(self, widths: Sequence[int], w_dim: int, channels: int, limit: float | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                SynthesisBlock(before, after, w_dim, 4 * 2**i, channels, limit)
                for i, (before, after) in enumerate(pairwise([0, *widths]))
            ]
        )
        self.num_ws = 2 * len(widths)

    def forward(self, ws: Tensor, state: StyleState | None, start: int, stop: int) -> StyleState:
        """Return the state after blocks ``start`` to ``stop - 1``.

        A block's colours take the style of the next block's first layer, so every block after the first begins one
        style before the end of the one before.
        """
        for i in range(start, stop):
            first = max(0, 2 * i - 1)
            state = self.blocks[i](state, ws[:, first : 2 * i + 2])
        assert state is not None
        return state


class Discriminator(nn.Module):
    """Residual blocks down to 4x4 pixels, where the batch's deviation joins as a feature.

    In training the deviation is that of each group of four images. Afterwards it is what training last saw on average:
    a score of an image must not depend on the others.

    Args:
        widths: Channels of the blocks, from 4x4 pixels on.
        channels: Channels of the image.
    """

    deviation: Tensor

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.read = EqualConv(channels, widths[-1], 1)
        pairs = list(pairwise(widths[::-1]))
        self.inner = nn.ModuleList([EqualConv(before, before, 3) for before, _ in pairs])
        self.shrink = nn.ModuleList([EqualConv(before, after, 3, down=True) for before, after in pairs])
        self.shortcut = nn.ModuleList([EqualConv(before, after, 1, down=True, bias=False) for before, after in pairs])
        self.last = EqualConv(widths[0] + 1, widths[0], 3)
        self.dense = EqualLinear(widths[0] * 16, widths[0])
        self.out = EqualLinear(widths[0], 1)
        self.register_buffer("deviation", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of being real, shape ``(N,)``, for images in [-1, 1]."""
        h = activated(self.read(x))
        for inner, shrink, shortcut in zip(self.inner, self.shrink, self.shortcut, strict=True):
            h = (activated(shrink(activated(inner(h)))) + shortcut(h)) * math.sqrt(0.5)
        h = torch.cat([h, self._deviation(h).expand(-1, -1, *h.shape[2:])], 1)
        h = activated(self.dense(activated(self.last(h)).flatten(1)))
        logits: Tensor = self.out(h)[:, 0]
        return logits

    def _deviation(self, h: Tensor) -> Tensor:
        if not self.training:
            return self.deviation.expand(len(h), 1, 1, 1)
        groups = max(1, len(h) // 4)
        parts = [h[i::groups] for i in range(groups)]
        spread = torch.stack([(part.var(0, unbiased=False) + 1e-8).sqrt().mean() for part in parts])
        self.deviation.lerp_(widened(spread.detach()).mean(), 0.05)
        return spread[torch.arange(len(h), device=h.device) % groups][:, None, None, None]


class StyleGenerator(StylePrior):
    """Mapping and synthesis; a subclass says how an image is finished and judged.

    Args:
        latent_dim: Dimension of z.
        w_dim: Dimension of a style.
        layers: Layers of the mapping.
        widths: Channels of the blocks, from 4x4 pixels on.
        channels: Channels of the image.
        limit: Largest size of a value that leaves a layer of the synthesis; None for none.

    Attributes:
        native: Pixels per side of what the last block leaves.
    """

    mean_style: Tensor

    def __init__(
        self,
        latent_dim: int,
        w_dim: int,
        layers: int,
        widths: Sequence[int],
        channels: int,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim, self.w_dim = latent_dim, w_dim
        self.num_blocks = len(widths)
        self.native = 4 * 2 ** (self.num_blocks - 1)
        self.mapping = Mapping(latent_dim, w_dim, layers)
        self.synthesis = Synthesis(widths, w_dim, channels, limit)
        self.num_ws = self.synthesis.num_ws
        self.register_buffer("mean_style", torch.zeros(w_dim))

    @property
    def makers(self) -> nn.ModuleList:
        """The modules of the generator."""
        return nn.ModuleList([self.mapping, self.synthesis])

    def styles(self, z: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Return styles ``(N, num_ws, w_dim)``, the first ``cutoff`` of them drawn to the mean by ``psi``."""
        ws = self.mapping(z)[:, None].expand(-1, self.num_ws, -1)
        first = self.num_ws if cutoff is None else min(cutoff, self.num_ws)
        return torch.cat([self.mean_style.lerp(ws[:, :first], psi), ws[:, first:]], 1)

    def blocks(self, ws: Tensor, state: StyleState | None, start: int, stop: int) -> StyleState:
        """Return the state after blocks ``start`` to ``stop - 1``, in float32."""
        after: StyleState = self.synthesis(ws, state, start, stop)
        return StyleState(widened(after.hidden), None if after.image is None else widened(after.image))


class StyleNetworks(StyleGenerator):
    """Generator and discriminator of one size; images are resized where their size is not native.

    Args:
        name: Id of the prior.
        shape: Image shape ``(C, H, W)``, square; sizes 4 * 2^n are native.
        latent_dim: Dimension of z.
        w_dim: Dimension of a style.
        layers: Layers of the mapping.
        base: Channels of a block times its pixels per side.
        width: Most channels of a block.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], *, latent_dim: int, w_dim: int, layers: int, base: int, width: int
    ) -> None:
        channels, *size = shape
        blocks = max(2, math.ceil(math.log2(max(size) / 4)) + 1)
        widths = [max(1, min(base // (4 * 2**i), width)) for i in range(blocks)]
        super().__init__(latent_dim, w_dim, layers, widths, channels)
        self.name = name
        self.size = (size[0], size[1])
        self.judge = Discriminator(widths, channels)

    def finish(self, state: StyleState) -> Tensor:
        """Return images ``(N, C, H, W)``, nominally in [0, 1], not clipped."""
        assert state.image is not None
        return fitted(0.5 + state.image / 2, self.size)

    def critic(self, x: Tensor) -> Tensor:
        """Return the logit of being real, shape ``(N,)``."""
        logits: Tensor = self.judge(2 * fitted(x, (self.native, self.native)) - 1)
        return logits
