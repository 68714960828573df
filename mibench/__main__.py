"""``python -m mibench``: a first argument that is a bare word is a subcommand, anything else is Hydra's."""

from __future__ import annotations

import sys

from mibench.errors import outside

if __name__ == "__main__":
    try:
        from mibench.cli.main import main
    except ImportError as error:
        if (sentence := outside(error)) is None:
            raise
        print(sentence, file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(main())
