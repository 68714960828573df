r"""Automatic transformation search (Gao et al., Privacy-preserving Collaborative Learning, CVPR 2021).

Images are transformed before a gradient is taken of them, by policies of up to three of 50 operations (AutoAugment's,
each at a fixed magnitude), so that gradient matching finds a transformed image or none. A hybrid policy chooses one of
its parts for each image anew. Here that happens in the loss: in every step of the central loop and of a client.

Which policies protect is searched. With :math:`x' = T(x)` and uniform noise :math:`u`, on a model trained on a tenth
of the data,

.. math:: S_{pri}(T) = \frac{1}{20} \int_0^{20} s_k \, dk, \qquad
    s_k = \frac{1}{L} \sum_l \cos\big(\nabla_l \mathcal L(x_k), \nabla_l \mathcal L(x')\big), \quad
    x_k = \tfrac{k}{20} x' + (1 - \tfrac{k}{20}) u,

averaged over images: low where gradients agree only very near :math:`x'`, so that a search has nothing to follow. The
accuracy is foretold on the untrained model from the eigenvalues :math:`v` of the correlation of 100 inputs' Jacobians,
:math:`S_{acc} = -\sum_i [\log(v_i + 10^{-5}) + 1 / (v_i + 10^{-5})]`. Of random candidates whose :math:`S_{acc}` is
at least ``accuracy`` (of all where there are none) those with the lowest
:math:`\alpha \, \mathrm{norm}(\mathrm{mean}) + (1 - \alpha) \, \mathrm{norm}(\mathrm{var\ over\ classes})` of
:math:`S_{pri}` are taken.

Official code: https://github.com/gaow0007/ATSPrivacy. As there every operation is applied always, whatever the
probability in its table. Deviations: the transforms are torchvision's, on the images of the cell; magnitudes of either
sign are drawn per image; the default is the authors' hybrid policy for CIFAR-100 and ResNet20, and ``candidates``
above 0 searches for the cell's own model. What it does not protect: the transformed image is still found, which shows
a person mirrored or shifted well enough, and an attacker who knows the policy undoes what can be undone (an expectation
over transformations is the adaptive attack). Metrics here compare with the original image alone. A defense that takes
the gradients of a client's examples by itself (DP-SGD's update) does not see the transforms.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchvision.transforms import functional

from mibench.card import DefenseCard
from mibench.data import Examples
from mibench.defenses.base import Defense, DefenseContext
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.nn import image_operations
from mibench.options import Count, CountOrNone, Fraction
from mibench.seeding import derive, generator, seeded
from mibench.training import Batch, Recipe, Training, cross_entropy

#: The operations in the authors' order, each with its magnitude from 0 to 9.
OPERATIONS = (
    "invert7 contrast6 rotate2 translateX9 sharpness1 sharpness3 shearY2 translateY2 autocontrast5 equalize2 "
    "shearY5 posterize5 color3 brightness5 sharpness9 brightness9 equalize5 equalize1 contrast7 sharpness5 "
    "color5 translateX5 equalize7 autocontrast8 translateY3 sharpness6 brightness6 color8 solarize0 invert0 "
    "equalize0 autocontrast0 equalize8 equalize4 color5 equalize5 autocontrast4 solarize4 brightness3 color0 "
    "solarize1 autocontrast0 translateY3 translateY3 autocontrast1 solarize1 equalize5 invert0 translateY3 "
    "autocontrast1"
)

#: The library: names and magnitudes.
LIBRARY: Sequence[tuple[str, int]] = tuple((word[:-1], int(word[-1])) for word in OPERATIONS.split())

#: Points between noise and image at which gradients are compared, beside the first.
BINS = 20

#: What is added to an eigenvalue.
EPSILON = 1e-5

Policy = tuple[int, ...]


class Ats(Defense):
    """Training on transformed images."""

    card = DefenseCard(
        name="ats",
        title="ATS",
        modalities=("image",),
        year=2021,
        code="https://github.com/gaow0007/ATSPrivacy",
        fidelity="official",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="share",
        stronger="higher",
        levels=(0.25, 0.5, 1.0),
    )

    policy: str = "3-1-7+43-18-18"
    """Library numbers joined by ``-``, policies joined by ``+``; used where nothing is searched."""
    share: Fraction = 1.0
    """Share of the images that are transformed; 0 transforms none."""
    candidates: CountOrNone = 0
    """Random policies among which the best are searched; 0 takes ``policy``. The authors draw 1600."""
    keep: Count = 2
    """Policies that a search keeps for the hybrid."""
    alpha: Fraction = 0.7
    """Weight of the mean privacy score against its variance over classes."""
    accuracy: float = -85.0
    """Least accuracy score of a policy."""
    images: Count = 5
    """Images of each class behind a privacy score."""

    policies: list[Policy] = field(init=False, repr=False)
    _begun: tuple[Classifier, DefenseContext] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        """Read the policy; one that is searched for is not known yet."""
        super().__post_init__()
        self.policies = [] if self.candidates else read_policies(self.policy)

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the target as it is; a search, if there is one, will begin from its weights."""
        if self.candidates:
            self._begun = copy.deepcopy(model), context
        return model

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the transformed images; what is drawn comes from torch's own generator."""
        if not self.share:
            return cross_entropy(batch)
        if not self.policies:
            self.policies = self.search()
        chosen = torch.randint(len(self.policies), (len(batch.x),))  # on the CPU, which no device waits for
        chosen[torch.rand(len(batch.x)) >= self.share] = -1
        x = batch.x.clone()
        for number, policy in enumerate(self.policies):
            rows = torch.nonzero(chosen == number).flatten().to(x.device)
            x[rows] = transform(x[rows], policy)
        return cross_entropy(Batch(batch.model, x, batch.y))

    def search(self) -> list[Policy]:
        """Return the best of random policies, the safest first."""
        assert self._begun is not None
        model, context = self._begun
        data, untrained, seed = context.data.train, model.to(context.device).eval(), derive(context.seed, "search")
        draws = generator(seed)
        order = torch.randperm(len(data), generator=draws)
        tenth = data[order[: max(1, len(data) // 10)].to(context.device)]
        trained = Training(
            copy.deepcopy(untrained), tenth, Recipe(min_steps=200), seed, context.device, label="searching transforms"
        ).run()
        sizes = torch.randint(-1, len(LIBRARY), (self.candidates, 3), generator=draws).tolist()
        policies = [tuple(number for number in drawn if number >= 0) for drawn in sizes]
        chosen = few_of_each(data, self.images)
        with seeded(seed):
            private = torch.stack([privacy_scores(trained, chosen, policy) for policy in policies])
            precise = torch.tensor([accuracy_score(untrained, data.x, policy, draws) for policy in policies])
        per_class = torch.stack([private[:, chosen.y.cpu() == label].mean(1) for label in chosen.y.cpu().unique()], 1)
        rank = self.alpha * _normed(per_class.mean(1)) + (1 - self.alpha) * _normed(per_class.var(1, correction=0))
        if (precise >= self.accuracy).any():
            rank[precise < self.accuracy] = torch.inf
        return [
            policies[number] for number in rank.argsort(stable=True)[: self.keep].tolist() if rank[number] < math.inf
        ]

    def state(self) -> dict[str, Tensor]:
        """Return the policies, filled up with -1."""
        rows = [[*policy, -1, -1, -1][:3] for policy in self.policies]
        return {"policies": torch.tensor(rows)} if rows and self.candidates else {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back the policies."""
        if "policies" in state:
            self.policies = [tuple(number for number in row if number >= 0) for row in state["policies"].tolist()]

    def facts(self) -> dict[str, float | str]:
        """Return the policy in the authors' notation."""
        return {"policy": "+".join("-".join(map(str, policy)) or "none" for policy in self.policies)}


def read_policies(text: str) -> list[Policy]:
    """Return the policies of a text as ``3-1-7+43-18-18``.

    Raises:
        UserError: If it does not read so.
    """
    try:
        policies = [tuple(int(number) for number in part.split("-")) for part in text.split("+")]
    except ValueError:
        policies = [(-1,)]
    if any(not 0 <= number < len(LIBRARY) for policy in policies for number in policy):
        raise UserError(
            f"Expected defense.policy to be numbers from 0 to {len(LIBRARY) - 1} as 3-1-7+43-18-18, but got '{text}'."
        )
    return policies


def transform(x: Tensor, policy: Policy) -> Tensor:
    """Return images ``(N, C, H, W)`` in [0, 1] after the operations of a policy, one after the other."""
    for number in policy:
        name, index = LIBRARY[number]
        negative = torch.nonzero(torch.rand(len(x)) < 0.5).flatten().to(x.device)
        result = operate(x, name, index / 9)
        if name in SIGNED and len(negative):
            result[negative] = operate(x[negative], name, -index / 9)
        x = result
    return x


#: Operations whose magnitude may be of either sign.
SIGNED = ("shearX", "shearY", "translateX", "translateY", "rotate", "color", "contrast", "sharpness", "brightness")


def operate(x: Tensor, name: str, amount: float) -> Tensor:
    """Return images after one operation at ``amount`` of its largest magnitude, in [-1, 1]."""
    if not len(x):
        return x
    height, width = x.shape[-2:]
    slope, shift, factor = math.degrees(math.atan(0.3 * amount)), 150 / 331 * amount, 1 + 0.5 * amount
    grey = [0.5] * x.shape[1]

    def move(by: list[int], shear: list[float]) -> Tensor:
        moved: Tensor = functional.affine(x, 0, by, 1, shear, fill=grey)
        return moved

    own: dict[str, Callable[[], Tensor]] = {
        "shearX": lambda: move([0, 0], [slope, 0]),
        "shearY": lambda: move([0, 0], [0, slope]),
        "translateX": lambda: move([round(shift * width), 0], [0, 0]),
        "translateY": lambda: move([0, round(shift * height)], [0, 0]),
        "rotate": lambda: functional.rotate(x, 30 * amount, fill=grey),
        "color": lambda: functional.adjust_saturation(x, factor) if x.shape[1] == 3 else x.clone(),
        "contrast": lambda: functional.adjust_contrast(x, factor),
        "sharpness": lambda: functional.adjust_sharpness(x, factor),
        "brightness": lambda: functional.adjust_brightness(x, factor),
        "posterize": lambda: functional.posterize((x * 255).round().to(torch.uint8), round(8 - 4 * amount)).to(x) / 255,
    }
    return own[name]() if name in own else image_operations.OPERATIONS[name](x, amount)


def privacy_scores(model: Classifier, examples: Examples, policy: Policy) -> Tensor:
    """Return the privacy score of a policy on each example, shape ``(N,)``, on the CPU; 1 is the least private."""
    parameters = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def gradient(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        def loss(values: dict[str, Tensor]) -> Tensor:
            logits: Tensor = torch.func.functional_call(model, values, (x[None],))
            return model.objective.mean(logits, y[None])

        found: dict[str, Tensor] = torch.func.grad(loss)(parameters)
        return found

    weight = torch.linspace(0, 1, BINS + 1, device=examples.x.device).reshape(-1, 1, 1, 1)
    scores = []
    for x, y in zip(transform(examples.x, policy), examples.y, strict=True):
        points = weight * x + (1 - weight) * torch.rand_like(x)
        of_each = torch.func.vmap(gradient)(points, y.expand(len(points)))
        layers = [cosine_similarity(one.flatten(1), one[-1:].flatten(1), dim=1) for one in of_each.values()]
        scores.append(torch.trapezoid(torch.stack(layers).mean(0)) / BINS)
    return torch.stack(scores).cpu()


def accuracy_score(model: Classifier, x: Tensor, policy: Policy, draws: torch.Generator, runs: int = 10) -> float:
    """Return the accuracy score of a policy, a mean over draws of 100 images; larger is better."""
    found = []
    for _ in range(runs):
        rows = torch.randperm(len(x), generator=draws)[:100].to(x.device)
        images = transform(x[rows], policy).requires_grad_(True)
        (jacobian,) = torch.autograd.grad(model(images).sum(), images)
        values = torch.linalg.eigvalsh(torch.corrcoef(jacobian.flatten(1).double()).nan_to_num()).clamp_min(0) + EPSILON
        found.append(-(values.log() + 1 / values).sum())
    return float(torch.stack(found).mean())


def few_of_each(data: Examples, count: int) -> Examples:
    """Return the first ``count`` examples of every class."""
    rows = [torch.nonzero(data.y == label).flatten()[:count] for label in data.y.unique()]
    return data[torch.cat(rows)]


def _normed(scores: Tensor) -> Tensor:
    return (scores - scores.min()) / (scores.max() - scores.min()).clamp_min(1e-12)
