import dataclasses

import pytest
import torch

from mibench.data import Examples
from mibench.errors import NotMeasurableError
from mibench.metrics.verification_rate import VerificationRate
from mibench.nn import mobilefacenet
from mibench.tasks.base import Reconstruction


@pytest.fixture
def case(drawn_faces, class_truth):
    """Three people at 0, 40 and 80 degrees in training, 3 degrees further when held out; strangers at 20 and 85."""
    people = torch.tensor([0, 1, 2])
    truth = class_truth(
        drawn_faces(0, 40, 80),
        people,
        [],
        Examples(drawn_faces(3, 43, 83), people),
        public=Examples(drawn_faces(20, 85), torch.tensor([0, 1])),
        subject="face",
    )
    return Reconstruction(drawn_faces(10, 85, 80), people), truth


def read(metric, result, truth):
    return {one.variant.split(",")[0]: one for one in metric.measure(result, truth)}


def test_the_rate_and_its_yardsticks_are_those_worked_out_by_hand(case):
    """Of the six pairs of a training image and another's held-out one the nearest lie 37 degrees apart."""
    rows = read(VerificationRate(false_accepts=0.1), *case)
    assert float(rows["threshold"].values) == pytest.approx(1 - torch.tensor(37.0).deg2rad().cos().item(), abs=1e-5)
    assert rows["held_out"].values.tolist() == [1, 0, 1]
    assert rows["true_accepts"].values.tolist() == [1, 1, 1]
    assert rows["false_accepts"].values.sum() == 0
    assert rows["strangers"].values.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert [name for name, one in rows.items() if not one.yardstick] == ["held_out"]


def test_a_missing_sample_is_a_failure(case):
    result, truth = case
    nothing = dataclasses.replace(result, valid=torch.tensor([False, True, True]))
    assert read(VerificationRate(), nothing, truth)["held_out"].values.tolist() == [0, 0, 1]


def test_a_person_without_held_out_pictures_is_compared_with_training_ones(case):
    result, truth = case
    one = torch.tensor([0])
    short = dataclasses.replace(truth.private, test=truth.private.test[one])
    rows = VerificationRate().measure(result, dataclasses.replace(truth, private=short, public=None))
    assert rows[0].variant == "train, from 2 px"
    assert rows[-1].reason.startswith("The dataset has no public images")


def test_digits_and_a_single_person_have_a_reason(case, tmp_path):
    result, truth = case
    with pytest.raises(NotMeasurableError, match=r"metric\.verification_rate\.assume_faces=true"):
        VerificationRate(weights=tmp_path).measure(result, dataclasses.replace(truth, subject=""))
    one = torch.tensor([0])
    alone = dataclasses.replace(truth.private, train=truth.private.train[one], test=truth.private.test[one])
    with pytest.raises(NotMeasurableError, match="cannot be calibrated"):
        VerificationRate().measure(result, dataclasses.replace(truth, private=alone))


def test_the_file_to_fetch_is_the_one_that_is_checked():
    (file,) = VerificationRate.downloads
    assert (file.path, file.url, file.sha256) == (mobilefacenet.FILE, mobilefacenet.SOURCE, mobilefacenet.SHA256)


def test_real_people_are_verified_and_strangers_are_not(real_faces, monkeypatch):
    """Real pictures pass for their person in 0.94 of all cases, under a random network in 0.08."""
    truth, random = real_faces
    train = truth.private.train
    real = Reconstruction(train.x, train.y)
    others = Reconstruction(train.x, (train.y + 1) % 10)
    rows = read(VerificationRate(), real, truth)
    assert float(rows["held_out"].values.mean()) == pytest.approx(float(rows["true_accepts"].values.mean()))
    assert float(rows["true_accepts"].values.mean()) > 0.7
    assert float(rows["false_accepts"].values.mean()) <= 0.01
    assert float(rows["strangers"].values.mean()) < 0.05
    assert float(read(VerificationRate(), others, truth)["held_out"].values.mean()) < 0.1
    monkeypatch.setattr(mobilefacenet, "load", lambda *_: random)
    assert float(read(VerificationRate(), real, truth)["true_accepts"].values.mean()) < 0.4
