"""A user's own module: reproduced exactly, counted, differentiable, and refused in one sentence where it cannot be."""

import copy
import dataclasses
import json
import math
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mibench
from mibench.access import GradientsView, Ledger, WhiteBoxView
from mibench.data import Column, InputSpec
from mibench.defenses.rounding import Rounding
from mibench.errors import IncompatibleCellError, UserError
from mibench.nn.foreign import register
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.targets.checkpoint import Checkpoint
from mibench.training import Recipe, Training

SPEC = InputSpec("image", (1, 8, 8), 5)


class Odd(nn.Module):
    """Head registered first, dropout, batch norm, in-place activation and a functional end."""

    def __init__(self, classes=5):
        super().__init__()
        self.out = nn.Linear(16, classes)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.mid = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5))

    def forward(self, x):
        return self.out(torch.relu(self.mid(self.body(x)))).log_softmax(1)


ODD = register("odd", Odd)
VALUES = {
    "three": lambda: 3,
    "raises": lambda: 1 / 0,
    "tuple": lambda: Returning(lambda x: (x, x)),
    "probabilities": lambda: nn.Sequential(Odd(), nn.Softmax(1)),
    "colour": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)),
    "empty": lambda: nn.Sequential(nn.Flatten(), nn.Identity()),
}
for _name, _build in VALUES.items():
    register(_name, _build)


class Returning(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.fixture
def trained(tmp_path):
    """A module with weights of its own and used batch-norm statistics, and the two files of its weights."""
    torch.manual_seed(1)
    module = Odd()
    for _ in range(3):
        module(2 * torch.randn(16, 1, 8, 8) + 1)
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}}, tmp_path / "w.pt"
    )
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    return module.eval(), tmp_path


@pytest.mark.parametrize("file", ["w.pt", "w.safetensors"])
def test_logits_are_the_modules_own(trained, file):
    module, folder = trained
    model = Checkpoint(spec=SPEC, factory=ODD, weights=str(folder / file), mean=[0.3], std=[0.2]).eval()
    x = torch.rand(6, 1, 8, 8)
    assert torch.equal(model(x), module((x - 0.3) / 0.2))
    logits, blocks = model.forward_with_blocks(x)
    assert torch.equal(logits, model(x)) and torch.equal(blocks[-1], model.features(x))
    assert torch.allclose(model.head(model.features(x)).log_softmax(1), model(x), atol=1e-6)
    assert not torch.allclose(module(x), model(x)), "the check would see a missing normalisation"


def test_the_feature_is_the_last_linear_layers_input_or_the_named_modules_output(trained):
    module, folder = trained
    x = torch.rand(3, 1, 8, 8)
    given = {"spec": SPEC, "factory": ODD, "weights": str(folder / "w.pt")}
    assert torch.equal(Checkpoint(**given).eval().features(x), torch.relu(module.mid(module.body(x))))
    named = Checkpoint(**given, features="body").eval()
    assert torch.equal(named.features(x), module.body(x).flatten(1)) and torch.equal(named(x), module(x))


def test_the_model_resizes_its_own_input(trained):
    module, folder = trained
    spec = InputSpec("image", (1, 12, 12), 5)
    model = Checkpoint(spec=spec, factory=ODD, weights=str(folder / "w.pt"), size=8).eval()
    x = torch.rand(2, 1, 12, 12, requires_grad=True)
    small = nn.functional.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    assert torch.equal(model(x), module(small))
    assert torch.autograd.grad(model(x)[:, 0].sum(), x)[0].shape == x.shape


def test_every_path_is_counted_on_a_copy_of_its_own(trained):
    module, folder = trained
    model = Checkpoint(spec=SPEC, factory=ODD, weights=str(folder / "w.pt")).eval()
    ledger = Ledger()
    view = WhiteBoxView.of(model, SPEC, ledger, torch.device("cpu"))
    x = torch.rand(2, 1, 8, 8)
    for path in (view.logits, view.model.features, view.model.blocks, view.model.forward_with_blocks):
        path(x)
    assert ledger.queries == 8
    with torch.no_grad():
        view.model.head.weight.zero_()
    assert not torch.equal(view.logits(x), model(x)), "the copy's head is the layer that its forward runs"
    assert torch.equal(model(x), module(x))


def test_parameters_are_visible_once_and_the_head_by_name():
    model = Checkpoint(spec=SPEC, factory=ODD)
    names = dict(model.named_parameters())
    assert sum(p.numel() for p in names.values()) == sum(p.numel() for p in Odd().parameters())
    assert {"head.weight", "head.bias"} <= set(names)
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in names.values())
    restored = copy.deepcopy(model)
    restored.load_state_dict(model.state_dict())


def test_without_weights_the_head_fits_the_classes():
    model = Checkpoint(spec=InputSpec("image", (1, 8, 8), 9), factory=ODD).eval()
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 9)
    assert model.head.out_features == 9


def test_a_table_model_takes_records_scaled_by_column():
    """``arguments`` reach the factory, too."""
    spec = InputSpec("tabular", (2,), 3, (Column("a"), Column("b")))
    given = {"factory": "torch.nn:Linear", "arguments": {"in_features": 2, "out_features": 3}}
    model = Checkpoint(spec=spec, **given, mean=[1.0, 2.0], std=[0.5, 4.0])
    x = torch.tensor([[3.0, 10.0]])
    assert torch.equal(model(x), model.head(torch.tensor([[4.0, 2.0]])))


def test_a_model_of_encoded_records_takes_them_raw_or_relaxed():
    """One value per encoded column; numbers and categories are scaled alike."""
    spec = InputSpec("tabular", (2,), 3, (Column("a"), Column("b", ("u", "v", "w"))))
    given = {"factory": "torch.nn:Linear", "arguments": {"in_features": 4, "out_features": 3}}
    model = Checkpoint(spec=spec, **given, mean=[1.0, 0.5, 0.5, 0.5], std=[2.0, 0.5, 0.5, 0.25]).eval()
    encoded = torch.tensor([[1.0, -1.0, 1.0, -2.0]])
    assert torch.equal(model(torch.tensor([[3.0, 1.0]])), model.head(encoded))
    view = GradientsView.of(model, [], 1, spec, Ledger(), torch.device("cpu")).relaxed()
    assert torch.equal(view.model(encoded), model.head(encoded)) and view.model.entry.width == 4
    plain = Checkpoint(spec=spec, **given, mean=[0.0] * 4)
    assert torch.equal(plain(torch.tensor([[3.0, 1.0]])), plain.head(torch.tensor([[3.0, 0.0, 1.0, 0.0]])))
    with pytest.raises(UserError, match=r"target\.std.*each of the 4 encoded columns.*holds 2"):
        Checkpoint(spec=spec, **given, mean=[0.0] * 4, std=[1.0, 2.0])


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factory": None}, "package.module:name"),
        ({"factory": "Odd"}, "package.module:function"),
        ({"factory": "nowhere.models:build"}, "'nowhere.models' cannot be imported"),
        ({"factory": "torch.nn:build"}, "no function 'build'"),
        ({"factory": "mibench.registered:gone"}, "from there"),
        ({"factory": "mibench.registered:three"}, "returned int"),
        ({"factory": "mibench.registered:raises"}, "ZeroDivisionError"),
        ({"factory": "mibench.registered:tuple"}, "returns tuple"),
        ({"factory": "mibench.registered:probabilities"}, "returns probabilities"),
        ({"factory": "mibench.registered:colour"}, "cannot take inputs of 1 x 8 x 8"),
        ({"factory": "mibench.registered:empty"}, "shape|no layer"),
        ({"factory": "torch.nn:Linear"}, "target.arguments"),
        ({"features": "nothing"}, "features=nothing.*out, body, mid"),
        ({"mean": [0.1, 0.2]}, "target.mean.*1 channels"),
        ({"std": [0.0]}, "target.std"),
        ({"size": 0}, "target.size"),
        ({"weights": "missing.pt"}, "missing.pt is not a file"),
        ({"weights": "broken.pt"}, "broken.pt is refused.*damaged"),
        ({"weights": "broken.safetensors"}, "broken.safetensors cannot be read"),
        ({"weights": "evil.pt"}, "refused.*code, which would be executed"),
        ({"weights": "whole.pt"}, "refused.*code, which would be executed"),
        ({"weights": "list.pt"}, "no state dict"),
        ({"weights": "other.pt"}, "does not fit.*Missing"),
        ({"weights": "seven.pt", "arguments": {"classes": 7}}, "7 classes apart, but the data have 5"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_said_in_one_sentence(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), tmp_path / "evil.pt")
    torch.save(Odd(), tmp_path / "whole.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    torch.save(Odd(7).state_dict(), tmp_path / "seven.pt")
    for name in ("broken.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
    if "weights" in options:
        options = {**options, "weights": str(tmp_path / options["weights"])}
    with pytest.raises(UserError, match=said) as caught:
        Checkpoint(spec=SPEC, **{"factory": ODD, **options})
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not (tmp_path / "executed").exists()


def test_a_last_layer_that_cannot_be_resized_is_said():
    conv = register("conv", lambda: nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten()))
    assert Checkpoint(spec=InputSpec("image", (1, 8, 8), 4), factory=conv).features(torch.rand(2, 1, 8, 8)).shape == (
        2,
        64,
    )
    with pytest.raises(UserError, match="control=none"):
        Checkpoint(spec=SPEC, factory=conv)


def test_a_factory_that_loads_trained_weights_is_told(caplog, trained):
    module, _ = trained
    Checkpoint(spec=SPEC, factory=ODD)
    assert not caplog.records
    Checkpoint(spec=SPEC, factory=register("trained", lambda: copy.deepcopy(module)))
    assert "same weights every time" in caplog.text


# In a cell


@pytest.fixture(scope="module")
def own(tmp_path_factory, digits8):
    """A network of the user's own, trained on the digits 0-4 at 8x8, as overrides."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    wrapped = Checkpoint(spec=digits8.spec, factory=ODD, mean=[0.5], std=[0.5])
    Training(wrapped, digits8.private.train, Recipe(epochs=8, batch_size=64, lr=1e-2), 0, torch.device("cpu")).run()
    save_file(wrapped.trunk.inner.state_dict(), folder / "own.safetensors")
    return [
        "attack=mi_face", "attack.iterations=3", "dataset.size=8", "target=checkpoint", f"target.factory={ODD}",
        f"target.weights={folder}/own.safetensors", "target.mean=[0.5]", "target.std=[0.5]", "target.recipe.epochs=1",
        "target.recipe.min_steps=0", "evaluation.models=[mlp]", "evaluation.min_steps=20",
    ]  # fmt: skip


def test_a_cell_attacks_the_weights_as_they_are(own, make_cell, tmp_path, caplog):
    from safetensors.torch import load_file

    caplog.set_level("INFO")
    cell = make_cell(*own, folder=tmp_path)
    victim = cell.victim.module.trunk.inner.state_dict()
    saved = load_file(next(word for word in own if "weights" in word).partition("=")[2])
    assert all(torch.equal(victim[name], value) for name, value in saved.items())
    assert "% of the private test data (chance 2" in caplog.text
    assert not any(record.levelname == "WARNING" for record in caplog.records)
    assert not (tmp_path / "store" / "victim").exists(), "nothing was trained"


def test_the_control_has_the_architecture_and_none_of_the_weights(own, make_cell, tmp_path, monkeypatch):
    cell = make_cell(*own, "target.recipe.epochs=0", folder=tmp_path)
    attacked, attack = [], cell.attack
    monkeypatch.setattr(cell, "attack", lambda victim, *rest: (attacked.append(victim), attack(victim, *rest))[1])
    outcome = cell.run()
    mine, control = (one.module.trunk.inner for one in attacked)
    assert isinstance(control, Odd)
    equal = [name for name, p in mine.named_parameters() if torch.equal(p, control.get_parameter(name))]
    assert not equal, "an untrained copy of the trained weights would be no control"
    assert any("control victim is near chance" in note for note in outcome.notes), "zero epochs teach it nothing"


def test_a_misread_model_is_warned_of_before_the_attack_and_in_the_notes(own, make_cell, tmp_path, caplog):
    outcome = make_cell(*own, "target.mean=[50.0]", folder=tmp_path).run()
    assert "target.mean" in caplog.text and any("misread" in note for note in outcome.notes)


def test_control_none_leaves_no_control(own, make_cell, tmp_path):
    outcome = make_cell(*own, "control=none", folder=tmp_path).run()
    leaks = [one for one in outcome.scores if one.higher_is_leakier is not None and one.status == "ok"]
    assert leaks and all(math.isnan(one.control) and one.evidence == "no control" for one in leaks)
    assert any("no control" in note for note in outcome.notes)
    assert not any("coincide" in note for note in outcome.notes)
    words = ["dataset.size=8", "target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.models=[mlp]",
             "evaluation.min_steps=20"]  # fmt: skip
    plain = make_cell("attack=mi_face", "attack.iterations=3", "control=none", *words, folder=tmp_path)
    assert plain.control is None
    with pytest.raises(UserError, match="retrain or none"):
        make_cell(*own, "control=some", folder=tmp_path)


def test_a_defense_that_trains_is_refused_and_trains_the_architecture_without_weights(own, make_cell, tmp_path):
    with pytest.raises(IncompatibleCellError, match=r"'bido' acts on training.*trained again"):
        make_cell(*own, "defense=bido", folder=tmp_path)
    without = [word for word in own if "weights" not in word]
    cell = make_cell(*without, "defense=dp_sgd", folder=tmp_path)
    assert cell.victim.reported["epsilon"] > 0


def test_an_output_defense_needs_no_retraining(own, make_cell, tmp_path):
    cell = make_cell(*own, folder=tmp_path)
    scene = dataclasses.replace(cell.scene(), defense=Rounding(step=0.25))
    victim = cell.setting.train(scene, cell.split.private, "victim")
    view = cell.setting.observe(scene, victim, cell.split.private, "scores", 0, Ledger()).view
    x = cell.split.private.test.x[:50]
    assert torch.equal(victim.module(x), cell.victim.module(x))
    assert torch.equal((view.query(x) / 0.25).round() * 0.25, view.query(x))
    assert not torch.equal(view.query(x), victim.module.predict_proba(x))
    assert not (tmp_path / "store" / "victim").exists(), "nothing was trained"


def test_gradient_inversion_meets_the_checkpoint_as_the_global_model(own, make_cell, tmp_path):
    words = [word for word in own if not word.startswith("attack")]
    cell = make_cell("attack=idlg", "attack.iterations=1", *words, "dataset.size=8", folder=tmp_path)
    view = cell.observation.view
    victim = cell.victim.module
    assert torch.equal(view.model.head.weight, victim.head.weight)
    assert {"head.weight", "head.bias"} <= set(view.messages[0])


def test_a_cell_is_its_weights_not_their_path(tmp_path):
    def cell_id(file, **options):
        words = [f"target.{key}={value}" for key, value in options.items()]
        return plan_cell(compose(["target=checkpoint", f"target.weights={tmp_path / file}", *words])).cell_id

    for file, content in (("a.pt", b"one"), ("b.pt", b"one"), ("c.pt", b"two")):
        (tmp_path / file).write_bytes(content)
    assert cell_id("a.pt") == cell_id("b.pt") != cell_id("c.pt")
    assert cell_id("a.pt") != cell_id("a.pt", factory="torch.nn:Linear")


def test_a_cell_is_its_factorys_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_model_a.py").write_text("x = 1")
    (tmp_path / "own_model_b.py").write_text("x = 2")
    from mibench.planning.identity import source_digest

    assert source_digest("own_model_a") != source_digest("own_model_b")
    assert "own_model_a" not in sys.modules and source_digest("nowhere.at.all") == ""


@pytest.mark.parametrize("defense", ["rounding", "top_k", "temperature", "score_noise", "purifier"])
def test_a_finished_model_is_served_behind_an_output_defense(defense, own, make_cell, tmp_path):
    """Nothing is trained but what a purifier or a surrogate learns, and that once; the weights stay."""
    from safetensors.torch import load_file

    short = {"purifier": ["defense.iterations=100"], "score_noise": ["defense.iterations=20"]}.get(defense, [])
    words = [word for word in own if not word.startswith("attack")]
    words += ["attack=nearest_public", "control=none", f"defense={defense}", *short]
    first, again = (make_cell(*words, folder=tmp_path) for _ in range(2))
    saved = load_file(next(word for word in own if "weights" in word).partition("=")[2])
    assert all(torch.equal(first.victim.module.trunk.inner.state_dict()[name], value) for name, value in saved.items())
    x = first.split.private.test.x
    answers = first.observation.view.query(x)
    assert not torch.allclose(answers, first.victim.module.predict_proba(x), atol=1e-4)
    assert float((answers.argmax(1) == first.victim.module(x).argmax(1)).double().mean()) > 0.9
    assert torch.equal(again.observation.view.query(x), answers) and again.victim.reported == first.victim.reported
    kinds = {path.name for path in (tmp_path / "store").glob("*")}
    assert kinds == ({"defense"} if short else set()), "nothing else was trained"
    if defense == "purifier":
        assert {"label_agreement", "score_inversion"} <= {one.metric for one in first.run().scores}


# Behind a defense, through the Python interface


def plain_network(classes=5):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(),
        nn.Linear(16, classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory, digits8):
    """Rows of one smoke cell on a trained network of the user's own that can be cut: ``served("attack=...", ...)``."""
    folder, factory = tmp_path_factory.mktemp("served"), register("plain_network", plain_network)
    torch.manual_seed(0)
    wrapped = Checkpoint(spec=digits8.spec, factory=factory, mean=[0.5], std=[0.5])
    Training(wrapped, digits8.private.train, Recipe(epochs=8, batch_size=64, lr=1e-2), 0, torch.device("cpu")).run()
    save_file(wrapped.trunk.inner.state_dict(), folder / "own.safetensors")
    words = [
        "dataset.size=8", "target=checkpoint", f"target.factory={factory}", f"target.weights={folder}/own.safetensors",
        "target.mean=[0.5]", "target.std=[0.5]", "target.recipe.epochs=1", "target.recipe.min_steps=0",
        "evaluation.models=[mlp]", "budget=smoke", "device=cpu", "control=none", f"paths.store={folder}/store",
        f"paths.results={folder}/results",
    ]  # fmt: skip

    def rows(*more):
        found = mibench.run([*words, *more])
        made = [json.loads(file.read_text())["key"]["role"] for file in folder.glob("store/victim/*/manifest.json")]
        assert set(made) <= {"evaluator"}, "the victim was not trained"
        return found

    return rows


def value(rows, metric):
    return float(rows[rows["metric"] == metric]["value"].iloc[0])


@pytest.mark.parametrize("words", [["defense=split_noise", "defense.fixed=true"],
                                   ["defense=stack", "defense.parts=[split_noise,rounding]"]])  # fmt: skip
def test_a_finished_model_is_cut_and_served_behind_noise(served, words):
    """It costs accuracy and hides the input, and the rows say that the model was not trained with it."""
    attack = ["attack=split_rmle", "attack.iterations=60", "attack.restarts=1"]
    scale = "defense.scale=3" if "fixed" in words[1] else "defense.options.split_noise.scale=3"
    plain, noisy = served(*attack), served(*attack, *words, scale)
    assert value(noisy, "mse") > value(plain, "mse") and value(noisy, "target_accuracy") < 1
    (notes,) = set(noisy["notes"])
    assert "The model came trained" in notes and "features alone" in notes and "architecture, training" in notes
    assert not any("came trained" in one for one in plain["notes"])


@pytest.mark.parametrize(("defense", "words"), [
    ("rounding", ["attack=inversion_network", "attack.epochs=2"]),
    ("query_monitor", ["attack=inversion_network", "attack.epochs=2", "defense.cap=100"]),
    ("label_only_output", ["attack=brepmi", "attack.iterations=2", "attack.draws=256", "prior.iterations=2"]),
])  # fmt: skip
def test_a_finished_model_answers_behind_a_defense(served, defense, words):
    rows = served(f"defense={defense}", *words)
    assert set(rows["defense"]) == {defense} and value(rows, "target_accuracy") > 0.8
    assert not any("came trained" in one for one in rows["notes"]), "it takes no part in training"
    assert defense != "query_monitor" or value(rows, "queries_refused") > 0


@pytest.mark.parametrize(("words", "said"), [
    (["attack=mi_face", "defense=split_noise"], "Vacuous.*features alone.*'white_box'"),
    (["attack=inversion_network", "defense=split_noise"], "Vacuous.*features alone.*'scores'"),
    (["attack=idlg", "defense=stack", "defense.parts=[split_noise,gradient_noise]"], "trained again"),
    (["attack=split_rmle", "defense=stack", "defense.parts=[split_noise,nopeek]"], "trained again"),
])  # fmt: skip
def test_what_a_defense_does_in_training_alone_is_not_promised_of_a_finished_model(served, words, said):
    with pytest.raises(IncompatibleCellError, match=said):
        served(*words)


def test_a_finished_model_sends_crafted_features(served):
    """The client learns its generator from public images; the model stays, and the rows promise no training."""
    small = ["prior_iterations=2", "amortiser_iterations=2", "steps=1", "terms=1"]
    rows = served("attack=split_rmle", "attack.iterations=5", "defense=crafter", *(f"defense.{one}" for one in small))
    assert value(rows, "target_accuracy") > 0.5 and not any("came trained" in one for one in rows["notes"])
