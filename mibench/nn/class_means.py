"""A classifier that nobody trained for its classes: the nearest class mean in a public network's embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mibench.data import digests
from mibench.model import Classifier
from mibench.nn.faces import embeddings


class ClassMeans(Classifier):
    r"""Probabilities of class :math:`c` for an image :math:`x` with unit embedding :math:`e(x)`.

    .. math:: p_c(x) \propto \exp(\langle e(x), m_c \rangle / T), \quad m_c \text{ the mean embedding of } c \text{ at
        unit length}.

    Its penultimate features are the embeddings. Those of images that it has seen are kept, since the private and the
    public images are asked for by many metrics.

    Args:
        network: Maps images ``(N, C, H, W)`` to unit embeddings ``(N, F)``; frozen.
        features: Embeddings of real images ``(n, F)``.
        labels: Their classes ``(n,)``, each class at least once.
        temperature: T, above 0.
    """

    def __init__(self, network: nn.Module, features: Tensor, labels: Tensor, temperature: float) -> None:
        super().__init__()
        classes = int(labels.max()) + 1
        means = torch.stack([features[labels == label].mean(0) for label in range(classes)])
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([network])
        self.head = nn.Linear(features.shape[1], classes, bias=False)
        self.head.weight.data = normalize(means) / temperature
        self._seen: dict[str, Tensor] = {}
        self.requires_grad_(False).eval()

    def remember(self, images: Tensor, features: Tensor) -> None:
        """Keep the embeddings ``(N, F)`` of images ``(N, C, H, W)``."""
        self._seen |= dict(zip(digests(images), features.cpu(), strict=True))

    def features(self, x: Tensor) -> Tensor:
        """Return the embeddings ``(N, F)``; where no gradient is wanted, each image is embedded only once."""
        if torch.is_grad_enabled() and x.requires_grad:
            return super().features(x)
        named = digests(x)
        if fresh := [row for row, digest in enumerate(named) if digest not in self._seen]:
            self.remember(x[fresh], embeddings(self.stages[0], x[fresh]))
        return torch.stack([self._seen[digest] for digest in named]).to(x.device)
