"""``python -m mibench``: a first argument that is a bare word is a subcommand, anything else is Hydra's."""

from __future__ import annotations

from mibench.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
