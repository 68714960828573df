import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.stage import Stage

CLASSES, SIZE = 4, 8
MEAN, STD = 0.5, 0.25


class Client(nn.Module):
    """Somebody's own model: its layers have names of their own, and it takes normalised inputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, 2, 1)
        self.out = nn.Linear(6 * 16, CLASSES)

    def forward(self, x):
        return self.out(torch.sigmoid(self.conv(x)).flatten(1))


@pytest.fixture
def client(tmp_path):
    """Saves a client's model, its update (gradient and delta) and the images behind it; returns the words for it."""
    torch.manual_seed(0)
    model = Client()
    for value in model.parameters():
        nn.init.uniform_(value, -0.5, 0.5)
    images, labels = torch.rand(2, 1, SIZE, SIZE), torch.tensor([1, 3])
    loss = nn.functional.cross_entropy(model((images - MEAN) / STD), labels)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    update = dict(zip(dict(model.named_parameters()), gradient, strict=True))
    save_file({name: value.contiguous() for name, value in update.items()}, tmp_path / "update.safetensors")
    save_file({name: 0.1 * value for name, value in update.items()}, tmp_path / "delta.safetensors")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    save_file({"images": images, "labels": labels}, tmp_path / "truth.safetensors")
    return [
        "attack=dlg", "dataset=captured_update", f"dataset.file={tmp_path}/update.safetensors", "dataset.batch_size=2",
        f"dataset.mean=[{MEAN}]", f"dataset.std=[{STD}]", f"dataset.shape=[1,{SIZE},{SIZE}]",
        "target=checkpoint", f"target.factory={__name__}:Client", f"target.weights={tmp_path}/weights.safetensors",
        "attack.iterations=25", "attack.inner=10", "attack.line_search=true", "attack.restarts=4",
        f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results",
    ]  # fmt: skip


def rows(words):
    import mibench

    frame = mibench.run(words)
    return {(one.metric, one.variant): one for one in frame.itertuples()}


def test_what_a_real_client_saved_comes_back_and_is_scored(client, tmp_path):
    found = rows([*client, f"dataset.truth={tmp_path}/truth.safetensors"])
    assert found["psnr", ""].value > 40
    assert found["label_accuracy", ""].value == 1
    assert found["target_accuracy", ""].status == "skipped" and "no test data" in found["target_accuracy", ""].reason
    assert found["psnr", ""].control != found["psnr", ""].control, "one update has no other to be compared with"


def test_another_image_than_the_truth_does_not_score(client, tmp_path):
    save_file({"images": torch.rand(2, 1, SIZE, SIZE)}, tmp_path / "other.safetensors")
    found = rows([*client, f"dataset.truth={tmp_path}/other.safetensors"])
    assert found["psnr", ""].value < 15
    assert found["label_accuracy", ""].status == "skipped" and "labels" in found["label_accuracy", ""].reason


def test_without_truth_the_pictures_and_the_matching_loss_are_the_result(client, tmp_path):
    found = rows(client)
    assert found["matching_loss", ""].value < 1e-4
    assert found["psnr", ""].status == "skipped" and "dataset.truth" in found["psnr", ""].reason
    assert len(list((tmp_path / "results" / "pictures").glob("*.png"))) == 1


def test_a_delta_with_step_size_is_the_same_update_and_known_labels_are_taken(client, tmp_path):
    delta = [word for word in client if not word.startswith("dataset.file")]
    delta += [f"dataset.file={tmp_path}/delta.safetensors", "dataset.kind=delta", "dataset.lr=0.1", "dataset.steps=1"]
    found = rows([*delta, "dataset.labels=[1,3]", f"dataset.truth={tmp_path}/truth.safetensors", "attack.matched=1e-8",
                  "attack.tolerance=1e-12"])  # fmt: skip
    assert found["psnr", ""].value > 30
    assert "labels" in found["psnr", ""].knowledge and "local_training" in found["psnr", ""].knowledge


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda update: update.pop("conv.bias"), r"no tensor 'conv\.bias'.*1 of 4 are missing"),
        (lambda update: update.update({"conv.bias": torch.zeros(5)}), r"'conv\.bias' to have the parameter's shape"),
        (lambda update: update["conv.bias"].fill_(torch.nan), r"NaN or infinite values, first in 'conv\.bias'"),
        (lambda update: update["out.weight"].fill_(torch.inf), r"NaN or infinite values, first in 'out\.weight'"),
    ],
)
def test_an_update_that_does_not_fit_is_said_in_one_sentence(client, tmp_path, change, words):
    update = load_file(tmp_path / "update.safetensors")
    change(update)
    save_file(update, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=words) as caught:
        rows([*client, f"dataset.file={tmp_path}/bad.safetensors"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset.file=nowhere.safetensors"], r"no file nowhere\.safetensors \(dataset\.file\)"),
        (["dataset.labels=[1]"], r"name the 2 examples"),
        (["dataset.labels=[1,9]"], r"lie in 0\.\.3"),
        (["dataset.lr=0.1"], r"dataset\.kind=delta"),
        (["dataset.shape=[8,8]"], r"\[channels,height,width\]"),
        (["defense=gradient_noise"], r"as its client sent it"),
        (["target.weights=null"], r"needs the model that the client started from"),
        (["target=lenet"], r"target=checkpoint"),
        (["attack=idlg", "attack.restarts=1"], r"at most 1"),
    ],
)
def test_mistakes_are_said_in_one_sentence(client, words, said):
    kept = [word for word in client if not (words == ["target=lenet"] and word.startswith("target"))]
    with pytest.raises(UserError, match=said) as caught:
        rows([*kept, *words])
    assert "\n" not in str(caught.value)


def test_the_truth_never_reaches_the_attack(client, tmp_path):
    stage = Stage(plan_cell(compose([*client, f"dataset.truth={tmp_path}/truth.safetensors"])))
    assert len(stage.split.private.train) == len(stage.split.private.test) == 0
    assert stage.split.public is None


def test_an_update_of_nothing_is_refused_and_one_of_the_opposite_sign_is_said(client, tmp_path):
    update = load_file(tmp_path / "update.safetensors")
    save_file({name: 0 * value for name, value in update.items()}, tmp_path / "update.safetensors")
    with pytest.raises(UserError, match="zero in every entry"):
        rows(client)
    model, image = Client(), torch.rand(1, 1, SIZE, SIZE)
    model.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    loss = nn.functional.cross_entropy(model((image - MEAN) / STD), torch.tensor([2]))
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    words = [*client, "dataset.batch_size=1", "attack.restarts=1", "attack.iterations=2"]
    for sign in (1, -1):
        changed = {name: sign * value for name, value in zip(update, gradient, strict=True)}
        named = dict(zip(dict(model.named_parameters()), changed.values(), strict=True))
        save_file({name: value.contiguous() for name, value in named.items()}, tmp_path / "update.safetensors")
        notes = rows(words)["psnr", ""].notes
        assert ("opposite one" in notes) == (sign < 0)


# Records

AGE = {"name": "age", "low": 0, "high": 80, "mean": 40.0, "std": 20.0}
JOB = {"name": "job", "categories": ["none", "some", "two"], "mean": [0.5, 0.25, 0.25], "std": [0.5, 0.4, 0.4]}
HOURS = {"name": "hours", "mean": 30.0, "std": 10.0}


def perceptron():
    """A model of somebody's own, which takes encoded records."""
    return nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 2))


def put_columns(folder, columns, name="update"):
    """Saves the update anew, with ``columns`` in its header."""
    header = {"columns": columns if isinstance(columns, str) else json.dumps(columns)}
    save_file(load_file(folder / "update.safetensors"), folder / f"{name}.safetensors", header)
    return f"dataset.file={folder}/{name}.safetensors"


@pytest.fixture
def records(tmp_path):
    """Saves a model of records, its gradient, and the records behind it; returns the words for it."""
    torch.manual_seed(0)
    model, labels = perceptron(), torch.tensor([1, 0])
    x = torch.tensor([[25.0, 2.0, 38.0], [61.0, 0.0, 20.0]])
    hot = torch.cat([x[:, :1], nn.functional.one_hot(x[:, 1].long(), 3), x[:, 2:]], 1)
    inputs = (hot - torch.tensor([40, 0.5, 0.25, 0.25, 30])) / torch.tensor([20, 0.5, 0.4, 0.4, 10])
    gradient = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), labels), list(model.parameters()))
    update = dict(zip(dict(model.named_parameters()), gradient, strict=True))
    save_file({name: value.contiguous() for name, value in update.items()}, tmp_path / "update.safetensors")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    save_file({"records": x, "labels": labels}, tmp_path / "truth.safetensors")
    return [
        "attack=tableak", "setting=captured", "dataset=captured_update", put_columns(tmp_path, [AGE, JOB, HOURS]),
        "dataset.batch_size=2", "target=checkpoint", f"target.factory={__name__}:perceptron",
        f"target.weights={tmp_path}/weights.safetensors", f"dataset.truth={tmp_path}/truth.safetensors",
        "attack.ensemble=3", "attack.iterations=300", "device=cpu", f"paths.store={tmp_path}/store",
        f"paths.results={tmp_path}/results",
    ]  # fmt: skip


def test_records_come_back_and_are_scored(records):
    found = rows([*records, "dataset.labels=[1,0]"])
    assert found["tolerance_accuracy", ""].value == 1
    assert found["tolerance_accuracy", "continuous"].n == 1
    assert found["tolerance_accuracy", ""].modality == "tabular" and ("psnr", "") not in found


def test_the_columns_of_the_header_are_what_the_attacker_knows(records):
    stage = Stage(plan_cell(compose(records)))
    age, job, hours = stage.split.spec.columns
    assert (age.name, age.low, age.high) == ("age", 0, 80) and job.values == ("none", "some", "two")
    assert (hours.low, hours.high) == (None, None) and stage.split.spec.classes == 2
    assert stage.split.captured.spread.tolist() == [20, 1, 10]
    mean, std = stage.victim.module.entry.scaling()
    assert mean.tolist() == [40, 0.5, 0.25, 0.25, 30]
    torch.testing.assert_close(std, torch.tensor([20, 0.5, 0.4, 0.4, 10]))


def test_numbers_of_unknown_spread_are_not_scored(records, tmp_path):
    columns = put_columns(tmp_path, [AGE, JOB, {"name": "hours", "mean": 30.0}])
    found = rows([*records, columns, "attack.iterations=1"])["tolerance_accuracy", ""]
    assert found.status == "skipped" and "do not all have a 'std'" in found.reason


def test_another_model_than_that_of_the_columns_is_refused(records, tmp_path):
    with pytest.raises(UserError, match=r"cannot take inputs of 4 .*have 2 columns, 4 with categories one-hot"):
        rows([*records, put_columns(tmp_path, [AGE, JOB]), "dataset.truth=null"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("{", r"'columns' .*is no JSON"),
        ("[" * 200_000, r"'columns' .*is no JSON"),
        ("!!python/object/apply:os.system ['touch executed']", r"is no JSON"),
        ({"age": AGE}, r"a list of one object per column"),
        ([], r"a list of one object per column"),
        (["age"], r"column 1 .*to be an object"),
        ([AGE, {**HOURS, "hihg": 9}], r"no key 'hihg' of column 2 .*did you mean high"),
        ([{"low": 1}], r"'name' of column 1"),
        ([{"name": 7}], r"'name' of column 1"),
        ([{"name": "a\nb"}], r"'name' of column 1"),
        ([AGE, AGE], r"'age' stands there twice"),
        ([{**AGE, "low": "0"}], r"'low' of column 1 .*\('age'\) to be a finite number"),
        ([{**AGE, "high": True}], r"'high' of column 1 .*to be a finite number"),
        ([{**AGE, "mean": float("nan")}], r"'mean' of column 1 .*to be a finite number"),
        ([{**AGE, "high": 10**400}], r"'high' of column 1 .*to be a finite number"),
        ([{**AGE, "std": 0}], r"'std' of column 1 .*above 0"),
        ([{**AGE, "std": 1e-60}], r"'std' of column 1 .*above 0"),
        ([{**AGE, "low": 80}], r"'low' of column 1 .*less than 'high'"),
        ([{**JOB, "categories": []}], r"'categories' of column 1 .*list of words"),
        ([{**JOB, "categories": "abc"}], r"'categories' of column 1 .*list of words"),
        ([{**JOB, "categories": ["a", 2, "c"]}], r"'categories' of column 1 .*list of words"),
        ([{**JOB, "categories": ["a", "a", "c"]}], r"'categories' of column 1 .*to differ"),
        ([{**JOB, "low": 0}], r"'low' of a number alone"),
        ([{**JOB, "mean": 0.5}], r"'mean' of column 1 .*one number per category \(3\)"),
        ([{**JOB, "std": [1, 1]}], r"'std' of column 1 .*one number per category \(3\)"),
    ],
)
def test_malformed_columns_are_said_in_one_sentence_and_nothing_is_executed(
    records, columns, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        Stage(plan_cell(compose([*records, put_columns(tmp_path, columns, "bad")]))).split  # noqa: B018
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("words", "truth", "said"),
    [
        (["dataset.shape=[1,8,8]"], {}, r"leave out dataset\.shape"),
        (["dataset.vocabulary=9", "dataset.shape=[3]"], {}, r"leave out dataset\.shape"),
        (["dataset.mean=[1]"], {}, r"leave out dataset\.mean"),
        (["attack=dlg"], {}, r"'dlg' works on image.*of tabular data"),
        ([], {"images": torch.zeros(2, 1, 8, 8)}, r"a tensor 'records' of shape \(2, 3\)"),
        ([], {"records": torch.zeros(1, 3)}, r"a tensor 'records' of shape \(2, 3\)"),
        ([], {"records": torch.full((2, 3), 1.5)}, r"codes from 0 to 2 in column 'job'"),
        ([], {"records": torch.full((2, 3), torch.nan)}, r"finite numbers in column 'age'"),
        ([], {"records": torch.zeros(2, 3), "labels": torch.tensor([0, 2])}, r"lie in 0\.\.1"),
    ],
)
def test_what_does_not_fit_records_is_said_in_one_sentence(records, words, truth, said, tmp_path):
    if truth:
        save_file(truth, tmp_path / "truth.safetensors")
    with pytest.raises(UserError, match=said) as caught:
        kept = [word for word in records if not (words == ["attack=dlg"] and word.startswith("attack"))]
        Stage(plan_cell(compose([*kept, *words]))).split  # noqa: B018
    assert "\n" not in str(caught.value)
