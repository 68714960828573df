r"""R-GAP: the input behind a gradient, layer by layer from the last to the first (Zhu and Blaschko, ICLR 2021).

For one example, a chain of layers :math:`z_l = W_l x_l + b_l, x_{l+1} = \sigma_l(z_l)` is undone without a search. Let
:math:`k_l = \partial L / \partial z_l`. From the top:

1. *Head.* :math:`\partial L / \partial W = k x^T` and, where there is a bias, :math:`\partial L / \partial b = k =
   p - e_y`, so that :math:`x = k^T (\partial L / \partial W) / \|k\|^2`. Without one, :math:`k x^T` gives both up to a
   factor :math:`a = \|x\|`, which solves :math:`a (1 - p_y(a)) = \|\partial L / \partial W_y\|`. For two classes this
   is the paper's logistic loss, whose equation has two solutions for one gradient and holds for either label: all
   solutions are followed to the input, and the one whose own gradient is nearest to what was sent is returned.
2. *Activation.* :math:`z_l = \sigma_l^{-1}(x_{l+1})`, :math:`k_l = \sigma_l'(z_l) \odot W_{l+1}^T k_{l+1}`.
3. *Convolution.* :math:`x_l` solves two linear systems by least squares: the weights' :math:`W_l x_l = z_l - b_l` and
   the gradient's :math:`K_l x_l = \partial L / \partial W_l`, where :math:`K_l` holds :math:`k_l`. In a linear layer
   the gradient says it all: :math:`x_l = k_l^T (\partial L / \partial W_l) / \|k_l\|^2`.

Where the systems have a lower rank than there are unknowns the solution of least norm is taken, and a warning says how
many unknowns nothing determines: the input is then not recovered, whatever the picture shows. Layers must be
convolutions or linear, each followed by LeakyReLU, sigmoid or nothing: :mod:`mibench.targets.lenet` is such a chain, a
network of ReLU, pooling, batch norm or shortcuts is refused. Errors grow towards the input, noise on the gradient
above all. Official code: https://github.com/JunyiZhu-AI/R-GAP. Deviations: the head's equation is solved by bisection
(the script descends 30,000 steps) and for any number of classes; padded pixels are left out instead of being forced to
zero by equations; the gradient's equations are brought to the scale of the weights'; all is solved in double precision,
on the CPU (seconds for 32x32 pixels in colour, and cubic in their number). The paper's rank analysis counts equations,
here the rank is measured.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.entry import Normalise
from mibench.errors import IncompatibleCellError
from mibench.model import Classifier
from mibench.optim.gradient_distance import squared
from mibench.optim.input_space import Pixels
from mibench.options import Positive

log = logging.getLogger("mibench")

#: Norms of the head's input among which the equation of a head without bias is bracketed.
NORMS = torch.logspace(-6, 6, 4801, dtype=torch.float64)

#: How near a sigmoid's output may come to 0 and 1 before it is inverted.
EDGE = 1e-9


class Rgap(Attack[GradientsView, InstanceGoal]):
    """Recursive inversion of a chain of convolutions and linear layers."""

    card = AttackCard(
        name="rgap",
        title="R-GAP",
        modalities=("image",),
        year=2021,
        code="https://github.com/JunyiZhu-AI/R-GAP",
        fidelity="official",
        family="recursive",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
        largest_batch=1,
    )
    length = ()

    rcond: Positive = 1e-6
    """Singular values below this share of the largest count as zero in least squares."""

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the input behind every message, clamped to the pixels' box."""
        chain, pixels = layers(view.model, view.spec.shape), Pixels.of(view)
        weight = dict(view.model.named_parameters())["head.weight"].detach().double().cpu()
        granted = knowledge.fact("labels").flatten().tolist() if knowledge.granted("labels") else None
        images = torch.full((goal.messages, *view.spec.shape), 0.5, device=view.device)
        labels = torch.zeros(goal.messages, dtype=torch.long, device=view.device)
        valid = torch.zeros(goal.messages, dtype=torch.bool, device=view.device)
        self.keep(lambda: Reconstruction(images, goal.target.to(view.device), labels, valid))
        undetermined: dict[str, int] = {}
        for number, message in zip(self.steps(goal.messages), view.as_gradients(), strict=True):
            sent = {name: value.double().cpu() for name, value in message.items()}
            check_complete(sent, view.model, chain)
            if not all(bool(value.isfinite().all()) for value in sent.values()):
                continue
            starts = head_solutions(weight, sent, None if granted is None else granted[number])
            found = [recursion(chain, weight, sent, start, self.rcond) for start in starts]
            x = pixels.to_inputs(torch.stack([one for one, _ in found]).reshape(-1, *view.spec.shape).to(images))
            x, y = view.spec.boxed(x), torch.tensor([start.label for start in starts], device=view.device)
            best = self._nearest(view, number, x, y)
            images[number], labels[number], valid[number] = x[best], y[best], bool(x[best].isfinite().all())
            for name, count in found[best][1].items():
                undetermined[name] = max(undetermined.get(name, 0), count)
        unknowns = {layer.name: layer.unknowns for layer in chain}
        for name, count in undetermined.items():
            log.warning(
                "R-GAP: the gradient leaves up to %d of the %d inputs of %s undetermined; what stands there is the "
                "solution of least norm.",
                count,
                unknowns[name],
                name,
            )
        return Reconstruction(images, goal.target.to(view.device), labels, valid)

    def _nearest(self, view: GradientsView, number: int, x: Tensor, y: Tensor) -> int:
        """Return which solution has the gradient nearest to message ``number``, from inputs and class ids."""
        sent = {name: value[None] for name, value in view.messages[number].items()}
        with view.phase("select"):
            apart = squared(view.updates(x[:, None], y[:, None]), sent).detach()
        return int(apart.nan_to_num(torch.inf).argmin())


@dataclass(frozen=True)
class Layer:
    """One layer of the chain.

    Attributes:
        name: Of the module, as parameters are named.
        module: The convolution or linear layer, in double precision on the CPU.
        activation: What follows it.
        shape: Of its input, without the batch.
        output: Of its output.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    activation: nn.Module
    shape: torch.Size
    output: torch.Size

    @property
    def unknowns(self) -> int:
        """Entries of its input."""
        return self.shape.numel()

    def before(self, after: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the activation was given, from what it made of it, and its derivative there."""
        if isinstance(self.activation, nn.Sigmoid):
            after = after.clamp(EDGE, 1 - EDGE)
            return torch.logit(after), after * (1 - after)
        if isinstance(self.activation, nn.LeakyReLU):
            slope = torch.ones_like(after).masked_fill(after < 0, self.activation.negative_slope)
            return after / slope, slope
        return after, torch.ones_like(after)

    def backwards(self, k: Tensor) -> Tensor:
        """Return the derivative by the input from that by the output."""
        x = torch.zeros(1, *self.shape, dtype=k.dtype, requires_grad=True)
        (found,) = torch.autograd.grad(self.module(x), x, k[None])
        return found[0]


@dataclass(frozen=True)
class Start:
    """A solution for the head.

    Attributes:
        label: Class id.
        k: Derivative by the logits, shape ``(classes,)``.
        features: The head's input, shape ``(features,)``.
    """

    label: int
    k: Tensor
    features: Tensor


def layers(model: Classifier, shape: tuple[int, ...]) -> list[Layer]:
    """Return the layers below the head.

    Raises:
        IncompatibleCellError: If the model is no chain of layers that can be inverted.
    """
    found: list[tuple[nn.Conv2d | nn.Linear, nn.Module]] = []
    straight = type(model).forward is Classifier.forward and type(model).pool is Classifier.pool
    straight &= isinstance(model.normalise, Normalise | nn.Identity) and isinstance(model.head, nn.Linear)
    for part in (part for stage in model.stages for part in (stage if isinstance(stage, nn.Sequential) else [stage])):
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and solvable(part)):
            found.append((part, nn.Identity()))
        elif isinstance(part, nn.Sigmoid | nn.LeakyReLU) and found and isinstance(found[-1][1], nn.Identity):
            found[-1] = (found[-1][0], part)
        else:
            straight &= isinstance(part, nn.Flatten | nn.Identity)
    if not straight:
        raise IncompatibleCellError(
            "R-GAP inverts a chain of convolutions and linear layers, each followed by LeakyReLU, sigmoid or nothing, "
            "which this target is not; set target=lenet."
        )
    names = {module: name for name, module in model.named_modules()}
    chain, x = [], torch.zeros(1, *shape, dtype=torch.float64)
    for part, activation in found:
        module = copy.deepcopy(part).double().cpu().requires_grad_(False)
        x = x.flatten(1) if isinstance(part, nn.Linear) else x
        y = module(x)
        chain.append(Layer(names[part], module, activation, x.shape[1:], y.shape[1:]))
        x = y
    return chain


def solvable(module: nn.Conv2d) -> bool:
    """Whether the systems of a convolution are the ones written here."""
    return module.groups == 1 and module.padding_mode == "zeros" and isinstance(module.padding, tuple)


def check_complete(sent: Mapping[str, Tensor], model: Classifier, chain: Sequence[Layer]) -> None:
    """Refuse a message that leaves out the gradient of a weight of the chain, or of the head's bias."""
    needed = [f"{layer.name}.weight" for layer in chain] + [f"head.{name}" for name, _ in model.head.named_parameters()]
    missing = [name for name in needed if name not in sent]
    if missing:
        raise IncompatibleCellError(
            f"R-GAP needs the gradient of every layer, but the message does not hold {', '.join(missing)}; choose a "
            "defense that shares them."
        )


def head_solutions(weight: Tensor, sent: Mapping[str, Tensor], label: int | None) -> list[Start]:
    """Return what the head may have been given; without a bias there may be several answers.

    Args:
        weight: The head's, shape ``(classes, features)``.
        sent: The message.
        label: Class id, None where it is not granted.
    """
    gradient = sent["head.weight"]
    if "head.bias" in sent:
        k = sent["head.bias"]
        return [Start(int(k.argmin()) if label is None else label, k, quotient(k, gradient))]
    left, sizes, right = torch.linalg.svd(gradient, full_matrices=False)
    k, size, features = left[:, 0], sizes[0], right[0]
    named = [int(k.abs().argmax())] if len(k) > 2 else [0, 1]  # its error is that of all others together
    solutions = []
    for y in named if label is None else [label]:
        sign = -1.0 if k[y] > 0 else 1.0  # the true class alone has a negative one
        equation = partial(excess, logits=sign * weight @ features, y=y, length=size * k[y].abs())
        solutions += [Start(y, sign * k * size / norm, sign * features * norm) for norm in roots(equation, NORMS)]
    return solutions


def excess(norms: Tensor, logits: Tensor, y: int, length: Tensor) -> Tensor:
    """Return :math:`a (1 - p_y(a))` less the length of row ``y`` of the head's gradient, for norms ``a``.

    Args:
        norms: Shape ``(n,)``.
        logits: Those of features of norm 1, shape ``(classes,)``.
        y: Class id.
        length: A scalar.
    """
    others = torch.arange(len(logits)) != y
    return norms * (norms[:, None] * logits).softmax(1)[:, others].sum(1) - length


def roots(function: Callable[[Tensor], Tensor], grid: Tensor) -> Tensor:
    """Return where ``function`` is zero between points of ``grid``; where it is nowhere, the point of least size."""
    values = function(grid)
    change = torch.nonzero((values[:-1] < 0) != (values[1:] < 0)).flatten()
    if not len(change):
        return grid[values.abs().nan_to_num(torch.inf).argmin()][None]
    low, high, rising = grid[change], grid[change + 1], values[change] < 0
    for _ in range(80):
        middle = (low + high) / 2
        right = (function(middle) < 0) == rising
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return (low + high) / 2


def recursion(
    chain: Sequence[Layer], weight: Tensor, sent: Mapping[str, Tensor], start: Start, rcond: float
) -> tuple[Tensor, dict[str, int]]:
    """Return the first layer's input, and by layer how many unknowns nothing determined."""
    x, k = start.features, start.k @ weight
    undetermined = {}
    for layer in reversed(chain):
        z, slope = layer.before(x.reshape(layer.output))
        k = k.reshape(layer.output) * slope
        gradient = sent[f"{layer.name}.weight"]
        if isinstance(layer.module, nn.Linear):
            x = quotient(k, gradient)
        else:
            x, rank = convolution_input(layer.module, layer.shape, z, k, gradient, rcond)
            if rank < layer.unknowns:
                undetermined[layer.name] = layer.unknowns - rank
        k = layer.backwards(k)
    return x, undetermined


def quotient(k: Tensor, gradient: Tensor) -> Tensor:
    """Return the least-squares solution ``x`` of ``gradient = k x^T``."""
    return k @ gradient / (k @ k).clamp_min(torch.finfo(k.dtype).tiny)


def convolution_input(
    module: nn.Conv2d, shape: torch.Size, z: Tensor, k: Tensor, gradient: Tensor, rcond: float
) -> tuple[Tensor, int]:
    """Return the input of a convolution, and the rank of the systems it was solved from.

    Args:
        module: The convolution.
        shape: Of its input ``(C, H, W)``.
        z: Its output.
        k: Derivative of the loss by its output.
        gradient: Derivative of the loss by its weight.
        rcond: Share of the largest singular value below which one counts as zero.
    """
    channels, height, width = shape
    images = torch.eye(shape.numel(), dtype=z.dtype).reshape(-1, *shape)
    weights = nn.functional.conv2d(images, module.weight, None, module.stride, module.padding, module.dilation)
    pixels = torch.eye(height * width, dtype=z.dtype).reshape(-1, 1, height, width)
    assert isinstance(module.padding, tuple)
    patches = nn.functional.unfold(pixels, module.kernel_size, module.dilation, module.padding, module.stride)
    single = torch.einsum("pql,ol->oqp", patches, k.flatten(1)).flatten(0, 1)  # of one channel: all have the same
    seen = gradient.flatten(2).transpose(1, 2)
    short, triangle = torch.linalg.qr(single)
    sums = short.T @ seen.flatten(0, 1)
    scale = weights.square().mean().sqrt() / single.square().mean().sqrt().clamp_min(torch.finfo(z.dtype).tiny)
    left = torch.cat([weights.flatten(1).T, scale * torch.block_diag(*[triangle] * channels)])
    bias = 0 if module.bias is None else module.bias[:, None, None]
    right = torch.cat([(z - bias).flatten(), scale * sums.T.flatten()])
    found = torch.linalg.lstsq(left, right[:, None], rcond=rcond, driver="gelsy")
    return found.solution[:, 0].reshape(shape), int(found.rank)
