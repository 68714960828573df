r"""FID: Fréchet inception distance (Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, NeurIPS 2017).

.. math:: \mathrm{FID} = \lVert \mu_1 - \mu_2 \rVert^2
          + \operatorname{Tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})

of the 2048 pooled features of the original Inception network, ported to PyTorch by ``pytorch-fid``, between the
private training images of the attacked classes and all samples. As there: images in [0, 1], grey ones repeated to
three channels, enlarged bilinearly to 299 pixels without anti-aliasing. The network is read from ``weights`` and
recognised by its SHA-256; without it there is no FID, since another network gives another number.

With centred features :math:`X_1, X_2` the last trace is the nuclear norm of
:math:`X_1 X_2^\top / \sqrt{(n_1 - 1)(n_2 - 1)}`, which needs no root of a singular matrix and no ridge.

FID is biased upwards for few images, and the less the more there are: values for different numbers of images cannot be
compared. Below 2048 images on either side the covariance is not of full rank, and the variant says both numbers
(``700 real, 25 samples: biased``). One value for all targets has no interval. A missing sample arrives as a mid-grey
image and is measured as such; features that are not finite give no value and a reason, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, WeightsMetric
from mibench.storage.fetching import Download, checked_weights
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth

#: The published network. The last part of its name is the beginning of the file's SHA-256.
NETWORK = "pt_inception-2015-12-05-6726825d.pth"

SOURCE = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"

FEATURES = 2048

BATCH = 32


class Fid(WeightsMetric[ClassTruth]):
    """FID of all samples against the private training images of the attacked classes."""

    card = MetricCard(
        name="fid",
        title="FID",
        modalities=("image",),
        year=2017,
        code="https://github.com/mseitzer/pytorch-fid",
        fidelity="official",
        tasks=("class",),
        higher_is_leakier=False,
        default=False,
    )
    downloads = (
        Download(
            path="pt_inception-2015-12-05-6726825d.pth",
            url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            sha256="6726825d",
        ),
    )

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return one distance for all samples together.

        Raises:
            WeightsMissingError: If the network's file is not there, or is another than the published one.
            NotMeasurableError: If there are fewer than two images on a side, or features are not finite.
        """
        network, checksum = self._network
        train = truth.private.train
        real = train.x[torch.isin(train.y, result.target.unique().to(train.y.device))]
        network.to(truth.evaluators[0].model.device if truth.evaluators else "cpu")
        distance = frechet_distance(*(inception_features(network, images) for images in (real, result.values)))
        few = min(len(real), len(result)) < FEATURES
        return [
            Measurement(
                values=torch.tensor([distance], dtype=torch.float64),
                groups=torch.zeros(1, dtype=torch.long),
                variant=f"{len(real)} real, {len(result)} samples: biased" if few else "",
                evaluator=f"inception:{checksum[:12]}",
            )
        ]

    @cached_property
    def _network(self) -> tuple[nn.Module, str]:
        """The network with the checked weights, and the SHA-256 of their file."""
        checksum = checked_weights("FID", self.folder / NETWORK, SOURCE)
        network = untrained_inception()
        network.load_state_dict(torch.load(self.folder / NETWORK, map_location="cpu", weights_only=True), strict=True)
        network.fc = nn.Identity()
        return network.requires_grad_(False).eval(), checksum


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the Fréchet distance between the normal distributions fitted to two sets of features.

    Args:
        one: Features ``(n, F)``, n of at least 2.
        other: Features ``(m, F)``, m of at least 2.

    Raises:
        NotMeasurableError: If a set is too small or not finite.
    """
    if min(len(one), len(other)) < 2:
        raise NotMeasurableError("FID needs at least two images on either side.")
    if not bool(one.isfinite().all() and other.isfinite().all()):
        raise NotMeasurableError("FID has no value, because some features are not finite.")
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (one.double(), other.double()))
    shift = (one.double().mean(0) - other.double().mean(0)).square().sum()
    root = torch.linalg.svdvals(a @ b.T if max(len(a), len(b)) < a.shape[1] else _cross(a, b)).sum()
    return max(0.0, float(shift + a.square().sum() + b.square().sum() - 2 * root))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Return a matrix no larger than ``(F, F)`` with the singular values of ``a @ b.T``."""
    left: Tensor = torch.linalg.qr(a, mode="r").R
    right: Tensor = torch.linalg.qr(b, mode="r").R
    return left @ right.T


def untrained_inception() -> nn.Module:
    """Return the architecture of ``pytorch-fid``, which differs from torchvision's in its pooling."""
    from pytorch_fid import inception as patched
    from torchvision.models import inception_v3

    network: nn.Module = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    for name, channels, width in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        setattr(network, f"Mixed_{name}", patched.FIDInceptionA(channels, pool_features=width))
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", patched.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b, network.Mixed_7c = patched.FIDInceptionE_1(1280), patched.FIDInceptionE_2(2048)
    return network


@torch.no_grad()
def inception_features(network: nn.Module, images: Tensor) -> Tensor:
    """Return features ``(N, F)`` of images ``(N, C, H, W)`` in [0, 1], on the CPU."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    return torch.cat([network(_prepared(part.to(device))).cpu() for part in images.split(BATCH)])


def _prepared(images: Tensor) -> Tensor:
    """Return images in [-1, 1], in colour, of 299 pixels a side."""
    colour = images.float().expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.float()
    return 2 * interpolate(colour, (299, 299), mode="bilinear", align_corners=False) - 1
