"""Cora: 2,708 publications on machine learning, 5,278 citations between them, 1,433 words, seven topics.

A. McCallum, K. Nigam, J. Rennie and K. Seymore, Automating the construction of internet portals with machine learning,
Information Retrieval, 2000, as parted by planetoid (:mod:`mibench.datasets.families.planetoid`).
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.families.planetoid import Planetoid
from mibench.storage.fetching import Download


class Cora(Planetoid):
    """Cora."""

    card = DatasetCard(
        name="cora",
        title="Cora",
        modalities=("graph",),
        year=2000,
        licence="none stated; for research (planetoid's copy: MIT)",
        may_show=True,
        tasks=("edges",),
    )
    downloads = (
        Download(
            path="planetoid/cora.npz",
            by_hand="make planetoid/cora.npz of the files of https://github.com/kimiyoung/planetoid with the lines "
            "in the docstring of mibench.datasets.families.planetoid",
        ),
    )

    topics = (
        "theory",
        "reinforcement learning",
        "genetic algorithms",
        "neural networks",
        "probabilistic methods",
        "case-based",
        "rule learning",
    )
