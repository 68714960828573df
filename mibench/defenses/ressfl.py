r"""ResSFL: resistance to inversion, learned on public data and transferred (Li et al., ResSFL, CVPR 2022).

Between the client's part :math:`f` and the server's part :math:`h` stands a bottleneck of ``channels`` channels and a
stride, which the server expands again, and the network trains against a decoder :math:`g` that trains against it. In
turn, one step each,

.. math:: \min_g \; 1 - \mathrm{SSIM}(g(f(x)), x), \qquad
    \min_{f, h} \; \mathrm{CE}(h(f(x)), y) + \alpha \max(0, \mathrm{SSIM}(g(f(x)), x) - \tau),

or, with ``loss=mse``, :math:`\min_g \mathrm{MSE}` against :math:`\mathrm{CE} - \alpha \, \mathrm{MSE}`. This expert
is trained on public data, under a head of their own; what it resists with is then transferred: the whole network is
tuned on the private data by plain cross-entropy, the client's part at a small share of the learning rate. So clients
pay for no decoder. Both trainings follow the target's recipe. Where the public data have no classes, or
``transfer=false``, the private data train against the decoder from the start; the fact ``expert`` says which. Where
nothing is cut, the features are stage 0's.

The attacker who knows of it trains a decoder of his own on just these features (``split_decoder``): the simulated one
is one attacker among many, no bound holds against a stronger one or one who trains for longer, and the bottleneck is
what remains then. ``split_rmle`` holds the client's weights and needs no decoder. The public data that teach the
resistance are those that such an attacker trains on. Neutral are ``alpha=0``, no transfer and no bottleneck
(``channels=null``): that is plain training to the bit; with a bottleneck the baseline ``alpha=0`` is a network with a
bottleneck.

Cost: a small CNN on 8x8 digits trains 2 times as long with bottleneck and transfer alone; 11 times with the paper's
decoder (4 residual blocks of 64 channels, which dwarfs such a network), and more on larger images. The default decoder
is the smaller ``custom`` one, the scripts' own default.

Official code: https://github.com/zlijingtao/ResSFL (MIT); the bottleneck of 8 channels without a ReLU and the client's
rate in the tuning, a tenth, are those of its scripts, which go on punishing the decoder in every fifth step of the
tuning. Deviations: the decoder learns from the features of the model's own step, with batch norm as in training, where
the code makes them again in evaluation mode; it learns by Adam at a constant rate, and what it is given is standardised
(:mod:`mibench.nn.simulated_attacker`); tokens and vectors, which have no place in the image, get a linear bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mibench.defenses.base import Batch, Classifier, DefenseCard, DefenseContext, Training
from mibench.defenses.families.against_decoder import AgainstDecoder
from mibench.nn.bottleneck import client_shapes, put_behind
from mibench.nn.feature_decoder import dissimilarity
from mibench.nn.pretraining import learn_public, with_known_classes
from mibench.options import Count, Decay, NonNegative


class ResSfl(AgainstDecoder):
    """A bottleneck at the cut and training against a decoder, transferred from public data where they have classes."""

    card = DefenseCard(
        name="ressfl",
        title="ResSFL",
        modalities=("image",),
        year=2022,
        code="https://github.com/zlijingtao/ResSFL",
        fidelity="official",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "features"),
        strength="alpha",
        stronger="higher",
        levels=(0.3, 1.0, 5.0),
        baselines=(("alpha", 0.0),),
        adaptive=("setting=split attack=split_decoder",),
    )

    alpha: NonNegative = 0.5
    """Weight of the decoder's success."""
    threshold: Decay = 0.5
    """Similarity (SSIM) up to which it is not punished; of ``loss=ssim`` only."""
    loss_: Literal["ssim", "mse"] = "ssim"
    """What the decoder is good at, ``ssim`` or ``mse``."""
    channels: Count | None = 8
    """Channels that are sent (entries of a vector or token); None for no bottleneck."""
    stride: Count = 1
    """Stride of the bottleneck on maps."""
    relu: bool = False
    """Whether a ReLU follows the bottleneck and its expansion."""
    transfer: bool = True
    """Whether the public data train the expert."""
    client_lr: NonNegative = 0.1
    """Learning rate of the client's part in the tuning, as a share of the recipe's."""
    steps: Count = 1
    """Steps of the decoder per step of the model."""

    def __post_init__(self) -> None:
        """Derive what follows from the options."""
        super().__post_init__()
        self.learns_from_public = self.transfer

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with the bottleneck at the end of the client's part and a further stage that expands it.

        Raises:
            UserError: If the target runs as one piece.
        """
        if self.channels is None:
            return model
        cut, whole = model.cut or 0, client_shapes(model, context.spec.shape)[-1]
        narrow, wide = bottleneck(whole, self.channels, self.stride, self.relu)
        put_behind(model, cut, narrow, self.card.name)
        model.stages.insert(cut + 1, wide)
        sent = client_shapes(model, context.spec.shape)[-1]
        self.found = {**self.found, "sent_share": math.prod(sent) / math.prod(whole)}  # of what the stage would send
        return model

    def fit(self, training: Training) -> Classifier:
        """Train the expert on the public data and tune it on the private ones, or train the expert on these."""
        loss = self.attacked(training)
        public = with_known_classes(training.public) if self.learns_from_public else None
        self.found = {**self.found, "expert": "private" if public is None else "public"}
        if public is None:
            return training.run(loss)
        learn_public(training, public, self.card.name, loss)
        return training.run(rates={training.model.client: self.client_lr})

    def attacked(self, training: Training) -> Callable[[Batch], Tensor]:
        """Return the loss against a decoder, which learns whenever the loss is asked for."""
        if not self.alpha:
            return self.loss
        attacker = self.attacker(training, dissimilarity if self.loss_ == "ssim" else mse_loss)

        def loss(batch: Batch) -> Tensor:
            features = batch.model.client(batch.x)
            for _ in range(self.steps):
                attacker.learn(features, batch.x)
            success = self.success(attacker.error(features, batch.x))
            return batch.objective.mean(batch.model.server(features), batch.y) + self.alpha * success

        return loss

    def success(self, error: Tensor) -> Tensor:
        """Return what is punished of a decoder with an error, 1 - SSIM or MSE: SSIM above the threshold, or - MSE."""
        return (1 - error - self.threshold).relu() if self.loss_ == "ssim" else -error


def bottleneck(whole: tuple[int, ...], channels: int, stride: int, relu: bool) -> tuple[nn.Module, nn.Module]:
    """Return what narrows features of shape ``whole`` to ``channels``, and what widens them to ``whole`` again."""
    if len(whole) == 3:
        left = [(side - 1) % stride for side in whole[1:]]  # what a strided convolution leaves out
        narrow: nn.Module = nn.Conv2d(whole[0], channels, 3, stride, 1)
        wide: nn.Module = nn.ConvTranspose2d(channels, whole[0], 3, stride, 1, (left[0], left[1]))
    else:
        narrow, wide = nn.Linear(whole[-1], channels), nn.Linear(channels, whole[-1])
    return (nn.Sequential(narrow, nn.ReLU()), nn.Sequential(wide, nn.ReLU())) if relu else (narrow, wide)
