"""A user's mistakes: status 2 and one sentence that says what is wrong, which key or file, and what to do."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mibench.cli.main import main
from mibench.cli.words import checked
from mibench.errors import UserError
from mibench.planning.composition import compose

ROOT = Path(__file__).parent.parent.parent
#: A folder of images as the private data, and an attack that needs nothing else.
OWN = ["attack=mi_face", "control=none", "dataset=image_folder"]
MODEL = [*OWN, "dataset.root=TMP/images", "target=checkpoint", "target.factory=own_models:build"]

MISTAKES = [
    ("attack=mi_face paths.results=" + "x" * 300, "whose path has", "cannot be used"),
    # words that are no words
    ("lst", "subcommand 'lst'; did you mean list"),
    ("attack", "subcommand 'attack'", "list"),
    ("-x", "option '-x'", "--help"),
    ("--mutlirun attack=gmi", "'--mutlirun'; did you mean --multirun"),
    ("-sc query=bash", "--shell-completion", "leave it out"),
    ("--cfg jobs", "--cfg", "'jobs'", "'job'"),
    ("attack=[gmi", "'attack=[gmi' cannot be read", "KEY=VALUE", "quotes"),
    ("attack={lr:1", "'attack={lr:1' cannot be read"),
    ("attack='gmi", "cannot be read", "quotes"),
    ("seed=1 defense", "'defense' cannot be read", "KEY=VALUE"),
    ("attack=gmi attack=dlg", "attack is set twice", "attack=gmi", "attack=dlg", "leave one"),
    ("attack=gmi,dlg", "attack=gmi,dlg gives several values", "-m"),
    # keys
    ("atack=gmi", "option 'atack'; did you mean attack"),
    ("attack.iteratons=3", "'attack.iteratons'; did you mean attack.iterations"),
    ("budget.target=3", "'budget.target'; did you mean budget.targets"),
    ("iterations=3", "'iterations'; did you mean attack.iterations or prior.iterations"),
    ("defnse.step=3", "'defnse.step'; did you mean defense"),
    ("attack.base=gmi", "'attack.base'", "attack has access, iterations", "attack=NAME"),
    ("attack=mi_face attack.restart=3", "'attack.restart'; did you mean attack.start"),
    ("-m atack=gmi,dlg", "'atack'; did you mean attack"),
    ("store sed=1", "'sed'; did you mean seed"),
    ("metric.psnr.cap=3", "'metric.psnr.cap'", "metric=[NAME]"),
    ("+x=1", "option 'x'", "known: attack, budget"),
    ("+knowledge.label=true", "'label'; did you mean labels"),
    ("+attack.iteration=1", "attack has no option 'iteration'; did you mean iterations"),
    ("~seed", "seed was deleted", "seed=VALUE"),
    ("~attack", "attack to be a block", "attack=NAME"),
    ("target=${nope}", "target to be a block", "nope", "target=NAME"),
    # blocks and values in each other's place
    ("target.recipe=fast", "target.recipe to be a block of options", "'fast'", "target.recipe.OPTION=VALUE"),
    ("knowledge=all", "knowledge to be a block of options", "'all'"),
    ("seed={a:1}", "seed to be a whole number", "{'a': 1}"),
    ("attack.lr={a:1}", "attack.lr to be a number", "{'a': 1}"),
    ("attack.lr=[1,2]", "attack.lr to be a number", "[1, 2]"),
    ("attack=null", "attack to be the name of one choice", "'null'"),
    ("attack=[gmi,dlg]", "attack to be the name of one choice", "[gmi,dlg]"),
    ("+metric.foo=3", "metric.foo", "metric=[NAME,NAME]"),
    ("attack.name=foo", "'foo' is another name for 'gmi'", "attack=gmi"),
    ("attack._target_=mibench.defenses.bido.Bido", "no attack but a defense"),
    # types and ranges
    ("attack.lr=abc", "attack.lr to be a number above 0", "'abc'"),
    ("attack.lr=nan", "attack.lr to be a number above 0", "'nan'"),
    ("attack.iterations=-1", "attack.iterations to be a whole number of at least 1", "'-1'"),
    ("attack.momentum=1", "attack.momentum to be a number from 0 to below 1", "'1'"),
    ("prior.lr=0", "prior.lr to be a number above 0"),
    ("prior.seed=x", "prior.seed to be a whole number", "'x'"),
    ("seed=x", "seed to be a whole number", "'x'"),
    ("threads=0", "threads to be a whole number from 1 to 4096 or null", "'0'"),
    ("threads=-1", "threads", "'-1'"),
    ("pack=0", "pack to be a whole number of at least 1"),
    ("budget.targets=0", "budget.targets to be a whole number of at least 1", "'0'"),
    ("time_limit=-1", "time_limit to be a number above 0 and at most 1e9 or null", "'-1'"),
    ("knowledge.repeats=4", "knowledge.repeats=4 has an attacker ask a service several times", "'white_box'"),
    ("knowledge.repeats=0", "knowledge.repeats to be a whole number of at least 1", "'0'"),
    ("query_budget=-5", "query_budget to be a whole number of at least 1 or null", "'-5'"),
    ("evaluation.count=-1", "evaluation.count", "at least 0"),
    ("device=quantum", "device to be auto, cpu or cuda", "'quantum'"),
    ("precision=float8", "precision to be float32 or bfloat16", "'float8'"),
    ("control=maybe", "control to be retrain or none", "'maybe'"),
    ("overwrite=sometimes", "overwrite to be never, failed or always", "'sometimes'"),
    ("verbose=3", "verbose to be true or false"),
    ("budget.name=huge", "budget.name to be smoke, standard or paper"),
    ("logger=wandb logger.mode=abc", "logger.mode to be auto, online or offline", "'abc'"),
    ("dataset.size=0", "dataset.size to be a whole number of at least 1", "'0'"),
    ("dataset.size=4", "target=cnn needs images of at least 8x8 pixels", "4x4"),
    ("dataset.private=[0,11]", "dataset.private to be a list of whole numbers from 0 to 9"),
    ("dataset.private=[3]", "at least 2 private classes", "[3]"),
    ("dataset.test_fraction=1", "dataset.test_fraction to be a number between 0 and 1"),
    ("target.width=0", "target.width to be a whole number of at least 1"),
    ("target.recipe.optimizer=adamw", "target.recipe.optimizer to be adam or sgd", "'adamw'"),
    ("knowledge.known_columns=age", "knowledge.known_columns to be a list of words or null", "'age'"),
    ("seed=${nope}", "'nope' not found", "seed"),
    ("-m seed=1,x", "seed to be a whole number", "'x'"),
    # choices
    ("attack=gmy", "attack 'gmy'; did you mean gmi"),
    ("budget=smok", "budget 'smok'; did you mean smoke"),
    ("metric=[attack_accuracy,knn_distnce]", "metric 'knn_distnce'; did you mean knn_distance"),
    ("evaluation.models=[nope]", "target 'nope'", "known: audio_cnn, checkpoint, cnn"),
    ("-m attack=gmi,gmy", "attack 'gmy'; did you mean gmi"),
    ("hydra/launcher=slurm", "launcher 'slurm'", "submitit_slurm", "pip install 'mibench[slurm]'"),
    ("plan grid=frst", "grid 'frst'; did you mean first"),
    ("-m grid=frst", "grid 'frst'; did you mean first"),
    ("grid=first", "many cells", "-m grid=first"),
    ("--config-dir=TMP/own -m grid=odd", "axes of grid 'odd' to be lists"),
    ("--config-dir=TMP/own -m grid=broken", "broken.yaml, line 3", "no valid yaml"),
    # cells that make no sense
    ("attack=gmi defense=rounding", "Vacuous", "'rounding' acts on output", "sees the victim's weights"),
    ("attack=gmi prior=none", "Incompatible", "latent space", "prior=wgan_gp"),
    ("attack=gmi setting=split", "Incompatible", "access 'white_box'", "it offers features"),
    ("attack=gmi attack.access=scores", "Incompatible", "works with access white_box", "attack.access"),
    ("attack=dlg metric=[attack_accuracy]", "'attack_accuracy' measures class tasks", "task is 'instance'"),
    # data
    ("dataset=mnist paths.data=TMP/no", "'mnist' was not found at TMP/no/MNIST/raw", "fetch mnist", "MIBENCH_DATA"),
    ((*OWN, "dataset.root=TMP/no"), "dataset.root=TMP/no is not a folder", "give the one"),
    ((*OWN, "dataset.root=TMP/empty"), "TMP/empty holds no class folders", "folder of its own"),
    ((*OWN, "dataset.root=TMP/single"), "TMP/single/b holds fewer than 2 images", "add more or take the folder out"),
    ((*OWN, "dataset.root=TMP/corrupt"), "TMP/corrupt/a/1.png cannot be read as an image", "repair it or take it out"),
    # a model of one's own
    ((*MODEL[:-1], "target.factory=nowhere:build"), "target.factory=nowhere:build", "cannot be imported", "PYTHONPATH"),
    ((*MODEL[:-1], "target.factory=own_models:buidl"), "'own_models' has no function 'buidl'"),
    ((*MODEL[:-1], "target.factory=own_models:three"), "own_models:three returned int, not a torch.nn.Module"),
    ((*MODEL[:-1], "target.factory=own_models:raises"), "own_models:raises cannot be called", "ZeroDivisionError"),
    ((*MODEL, "target.weights=TMP/no.pt"), "target.weights=TMP/no.pt is not a file"),
    ((*MODEL, "target.weights=TMP/other.pt"), "target.weights=TMP/other.pt does not fit the model", "shape"),
    ((*MODEL, "target.weights=TMP/evil.pt"), "target.weights=TMP/evil.pt is refused", "executed", "model.state_dict()"),
    # folders and stored cells
    ("paths.results=TMP/file/results", "TMP/file/results", "Not a directory", "set paths.results to a writable folder"),
    ("hydra.run.dir=TMP/file/hydra", "TMP/file/hydra", "Not a directory", "choose another folder"),
    ("show abc", "cell below r/shards named 'abc'", "no cell has been run"),
    ("score abc", "cell below r/shards named 'abc'"),
    ("reproduce abc", "cell below r/shards named 'abc'"),
    ("show", "show takes one cell id", "mibench show CELL_ID"),
    ("list foo", "axis 'foo'", "known: attacks"),
]  # fmt: skip


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return (open, ("executed", "w"))


def images(folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((8, 8), 100 * number, np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with everything that the mistakes name, as the working directory."""
    images(tmp_path / "images", {"a": 3, "b": 3})
    images(tmp_path / "single", {"a": 3, "b": 1})
    images(tmp_path / "corrupt", {"a": 3, "b": 3})
    (tmp_path / "corrupt" / "a" / "1.png").write_bytes(b"\x89PNG no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "own" / "grid").mkdir(parents=True)
    (tmp_path / "own" / "grid" / "odd.yaml").write_text("name: odd\naxes: {seed: 3}\n")
    (tmp_path / "own" / "grid" / "broken.yaml").write_text("name: broken\naxes: [1, 2\n")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "own_models.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n\n"
        "def three():\n    return 3\n\ndef raises():\n    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_models", None)


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in MISTAKES], ids=lambda one: str(one)[:60])
def test_a_mistake_is_one_sentence_and_status_2(words, said, here, composed_once, capsys):
    given = words.split(" ") if isinstance(words, str) else list(words)
    given = [word.replace("TMP", str(here)) for word in given]
    if given[0] not in ("lst", "attack", "plan", "list"):
        given += [word for word in ("paths.results=r", "paths.store=s") if not any(word[:13] in one for one in given)]
    if any("=" in word for word in given) and given[0] not in ("plan", "list"):
        given += [] if any("budget" in one for one in given) or given[0] == "store" else ["budget=smoke"]
    assert main(given) == 2
    logged = ("dataset ", "model ")
    sentence, *more = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(logged)]
    assert not more, sentence
    for fragment in said:
        assert fragment.replace("TMP", str(here)) in sentence
    assert sentence[-1] in ".?" or sentence.endswith(said[-1])
    assert not (here / "executed").exists(), "the file of weights was executed"
    assert not (here / "r" / "shards").exists(), "a mistake leaves no row"


#: Mistakes in a process of their own, with a word that is said.
MINE = [
    (["atack=gmi"], "did you mean attack"),
    (["seed=x"], "seed to be a whole number"),
    (["attack=${nope}"], "nope"),
    (["attack=gmi\nseed"], "KEY=VALUE"),
    (["show", "abc"], "'abc'"),
]
VERBOSE = ["seed=x", "verbose=true"]
UNREAD = [["plan", "grid=first", "cells=true"], ["list"], ["--help"], ["--cfg", "job"]]


@pytest.fixture(scope="module")
def ended(processes, tmp_path_factory):
    """Status, output and errors of commands that had a process of their own, by their words."""
    here = tmp_path_factory.mktemp("here")
    commands = [(False, *words) for words in (*(words for words, _ in MINE), VERBOSE)]
    commands += [(True, *words) for words in UNREAD]
    return {(unread, *words): processes(*words, unread=unread, cwd=here) for unread, *words in commands}


@pytest.mark.parametrize(("words", "said"), MINE)
def test_the_same_in_a_process_of_its_own(words, said, ended):
    status, out, err = ended[False, *words]
    assert status == 2
    assert out == "" and len(err.splitlines()) == 1 and said in err


def test_verbose_shows_the_traceback(ended):
    status, _, err = ended[False, *VERBOSE]
    assert status == 2 and "Traceback" in err
    assert err.splitlines()[-1] == "Expected seed to be a whole number, but got 'x'."


@pytest.mark.parametrize("words", UNREAD)
def test_a_reader_that_has_enough_ends_it_quietly(words, ended):
    status, _, err = ended[True, *words]
    assert err == "" and status == 141


@pytest.mark.parametrize(
    "words",
    [["-m", "a=1", "b=2"], ["a=1", "-m", "b=2"], ["a=1", "b=2", "-m"], ["a=1", "--config-dir", "x", "b=2", "-m"]],
)
def test_hydras_own_options_may_stand_anywhere(words):
    ordered = checked(words)
    assert ordered[:2] == ["a=1", "b=2"] and sorted(ordered) == sorted(words)
    assert "--config-dir" not in words or ordered[ordered.index("--config-dir") + 1] == "x"


def test_one_key_twice_with_one_value_is_no_conflict():
    assert checked(["attack=gmi", "attack=gmi"]) == ["attack=gmi", "attack=gmi"]
    with pytest.raises(UserError, match="attack is set twice"):
        checked(["attack=gmi", "attack=dlg"])


def test_of_an_options_values_the_last_counts():
    assert compose(checked(["seed=1", "seed=2"])).seed == 2
