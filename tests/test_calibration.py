"""Settings of one target and one attack that stand in ``conf/calibration``."""

import pytest
import yaml

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
    for key, value in yaml.safe_load(file.read_text()).items():
        assert key in plain, "it sets options that the attack has"
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
