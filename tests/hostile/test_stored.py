"""What a row's configuration names is neither imported nor run, its interpolations are texts, and it tells nothing."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest

from mibench.cli import reproduce_command, score_command, show_command
from mibench.cli.main import main
from mibench.cli.reproduction import Commands, written
from mibench.cli.stored import completed, literal, replan
from mibench.errors import UserError
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import write_shard
from mibench.planning import veil
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell, refuse_incompatible
from mibench.planning.sources import spec_of

WORDS = ["attack=mi_face", "budget=smoke"]


@pytest.fixture(scope="module")
def honest():
    return plan_cell(compose(WORDS)).description


@pytest.fixture
def stored(honest, tmp_path, monkeypatch):
    """Writes a shard whose configuration was changed, beside a package that says when it is imported."""
    (tmp_path / "evilpkg").mkdir()
    (tmp_path / "evilpkg" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "evilpkg" / "mod.py").write_text("class Evil: card = None\n")
    monkeypatch.syspath_prepend(tmp_path)

    def write(change):
        config = json.loads(json.dumps(honest))
        change(config)
        facts = CellFacts(
            cell_id="aaaa", group_id="g", dataset="digits", modality="image", setting="central", target="cnn",
            attack="mi_face", attack_family="optimisation", task="class", access="white_box", knowledge="",
            defense="none", defense_hooks="", seed=0, budget="smoke", fidelity="paper", config=json.dumps(config),
        )  # fmt: skip
        write_shard(tmp_path / "r", "aaaa", [make_row(facts, Score(metric="psnr", value=1.0))])
        return ["aaaa", f"paths.results={tmp_path}/r", f"paths.store={tmp_path}/s"]

    yield write
    assert not (tmp_path / "ran").exists() and "evilpkg" not in sys.modules


def refused(command, words, capsys):
    """One sentence and status 2; of ``reproduce`` also today's command and status 1, which says that it is another."""
    status = main([command.__name__.rpartition(".")[2].removesuffix("_command"), *words])
    said = capsys.readouterr().err
    assert status == 2 or (status == 1 and command is reproduce_command), said
    assert said.count("\n") == 1 and "Traceback" not in said


def shown_or_refused(words, capsys):
    """Rows can be shown whatever their configuration says, where nothing of that is needed."""
    status = main(["show", *words])
    said = capsys.readouterr().err
    assert (status == 0 and not said) or (status == 2 and said.count("\n") == 1), said


def factory(name):
    def change(config):
        own = plan_cell(compose([*WORDS, "target=checkpoint", f"target.factory={name}"])).description["target"]
        config["target"] = {**own, "arguments": {"command": "touch PWNED"}}

    return change


@pytest.mark.parametrize("command", [score_command, reproduce_command])
@pytest.mark.parametrize("name", ["os:system", "evilpkg.mod:f"])
def test_a_factory_is_asked_for(command, name, stored):
    words = stored(factory(name))
    with pytest.raises(UserError, match=r"target.factory, which a row does not hold or may not choose"):
        command.run(words)


def test_another_factory_makes_another_cell(stored):
    with pytest.raises(UserError, match=r"cell aaaa would be cell"):
        score_command.run([*stored(factory("evilpkg.mod:f")), "target.factory=torch.nn:Linear"])


@pytest.mark.parametrize("command", [score_command, show_command, reproduce_command])
@pytest.mark.parametrize("axis", ["dataset", "setting", "target", "prior", "attack", "defense"])
def test_no_class_outside_the_catalogue_is_looked_at(command, axis, stored, capsys):
    refused(command, stored(lambda config: config[axis].update(_target_="evilpkg.mod.Evil")), capsys)


@pytest.mark.parametrize("command", [score_command, show_command, reproduce_command])
@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(attack=[1]),
        lambda config: config.pop("dataset"),
        lambda config: config["attack"].update(name="${oc.env:HOME}"),
        lambda config: config["attack"].update(name={"a": 1}),
        lambda config: config.update(paths={"results": "/nowhere"}, hydra={"run": 1}),
        lambda config: config.update(revisions=None),
        lambda config: config.update(budget=None),
        lambda config: config["defense"].update(parts=[{"_target_": "evilpkg.mod.Evil"}]),
        lambda config: config["attack"].update(base={"_target_": "evilpkg.mod.Evil", "name": "x"}),
    ],
)
def test_what_describes_no_cell_is_one_sentence(command, change, stored, capsys):
    if command is show_command:
        shown_or_refused(stored(change), capsys)
    else:
        refused(command, stored(change), capsys)


def test_interpolations_are_texts(honest, stored, monkeypatch, capsys):
    monkeypatch.setenv("SECRET", "hunter2")
    words = stored(lambda config: config["attack"].update(start="${oc.env:SECRET}"))
    for command in (score_command, show_command, reproduce_command):
        try:
            command.run(words)
        except UserError as error:
            assert "hunter2" not in str(error)
    assert "hunter2" not in "".join(capsys.readouterr())
    config = {**honest, "attack": {**honest["attack"], "start": "${oc.env:SECRET}"}}
    assert replan(config, []).config["attack"]["start"] == "${oc.env:SECRET}"
    made = Commands()(config)
    assert "attack.start='\\${oc.env:SECRET}'" in made.options and "hunter2" not in made.command


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "a\\${x}", "\\\\${x}", "it's ${b} \\", "x\\", "${a", "$${a}", "a'\\'"]
)
def test_a_text_is_written_as_it_is_read_back(text):
    assert compose([f"logger.name={written(text)}"]).logger.name == text
    from omegaconf import OmegaConf

    assert OmegaConf.to_container(OmegaConf.create([literal(text)]), resolve=True) == [text]


@pytest.mark.parametrize("key", ["logger", "dataset", "attack", "defense", "target", "setting", "prior"])
def test_a_class_outside_the_catalogue_is_refused(key):
    with pytest.raises(UserError, match=rf"{key}._target_=subprocess.Popen is the class of no {key} in the catalogue"):
        plan_cell(compose([*WORDS, f"{key}._target_=subprocess.Popen"]))


def test_where_a_module_lies_is_found_without_importing_what_holds_it(tmp_path, monkeypatch):
    (tmp_path / "heldpkg" / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py"):
        (tmp_path / "heldpkg" / name).write_text("raise SystemExit")
    (tmp_path / "heldpkg" / "inner" / "mod.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert spec_of("heldpkg.inner.mod").origin == str(tmp_path / "heldpkg" / "inner" / "mod.py")
    assert spec_of("heldpkg.nothing") is spec_of("nowhere.at.all") is spec_of("a/b") is spec_of("") is None
    assert spec_of("os.path") is not None and spec_of("json.decoder").origin.endswith("decoder.py")


# what rows say


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A cell of one's own files, with an option that the environment gave."""
    home = tmp_path / "home" / "annlogin"
    (home / "pictures" / "a").mkdir(parents=True)
    (home / "pictures" / "a" / "1.png").write_bytes(b"1")
    monkeypatch.setenv("TOKEN", "hunter2-hunter2")
    monkeypatch.setenv("HOME", str(home))
    veil._names.cache_clear()
    yield [
        *WORDS, "control=none", "dataset=image_folder", f"dataset.root={home}/pictures", "target=checkpoint",
        "target.factory=torch.nn:Linear", "+target.arguments.token=${oc.env:TOKEN}",
    ]  # fmt: skip
    veil._names.cache_clear()
    veil._given.clear()


def test_a_row_holds_digests_for_paths_and_what_the_environment_gave(secret):
    plan = plan_cell(compose(secret))
    told = json.dumps(plan.description)
    assert "annlogin" not in told and "hunter2" not in told and "torch.nn:Linear" in told
    assert veil.is_veil(plan.description["dataset"]["root"])
    assert veil.is_veil(plan.description["target"]["arguments"]["token"])


def test_the_id_of_a_cell_does_not_depend_on_the_digests(secret):
    """The path's digest is that of its content, as in the id; the environment's text is the text."""
    plain = [word.replace("${oc.env:TOKEN}", "hunter2-hunter2") for word in secret]
    assert plan_cell(compose(secret)).cell_id == plan_cell(compose(plain)).cell_id


def test_what_a_row_does_not_hold_is_asked_for_and_compared(secret, tmp_path):
    plan = plan_cell(compose(secret))
    root = next(word for word in secret if word.startswith("dataset.root="))
    known = [root, "target.factory=torch.nn:Linear", "target.arguments.token=hunter2-hunter2", "device=cpu"]
    for missing in range(3):
        key = known[missing].partition("=")[0]
        with pytest.raises(UserError, match=rf"made with {key}, .* {key}=VALUE"):
            completed(plan.description, [*known[:missing], *known[missing + 1 :]], "again")
    description, rest = completed(plan.description, known, "again")
    assert rest == ["device=cpu"] and replan(description, rest).cell_id == plan.cell_id
    (tmp_path / "other" / "a").mkdir(parents=True)
    for wrong in (f"dataset.root={tmp_path}/other", "target.arguments.token=guess"):
        with pytest.raises(UserError, match="is not what this cell was made with"):
            completed(
                plan.description, [wrong, *(one for one in known if one.split("=")[0] != wrong.split("=")[0])], ""
            )


def test_a_digest_in_the_place_of_a_value_is_no_value(secret):
    plan = plan_cell(compose(secret))
    words = [word for word in secret if not word.startswith("dataset.root=")]
    again = plan_cell(compose([*words, f"dataset.root='{plan.description['dataset']['root']}'"]))
    assert again.cell_id == plan.cell_id
    with pytest.raises(UserError, match=r"dataset.root=sha256.* is the digest"):
        refuse_incompatible(again)


def test_a_path_below_the_current_folder_is_written_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert veil.veiled({"a": f"{tmp_path}/x/y"}) == {"a": "x/y"}


def test_the_sentences_of_a_row_name_no_folder_and_no_secret(secret, monkeypatch):
    plan_cell(compose(secret))
    monkeypatch.setattr("socket.gethostname", lambda: "annspc.example.org")
    veil._names.cache_clear()
    text = veil.redacted(
        "OSError: /data/ann/x.png on annspc, hunter2-hunter2 (log: /data/annlogin/logs/c.log), C:\\Users\\Ann\\a.txt, "
        "see https://example.org/a/b and 1/2 or attack/defense of annlogin"
    )
    for told in ("ann", "hunter2", "Users", "/data"):
        assert told not in text.replace("hunter2-hunter2", ""), told
    assert "x.png" in text and "https://example.org/a/b" in text and "1/2 or attack/defense" in text
    row = make_row(CellFacts(**{name: "" for name in CellFacts.__dataclass_fields__ if name != "seed"}, seed=0),
                   Score(metric="", status="failed", reason="No file /home/ann/x.pt"))  # fmt: skip
    assert row["reason"] == "No file x.pt"


def test_a_study_refuses_rows_that_say_more(honest, tmp_path, stored):
    from mibench.leaderboard.build import write_study

    config = {"dataset": {"root": "/home/ann/faces"}}
    stored(lambda told: told.update(config))
    with pytest.raises(UserError, match=r"cell aaaa say in dataset.root"):
        write_study(tmp_path / "r", "mine", ["aaaa"])
    stored(lambda told: None)
    rows = pd.read_parquet(tmp_path / "r" / "shards" / "aaaa.parquet").to_dict("records")
    rows[0]["notes"] = "Read from /home/ann/x."
    write_shard(tmp_path / "r", "aaaa", rows)
    path, _ = write_study(tmp_path / "r", "mine", ["aaaa"])
    assert pd.read_parquet(path)["notes"].iloc[0] == "Read from x."
