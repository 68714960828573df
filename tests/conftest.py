"""Fixtures that several test files share: one thread per worker, small real data, and cells in a store of their own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("MIBENCH_PROGRESS", "0")

import composing
import pytest
import torch
from torch import Tensor

from mibench.access import GradientsView, Ledger, WhiteBoxView
from mibench.data import Examples, InputSpec, Split
from mibench.datasets.digits import Digits
from mibench.datasets.families.planetoid import write_graph
from mibench.model import Classifier
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell, refuse_incompatible
from mibench.running.cell import Cell
from mibench.storage.store import Store
from mibench.storage.workshop import Workshop
from mibench.targets.cnn import Cnn
from mibench.training import Recipe, Training

torch.set_num_threads(1)  # one worker, one thread: workers do not oversubscribe


@pytest.fixture(scope="session", autouse=True)
def configuration_read_once() -> Iterator[None]:
    """Hydra reads a configuration file once."""
    with composing.remembered_files():
        yield


@pytest.fixture(scope="session", autouse=True)
def imports_left_alone() -> Iterator[None]:
    """What was imported and collected stays, so that no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def digits8() -> Split:
    """The embedded digits at their native 8x8 pixels: private 0-4, public and held out 5-9."""
    return Digits(size=8).load()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty store on the CPU."""
    return Workshop(Store(tmp_path / "store"), torch.device("cpu"))


@pytest.fixture(scope="session")
def trained_cnn(digits8: Split) -> Classifier:
    """A small CNN trained on the private digits at 8x8 (test accuracy above 0.95)."""
    torch.manual_seed(0)
    model = Cnn(spec=digits8.spec, width=8)
    data = digits8.private.train
    return Training(model, data, Recipe(epochs=10, batch_size=64, lr=5e-3), 0, torch.device("cpu")).run()


@pytest.fixture(scope="session")
def white_box() -> Callable[[Classifier, Split], WhiteBoxView]:
    """Makes a white-box view of a model: ``white_box(model, split)``."""

    def make(model: Classifier, split: Split) -> WhiteBoxView:
        return WhiteBoxView.of(model, split.spec, Ledger(), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def client_view() -> Callable[..., GradientsView]:
    """Makes what a server sees of clients, one message per batch: ``client_view(model, examples, batch=2)``.

    ``change`` makes of a message what is seen of it, ``kind`` is the view's class, and further arguments are its
    attributes.
    """

    def make(
        model: Classifier,
        examples: Examples,
        batch: int = 1,
        change: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
        kind: type[GradientsView] = GradientsView,
        **more: Any,
    ) -> GradientsView:
        spec = InputSpec("image", tuple(examples.x.shape[1:]), model.head.out_features)
        client = GradientsView.of(model, [], batch, spec, Ledger(), torch.device("cpu"), **more)
        batches = zip(examples.x.split(batch), examples.y.split(batch), strict=True)
        updates = [client.updates(x[None], y[None]) for x, y in batches]
        messages = [change({name: value[0].detach() for name, value in update.items()}) for update in updates]
        return kind.of(model, messages, batch, spec, Ledger(), torch.device("cpu"), **more)

    return make


@pytest.fixture(scope="session")
def digits_view(
    client_view: Callable[..., GradientsView], digits8: Split
) -> Callable[..., tuple[GradientsView, Examples]]:
    """Makes the view of clients of an untrained network, with the digits they hold: ``digits_view(Mlp, 3, batch=2)``.

    It takes the class of the network, the number of messages, the ``seed`` by which digits are chosen, and what
    ``client_view`` takes.
    """

    def make(
        target: Callable[..., Classifier], count: int, batch: int = 1, seed: int = 1, **more: Any
    ) -> tuple[GradientsView, Examples]:
        torch.manual_seed(0)
        model, train = target(spec=digits8.spec), digits8.private.train
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: count * batch]
        examples = Examples(train.x[rows].to(next(model.parameters()).dtype), train.y[rows])
        return client_view(model, examples, batch, **more), examples

    return make


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store is shared by the cells of one test session, those of other workers too."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cells"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def trained_folder(session_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes folders whose stores hold the session's targets and evaluation models, and no prior or attack's work."""

    def make(name: str = "cells") -> Path:
        store = tmp_path / name / "store"
        store.mkdir(parents=True)
        for kind in ("victim", "evaluator"):
            shared = session_folder / "store" / kind
            shared.mkdir(parents=True, exist_ok=True)
            (store / kind).symlink_to(shared)
        return store.parent

    return make


@pytest.fixture(scope="session")
def make_cell(session_folder: Path) -> Callable[..., Cell]:
    """Composes a smoke cell on the CPU: ``make_cell("attack=gmi", "defense=bido")``; run it with ``.run()``."""

    def make(*overrides: str, folder: Path = session_folder) -> Cell:
        here = [f"paths.store={folder}/store", f"paths.results={folder}/results", "device=cpu", "budget=smoke"]
        plan = plan_cell(compose([*here, *overrides]))
        refuse_incompatible(plan)
        return Cell(plan)

    return make


@pytest.fixture(scope="session")
def case_folder() -> Callable[[str], Path]:
    """Returns the folder of a fixed reference case, below ``$MIBENCH_CASES`` or ``../shared/cases/peers``."""
    root = Path(os.environ.get("MIBENCH_CASES", Path(__file__).parent.parent.parent / "shared" / "cases" / "peers"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"the reference case {name} is not in MIBENCH_CASES={root}")
        return root / name

    return find


#: Runs commands one after the other, and prints what each answered and which modules were there after it.
COMMANDS = """
import contextlib, io, json, sys
from mibench.cli.main import main
found = {}
for line in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(line.split())
    found[line] = [status, out.getvalue(), list(sys.modules)]
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def light_commands() -> Mapping[str, tuple[int, str, set[str]]]:
    """Status, output and loaded modules of the commands that need no torch, by their words.

    They run in a process of their own, those that load least first.
    """
    words = ("--help", "list", "fetch", "plan grid=first")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *words], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 0, done.stderr
    return {line: (status, out, set(modules)) for line, (status, out, modules) in json.loads(done.stdout).items()}


@pytest.fixture(scope="session")
def graph_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of datasets whose Cora is a stochastic block model: 7 blocks of 24 nodes, whose words hardly differ.

    Nodes of one block are linked with probability 0.2, others with 0.004.
    """
    draws, nodes = torch.Generator().manual_seed(0), 7 * 24
    y = torch.arange(nodes) % 7
    linked = torch.rand(nodes, nodes, generator=draws) < torch.where(y[:, None] == y, 0.2, 0.004)
    edges = linked.triu(1).nonzero().T
    rare, own = torch.full((nodes, 70), 0.2), torch.arange(70) % 7 == y[:, None]
    words = torch.rand(nodes, 70, generator=draws) < rare + 0.05 * own
    train, test = (torch.zeros(nodes, dtype=torch.bool) for _ in range(2))
    train[:70], test[70:] = True, True
    both = torch.cat([edges, edges.flip(0)], 1)
    root = tmp_path_factory.mktemp("graphs")
    graph = SimpleNamespace(x=words.float(), edge_index=both, y=y, train_mask=train, test_mask=test)
    write_graph(root / "planetoid" / "cora.npz", graph)
    return root


@pytest.fixture(scope="session")
def graph_cell(make_cell: Callable[..., Cell], graph_root: Path) -> Callable[..., Cell]:
    """Composes a smoke cell on that graph: ``graph_cell("attack=link_stealing")``."""
    pytest.importorskip("torch_geometric")
    return lambda *words, **options: make_cell("dataset=cora", f"paths.data={graph_root}", *words, **options)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real datasets, ``$MIBENCH_DATA``; tests that need it are skipped where it is not set."""
    root = os.environ.get("MIBENCH_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("MIBENCH_DATA is not set to a folder of datasets")
    return Path(root)
