"""The same from Python: one cell, or the audit of a model of one's own."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import logging
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mibench.cli.explaining import explained
from mibench.errors import IncompatibleCellError, MibenchError, NotGrantedError, UserError
from mibench.leaderboard.shards import read_shard
from mibench.nn.foreign import register
from mibench.planning.catalogue import take_search_path
from mibench.planning.composition import compose
from mibench.planning.plan import Plan, plan_cell, refuse_incompatible
from mibench.reporting.report import report_name, write_report
from mibench.running.standing import finished, leave_row, run_under_claim

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("mibench")


def run(overrides: str | Sequence[str] = ()) -> pd.DataFrame:
    """Run one cell, or read it where it has been run, and return its rows.

    Args:
        overrides: What would stand on the command line: ``"attack=gmi defense=bido"``, or a list of such words.

    Raises:
        MibenchError: What the command line would say in one sentence.
    """
    plan = _planned(shlex.split(overrides) if isinstance(overrides, str) else list(overrides))
    refuse_incompatible(plan)
    with _telling():
        return _rows(plan)


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
    results: str | Path = "results",
    seed: int = 0,
    options: Sequence[str] = (),
) -> pd.DataFrame:
    """Attack a trained classifier of images or records, write a report page, and return the rows of all cells.

    The page's path is logged and stands in ``frame.attrs["report"]``. Cells that cannot be (an output defense against
    an attacker who holds the weights) leave a ``skipped`` row.

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
        results: The folder of rows, pictures and reports; victims and reconstructions lie in its ``store``.
        seed: The seed.
        options: Further words of the command line, for instance ``["dataset.size=32", "dataset.mirrored=true"]``.

    Raises:
        MibenchError: What the command line would say in one sentence.
    """
    import pandas as pd

    where = Path(results).expanduser().resolve()
    if isinstance(model, nn.Module):
        if weights is not None:
            raise UserError("audit takes weights beside a factory only; a module is taken with the weights it has.")
        factory, weights = _handed_over(model, where / "models", control == "retrain" and not Path(data).is_file())
    else:
        factory = model
        if weights is None:
            raise UserError(
                "audit of a factory needs the file of the trained weights: audit(model, data, weights=FILE)."
            )
    given = {"target.mean": mean, "target.std": std}
    words = [
        "target=checkpoint", f"target.factory={_quoted(factory)}", f"target.weights={_quoted(Path(weights).resolve())}",
        *(f"{key}=[{','.join(map(str, values))}]" for key, values in given.items() if values is not None),
        f"target.size={'null' if size is None else size}", f"target.features={features or 'null'}",
        *_data(Path(data).expanduser().resolve(), public, held_out, response, sensitive),
        f"control={control}", f"budget={budget}", f"seed={seed}",
        f"paths.results={_quoted(where)}", f"paths.store={_quoted(where / 'store')}", *options,
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
        rows.attrs["report"] = str(write_report(rows, where, report_name(rows)))
        log.info("report    %s", rows.attrs["report"])
    return rows


def _planned(words: Sequence[str]) -> Plan:
    try:
        return plan_cell(compose(take_search_path(words)))
    except MibenchError:
        raise
    except Exception as error:
        if (sentence := explained(error, words)) is None:
            raise
        raise UserError(sentence) from error


def _rows(plan: Plan) -> pd.DataFrame:
    """Return the rows of a compatible cell; one that failed before is run again."""
    path = finished(plan)
    if path is not None and "failed" not in set((rows := read_shard(path))["status"]):
        log.info("cell      %s has been run; its rows are kept", plan.cell_id)
        return rows
    ended = run_under_claim(plan)
    if ended.shard is None or ended.status != "measured":
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


def _handed_over(model: nn.Module, models: Path, retrain: bool) -> tuple[str, Path]:
    """Return a factory for untrained copies of ``model``, and the file that its weights were saved to.

    Raises:
        UserError: If a copy is to be trained and a layer of it cannot be given fresh weights.
    """
    from safetensors.torch import save_file

    if retrain and (stuck := [name for name, layer in model.named_modules() if not _can_reset(layer)]):
        raise UserError(
            f"The layer '{stuck[0]}' has weights of its own and no reset_parameters(), so no untrained copy can be "
            "made for the control; give audit a factory (package.module:function) with weights=FILE, or control='none'."
        )
    blank = copy.deepcopy(model).cpu()
    kinds = {type(layer) for layer in model.modules() if not type(layer).__module__.startswith("torch.")}
    described = [repr(model), *sorted(_source(kind) for kind in kinds)]
    name = hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]

    def build() -> nn.Module:
        fresh = copy.deepcopy(blank)
        return _reset(fresh) if retrain else fresh

    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    content = hashlib.sha256(name.encode())
    for key, value in sorted(state.items()):
        content.update(f"{key}{value.dtype}".encode() + value.float().numpy().tobytes())
    file = models / f"{content.hexdigest()[:16]}.safetensors"
    if not file.exists():
        models.mkdir(parents=True, exist_ok=True)
        save_file(state, file)
    return register(name, build), file


def _can_reset(layer: nn.Module) -> bool:
    return not list(layer.parameters(recurse=False)) or _resetter(layer) is not None


def _resetter(layer: nn.Module) -> object:
    return getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)


def _reset(module: nn.Module) -> nn.Module:
    """Give every layer fresh weights, all of which are then trained."""
    for layer in module.modules():
        if callable(reset := _resetter(layer)):
            reset()
    return module.requires_grad_(True)


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


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
    own = [f"dataset.{key}={_quoted(value)}" for key, value in given.items() if value is not None]
    words = [
        f"dataset={'table' if table else 'image_folder'}",
        f"dataset.{'file' if table else 'root'}={_quoted(data)}",
    ]
    if not table and isinstance(public, int):
        words.append(f"dataset.public_classes={public}")
    elif public:
        key = "public_file" if table else "public_root"
        words.append(f"dataset.{key}={_quoted(Path(str(public)).expanduser().resolve())}")
    if held_out is not None:
        words.append(f"dataset.held_out_root={_quoted(Path(held_out).expanduser().resolve())}")
    return [*words, *own]


def _quoted(value: str | Path) -> str:
    """Return a value as Hydra reads it, whatever characters are in it."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


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
