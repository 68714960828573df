"""mibench: how much of its private training data does a trained model give away, and what does each defense buy?"""

from __future__ import annotations

from typing import Any

from mibench.version import __version__

__all__ = ["__version__", "audit", "run"]


def __getattr__(name: str) -> Any:
    """Return :func:`mibench.api.run` or :func:`mibench.api.audit`, which are imported when they are asked for."""
    if name not in ("audit", "run"):
        raise AttributeError(f"module 'mibench' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("mibench.api"), name)
