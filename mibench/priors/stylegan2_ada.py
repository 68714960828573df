r"""A finished StyleGAN2-ADA generator, as PPA, MIRROR and IF-GMI use them.

Karras et al., Training Generative Adversarial Networks with Limited Data, NeurIPS 2020
(https://github.com/NVlabs/stylegan2-ada-pytorch, ``training/networks.py``). The generator was trained by others on
images of other people; here nothing is trained. ``weights`` is a file of tensors under the official names, made by
``scripts/export_stylegan2.py`` from NVlabs' pickle: a pickle executes what it holds when it is read, so that is done
by the user, once, outside mibench. Their licence is NVIDIA's own (non-commercial).

The networks are :mod:`mibench.nn.style`'s. Noise is constant (``noise_mode="const"``) and all is computed in single
precision. An image is the central ``crop`` pixels of what the generator makes (PPA takes 800 of FFHQ's 1024, so that
faces fill the picture as the target's do; 176 of 256), resized to the dataset's size (bilinear, antialiased), and
in grey where the dataset is.

Not loaded: the discriminator; an attack that asks its prior for a critic is refused. Not supported: class-conditional
generators and those without skips.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.errors import IncompatibleCellError, UserError
from mibench.limits import safetensors_of
from mibench.model import LatentPrior, StyleState
from mibench.nn.adversarial import fitted, refuse_oblong
from mibench.nn.style import StyleGenerator
from mibench.options import Count
from mibench.priors.base import Prior, PriorData

#: What the export writes into the file, so that no other one is taken for it.
FORMAT = "stylegan2_ada"

EXPORT = "export NVlabs' pickle with scripts/export_stylegan2.py"

#: Where the official parts of a layer are in ours.
PARTS = {
    "weight": "conv.weight",
    "affine.weight": "conv.affine.weight",
    "affine.bias": "conv.affine.bias",
    "bias": "bias",
    "noise_strength": "strength",
    "noise_const": "noise",
}

#: Where the official parts of a layer that makes colours are in ours.
COLOURS = {
    "weight": "paint.weight",
    "affine.weight": "paint.affine.weight",
    "affine.bias": "paint.affine.bias",
    "bias": "bias",
}


class StyleGan2AdaNetworks(StyleGenerator):
    """The generator of a file.

    Args:
        official: Tensors by their official names.
        limit: Largest size of a value that leaves a layer (``conv_clamp``); None for none.
        shape: Image shape ``(C, H, W)`` of the dataset.
        crop: Pixels per side of the square that is cut from the centre; None for all.
    """

    name = "stylegan2_ada"

    def __init__(
        self, official: Mapping[str, Tensor], limit: float | None, shape: tuple[int, ...], crop: int | None
    ) -> None:
        tensors = renamed(official)
        widths = [len(tensors[name]) for name in tensors if name.endswith("paint.affine.bias")]
        super().__init__(
            latent_dim=tensors["mapping.layers.0.weight"].shape[1],
            w_dim=len(tensors["mean_style"]),
            layers=sum(bool(re.fullmatch(r"mapping\.layers\.\d+\.weight", name)) for name in tensors),
            widths=widths,
            channels=len(tensors["synthesis.blocks.0.bias"]),
            limit=limit,
        )
        self.load_state_dict(tensors)
        self.channels, height, breadth = shape
        self.size = (height, breadth)
        self.crop = self.native if crop is None else crop
        self.chunk = max(1, 256 * 64**2 // self.native**2)

    def finish(self, state: StyleState) -> Tensor:
        """Return images ``(N, C, H, W)`` of the dataset's size, nominally in [0, 1], not clipped."""
        assert state.image is not None
        first = (self.native - self.crop) // 2
        image = 0.5 + state.image[:, :, first : first + self.crop, first : first + self.crop] / 2
        image = fitted(image, self.size)
        if image.shape[1] == self.channels:
            return image
        if self.channels == 3:
            return image.expand(-1, 3, -1, -1)
        return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)

    def critic(self, x: Tensor) -> Tensor:
        """Always refuses.

        Raises:
            IncompatibleCellError: There is no discriminator.
        """
        raise IncompatibleCellError(
            "Incompatible: the attack asks its prior for a critic, and prior=stylegan2_ada has none (the official "
            "discriminator is not loaded); choose an attack of styles (ppa, mirror_white, ifgmi) or prior=style_gan."
        )


class StyleGan2Ada(Prior):
    """An official generator that the user has."""

    card = PriorCard(
        name="stylegan2_ada",
        title="StyleGAN2-ADA, official",
        modalities=("image",),
        year=2020,
        code="https://github.com/NVlabs/stylegan2-ada-pytorch",
        fidelity="official",
        spaces=("latent", "style"),
    )

    pretrained = True

    weights: str | None = None
    """File that ``scripts/export_stylegan2.py`` wrote; there is no default."""
    crop: Count | None = None
    """Pixels per side of the square cut from the centre of what it generates; null takes all."""

    def __post_init__(self) -> None:
        """Refuse missing weights."""
        super().__post_init__()
        if self.weights is None:
            raise UserError(
                f"prior=stylegan2_ada needs the weights of a generator: {EXPORT}, and set prior.weights=FILE."
            )
        if not Path(self.weights).expanduser().is_file():
            raise UserError(f"prior.weights={self.weights} is not a file; {EXPORT}.")

    def network(self, spec: InputSpec) -> StyleGan2AdaNetworks:
        """Return the generator, with its weights.

        Raises:
            UserError: If the file holds no such generator, or its images cannot be brought to the dataset's size.
        """
        refuse_oblong("prior=stylegan2_ada", spec)
        where = f"prior.weights={self.weights}"
        assert self.weights is not None
        official, limit = read(self.weights)
        try:
            network = StyleGan2AdaNetworks(official, limit, spec.shape, self.crop)
        except (KeyError, RuntimeError) as error:
            reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [f"{error} is missing"]
            raise UserError(
                f"{where} holds a generator of another architecture than the official one with skips: "
                f"{reasons[0][:200].rstrip('. ')}."
            ) from error
        side, made, channels = spec.shape[1], network.native, len(official[f"synthesis.b{network.native}.torgb.bias"])
        if network.crop > made:
            raise UserError(f"prior.crop={self.crop} is more than the {made} pixels per side that {where} generates.")
        if network.crop < side:
            raise UserError(
                f"{where} generates {made}x{made} pixels, of which prior.crop leaves {network.crop}, fewer than the "
                f"dataset's {side}; set dataset.size to at most that."
            )
        if {channels, spec.shape[0]} - {1, 3}:
            raise UserError(
                f"{where} generates {channels} channels, which cannot become the dataset's {spec.shape[0]}."
            )
        return network

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Do nothing."""


def read(weights: str) -> tuple[dict[str, Tensor], float | None]:
    """Return the tensors of an exported generator by their official names, and the bound of its layers' values.

    Raises:
        UserError: If the file is none.
    """
    where = f"prior.weights={weights}"
    try:
        tensors, said = safetensors_of(Path(weights).expanduser(), where)
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; {EXPORT}: a pickle is never opened here, "
            "because what it holds would be executed."
        ) from error
    if said.get("format") != FORMAT:
        holds = ", ".join(sorted(tensors)[:2]) or "nothing"
        raise UserError(f"{where} holds no exported StyleGAN2-ADA generator (but {holds} ...); {EXPORT}.")
    if any(name.startswith("mapping.embed.") for name in tensors):
        raise UserError(
            f"{where} holds a class-conditional generator, whose styles depend on a class; export an unconditional one."
        )
    limit = said.get("conv_clamp", "")
    return tensors, float(limit) if limit else None


def renamed(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under our names for the official ones, from the smallest block on; unknown names stay."""

    def ours(name: str) -> str:
        if name == "mapping.w_avg":
            return "mean_style"
        if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            return f"mapping.layers.{match[1]}.{match[2]}"
        if match := re.fullmatch(r"synthesis\.b(\d+)\.(const|conv[01]|torgb)(?:\.(.+))?", name):
            size, layer, part = int(match[1]), match[2], match[3] or ""
            block = f"synthesis.blocks.{size.bit_length() - 3}"
            if layer == "const":
                return f"{block}.constant"
            if layer == "torgb":
                return f"{block}.{COLOURS.get(part, part)}"
            return f"{block}.layers.{0 if size == 4 else int(layer[-1])}.{PARTS.get(part, part)}"
        return name

    def place(name: str) -> int:
        match = re.match(r"synthesis\.b(\d+)\.", name)
        return int(match[1]) if match else 0

    ordered = sorted(official, key=lambda name: (place(name), name))
    return {ours(name): official[name].float() for name in ordered if not name.endswith("resample_filter")}
