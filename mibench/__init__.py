"""mibench: how much of its private training data does a trained model give away, and what does each defense buy?"""

from __future__ import annotations

from typing import Any

from mibench.version import __version__

#: What is imported from :mod:`mibench.api` when it is asked for.
LAZY = ("audit", "compare", "results", "run", "view")

__all__ = ["__version__", *LAZY]


def __dir__() -> list[str]:
    """Return what there is to use."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Return a function of :mod:`mibench.api`, which is imported when one is asked for."""
    if name not in LAZY:
        raise AttributeError(f"module 'mibench' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("mibench.api"), name)
