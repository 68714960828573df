r"""A small encoder of texts in the form of BERT (Devlin et al., NAACL 2019), for classification.

.. math:: h_0 = \mathrm{LN}(E_{x_t} + P_t), \qquad
          h \leftarrow \mathrm{LN}(h + \mathrm{MSA}(h)), \qquad h \leftarrow \mathrm{LN}(h + \mathrm{MLP}(h)), \qquad
          \ell = W \tanh(V h_{[CLS]} + c) + d

with GELU in the perceptron, layer norms behind every sum and the first token's state read out. Padding is a token like
any other (there is no attention mask), so that a server who sees gradients need not know lengths; there is no dropout
and no segment embedding. The word embeddings are the model's :class:`~mibench.entry.Entry`: a search over embeddings
enters behind them.

All weights and embeddings begin normal with deviation ``init``, biases at zero. BERT's is 0.02; of an untrained model
at 0.02 gradient attacks read nothing, at 0.1 every word (measured on two layers of width 96), so the value stands in
every row's configuration. Attention is written out, because torch's fused kernels have no second derivative.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.entry import Entry
from mibench.errors import UserError
from mibench.model import Attention, Rows
from mibench.options import Count, Positive
from mibench.targets.base import Target

#: BERT's.
EPSILON = 1e-12


class TokenEntry(Entry):
    """Word embeddings: ids ``(N, tokens)`` become vectors ``(N, tokens, width)``; relaxed inputs are vectors already.

    Args:
        vocabulary: Number of ids.
        width: Width of an embedding.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Parameter(torch.empty(vocabulary, width))

    def canonical(self, x: Tensor) -> Tensor:
        """Return the embeddings of ids."""
        return self.table[x.long()]


class Positions(nn.Module):
    """Adds learned positions, and of several kinds of segments the first.

    Args:
        tokens: Positions there are.
        width: Width of a token.
        segments: Kinds of segments (token types); 0 for a model without any.
        masked: Whether rows of zeros are padding and stay so.
    """

    def __init__(self, tokens: int, width: int, segments: int = 0, masked: bool = False) -> None:
        super().__init__()
        self.masked = masked
        self.positions = nn.Parameter(torch.empty(tokens, width))
        self.segments = nn.Parameter(torch.empty(segments, width)) if segments else None
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, embedded: Tensor, first: int = 0) -> Tensor:
        """Return the tokens ``(N, tokens, width)`` that stand from position ``first`` on, with their positions."""
        h = embedded if self.segments is None else embedded + self.segments[0]
        result: Tensor = self.norm(h + self.positions[first : first + embedded.shape[1]])
        return result * present(embedded)[..., None] if self.masked else result


class EncoderLayer(nn.Module):
    """Attention and a perceptron, each beside an identity and before a layer norm.

    Args:
        width: Width of a token.
        heads: Heads of attention.
        hidden: Units of the perceptron.
        masked: Whether rows of zeros are padding, which nobody attends to, and stay so.
    """

    def __init__(self, width: int, heads: int, hidden: int, masked: bool = False) -> None:
        super().__init__()
        self.heads, self.masked = heads, masked
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:
        """Return the layer's output for tokens ``(N, tokens, width)``."""
        query, key, value = (
            part(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        there = present(h) if self.masked else None
        if there is not None:
            weights = weights.masked_fill(~there[:, None, None, :], torch.finfo(weights.dtype).min)
        mixed = self.norm1(h + self.out((weights.softmax(-1) @ value).transpose(1, 2).flatten(2)))
        result: Tensor = self.norm2(mixed + self.down(nn.functional.gelu(self.up(mixed))))
        return result if there is None else result * there[..., None]


class ReadOut(nn.Module):
    """Reads the first token's state.

    Args:
        width: Width of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Return the feature ``(N, width)`` of tokens ``(N, tokens, width)``."""
        return torch.tanh(self.dense(h[:, 0]))


def present(h: Tensor) -> Tensor:
    """Return which tokens ``(N, tokens, width)`` are no padding, that is not all zeros, shape ``(N, tokens)``."""
    return h.ne(0).any(-1)


class TextEncoder(Target):
    """What encoders of texts share: one stage for positions, one per layer, one for the read-out."""

    def attention(self) -> Attention:
        """Return where gradients hold the tokens that enter a layer: in those of its query, key and value."""
        layers = [f"stages.{number}" for number in range(1, len(self.stages) - 1)]
        blocks = [
            {
                "query": (Rows(f"{layer}.query.weight"),),
                "value": (Rows(f"{layer}.value.weight"),),
                "joint": tuple(Rows(f"{layer}.{part}.weight") for part in ("query", "key", "value")),
            }
            for layer in layers
        ]
        return Attention(blocks, self._entering)

    def _entering(self, embedded: Tensor, block: int, first: int) -> Tensor:
        h: Tensor = self.stages[0](embedded, first)
        for layer in self.stages[1 : 1 + block]:
            h = layer(h)
        return h


class Transformer(TextEncoder):
    """An encoder of texts, untrained: one stage for positions, one per layer, one for the read-out.

    Args:
        spec: Facts of the input; texts of a fixed number of tokens.
        depth: Layers.
        width: Width of a token.
        heads: Heads of attention; they share ``width`` evenly.
        hidden: Units of a layer's perceptron.
        init: Deviation of the initial weights.
        weights: File of weights (safetensors, by the names of this module); the model is finished, and used as it is.
        starts_from: File of weights that training starts from.
        sha256: What the SHA-256 of either file has to be; None for whatever it is.
    """

    card = TargetCard(
        name="transformer",
        title="Small text encoder",
        modalities=("text",),
        bib="bert",
        year=2019,
        family="transformer",
    )

    def __init__(
        self,
        *,
        spec: InputSpec,
        depth: Count = 3,
        width: Count = 128,
        heads: Count = 4,
        hidden: Count = 512,
        init: Positive = 0.1,
        weights: Path | None = None,
        starts_from: Path | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(spec=spec)
        if width % heads:
            raise UserError(f"Expected target.width to be a multiple of target.heads={heads}, but got {width}.")
        self.normalise = TokenEntry(spec.vocabulary, width)
        self.stages = nn.ModuleList([
            Positions(spec.shape[0], width),
            *(EncoderLayer(width, heads, hidden) for _ in range(depth)),
            ReadOut(width),
        ])  # fmt: skip
        self.head = nn.Linear(width, spec.classes)
        for name, value in self.named_parameters():
            if value.dim() > 1:
                nn.init.normal_(value, std=init)
            elif name.endswith("bias"):
                nn.init.zeros_(value)
        if weights is not None and starts_from is not None:
            raise UserError(
                "target.weights is a finished model and target.starts_from one to be trained on; set one of them."
            )
        if weights is not None:
            self.take(weights, "target.weights", sha256)
        if starts_from is not None:
            self.take(starts_from, "target.starts_from", sha256)
