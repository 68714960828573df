"""What face embeddings are shown of a picture, and their answers for many pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Images at once, by kind of device: on the CPU few, whose features stay in memory that is there already.
BATCH = {"cpu": 8, "cuda": 256}


def shown(x: Tensor, region: Sequence[float], height: int, width: int) -> Tensor:
    """Return a region of images in colour and at another size (bilinear), shape ``(N, 3, height, width)``.

    Args:
        x: Images ``(N, C, H, W)`` with 1 or 3 channels.
        region: Left, top, right and bottom, as shares of a picture; beyond the picture its border is repeated.
        height: Rows of the result.
        width: Columns of the result.
    """
    left, top, right, bottom = region
    scale = x.new_tensor([[right - left, 0, left + right - 1], [0, bottom - top, top + bottom - 1]])
    points = nn.functional.affine_grid(scale.expand(len(x), -1, -1), [len(x), 3, height, width], align_corners=False)
    colour = x.expand(-1, 3, -1, -1)
    return nn.functional.grid_sample(colour, points, padding_mode="border", align_corners=False)


class FaceEmbedding(nn.Module):
    """A network that gives unit embeddings ``(N, F)`` of images of faces ``(N, C, H, W)`` in [0, 1].

    Args:
        region: Left, top, right and bottom of the part that is shown, as shares of a picture.
    """

    def __init__(self, region: Sequence[float]) -> None:
        super().__init__()
        self.region = region


@torch.no_grad()
def embeddings(network: nn.Module, images: Tensor) -> Tensor:
    """Return unit embeddings ``(N, F)`` of images ``(N, C, H, W)``, on the CPU."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    return torch.cat([network(part.float().to(device)).cpu() for part in images.split(BATCH.get(device.type, 8))])
