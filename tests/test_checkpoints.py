"""A training that is killed goes on to the very bits of one that ran through."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import nn

from mibench.access import Ledger
from mibench.storage import checkpoints
from mibench.storage.checkpoints import Checkpoints
from mibench.storage.store import Store


class Training:
    """A network, its optimiser and a generator; its steps draw from the generator and from torch's global one."""

    def __init__(self, width=4):
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-2)
        self.draws = torch.Generator().manual_seed(1)
        self.ledger = Ledger()

    def run(self, file=None, count=7, die_at=None):
        """Trains; with ``die_at`` in the middle of that step it is killed. Returns the steps taken."""
        taken = []
        kept = Checkpoints(file, self.ledger)
        for step in kept.steps(count, "test", net=self.net, adam=self.adam, draws=self.draws):
            taken.append(step)
            self.ledger.charge(10, gradient=False)
            x = torch.randn(8, 3, generator=self.draws) + torch.rand(8, 3)
            self.adam.zero_grad()
            self.net(x).square().mean().backward()
            if step == die_at:
                raise KeyboardInterrupt
            self.adam.step()
        return taken

    def bits(self):
        state = {**self.net.state_dict(), "draws": self.draws.get_state(), "global": torch.get_rng_state()}
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)


@pytest.fixture
def killed(tmp_path, often):
    """The checkpoint of a training that was killed in step 4."""
    file = tmp_path / ".unfinished-abc"
    with pytest.raises(KeyboardInterrupt):
        Training().run(file, die_at=4)
    return file


def whole():
    training = Training()
    training.run()
    return training.bits()


def test_a_killed_training_goes_on_to_the_same_bits(killed):
    expected = whole()
    again = Training()
    assert again.run(killed) == [4, 5, 6]
    assert again.bits() == expected and again.ledger.queries == 70
    forgetful = Training()  # a stub that forgets the generators is told apart
    forgetful.run(count=4)
    forgetful.draws.manual_seed(1)
    forgetful.run(count=3)
    assert forgetful.bits() != expected


def test_without_a_file_nothing_is_saved(often, tmp_path):
    assert Training().run() == list(range(7)) and not list(tmp_path.iterdir())


def test_no_checkpoint_is_written_before_its_time(tmp_path):
    Training().run(tmp_path / ".unfinished-abc")
    assert not list(tmp_path.iterdir())


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def with_digest(raw):
    return hashlib.sha256(raw).digest() + raw


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "evil", "another"])
def test_one_that_cannot_be_used_is_removed_and_the_training_begins_anew(harm, killed, caplog):
    raw = killed.read_bytes()
    touched = killed.with_name("touched")
    killed.write_bytes(
        {
            "flipped": raw[:-200] + bytes([raw[-200] ^ 1]) + raw[-199:],
            "cut": raw[: len(raw) // 2],
            "empty": b"",
            "evil": with_digest(pickle.dumps(Evil(touched))),
            "another": raw,
        }[harm]
    )
    file = killed.rename(killed.with_name(".unfinished-def")) if harm == "another" else killed
    again = Training()
    assert again.run(file, count=1) == [0]
    assert not file.exists() and not touched.exists() and "begins anew" in caplog.text


def test_one_of_other_networks_leaves_no_trace_in_them(killed):
    expected = Training(width=5)
    expected.run()
    other = Training(width=5)
    assert other.run(killed) == list(range(7)) and other.bits() == expected.bits()


def test_one_that_cost_more_than_the_budget_is_not_used(killed):
    training = Training()
    training.ledger = Ledger(budget=30)
    assert training.run(killed, count=3) == [0, 1, 2]


def test_a_full_disk_costs_the_checkpoint_only(often, tmp_path, caplog):
    (tmp_path / "missing").touch()
    assert Training().run(tmp_path / "missing" / "file") == list(range(7))
    assert "the training goes on" in caplog.text


@pytest.mark.parametrize(
    ("prior", "attack"),
    [
        ("wgan_gp", "random_prior"),
        ("style_gan", "ppa"),
        ("inversion_gan", "kedmi"),
        ("projection_cgan", "plgmi"),
        ("inpainting_gan", "secretgen"),
        ("flow", "random_prior"),
    ],
)
def test_every_prior_survives_a_kill(prior, attack, make_cell, tmp_path, often, monkeypatch):
    """In whole cells: killed after step 2, gone on with, and against the same from the beginning."""
    options = [f"attack={attack}", f"prior={prior}", "prior.iterations=4", "dataset.size=8", "target.recipe.epochs=1",
               "target.recipe.min_steps=0"]  # fmt: skip

    def made():
        cell = make_cell(*options, folder=tmp_path)
        view = cell.observation.view
        knowledge, _ = cell.knowledge_of(cell.victim, cell.split.private, view)
        return knowledge.prior.state_dict(), view.ledger.state()

    save = Checkpoints._save

    def save_and_die(self, file, step, seconds, parts):
        save(self, file, step, seconds, parts)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        made()
    monkeypatch.setattr(Checkpoints, "_save", save)
    store = Store(tmp_path / "store")
    (left,) = store.unfinished()
    assert left.kind == "prior" and left.size > 0
    (weights, ledger) = made()
    assert not list(store.unfinished()), "an artifact that is complete leaves no checkpoint"
    (artifact,) = [one for one in store.artifacts() if one.kind == "prior"]
    assert artifact.digest == left.digest
    sheet = np.asarray(Image.open(artifact.path / "samples.png").convert("L"))
    assert len(np.unique(sheet)) > 20 and sheet.shape[1] > 8 * 96
    store.collect({one.digest for one in store.artifacts()} - {artifact.digest})
    assert not artifact.path.exists()
    through, counted = made()
    assert all(torch.equal(weights[name], value) for name, value in through.items()) and ledger == counted


def test_collecting_spares_what_is_being_built(tmp_path):
    store = Store(tmp_path)
    file = store.unfinished_path("prior", {"a": 1})
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(100))
    file.with_name(f".tmp-{file.name}").write_bytes(bytes(10))
    (one,) = store.unfinished()
    assert store.collect({one.digest}) == 0 and file.exists()
    with FileLock(f"{store.path('prior', {'a': 1})}.lock"):
        assert store.collect(set()) == 0 and file.exists()
    assert store.collect(set()) == 100 and not [path for path in file.parent.iterdir() if path.suffix != ".lock"]
