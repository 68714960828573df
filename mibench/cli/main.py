"""Entry point: chooses between a subcommand and Hydra, and turns every mistake of the user into one sentence."""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence

from mibench.errors import MibenchError, Terminated, UnknownNameError, UserError, outside, printable
from mibench.planning.catalogue import take_search_path
from mibench.running.stopping import heeding_stops

USAGE = """mibench: how much of its private training data does a trained model give away?

  python -m mibench attack=gmi defense=bido                  one cell on the embedded digits
  python -m mibench -m attack=gmi,mi_face defense=none,bido  a grid; finished cells are not run again
  python -m mibench plan grid=first                          what a grid would run and skip, and why
  python -m mibench -m grid=first hydra/launcher=joblib      run it; what stands already is left out
  python -m mibench list [attacks|defenses|...] [--long]     the catalogue
  python -m mibench show CELL_ID                             one cell's rows and picture
  python -m mibench report CELL_ID [CELL_ID ...]             what leaks, to whom, what to try: a page for anyone
  python -m mibench score CELL_ID metric=[psnr,ssim]         more metrics for a stored reconstruction
  python -m mibench compare by=defense base=none dataset=lfw paired differences, and what they decide
  python -m mibench table rows=attack columns=defense dataset=digits format=latex      a table for a paper
  python -m mibench plot kind=front dataset=digits out=front.pdf                       a figure: front, matrix, queries
  python -m mibench bib dataset=digits out=methods.bib                                 what to cite of the methods used
  python -m mibench claims [ID ...]                          what the committed rows say of every claim
  python -m mibench reproduce CELL_ID                        the command that made it
  python -m mibench leaderboard [study=GRID]                 the table and the page, from studies and your shards
  python -m mibench store [collect]                          the artifacts on disk
  python -m mibench fetch [NAME]                             data and weights, with their checksums

Every option of a cell, with the command that changes it: python -m mibench --cfg job"""

SUBCOMMANDS = {
    "list": "catalogue of components",
    "plan": "what a grid would run and skip",
    "show": "one cell's rows and picture",
    "report": "a page on cells for anyone",
    "score": "more metrics for a stored reconstruction",
    "leaderboard": "the table and the page",
    "compare": "paired differences between attacks, defenses or targets",
    "table": "one number by two facts, as LaTeX, Markdown or CSV",
    "plot": "figures for a paper",
    "bib": "BibTeX entries of the methods used",
    "claims": "what the committed rows say of every claim",
    "reproduce": "the command that made a cell",
    "store": "artifacts on disk",
    "fetch": "data and weights that do not travel with mibench",
}

#: What a person is told of a command that was stopped.
GOES_ON = "what was finished is kept, and the same command goes on from there."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 (a cell failed) or 2 (the user's mistake).

    It is 130 after Ctrl-C and 143 after SIGTERM: one sentence, no half file, and the same command goes on.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that its errors become one sentence here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot write a mark is shown another one
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "verbose=true" in words
    try:
        with heeding_stops():
            status = _dispatch(words)
            print(end="", flush=True)
        return status
    except BrokenPipeError:  # as of "mibench plan | head": whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        return _fail(str(error), verbose, 2)
    except MibenchError as error:
        return _fail(str(error), verbose, 1)
    except KeyboardInterrupt:
        return _fail(f"Interrupted; {GOES_ON}", verbose, 128 + signal.SIGINT)
    except Terminated:
        return _fail(f"Terminated; {GOES_ON}", verbose, 128 + signal.SIGTERM)
    except ImportError as error:
        if (sentence := outside(error)) is None:
            raise
        return _fail(sentence, verbose, 2)
    except Exception as error:
        from mibench.cli.explaining import explained

        if (sentence := explained(error, words)) is None:
            raise
        return _fail(sentence, verbose, 2)


def _dispatch(words: list[str]) -> int:
    words = take_search_path(words)
    if words and words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if words and re.fullmatch(r"[A-Za-z_]+", words[0]):
        if words[0] not in SUBCOMMANDS:
            raise UnknownNameError("subcommand", words[0], SUBCOMMANDS)
        command = importlib.import_module(f"mibench.cli.{words[0]}_command")
        return int(command.run(words[1:]))
    from mibench.cli.run_command import run

    return run(words)


def _fail(sentence: str, verbose: bool, status: int) -> int:
    if verbose:
        traceback.print_exc()
    print(printable(" ".join(sentence.split())), file=sys.stderr)  # one line, whatever the user's words hold
    return status
