import math

import pytest
import torch

from mibench.data import Examples
from mibench.errors import NotMeasurableError, UserError
from mibench.metrics.face_distance import FaceDistance
from mibench.nn import mobilefacenet
from mibench.tasks.base import Reconstruction


def at(degrees):
    return 1 - math.cos(degrees * math.pi / 180)


@pytest.fixture
def case(drawn_faces, class_truth):
    """Person 0 looks like 0 and 20 degrees, person 1 like 90; the test images are at 30 and 80."""
    truth = class_truth(
        drawn_faces(0, 20, 90),
        torch.tensor([0, 0, 1]),
        [],
        Examples(drawn_faces(30, 80), torch.tensor([0, 1])),
        subject="face",
    )
    return Reconstruction(drawn_faces(50, 90), torch.tensor([0, 1])), truth


def test_the_values_are_those_worked_out_by_hand(case):
    rows = {one.variant.split(",")[0]: one for one in FaceDistance().measure(*case)}
    assert rows["nearest"].values.tolist() == pytest.approx([at(30), at(0)], abs=1e-6)
    assert rows["mean"].values.tolist() == pytest.approx([(at(50) + at(30)) / 2, at(0)], abs=1e-6)
    assert rows["same_person"].values.tolist() == pytest.approx([at(10), at(10)], abs=1e-6)
    assert rows["other_people"].values.tolist() == pytest.approx([at(60), at(60)], abs=1e-6)
    assert [rows[name].yardstick for name in ("nearest", "mean", "same_person", "other_people")] == [0, 0, 1, 1]


def test_enlargement_and_checksum_are_said(case):
    one = FaceDistance().measure(*case)[0]
    assert one.variant == "nearest, from 2 px"
    assert one.evaluator == "mobilefacenet:e839247cdbdf"


def test_digits_are_skipped_before_a_file_is_asked_for(case, class_truth, tmp_path):
    result, truth = case
    digits = class_truth(truth.private.train.x, truth.private.train.y, [])
    with pytest.raises(NotMeasurableError, match=r"no faces.*metric\.face_distance\.assume_faces=true"):
        FaceDistance(weights=tmp_path).measure(result, digits)
    assert FaceDistance(assume_faces=True).measure(result, digits)


def test_one_person_has_no_others(drawn_faces, class_truth):
    truth = class_truth(drawn_faces(0, 20), torch.zeros(2, dtype=torch.long), [], subject="face")
    rows = FaceDistance().measure(Reconstruction(drawn_faces(0), torch.tensor([0])), truth)
    assert [bool(one.reason) for one in rows] == [False, False, False, True]


def test_a_region_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"metric\.face_distance\.region"):
        FaceDistance(region=(0.9, 0.0, 0.1, 1.0))


def test_the_file_to_fetch_is_the_one_that_is_checked():
    (file,) = FaceDistance.downloads
    assert (file.path, file.url, file.sha256) == (mobilefacenet.FILE, mobilefacenet.SOURCE, mobilefacenet.SHA256)


def test_other_pictures_of_a_person_lie_nearer_than_other_people(real_faces, monkeypatch):
    """Their distances stand as 0.36 to 1; under a random network, which sees little but light and pose, as 0.70."""
    truth, random = real_faces
    result = Reconstruction(truth.private.test.x, truth.private.test.y)

    def gap():
        rows = {one.variant.split(",")[0]: float(one.values.mean()) for one in FaceDistance().measure(result, truth)}
        assert rows["nearest"] == pytest.approx(rows["same_person"], abs=0.02)
        return rows["same_person"] / rows["other_people"]

    assert gap() < 0.55
    monkeypatch.setattr(mobilefacenet, "load", lambda *_: random)
    assert gap() > 0.55, "a random network"
