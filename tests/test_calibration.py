"""Settings of one target and one attack that stand in ``conf/calibration``."""

import pytest
import yaml

from mibench.catalogue import conf_dir, entry
from mibench.composition import compose, plan_cell

FILES = sorted((conf_dir() / "calibration").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_calibration_names_a_target_and_an_attack_says_its_source_and_holds(file):
    target, _, attack = file.stem.partition("__")
    assert entry("target", target) and entry("attack", attack)
    assert file.read_text().startswith("# "), "the figure it reached and the iterations it took stand on top"
    config = plan_cell(compose([f"target={target}", f"attack={attack}"])).config["attack"]
    plain = yaml.safe_load((conf_dir() / "attack" / f"{attack}.yaml").read_text())
    for key, value in yaml.safe_load(file.read_text()).items():
        assert key in plain, "it sets options that the attack has"
        assert config[key] == value or isinstance(value, str)


def test_the_command_line_wins_and_other_targets_keep_the_attacks_own():
    def tv(*words):
        return plan_cell(compose(["attack=inverting_gradients", *words])).config["attack"]["tv"]

    assert tv() == 2e-3, "the attack's own target is the calibrated one"
    assert tv("attack.tv=0.5") == 0.5
    assert tv("target=resnet20") == 0.1
