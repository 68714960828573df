"""The contracts of the networks that cross module borders: classifiers and latent priors."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mibench.entry import Entry, Objective
from mibench.errors import UserError

if TYPE_CHECKING:
    from mibench.data import Graph


@dataclass(frozen=True)
class Rows:
    """Rows of a parameter, or of its gradient.

    Attributes:
        name: The parameter's name.
        start: The first row.
        stop: The row behind the last; None for all that follow.
    """

    name: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Attention:
    """Where the gradients of a model of tokens hold what enters the attention of its blocks.

    The gradient of a linear map's weight is a sum of outer products with the map's inputs, so that its rows lie in the
    span of these inputs.

    Attributes:
        blocks: Of every block, from the first on, the weights of the maps that take its inputs, of ``width`` columns:
            those that make its ``query``, its ``value``, or ``joint``, all of query, key and value.
        entering: Returns what enters the maps of a block, shape ``(N, tokens, width)``, of what the model's entry gives
            for texts ``(N, tokens, width)``, the block's number, and the position at which the texts begin. Rows
            of padding that takes no part are zeros.
        causal: Whether a token sees itself and earlier ones alone.
    """

    blocks: Sequence[Mapping[str, Sequence[Rows]]]
    entering: Callable[[Tensor, int, int], Tensor]
    causal: bool = False


class Classifier(nn.Module):
    """A classifier that takes canonical inputs (as its :class:`~mibench.data.InputSpec` says) and encodes them itself.

    Subclasses set ``normalise``, ``stages`` and ``head``; every path from an input begins with ``normalise``, which is
    where views count queries. Stages are the named points of the model: BiDO's hidden layers, the cut of split
    learning.

    A model that carries private data (a graph network the graph it was trained on) names the buffers that hold them in
    ``secret``: no view, message, companion or evaluation model is made from anything but :meth:`blind`, and the store
    keeps a digest in their place.

    Attributes:
        normalise: The first module of every path, an :class:`Entry` or one that wraps it.
        objective: What it is trained for.
        secret: Names of the buffers that hold private data; none for most models.
        stages: The blocks, in order; the output of the last, flattened, is the feature that ``head`` classifies.
        head: The last linear layer.
        cut: The last stage of the client's part where the model is cut in two; None where it is served as a whole.
    """

    normalise: nn.Module
    stages: nn.ModuleList
    head: nn.Module
    cut: int | None = None
    objective: Objective = Objective()
    secret: tuple[str, ...] = ()

    @property
    def entry(self) -> Entry | None:
        """The module that maps canonical inputs to what stage 0 takes, inside what wraps it; None of some models."""
        found = self.normalise
        for inside in ("inner", "scale"):  # behind a defense's input hook, or of a model of one's own
            found = getattr(found, inside, found)
        if isinstance(found, nn.Sequential):  # of a target that flattens what it has normalised
            found = found[0]
        return found if isinstance(found, Entry) else None

    def attention(self) -> Attention | None:
        """Return where gradients hold what enters the attention; None of a model without attention over tokens."""
        return None

    def hold(self, graph: Graph) -> None:
        """Take the graph that the model computes on, in place.

        Raises:
            UserError: If the model is none of graphs.
        """
        raise UserError(
            f"{type(self).__name__} does not work on graphs; choose a target that does, such as target=gcn."
        )

    def blind(self) -> Classifier:
        """Return a copy that holds nothing of :attr:`secret`."""
        duplicate = copy.deepcopy(self)
        for name in self.secret:
            owner, _, buffer = name.rpartition(".")
            module = duplicate.get_submodule(owner)
            setattr(module, buffer, getattr(module, buffer)[..., :0])
        return duplicate

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of every stage for inputs ``(N, ...)``."""
        outputs = []
        h = self.normalise(x)
        for stage in self.stages:
            h = stage(h)
            outputs.append(h)
        return tuple(outputs)

    def pool(self, last: Tensor) -> Tensor:
        """Return the penultimate features ``(N, F)`` from the last stage's output."""
        return last.flatten(1)

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate features of shape ``(N, F)``."""
        return self.pool(self.blocks(x)[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape ``(N, classes)``."""
        logits: Tensor = self.head(self.features(x))
        return logits

    @property
    def client(self) -> nn.Sequential:
        """The part up to the cut, from an input to what a split client sends; of an uncut model up to stage 0."""
        return nn.Sequential(self.normalise, *self.stages[: (self.cut or 0) + 1])

    def server(self, features: Tensor) -> Tensor:
        """Return logits of shape ``(N, classes)`` for what :attr:`client` gave."""
        h = features
        for stage in self.stages[(self.cut or 0) + 1 :]:
            h = stage(h)
        logits: Tensor = self.head(self.pool(h))
        return logits

    @torch.no_grad()
    def divides(self, x: Tensor) -> bool:
        """Whether :attr:`client` and :meth:`server`, in evaluation mode, together are the model itself on ``x``."""
        mode = self.training
        self.eval()
        together, whole = self.server(self.client(x)), self(x)
        self.train(mode)
        return together.shape == whole.shape and torch.allclose(together, whole, rtol=1e-3, atol=1e-4)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward_with_blocks(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits and the output of every stage from one forward pass."""
        outputs = self.blocks(x)
        return self.head(self.pool(outputs[-1])), outputs

    @torch.no_grad()
    def predict_proba(self, x: Tensor, batch_size: int = 512) -> Tensor:
        """Return probabilities ``(N, classes)`` on the model's device, computed in batches in evaluation mode."""
        mode = self.training
        self.eval()
        result = torch.cat([self(part.to(self.device)).softmax(1) for part in x.split(batch_size)])
        self.train(mode)
        return result


class LatentPrior(nn.Module, ABC):
    """A frozen generator of images in [0, 1] with a standard-normal latent space.

    Where inputs have another range, attacks get one whose images and critic's inputs are in that range
    (``priors.base.RangedPrior``).

    Attributes:
        name: Id of the prior.
        latent_dim: Dimension of the latent vectors.
    """

    name: str
    latent_dim: int

    @abstractmethod
    def generate(self, z: Tensor) -> Tensor:
        """Return images of shape ``(N, C, H, W)`` in [0, 1] for latents of shape ``(N, latent_dim)``."""

    @abstractmethod
    def critic(self, x: Tensor) -> Tensor:
        """Return the realism score of images, shape ``(N,)``; larger is more like the public data."""

    def sample_latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` independent latent draws of shape ``(n, latent_dim)`` on the generator's device."""
        return torch.randn(n, self.latent_dim, generator=generator, device=generator.device)


class ClassPrior(LatentPrior):
    """A prior whose images are of a given class of the victim.

    Without a class, :meth:`generate` and :meth:`critic` take the classes in turn.

    Attributes:
        classes: Number of classes.
    """

    classes: int

    @abstractmethod
    def generate_class(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] for latents ``(N, latent_dim)`` and class ids ``(N,)``."""

    @abstractmethod
    def critic_class(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the realism score of images as pictures of their class, shape ``(N,)``; larger is more like one."""

    def generate(self, z: Tensor) -> Tensor:
        """Return one image per latent, of class 0, 1, 2 ... in turn."""
        return self.generate_class(z, self._in_turn(len(z), z.device))

    def critic(self, x: Tensor) -> Tensor:
        """Return the realism score of images, taken as of class 0, 1, 2 ... in turn."""
        return self.critic_class(x, self._in_turn(len(x), x.device))

    def _in_turn(self, n: int, device: torch.device) -> Tensor:
        return torch.arange(n, device=device) % self.classes


class InpaintingPrior(LatentPrior):
    """A prior that fills the hole of an image: the same image differently for different latents.

    Without an image, :meth:`generate` fills one that is all hole.

    Attributes:
        shape: Image shape ``(C, H, W)``.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def fill(self, masked: Tensor, hole: Tensor, z: Tensor) -> Tensor:
        """Return completed images in [0, 1]; outside the hole they are the very pixels given.

        Args:
            masked: Images ``(N, C, H, W)`` in [0, 1]; what they hold inside the hole is ignored.
            hole: True where a pixel is to be filled, shape ``(1, 1, H, W)`` or ``(N, 1, H, W)``.
            z: Latents ``(N, latent_dim)``.
        """

    @abstractmethod
    def local_critic(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """Return the realism score of one random window, the same in all images, shape ``(N,)``.

        Args:
            x: Images ``(N, C, H, W)``.
            draws: Random generator on the CPU, so that a window costs no synchronisation.
        """

    def realism(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """Return the score of the whole image and of a random window of it together, shape ``(N,)``."""
        return self.critic(x) + self.local_critic(x, draws)

    def generate(self, z: Tensor) -> Tensor:
        """Return what the prior makes of an image that is all hole, shape ``(N, C, H, W)``."""
        nothing = torch.zeros(len(z), *self.shape, device=z.device)
        return self.fill(nothing, torch.ones_like(nothing[:, :1], dtype=torch.bool), z)


@dataclass(frozen=True)
class StyleState:
    """What a style-based generator holds between two of its blocks.

    Attributes:
        hidden: The feature map that the next block grows, shape ``(N, channels, h, w)``.
        image: The image so far, at the size of the last block, in the generator's own range; None before the first.
    """

    hidden: Tensor
    image: Tensor | None


class StylePrior(LatentPrior):
    """A style-based generator: latents are mapped to styles, one per layer, and styles are synthesised.

    Attributes:
        num_ws: Number of layers that take a style.
        w_dim: Dimension of a style.
        num_blocks: Number of synthesis blocks, at each of which :meth:`synthesise` can be entered and left.
        chunk: Images that are made at once where no gradient is needed, which bounds the memory.
    """

    num_ws: int
    w_dim: int
    num_blocks: int
    chunk: int = 256

    @abstractmethod
    def styles(self, z: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Return styles ``(N, num_ws, w_dim)`` of latents ``(N, latent_dim)``.

        Args:
            z: The latents.
            psi: Truncation: 1 leaves the styles as they are, 0 makes them all the mean style.
            cutoff: Number of first layers that are truncated; None truncates all.
        """

    @abstractmethod
    def blocks(self, ws: Tensor, state: StyleState | None, start: int, stop: int) -> StyleState:
        """Return the state after blocks ``start`` to ``stop - 1``; ``state`` is None where ``start`` is 0.

        Noise is constant, so running blocks in parts gives what running them at once gives.
        """

    @abstractmethod
    def finish(self, state: StyleState) -> Tensor:
        """Return the image of the last block's state: nominally in [0, 1], not clipped, shape ``(N, C, H, W)``."""

    def synthesise(self, ws: Tensor, state: StyleState | None = None, start: int = 0) -> Tensor:
        """Return images of styles, not clipped, entered at block ``start`` with its ``state``."""
        return self.finish(self.blocks(ws, state, start, self.num_blocks))

    def generate(self, z: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] for latents ``(N, latent_dim)``, without truncation."""
        return self.synthesise(self.styles(z)).clamp(0, 1)
