"""Settings of one target and one attack that stand in ``conf/calibration``."""

import re

import pytest
import yaml

from mibench.planning.calibration import outside_calibration
from mibench.planning.catalogue import conf_dir, entry
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell

FILES = sorted((conf_dir() / "calibration").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_calibration_names_a_target_and_an_attack_says_its_source_and_holds(file):
    target, _, attack = file.stem.partition("__")
    assert entry("target", target) and entry("attack", attack)
    assert file.read_text().startswith("# "), "the figure it reached and the iterations it took stand on top"
    config = plan_cell(compose([f"target={target}", f"attack={attack}"])).config["attack"]
    whole = yaml.safe_load((conf_dir() / "attack" / f"{attack}.yaml").read_text())
    plain = whole.get("attack", whole)
    calibrated = yaml.safe_load(file.read_text())
    batches = calibrated.pop("calibrated_batches")
    assert batches == sorted({*batches}) and min(batches) >= 1, "it says for which batches it holds"
    for key, value in calibrated.items():
        assert key in plain, "it sets options that the attack has"
        if isinstance(value, str) and "by_batch" in value:
            assert [int(size) for size in re.findall(r"(\d+):", value)] == batches
        assert config[key] == value or isinstance(value, str)


def test_the_command_line_wins_and_other_targets_keep_the_attacks_own():
    def tv(*words):
        return plan_cell(compose(["attack=inverting_gradients", *words])).config["attack"]["tv"]

    assert tv() == 2e-3, "the attack's own target is the calibrated one"
    assert tv("attack.tv=0.5") == 0.5
    assert tv("target=vit_tiny") == 0.1


def test_a_setting_by_batch_is_that_of_the_largest_calibrated_batch_not_above():
    def tv(size):
        words = ["target=cnn", "attack=inverting_gradients", f"setting.batch_size={size}"]
        return plan_cell(compose(words)).config["attack"]["tv"]

    assert [tv(size) for size in (1, 3, 4, 128)] == [3e-2, 3e-2, 1e-1, 1e-1]


@pytest.mark.parametrize(
    ("words", "batch", "said"),
    [
        (["setting.batch_size=1"], 1, ""),
        (["setting.batch_size=4"], 4, ""),
        (["setting.batch_size=8"], 8, "attack.tv=0.1 was calibrated for target 'lenet' at batches of 1 and 4, and"),
        (["setting.clients_per_message=2"], 2, "attack.tv=0.002 was calibrated for target 'lenet'"),
        (["setting.clients_per_message=2"], 2, "cell's are of 2: another value"),
        (["attack=rgcir", "setting.batch_size=8"], 8, "attack.tv=0.1, attack.distance=layer_cosine was calibrated for"),
        (["setting.batch_size=8", "attack.tv=0.5"], 8, ""),
        (["setting.batch_size=4", "target=vit_tiny"], 4, ""),
        (["setting.batch_size=4", "target=cnn"], 4, ""),
        (["setting.batch_size=8", "target=cnn"], 8, "attack.tv=0.1 was calibrated for target 'cnn' at batches of 1"),
    ],
)  # fmt: skip
def test_a_batch_outside_a_calibration_is_said_unless_the_command_line_chose(words, batch, said):
    usual = [] if words[0].startswith("attack=") else ["attack=inverting_gradients"]
    plan = plan_cell(compose([*usual, *words]))
    assert plan.cards.batch_size == batch
    found = outside_calibration(plan.config, batch)
    assert said in found and bool(found) == bool(said)


def test_the_batches_of_a_calibration_are_no_part_of_a_cell(make_cell):
    cell = make_cell("attack=inverting_gradients", "setting.batch_size=2", "attack.iterations=1", "dataset.size=8")
    assert "calibrated_batches" in cell.config["attack"]
    assert "calibrated_batches" not in cell.plan.identity["attack"] | cell.plan.description["attack"]
    assert any("at batches of 1 and 4, and this cell's are of 2" in note for note in cell.notes)
