r"""The graph convolutional network, in the layers of PyTorch Geometric.

T. N. Kipf and M. Welling, Semi-supervised classification with graph convolutional networks, ICLR 2017.

.. math:: Z = \hat A\, \mathrm{ReLU}(\hat A X W_0 + b_0) W_1 + b_1, \qquad \hat A = D^{-1/2} (A + I) D^{-1/2}

The model is transductive: an input is the id of a node, and its answer depends on the features and links of that node
and of those within two links of it. The features ``X`` are public and part of the model. The links ``A`` are private:
they stand in the buffer ``edges``, the model's secret, which no copy that leaves the owner has.

The second layer is a graph convolution whose linear map comes after the sum over neighbours instead of before it, which
is the same function; so its map is the ``head``, and what is summed are the penultimate features. Deviation: weight
decay acts on both layers, as the recipe has one value.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from mibench.card import TargetCard
from mibench.data import Graph, InputSpec
from mibench.entry import Entry
from mibench.errors import UserError
from mibench.options import Count, Decay
from mibench.targets.base import Target


class NodeIds(Entry):
    """Takes node ids as they are."""

    def canonical(self, x: Tensor) -> Tensor:
        """Return the ids, shape ``(N,)``."""
        return x


class Gcn(Target):
    """Two graph convolutions over all nodes, of which the asked ones are answered.

    Args:
        spec: Facts of the graph: nodes (``vocabulary``), numbers of a node (``features``), classes.
        hidden: Units of the hidden layer.
        dropout: Share of features and of hidden units that a training step leaves out.

    Raises:
        UserError: If PyTorch Geometric is not installed.
    """

    card = TargetCard(
        name="gcn",
        title="Graph convolutional network",
        modalities=("graph",),
        year=2017,
        family="graph convolutional",
        code="https://github.com/tkipf/gcn",
    )
    secret = ("edges",)

    nodes: Tensor
    edges: Tensor

    def __init__(self, *, spec: InputSpec, hidden: Count = 16, dropout: Decay = 0.5) -> None:
        super().__init__(spec=spec)
        self.dropout = dropout
        self.adjacency: Tensor | None = None
        # The features of all nodes come with the graph, so a stored model does without them.
        self.register_buffer("nodes", torch.zeros(spec.vocabulary, spec.features), persistent=False)
        self.register_buffer("edges", torch.zeros(2, 0, dtype=torch.long))
        self.normalise = NodeIds()
        first, second = convolution(spec.features, hidden), convolution(hidden, hidden, bias=False)
        second.lin = nn.Identity()
        self.stages = nn.ModuleList([first, second])
        self.head = nn.Linear(hidden, spec.classes)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def hold(self, graph: Graph) -> None:
        """Take the features and a copy of the links."""
        self.nodes, self.edges = graph.features, graph.edges.clone()

    def with_adjacency(self, adjacency: Tensor) -> Gcn:
        """Return a copy without the links, which computes on other ones; differentiable in them.

        Args:
            adjacency: Weights of links from 0 to 1, symmetric, zero on the diagonal, shape ``(nodes, nodes)``.
        """
        duplicate = cast("Gcn", self.blind())
        duplicate.adjacency = adjacency
        return duplicate

    def blind(self) -> Target:
        """Return a copy that holds no links, given or learned from."""
        given, self.adjacency = self.adjacency, None  # which may be part of a computation and cannot be copied then
        try:
            return cast("Target", super().blind())
        finally:
            self.adjacency = given

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return of nodes ``(N,)`` the hidden units, and their weighted sums over neighbours, both ``(N, hidden)``."""
        asked = self.normalise(x)
        dense = None if self.adjacency is None else normalised(self.adjacency)
        hidden = self._convolved(self.stages[0], self.nodes, dense).relu()
        summed = self._convolved(self.stages[1], hidden, dense)
        return hidden[asked], summed[asked]

    def _convolved(self, layer: nn.Module, h: Tensor, dense: Tensor | None) -> Tensor:
        """Return the layer's output for all nodes, over the links or over a normalised adjacency."""
        h = dropout(h, self.dropout, self.training)
        if dense is None:
            answer: Tensor = layer(h, torch.cat([self.edges, self.edges.flip(0)], 1))
            return answer
        mapped: Tensor = dense @ cast("nn.Module", layer.lin)(h)
        return mapped if layer.bias is None else mapped + cast("Tensor", layer.bias)


def normalised(adjacency: Tensor) -> Tensor:
    """Return an adjacency ``(nodes, nodes)`` with self-loops, divided by the roots of both nodes' degrees."""
    looped = adjacency + torch.eye(len(adjacency), device=adjacency.device, dtype=adjacency.dtype)
    scale = looped.sum(1).rsqrt()
    return scale[:, None] * looped * scale


def convolution(inputs: int, outputs: int, bias: bool = True) -> Any:
    """Return a graph convolution of PyTorch Geometric.

    Raises:
        UserError: If the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it still uses torch.jit.script
            from torch_geometric.nn import GCNConv
    except ImportError as missing:
        raise UserError(
            f"target=gcn needs PyTorch Geometric ({missing}); install it with pip install 'mibench[graph]'."
        ) from missing
    return GCNConv(inputs, outputs, bias=bias)
