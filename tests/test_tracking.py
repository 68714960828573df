"""W&B gets a copy of a finished cell, and nothing that W&B does reaches the cell."""

import http.server
import json
import logging
import os
import socket
import sys
import threading
import time
import types
from pathlib import Path

import forking
import pytest

from mibench import training as module
from mibench.cli.run_command import run_composed
from mibench.leaderboard.shards import read_shard
from mibench.planning.composition import build, compose, plain
from mibench.planning.plan import plan_cell
from mibench.reporting import tracking
from mibench.reporting.tracking import WandbLogger, log_records
from mibench.training import Recipe, Training

ROOT = Path(__file__).parent.parent
TINY = ["attack=mi_face", "budget=smoke", "attack.iterations=2", "dataset.size=8", "target.recipe.epochs=1",
        "target.recipe.min_steps=20", "evaluation.min_steps=20", "metric=[attack_accuracy]", "device=cpu", "threads=1",
        "evaluation.models=[mlp]", "evaluation.count=1"]  # fmt: skip
KEY = "0" * 40


#: Runs the command line, and adds 10 to its status where W&B was imported.
WHETHER_IMPORTED = (
    "import sys; from mibench.cli.main import main; status = main(); sys.exit(status + 10 * ('wandb' in sys.modules))"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tracking")


def places(folder):
    return [f"paths.store={folder}/store", f"paths.results={folder}/results"]


@pytest.fixture(scope="module")
def mibench(folder):
    """Runs one tiny cell in a process that knows no key but the one given, and returns it with its seconds."""
    unknown = {name: None for name in os.environ if name.startswith("WANDB_")}
    home = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "OMP_NUM_THREADS": "1", "MIBENCH_PROGRESS": "0"}

    def run(*words, code="", **variables):
        start = time.perf_counter()
        status, out, err = process(*TINY, *places(folder), *words, code=code, **{**unknown, **home, **variables})
        return types.SimpleNamespace(returncode=status, stdout=out, stderr=err), time.perf_counter() - start

    (folder / "said").mkdir()
    with forking.forks(folder / "said") as process:
        yield run


@pytest.fixture(scope="module")
def outcome(folder):
    """One tiny cell, run once: its plan and what it left."""
    from mibench.running.cell import Cell

    plan = plan_cell(compose([*TINY, *places(folder)]))
    return plan, Cell(plan).run()


@pytest.fixture(scope="module")
def offline(mibench, folder, outcome):
    """The same cell with ``logger=wandb`` where there is no key: the process, its seconds, and W&B's file."""
    done, seconds = mibench("logger=wandb", "overwrite=always", code=WHETHER_IMPORTED)
    (file,) = (folder / "results" / "wandb").glob("offline-run-*/*.wandb")
    return done, seconds, file


def records(file):
    """Yields the records of W&B's file."""
    from wandb.proto.wandb_internal_pb2 import Record

    for record, _ in log_records(file.read_bytes()):
        yield Record.FromString(record)


def pairs(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_offline_the_copy_holds_config_numbers_curve_rows_and_picture(offline, outcome):
    done, _, file = offline
    assert done.returncode == 10 and "attack_accuracy" in done.stdout, done.stderr
    assert "W&B" not in done.stderr, "no key is no failure"
    config, summary, losses = {}, {}, []
    for record in records(file):
        config |= pairs([*record.run.config.update, *record.config.update])
        summary |= pairs([*record.run.summary.update, *record.summary.update])
        history = pairs(record.history.item)
        summary |= history
        losses += [history["victim/loss"]] if "victim/loss" in history else []
    plan, result = outcome
    assert config["cell_id"] == plan.cell_id and config["attack"]["iterations"] == 2
    assert losses == pytest.approx([loss for _, loss in result.curve]) and len(losses) > 5
    row = read_shard(result.shard).query("status == 'ok' and variant == 'top1' and evaluator == 'mlp'").iloc[0]
    assert summary["attack_accuracy/top1/mlp"] == pytest.approx(row["value"])
    assert summary["attack_accuracy/top1/mlp/lift"] == pytest.approx(row["lift"])
    assert summary["rows/nrows"] == len(read_shard(result.shard)) and summary["pictures/format"] == "png"


def test_the_logger_is_no_part_of_what_a_cell_is(outcome):
    plan, _ = outcome
    assert plan_cell(compose([*TINY, "logger=wandb", "logger.project=mine"])).cell_id == plan.cell_id
    assert "logger" not in plan.description


def test_without_a_logger_wandb_is_not_imported(mibench, offline):
    done, _ = mibench("logger=none", "overwrite=always", code=WHETHER_IMPORTED)
    assert done.returncode == 0 and offline[0].returncode == 10, done.stderr


def test_a_refused_network_costs_the_timeout_and_a_sentence(mibench, offline, tmp_path):
    done, seconds = mibench(
        "logger=wandb", "logger.init_timeout=2", "overwrite=always", f"logger.dir={tmp_path}",
        WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 0 and "attack_accuracy" in done.stdout, done.stderr
    assert done.stderr.count("W&B") == 1 and "no success within 2 seconds" in done.stderr
    assert seconds < offline[1] + 2 + 15, "W&B's own patience is 90 seconds"
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_a_network_that_never_answers_holds_up_neither_the_cell_nor_the_end_of_the_process(mibench, offline, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done, seconds = mibench(
            "logger=wandb", "logger.init_timeout=2", "overwrite=always", f"logger.dir={tmp_path}",
            WANDB_API_KEY=KEY, WANDB_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )  # fmt: skip
    assert done.returncode == 0 and "no success within 2 seconds" in done.stderr
    assert seconds < offline[1] + 2 + 15


class Service(http.server.BaseHTTPRequestHandler):
    """As much of W&B's server as a run needs; what it is sent is kept."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.got.append(body)
        asked = json.loads(body) if self.path == "/graphql" else {}
        names = asked.get("variables", {}).get("files", [])
        files = [{"name": name, "uploadUrl": f"{self.server.url}/{name}"} for name in names]
        project = {"name": "mibench", "entity": {"name": "me"}}
        artifact = {"id": "1", "state": "COMMITTED", "artifactSequence": {"id": "1", "latestArtifact": None}}
        answers = {
            "UpsertBucket": {"upsertBucket": {"bucket": {"id": "1", "name": "run", "project": project}}},
            "CreateRunFiles": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}},
            "CreateArtifact": {"createArtifact": {"artifact": artifact}},
        }
        self.answer({"data": answers.get(asked.get("operationName"), {})})

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.got.append(self.path)
        self.answer({})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    made.daemon_threads, made.handle_error = True, lambda *_: None
    made.got, made.status = [], 200
    made.url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("status", [200, 401])
def test_with_a_key_the_copy_is_sent_and_a_refusal_is_said(mibench, service, offline, tmp_path, folder, status):
    service.status = status
    done, _ = mibench(
        "logger=wandb", "logger.init_timeout=60", "overwrite=always", f"logger.dir={tmp_path}",
        WANDB_API_KEY=KEY, WANDB_BASE_URL=service.url,
    )  # fmt: skip
    assert done.returncode == 0 and "attack_accuracy" in done.stdout, done.stderr
    sent = "\n".join(service.got)
    if status == 401:
        assert done.stderr.count("W&B") == 1 and "W&B did not take the cell" in done.stderr
    else:
        assert "W&B" not in done.stderr
        assert "cell_id" in sent and "attack_accuracy/top1/mlp" in sent and "victim/loss" in sent and ".png" in sent
        assert str(folder) not in sent and str(ROOT) not in sent, "no path of the machine is sent"


def fake_wandb(monkeypatch, breaks_at=""):
    """Puts a W&B in the place of the real one that keeps what it is told and raises at one step."""
    told = []

    def step(name):
        def call(*positional, **named):
            told.append((name, positional, named))
            if name == breaks_at:
                raise RuntimeError(f"{name} broke\nand said more")
            return fake.run

        return call

    fake = types.ModuleType("wandb")
    fake.run = types.SimpleNamespace(log=step("log"), finish=step("finish"), dir="/there/run/files")
    fake.run.summary = types.SimpleNamespace(update=step("sum"))
    fake.run.settings = types.SimpleNamespace(base_url="https://api.wandb.ai")
    fake.init, fake.Settings = step("init"), dict
    fake.Table = lambda **facts: facts
    fake.Image = lambda path: path
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(WandbLogger, "unreachable", False)
    return told


@pytest.mark.parametrize("step", ["init", "log", "sum", "finish"])
def test_whatever_breaks_in_wandb_costs_one_sentence(folder, outcome, monkeypatch, caplog, capsys, step):
    told = fake_wandb(monkeypatch, breaks_at=step)
    with caplog.at_level(logging.WARNING, "mibench"):
        words = ["logger=wandb", "logger.mode=offline", "overwrite=always"]
        assert run_composed(compose([*TINY, *places(folder), *words])) == 0
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1 and "W&B" in warnings[0] and f"{step} broke" in warnings[0]
    assert "\n" not in warnings[0] and "safe" in warnings[0]
    assert "attack_accuracy" in capsys.readouterr().out and told[-1][0] == step
    assert set(read_shard(outcome[1].shard)["status"]) == {"ok", "skipped"}


def test_without_wandb_installed_the_cell_ends_all_the_same(folder, outcome, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    WandbLogger(dir=folder).log(*outcome)
    assert caplog.messages[0].startswith("W&B failed")


def test_a_server_that_was_not_reached_is_not_waited_for_again(outcome, monkeypatch, tmp_path, caplog):
    fake_wandb(monkeypatch)
    asked = []
    monkeypatch.setattr("mibench.reporting.tracking.send", lambda *what: asked.append(what) or "no network")
    for _ in range(3):
        WandbLogger(mode="online", dir=tmp_path, init_timeout=7).log(*outcome)
    assert asked == [(Path("/there/run"), 7)] and len(caplog.messages) == 1 and "no network" in caplog.messages[0]


@pytest.mark.parametrize(
    ("mode", "variables", "online"),
    [
        ("auto", {}, False),
        ("auto", {"WANDB_API_KEY": KEY}, True),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, False),
        ("auto", {"NETRC": "one with the host"}, True),
        ("auto", {"NETRC": "one without it"}, False),
        ("offline", {"WANDB_API_KEY": KEY}, False),
        ("online", {}, True),
    ],
)
def test_online_is_chosen_by_a_key(outcome, monkeypatch, tmp_path, mode, variables, online):
    fake_wandb(monkeypatch)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    host = "api.wandb.ai" if "with the" in variables.get("NETRC", "") else "b.c"
    netrc.write_text(f"machine {host} login a password b\n")
    netrc.chmod(0o600)
    for name, value in {"NETRC": "", **variables}.items():
        monkeypatch.setenv(name, str(netrc) if name == "NETRC" else value)
    asked = []
    monkeypatch.setattr("mibench.reporting.tracking.send", lambda *what: asked.append(what) or "")
    WandbLogger(mode=mode, dir=tmp_path).log(*outcome)
    assert bool(asked) == online


@pytest.mark.parametrize(
    ("dataset", "pictures", "copied"),
    [
        ("digits", "shareable", True),
        ("att_faces", "shareable", False),
        ("att_faces", "all", True),
        ("digits", "none", False),
    ],
)
def test_pictures_that_are_not_to_be_shown_stay_here(outcome, monkeypatch, tmp_path, dataset, pictures, copied):
    told = fake_wandb(monkeypatch)
    plan = plan_cell(compose([*TINY, f"dataset={dataset}"]))
    build(plain(compose(["logger=wandb", f"logger.pictures={pictures}", f"paths.results={tmp_path}"]).logger)).log(
        plan, outcome[1]
    )
    logged = [key for name, positional, _ in told if name == "log" for key in positional[0]]
    assert ("pictures" in logged) == copied and "rows" in logged and "victim/loss" in logged


def test_the_loss_curve_is_thinned_falls_and_changes_nothing(digits8, monkeypatch):
    def trained(points):
        import torch

        from mibench.targets.cnn import Cnn

        monkeypatch.setattr(module, "CURVE_POINTS", points)
        torch.manual_seed(0)
        model = Cnn(spec=digits8.spec, width=4)
        training = Training(
            model, digits8.private.train, Recipe(epochs=4, batch_size=8, lr=5e-3), 0, torch.device("cpu")
        )
        return training.run().state_dict(), training.curve

    (dense, many), (thin, few) = trained(10**6), trained(20)
    assert all(dense[name].equal(thin[name]) for name in dense)
    assert len(many) == 4 * (len(digits8.private.train) // 8) and 10 < len(few) <= 20
    assert set(few) <= set(many)
    assert sum(loss for _, loss in few[-5:]) < 0.5 * sum(loss for _, loss in few[:5])


@pytest.mark.parametrize(("variable", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_where_wandb_is_disabled_nothing_is_started(outcome, monkeypatch, tmp_path, variable, value):
    told = fake_wandb(monkeypatch)
    monkeypatch.setenv(variable, value)
    WandbLogger(dir=tmp_path / "copies").log(*outcome)
    assert not told and not (tmp_path / "copies").exists()


def test_a_cell_is_one_run_however_often_it_is_run(outcome, monkeypatch, tmp_path):
    told, plan = fake_wandb(monkeypatch), outcome[0]
    monkeypatch.setattr(tracking, "is_whole", lambda _file: True)
    logger = WandbLogger(dir=tmp_path, mode="offline")
    for place in range(2):
        folder = tmp_path / "wandb" / f"offline-run-{place}-{logger._id(plan)}"
        (folder / "files").mkdir(parents=True)
        sys.modules["wandb"].run.dir = str(folder / "files")
        logger.log(*outcome)
    ids = [named["id"] for name, _, named in told if name == "init"]
    assert len(set(ids)) == 1 and [one.name for one in (tmp_path / "wandb").iterdir()] == [f"offline-run-1-{ids[0]}"]
    assert WandbLogger(project="another")._id(plan) != ids[0]


def test_a_run_that_does_not_end_on_a_full_disk_is_said(offline, outcome, monkeypatch, tmp_path, caplog):
    file = offline[2]
    assert tracking.is_whole(file)
    cut = tmp_path / file.name
    for length in (7, file.stat().st_size // 2, file.stat().st_size - 3):
        cut.write_bytes(file.read_bytes()[:length])
        assert not tracking.is_whole(cut, seconds=0)
    assert not tracking.is_whole(tmp_path / "none", seconds=0)
    fake_wandb(monkeypatch)
    sys.modules["wandb"].run.dir = str(tmp_path / "files")
    monkeypatch.setattr(tracking, "is_whole", lambda _file: False)
    WandbLogger(dir=tmp_path, mode="offline").log(*outcome)
    assert caplog.messages[-1].startswith("W&B failed (the run below") and "disk full" in caplog.messages[-1]
