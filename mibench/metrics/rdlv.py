r"""RDLV: relative data leakage value (Hatamizadeh et al., IEEE Transactions on Medical Imaging 2023).

How much nearer to a private image :math:`T` a reconstruction :math:`I` comes than a prior image :math:`P` that was
there before any message ("Do Gradient Inversion Attacks Make Federated Learning Unsafe?"),

.. math:: \mathrm{RDLV} = \frac{\mathrm{SSIM}(T, I) - \mathrm{SSIM}(T, P)}{\mathrm{SSIM}(T, P)},

0 where the message added nothing and :math:`1 / \mathrm{SSIM}(T, P) - 1` for an exact image. The ratio
blows up where the prior image is nothing like the private one: images with :math:`\mathrm{SSIM}(T, P) < 0.05` have no
RDLV and are left out of it, so that the number of values is that of the images that count. Three variants:

- ``matched``: of every image and the reconstruction it was matched with;
- ``max``: the largest of all pairs of a message, as the authors report it. It grows with the size of the batch by
  chance alone, and is to be read beside its control, which does so too;
- ``difference``: the numerator, for every matched image.

Inferred: the prior image. The authors' attack starts from one image of the domain, which is their :math:`P`. The
attacks here mostly start from noise, to which nothing is similar; so :math:`P` is the mean of the public images, which
an attacker who owns them can hand in without a message. The control is, as everywhere, what the same attack made of
another client's message, measured against the same :math:`P`: a prior that the attack itself puts into its images
shows as a control above 0.

Deviations: SSIM is that of the metric ``ssim`` (Gaussian window, images in [0, 1], at their own size); the authors use
a uniform window of 7 pixels and a data range of 256 on images enlarged to 224 pixels, after stretching every
reconstruction to the full range from black to white. The largest odd window that fits is named (``matched_window11``).
A missing image arrives as plain mid-grey and is measured as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.metrics.ssim import similarities, window_of
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth

#: Below this similarity of prior and private image the ratio says nothing.
LEAST_SIMILARITY = 0.05

NOT_ALIKE = (
    f"The mean public image has a structural similarity of at least {LEAST_SIMILARITY} to none of the private images, "
    "so no gain can be set in relation to it."
)


class Rdlv(Metric[InstanceTruth]):
    """Relative gain in structural similarity over the mean public image; above 0 where the message leaks."""

    card = MetricCard(
        name="rdlv",
        title="Relative data leakage value",
        modalities=("image",),
        year=2023,
        code="https://github.com/NVIDIA/NVFlare/tree/main/research/quantifying-data-leakage",
        fidelity="reconstruction",
        tasks=("instance",),
        higher_is_leakier=True,
        default=False,
    )

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one gain per image that counts, one per message with such an image, and one difference per image.

        Raises:
            NotMeasurableError: If the dataset has no public images.
        """
        if truth.public is None:
            raise NotMeasurableError("RDLV compares with the mean public image, and the dataset has no public images.")
        prior = truth.public.x.double().mean(0)
        without = similarities(prior.expand_as(truth.x), truth.x)
        matched = similarities(result.values, truth.x)
        counts = without >= LEAST_SIMILARITY
        messages = truth.target[counts].unique()
        largest = [_of_all_pairs(result, truth, without, counts & (truth.target == message)) for message in messages]
        nothing = "" if largest else NOT_ALIKE

        def measured(form: str, values: Tensor, groups: Tensor, reason: str = "") -> Measurement:
            variant, evaluator = f"{form}_window{window_of(truth.x)}", f"piq:{version('piq')}"
            return Measurement(values=values, groups=groups, variant=variant, evaluator=evaluator, reason=reason)

        return [
            measured("matched", relative_gain(matched, without)[counts], truth.target[counts], nothing),
            measured("max", torch.stack(largest) if largest else torch.empty(0), messages, nothing),
            measured("difference", matched - without, truth.target),
        ]


def relative_gain(similarity: Tensor, without: Tensor) -> Tensor:
    """Return by which share a similarity exceeds the one ``without`` the message."""
    return (similarity - without) / without


def _of_all_pairs(result: Reconstruction, truth: InstanceTruth, without: Tensor, counts: Tensor) -> Tensor:
    """Return the largest gain of any image that ``counts``, all of one message, with any reconstruction of it."""
    made, true = result.values[result.target == truth.target[counts][0]], truth.x[counts]
    pairs = torch.stack([similarities(made, one.expand_as(made)) for one in true])
    return relative_gain(pairs, without[counts, None]).amax()
