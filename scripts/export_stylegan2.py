"""Converts an official StyleGAN2-ADA generator to a file of tensors for ``prior=stylegan2_ada``.

A pickle executes what it holds when it is read, so mibench never opens one. Run this yourself, on a file that you
trust, where NVlabs' code can be imported (it needs torch and safetensors, and not mibench):

    git clone https://github.com/NVlabs/stylegan2-ada-pytorch
    PYTHONPATH=stylegan2-ada-pytorch python scripts/export_stylegan2.py ffhq.pkl ffhq.safetensors

then ``python -m mibench attack=ppa prior=stylegan2_ada prior.weights=ffhq.safetensors prior.crop=800``.
NVlabs' code and weights have a licence of their own.
"""

from __future__ import annotations

import math
import sys
from typing import Any

TAPS = [1 / 8, 3 / 8, 3 / 8, 1 / 8]


def exported(generator: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors of a generator by name, and as words what the tensors do not say.

    Args:
        generator: ``G_ema`` of the official pickle.

    Raises:
        SystemExit: If it is one that ``prior=stylegan2_ada`` cannot compute.
    """
    synthesis, mapping = generator.synthesis, generator.mapping
    if generator.c_dim:
        raise SystemExit("The generator is class-conditional; export an unconditional one.")
    if not math.isclose(float(mapping.fc0.weight_gain) * math.sqrt(generator.z_dim), 0.01, rel_tol=1e-3):
        raise SystemExit("The mapping's learning-rate multiplier is not 0.01, so this is no StyleGAN2-ADA generator.")
    clamps = set()
    for size in synthesis.block_resolutions:
        block = getattr(synthesis, f"b{size}")
        if block.architecture != "skip":
            raise SystemExit(f"The generator has the architecture '{block.architecture}'; only 'skip' is supported.")
        layers = [block.conv1] if size == 4 else [block.conv0, block.conv1]
        if any(layer.activation != "lrelu" or not layer.use_noise for layer in layers):
            raise SystemExit("The generator's layers have another activation than lrelu, or no noise.")
        clamps |= {layer.conv_clamp for layer in [*layers, block.torgb]}
    tensors = {
        name: value.detach().float().cpu().contiguous().clone() for name, value in generator.state_dict().items()
    }
    for name, value in tensors.items():
        if name.endswith("resample_filter") and not is_usual(value.tolist()):
            raise SystemExit("The generator resamples by another filter than [1, 3, 3, 1].")
    if len(clamps) > 1:
        raise SystemExit("The generator's layers are clamped to different sizes.")
    (clamp,) = clamps
    return tensors, {"format": "stylegan2_ada", "conv_clamp": "" if clamp is None else str(clamp)}


def is_usual(taps: list[list[float]]) -> bool:
    """Return whether a resampling filter is the one of [1, 3, 3, 1]."""
    wanted = [one * other for one in TAPS for other in TAPS]
    given = [value for row in taps for value in row]
    return len(given) == 16 and max(abs(a - b) for a, b in zip(given, wanted, strict=True)) < 1e-6


def main(source: str, result: str) -> None:
    """Read the pickle at ``source`` and write the safetensors file ``result``."""
    import legacy  # of NVlabs' repository, reads TensorFlow's pickles too
    from safetensors.torch import save_file

    with open(source, "rb") as file:
        generator = legacy.load_network_pkl(file)["G_ema"]
    tensors, said = exported(generator)
    save_file(tensors, result, metadata=said)
    print(f"{result}: {generator.img_resolution}x{generator.img_resolution} pixels, {len(tensors)} tensors")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: export_stylegan2.py GENERATOR.pkl RESULT.safetensors")
    main(*sys.argv[1:])
