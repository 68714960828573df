"""Citeseer: 3,327 publications of computer science, 4,552 citations between them, 3,703 words, six topics.

C. L. Giles, K. Bollacker and S. Lawrence, CiteSeer: an automatic citation indexing system, ACM DL 1998, as parted by
planetoid (:mod:`mibench.datasets.families.planetoid`). 15 publications have neither a topic nor a link.
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.families.planetoid import Planetoid
from mibench.storage.fetching import Download


class Citeseer(Planetoid):
    """Citeseer."""

    card = DatasetCard(
        name="citeseer",
        title="Citeseer",
        modalities=("graph",),
        year=1998,
        licence="none stated; for research (planetoid's copy: MIT)",
        may_show=True,
        tasks=("edges",),
    )
    downloads = (
        Download(
            path="planetoid/citeseer.npz",
            by_hand="make planetoid/citeseer.npz of the files of https://github.com/kimiyoung/planetoid with the lines "
            "in the docstring of mibench.datasets.families.planetoid",
        ),
    )

    topics = (
        "agents",
        "artificial intelligence",
        "databases",
        "information retrieval",
        "machine learning",
        "human-computer interaction",
    )
