"""The same from Python: one cell, the audit of a model of one's own, or a view of it for a loop of one's own."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mibench.access import GradientsView, Ledger, LocalTraining, View, WhiteBoxView
from mibench.cli.explaining import explained
from mibench.cli.picking import options_in
from mibench.cli.report_command import origin_of
from mibench.cli.reproduction import Commands
from mibench.data import Examples, InputSpec
from mibench.defenses.base import Defense
from mibench.errors import IncompatibleCellError, MibenchError, NotGrantedError, UserError
from mibench.knowledge import Knowledge
from mibench.leaderboard.frames import compare as compare
from mibench.leaderboard.frames import results_frame
from mibench.leaderboard.shards import read_shard
from mibench.model import Classifier
from mibench.nn.foreign import hand_over
from mibench.planning.catalogue import take_search_path
from mibench.planning.choices import quoted
from mibench.planning.composition import compose, default_results
from mibench.planning.plan import Plan, folder, plan_cell, refuse_incompatible
from mibench.reporting.report import report_name, write_report
from mibench.running.standing import finished, leave_row, run_under_claim
from mibench.settings.updates import client_update
from mibench.tasks.class_ import ClassGoal
from mibench.tasks.instance import InstanceGoal

if TYPE_CHECKING:
    import pandas as pd

    from mibench.reporting.result import Result

log = logging.getLogger("mibench")


def run(overrides: str | Sequence[str] = ()) -> Result:
    """Run one cell, or read it where it has been run, and return its rows.

    They are a data frame with the path of the cell's picture sheet, ``picture``; a notebook shows verdicts and numbers.

    Args:
        overrides: What would stand on the command line: ``"attack=gmi defense=bido"``, or a list of such words.

    Raises:
        MibenchError: What the command line would say in one sentence.
    """
    plan = _planned(shlex.split(overrides) if isinstance(overrides, str) else list(overrides))
    refuse_incompatible(plan)
    with _telling():
        return _result(_rows(plan), folder(plan, "results"))


def results(results: str | Path | None = None, rows: str = "groups", **facts: str) -> pd.DataFrame:
    """Return every number of committed studies and of your own cells, with interval, verdict and picture.

    Args:
        results: The folder of studies and shards; None takes ``MIBENCH_RESULTS``, or else ``results``.
        rows: ``groups``: one row per number of every group of cells that differ in the seed alone, over its seeds;
            ``cells``: one per number of every cell.
        facts: What they have in common, as ``dataset="lfw,digits"``.

    Returns:
        The columns of a shard without lists, and ``attack_options``, ``defense_options`` and ``options`` (what differs
        from today's defaults), ``verdict``, ``seeds``, ``accuracy`` (of the victim) and ``picture`` (path, empty where
        there is none).

    Raises:
        UserError: If there is no such fact.
    """
    where = default_results() if results is None else Path(results).expanduser()
    return results_frame(where, rows, facts, options_in(where))


def audit(
    model: nn.Module | str,
    data: str | Path,
    *,
    weights: str | Path | None = None,
    public: str | Path | int = 0,
    held_out: str | Path | None = None,
    attacks: Sequence[str] | None = None,
    defenses: Sequence[str] = ("none",),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    features: str | None = None,
    response: str | None = None,
    sensitive: str | None = None,
    control: str = "retrain",
    budget: str = "standard",
    results: str | Path | None = None,
    seed: int = 0,
    author: str = "",
    options: Sequence[str] = (),
) -> Result:
    """Attack a trained classifier of images or records, write a report page, and return the rows of all cells.

    The page's path is logged and stands in ``frame.attrs["report"]``, the paths of picture sheets in
    ``frame.pictures``. Cells that cannot be (an output defense against an attacker who holds the weights) leave a
    ``skipped`` row.

    Args:
        model: The trained module, which is copied and not changed; or ``package.module:function`` that builds it, with
            ``weights``.
        data: The folder of class folders it was trained on, which sorted by name are its classes; or the file of a
            table (CSV with a header, or parquet), see :mod:`mibench.datasets.table`.
        weights: File of the weights; only where ``model`` is a factory.
        public: The attacker's pictures of other classes: a folder of class folders, or how many of the last ones of
            ``data`` (the model then knows only those before them). Of a table: the file of the attacker's records.
        held_out: The folder that the control victim learns; None takes the public classes. Not for tables.
        attacks: Names as in ``python -m mibench list attacks``; None takes ``mi_face``, and ``gmi`` where there are
            public pictures; for a table ``fredrikson_map``.
        defenses: Names likewise; on a finished model those that act on its answers, or on what clients
            send of a cut one.
        mean: What training subtracted from pixels in [0, 1], per channel (of a table: from each column's numbers and
            category codes); None where nothing was.
        std: What it then divided by.
        size: Pixels per side that the model takes, where they are not those of the files.
        features: The module whose output is the penultimate feature; None takes the last linear layer's input.
        response: Of a table: the column that the model predicts.
        sensitive: Of a table: the categorical column whose values are to be inferred.
        control: ``retrain`` (the same architecture from fresh weights on held-out classes) or ``none``.
        budget: ``smoke``, ``standard`` or ``paper``.
        results: The folder of rows, pictures, reports and ``store``; None: ``MIBENCH_RESULTS``, or else ``results``.
        seed: The seed.
        author: Who ran it, for the report; empty leaves it out.
        options: Further words of the command line, for instance ``["dataset.size=32", "dataset.mirrored=true"]``.

    Raises:
        MibenchError: What the command line would say in one sentence.
    """
    import pandas as pd

    where = (default_results() if results is None else Path(results).expanduser()).resolve()
    if isinstance(model, nn.Module):
        if weights is not None:
            raise UserError("audit takes weights beside a factory only; a module is taken with the weights it has.")
        factory, weights = hand_over(model, where / "models", control == "retrain" and not Path(data).is_file())
    else:
        factory = model
        if weights is None:
            raise UserError("audit of a factory needs the file of its weights: audit(model, data, weights=FILE).")
    given = {"target.mean": mean, "target.std": std}
    words = [
        "target=checkpoint", f"target.factory={quoted(factory)}",
        f"target.weights={quoted(str(Path(weights).resolve()))}",
        *(f"{key}=[{','.join(map(str, values))}]" for key, values in given.items() if values is not None),
        f"target.size={'null' if size is None else size}", f"target.features={features or 'null'}",
        *_data(Path(data).expanduser().resolve(), public, held_out, response, sensitive),
        f"control={control}", f"budget={budget}", f"seed={seed}",
        f"paths.results={quoted(str(where))}", f"paths.store={quoted(str(where / 'store'))}", *options,
    ]  # fmt: skip
    usual = ("fredrikson_map",) if "dataset=table" in words else ("mi_face", *(["gmi"] if public else []))
    chosen = attacks if attacks is not None else usual
    frames = []
    with _telling():
        for attack in chosen:
            for defense in defenses:
                log.info("audit     attack %s, defense %s", attack, defense)
                frames.append(_rows_or_reason(_planned([f"attack={attack}", f"defense={defense}", *words])))
        if not frames:
            raise UserError("audit needs at least one attack and one defense; 'none' is a defense too.")
        rows = pd.concat(frames, ignore_index=True)
        try:
            rows.attrs["report"] = str(write_report(rows, where, report_name(rows), origin_of(rows, where, author)))
            log.info("report    %s", rows.attrs["report"])
        except UserError as error:
            rows.attrs["report"] = ""
            log.warning("%s The rows stand.", error)
    return _result(rows, where)


class Exposure(NamedTuple):
    """A model as one attacker meets it.

    Attributes:
        view: All that the attacker sees of it; every query is counted in ``view.ledger``.
        knowledge: What the attacker brings.
        goal: What is to be reconstructed.
    """

    view: View
    knowledge: Knowledge
    goal: ClassGoal | InstanceGoal


def view(
    model: nn.Module,
    data: Examples | tuple[Tensor, Tensor],
    *,
    access: Literal["white_box", "scores", "labels", "gradients"] = "white_box",
    public: Examples | tuple[Tensor, Tensor] | None = None,
    samples: int = 1,
    messages: int = 1,
    batch_size: int = 1,
    query_budget: int | None = None,
) -> Exposure:
    """Return a trained classifier of images as an attacker meets it, for a loop of one's own.

    >>> import torch, mibench
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    >>> view, knowledge, goal = mibench.view(model, (torch.rand(20, 1, 8, 8), torch.arange(20) % 5))
    >>> images = torch.full((len(goal.labels), *view.spec.shape), 0.5, requires_grad=True)
    >>> loss = torch.nn.functional.cross_entropy(view.logits(images), goal.labels)
    >>> torch.autograd.grad(loss, [images])[0].shape, view.ledger.gradient_evals
    (torch.Size([5, 1, 8, 8]), 5)

    Args:
        model: The module, which returns logits ``(N, classes)``; it is copied and not changed.
        data: Its private examples: images ``(N, C, H, W)`` in [0, 1] and class ids ``(N,)``. The view and the goal hold
            none of them; under ``gradients`` the messages are made of the first ones.
        access: What the attacker sees: the module, a service's probabilities or labels, or the gradients of clients.
        public: Examples that the attacker owns.
        samples: Reconstructions wanted of each class.
        messages: Clients that send a gradient (``gradients``).
        batch_size: Examples of each client (``gradients``).
        query_budget: The most examples that may be sent through the model; None for no limit.

    Raises:
        UserError: If the model does not take the images, or the access is not one of these.
    """
    private, owned = (one if one is None or isinstance(one, Examples) else Examples(*one) for one in (data, public))
    assert private is not None
    spec = InputSpec("image", tuple(private.x.shape[1:]), int(private.y.max()) + 1)
    target = model if isinstance(model, Classifier) else _wrapped(model, spec)
    ledger, device = Ledger(query_budget), target.device
    knowledge = Knowledge(owned)
    if access == "gradients":
        clients, held = copy.deepcopy(target).eval(), private.to(device)
        batches = torch.arange(messages * batch_size, device=device).split(batch_size)
        sent = [client_update(clients, held[rows], Defense(), LocalTraining(), False)[0] for rows in batches]
        seen: View = GradientsView.of(target, sent, batch_size, spec, ledger, device)
        return Exposure(seen, knowledge, InstanceGoal(messages, batch_size))
    seen = white_box = WhiteBoxView.of(target, spec, ledger, device)
    if access in ("scores", "labels"):
        seen = white_box.narrow() if access == "scores" else white_box.narrow().narrow()
    elif access != "white_box":
        raise UserError(f"view offers access white_box, scores, labels or gradients, but got '{access}'.")
    return Exposure(seen, knowledge, ClassGoal(torch.arange(spec.classes), samples))


def _wrapped(model: nn.Module, spec: InputSpec) -> Classifier:
    from mibench.targets.checkpoint import Checkpoint

    with tempfile.TemporaryDirectory() as folder:
        factory, weights = hand_over(model, Path(folder), retrain=False)
        return Checkpoint(spec=spec, factory=factory, weights=str(weights)).eval()


def _planned(words: Sequence[str]) -> Plan:
    try:
        return plan_cell(compose(take_search_path(words)))
    except MibenchError:
        raise
    except Exception as error:
        if (sentence := explained(error, words)) is None:
            raise
        raise UserError(sentence) from error


def _result(rows: pd.DataFrame, where: Path) -> Result:
    """Return rows as a notebook shows them, with the commands that make their cells again."""
    from mibench.reporting.result import Result

    commands, first = Commands(), rows.drop_duplicates("cell_id")
    made = {str(cell): commands(json.loads(text)).command for cell, text in zip(first["cell_id"], first["config"],
                                                                                strict=True)}  # fmt: skip
    return Result.of(rows, where, made)


def _rows(plan: Plan) -> pd.DataFrame:
    """Return the rows of a compatible cell; one that failed before is run again."""
    path = finished(plan)
    if path is not None and "failed" not in set((rows := read_shard(path))["status"]):
        log.info("cell      %s has been run; its rows are kept", plan.cell_id)
        return rows
    ended = run_under_claim(plan)
    if ended.shard is None or ended.status not in ("measured", "stands"):
        raise MibenchError(ended.sentence) from ended.error
    return read_shard(ended.shard)


def _rows_or_reason(plan: Plan) -> pd.DataFrame:
    """Return the rows of a cell, or the row that says why it cannot be."""
    try:
        refuse_incompatible(plan)
        return _rows(plan)
    except (IncompatibleCellError, NotGrantedError) as reason:
        log.info("skipped   %s", reason)
        return read_shard(leave_row(plan, "skipped", str(reason)))


def _data(
    data: Path, public: str | Path | int, held_out: str | Path | None, response: str | None, sensitive: str | None
) -> list[str]:
    """Return the words that choose a folder of images or a table.

    Raises:
        UserError: If an option of the one is given for the other.
    """
    table = data.is_file()
    given = {"response": response, "sensitive": sensitive}
    if table and (held_out is not None or (public and isinstance(public, int))):
        raise UserError("audit of a table takes public=FILE, and no held_out: its control needs no other model.")
    if not table and (odd := [key for key, value in given.items() if value is not None]):
        raise UserError(f"audit takes {odd[0]} for tables only, but data={data} is no file.")
    own = [f"dataset.{key}={quoted(value)}" for key, value in given.items() if value is not None]
    words = [
        f"dataset={'table' if table else 'image_folder'}",
        f"dataset.{'file' if table else 'root'}={quoted(str(data))}",
    ]
    if not table and isinstance(public, int):
        words.append(f"dataset.public_classes={public}")
    elif public:
        key = "public_file" if table else "public_root"
        words.append(f"dataset.{key}={quoted(str(Path(str(public)).expanduser().resolve()))}")
    if held_out is not None:
        words.append(f"dataset.held_out_root={quoted(str(Path(held_out).expanduser().resolve()))}")
    return [*words, *own]


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Print mibench's own lines inside the block where the program has set up no logging."""
    if log.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
