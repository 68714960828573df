"""Which mibench this is."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

__version__ = "0.1.0"


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the checkout mibench runs from, empty for an installed package."""
    import subprocess

    here = Path(__file__).parent.parent
    if not (here / ".git").exists():
        return ""
    done = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
