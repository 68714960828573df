"""The Python interface: one cell, and the audit of a module that lives in this process."""

import logging
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn

import mibench
from mibench.errors import BudgetExhausted, IncompatibleCellError, UserError
from mibench.planning.catalogue import PACKAGE

TINY = ["dataset.channels=1", "target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.models=[mlp]",
        "device=cpu", "attack.iterations=2"]  # fmt: skip


def network(classes=5):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, classes)
    )  # fmt: skip


class Token(nn.Module):
    """A network with a parameter that nothing can draw afresh."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(64))
        self.out = nn.Linear(64, 5)

    def forward(self, x):
        return self.out(x.flatten(1) + self.token)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits8):
    """The digits as class folders named 0-9, of which a model knows 0-4; the folder's name is hard to quote."""
    root = tmp_path_factory.mktemp("data") / "it's = my, data"
    known, others = digits8.private.train, digits8.public
    for x, y in [*zip(known.x, known.y, strict=True), *zip(others.x, others.y + 5, strict=True)]:
        place = root / str(int(y))
        place.mkdir(parents=True, exist_ok=True)
        if len(list(place.iterdir())) < 40:
            Image.fromarray((x[0] * 255).byte().numpy()).save(place / f"{len(list(place.iterdir())):02}.png")
    return root


@pytest.fixture(scope="module")
def model(digits8):
    torch.manual_seed(0)
    own = network()
    optimizer, data = torch.optim.Adam(own.parameters(), 1e-2), digits8.private.train
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(own((data.x - 0.5) / 0.5), data.y).backward()
        optimizer.step()
    return own


@pytest.fixture(scope="module")
def audited(folder, model, tmp_path_factory):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = tmp_path_factory.mktemp("audit")
    frame = mibench.audit(
        model, folder, public=5, attacks=["mi_face"], defenses=["none", "rounding", "bido"], mean=[0.5], std=[0.5],
        results=results, options=TINY,
    )  # fmt: skip
    return frame, results, before


def test_an_audit_measures_the_module_that_was_handed_over(audited, model):
    frame, _, before = audited
    own = frame[(frame["metric"] == "target_accuracy") & (frame["variant"] == "victim")]
    assert own["value"].item() > 0.9, "an untrained or unnormalised copy would be near 0.2"
    assert frame["control"].notna().any() and set(frame["target"]) == {"checkpoint"}
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_cannot_be_audited_leaves_its_reason(audited):
    frame, _, _ = audited
    reasons = frame[frame["status"] == "skipped"].set_index("defense")["reason"]
    assert reasons["rounding"].startswith("Vacuous") and "trained again" in reasons["bido"]


def test_an_audit_leaves_a_report_and_is_not_run_twice(audited, folder, model, caplog):
    frame, results, _ = audited
    page = (results / "reports").glob("*.html")
    assert [str(path) for path in page] == [frame.attrs["report"]]
    caplog.set_level(logging.INFO)
    again = mibench.audit(
        model, folder, public=5, attacks=["mi_face"], mean=[0.5], std=[0.5], results=results, options=TINY
    )
    assert "has been run" in caplog.text and "Training" not in caplog.text
    assert set(again["cell_id"]) < set(frame["cell_id"])
    assert again["created_at"].iloc[0] in set(frame["created_at"])


def test_an_audit_from_a_factory_and_a_file(folder, model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "owns_a_net.py").write_text(
        "from torch import nn\n"
        "def build(classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), "
        "nn.Linear(128, classes))\n"
    )
    torch.save(model.state_dict(), tmp_path / "w.pt")
    frame = mibench.audit(
        "owns_a_net:build", folder, weights=tmp_path / "w.pt", public=5, attacks=["mi_face"], mean=[0.5], std=[0.5],
        control="none", budget="smoke", results=tmp_path / "out", options=[*TINY, "target.arguments={classes: 5}"],
    )  # fmt: skip
    own = frame[(frame["metric"] == "target_accuracy") & (frame["variant"] == "victim")]
    assert own["value"].item() > 0.9 and frame["control"].isna().all()


def test_a_module_without_fresh_weights_needs_control_none(folder, tmp_path):
    with pytest.raises(UserError, match="'' has weights of its own and no reset_parameters"):
        mibench.audit(Token(), folder, public=5, results=tmp_path, options=TINY)
    frame = mibench.audit(
        Token(), folder, public=5, attacks=["mi_face"], control="none", budget="smoke", results=tmp_path, options=TINY
    )
    assert frame["control"].isna().all() and (frame["status"] == "ok").any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda folder, out: mibench.audit(network(7), folder, public=5, results=out, options=TINY), "7 classes apart"),
        (lambda folder, out: mibench.audit(network(), folder / "no", results=out, options=TINY), "not a folder"),
        (lambda folder, out: mibench.audit("torch.nn:Linear", folder, results=out), "weights=FILE"),
        (lambda folder, out: mibench.audit(network(), folder, weights="a.pt", results=out), "beside a factory"),
        (lambda folder, out: mibench.audit(network(), folder, attacks=[], results=out), "at least one attack"),
        (lambda folder, out: mibench.audit(network(), folder, attacks=["gmy"], results=out), "gmi"),
        (lambda folder, out: mibench.audit(network(), folder, attacks=["gmi"], results=out, options=TINY), "public"),
        (lambda folder, out: mibench.run("attack=gmy"), "did you mean gmi"),
        (lambda folder, out: mibench.run("seed=abc"), "seed"),
    ],
)
def test_a_mistake_is_an_error_of_one_sentence(call, said, folder, tmp_path):
    with pytest.raises(UserError, match=said) as caught:
        call(folder, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_audit_of_a_table(tmp_path):
    """The response is the sensitive value, and so is the audited model's answer: every record is inferred."""
    import pandas as pd

    table = pd.DataFrame({"number": range(300), "letter": list("abc") * 100, "answer": list("xyz") * 100})
    table.iloc[:200].to_csv(tmp_path / "own.csv", index=False)
    table.iloc[200:].to_csv(tmp_path / "others.csv", index=False)
    model = nn.Sequential(nn.Linear(2, 3))
    with torch.no_grad():  # far from the letter's code, the other answers are less likely
        model[0].weight.copy_(torch.tensor([[0.0, -20.0], [0.0, 0.0], [0.0, 20.0]]))
        model[0].bias.copy_(torch.tensor([10.0, 0.0, -30.0]))
    options = {"response": "answer", "sensitive": "letter", "results": tmp_path / "results", "options": ["device=cpu"]}
    frame = mibench.audit(model, tmp_path / "own.csv", public=tmp_path / "others.csv", **options)
    inferred = frame[frame["metric"] == "attribute_accuracy"]
    assert (inferred["value"] == 1).all() and len(inferred)
    with pytest.raises(UserError, match="public=FILE"):
        mibench.audit(model, tmp_path / "own.csv", public=3, **options)
    with pytest.raises(UserError, match="for tables only"):
        mibench.audit(model, tmp_path, response="answer")


def test_run_gives_the_rows_of_a_cell_and_reads_them_again(tmp_path):
    words = f"attack=mi_face attack.iterations=2 budget=smoke dataset.size=8 paths.results='{tmp_path}/my results' "
    words += f"paths.store={tmp_path}/store target.recipe.epochs=1 target.recipe.min_steps=0 evaluation.models=[mlp]"
    frame = mibench.run(words)
    assert set(frame["metric"]) >= {"attack_accuracy", "target_accuracy"} and set(frame["attack"]) == {"mi_face"}
    assert (tmp_path / "my results" / "shards").is_dir()
    assert mibench.run(words)["created_at"].tolist() == frame["created_at"].tolist()
    with pytest.raises(IncompatibleCellError, match="Vacuous"):
        mibench.run(["attack=mi_face", "defense=rounding"])


def test_importing_mibench_is_light():
    code = "import sys, mibench; assert 'torch' not in sys.modules and 'hydra' not in sys.modules; mibench.nothing"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert "AttributeError: module 'mibench' has no attribute 'nothing'" in done.stderr


def test_what_there_is_to_use_can_be_listed():
    assert dir(mibench) == ["__version__", "audit", "compare", "results", "run", "view"]


@pytest.mark.parametrize("access", ["white_box", "scores", "labels", "gradients"])
def test_a_view_of_ones_own_module_counts_and_holds_no_private_image(access, digits8):
    private = digits8.private.train
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    view, knowledge, goal = mibench.view(module, private, access=access, public=digits8.public, query_budget=10)
    assert knowledge.public is digits8.public
    images = digits8.public.x[:6]
    if access == "gradients":
        logits = module(private.x[:1])
        expected = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, private.y[:1]), module[1].weight)[0]
        sent = next(value for name, value in view.messages[0].items() if value.shape == expected.shape)
        assert torch.allclose(sent, expected, atol=1e-6) and (goal.messages, goal.batch_size) == (1, 1)
        view.gradient(images, torch.zeros(6, dtype=torch.long))
    else:
        assert goal.labels.tolist() == list(range(5))
        answer = view.query(images) if access != "white_box" else view.logits(images)
        expected = module(images) if access == "white_box" else module(images).softmax(1)
        assert (
            torch.allclose(answer, expected, atol=1e-6) if access != "labels" else (answer == expected.argmax(1)).all()
        )
    assert view.ledger.queries == 6
    ask = {
        "gradients": lambda x: view.gradient(x, torch.zeros(6, dtype=torch.long)),
        "white_box": lambda x: view.logits(x),
    }
    with pytest.raises(BudgetExhausted):
        ask.get(access, lambda x: view.query(x))(images)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_view_of_another_access_is_refused(digits8):
    with pytest.raises(UserError, match="view offers access white_box, scores, labels or gradients"):
        mibench.view(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5)), digits8.private.train, access="x")
