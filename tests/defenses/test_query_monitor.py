import contextlib
import math

import pytest
import torch
from scipy.stats import norm, shapiro

from mibench.data import Examples
from mibench.defenses.base import Customer, DefenderData, DefenseContext
from mibench.defenses.query_monitor import QueryMonitor, discrepancy
from mibench.errors import QueryRefused, UserError
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.seeding import seeded

SMALL = {"window": 60, "neighbours": 20}

#: Cells whose networks learn next to nothing.
TINY = ["dataset.size=8", "target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.min_steps=20"]


@pytest.fixture(scope="module")
def calibrated(learned):
    """Monitors that have seen the private digits: ``calibrated(detector, ...)``."""
    return lambda detector, **options: learned(QueryMonitor(**{"detector": detector, "cap": None, **SMALL, **options}))


@pytest.fixture(scope="module")
def steps(digits8):
    """A finite-difference attack: both sides of every pixel of five digits, 640 queries."""
    moves = 1e-3 * torch.eye(64).reshape(64, 1, 8, 8)
    return torch.cat([one + sign * moves for one in digits8.private.test.x[:5] for sign in (1, -1)])


def asked(monitor, model, x, size=1):
    """Returns the customer who asks ``x``, ``size`` at a time, and how many were answered."""
    customer, answers = Customer(), 0
    try:
        for part in x.split(size):
            answers += len(monitor.answer(part, model.predict_proba(part), customer))
    except QueryRefused:
        pass
    return customer, answers


def test_the_cap_is_met_exactly_and_rows_are_counted_not_calls(trained_cnn, digits8):
    x = digits8.private.test.x[:60]
    monitor = QueryMonitor(cap=50, detector="none")
    for size, answered in ((1, 50), (25, 50), (20, 40)):
        customer, answers = asked(monitor, trained_cnn, x, size)
        assert answers == answered and customer.facts == {"queries_refused": min(size, 60 - answered)}
    assert asked(monitor, trained_cnn, x[:50], 50)[1] == 50, "another client has an account of its own"


def test_a_first_query_over_the_cap_is_refused_under_a_detector_too(calibrated, trained_cnn, digits8):
    monitor = calibrated("near_duplicates", cap=10)
    customer, answers = asked(monitor, trained_cnn, digits8.private.test.x[:20], 20)
    assert answers == 0 and customer.facts == {"queries_refused": 20, "flagged_at": -1}


def test_the_bucket_refills_with_simulated_time(trained_cnn, digits8):
    """Four a second against one that comes back: after n answers the bucket holds 20 - 3n/4."""
    x = digits8.private.test.x[:60]
    for pace, answered in ((4.0, 26), (1.0, 60)):
        monitor = QueryMonitor(cap=None, burst=20, refill=1.0, pace=pace, detector="none")
        assert asked(monitor, trained_cnn, x)[1] == answered


def test_the_bucket_holds_no_more_than_its_size(trained_cnn, digits8):
    """Three come back with every question, so that it is full after ten: five are answered at once, and six are not."""
    x = digits8.private.test.x
    for size, answered in ((5, 15), (6, 10)):
        monitor, customer = QueryMonitor(cap=None, burst=5, refill=3.0, pace=1.0, detector="none"), Customer()
        answers = 0
        for part in [*x[:10].split(1), x[10 : 10 + size]]:
            with contextlib.suppress(QueryRefused):
                answers += len(monitor.answer(part, trained_cnn.predict_proba(part), customer))
        assert answers == answered


def test_distances_are_those_to_earlier_queries():
    """Of 7 and 8 after 0, 1 and 3; the classes are 0, 1, 0, 1 and 1."""
    points, labels = torch.tensor([[0.0], [1], [3], [7], [8]]), torch.tensor([0, 1, 0, 1, 1])

    def found(**options):
        return QueryMonitor(window=5, **options).distances(points, labels, 2).tolist()

    assert found(detector="near_duplicates", neighbours=1) == [4, 1]
    assert found(detector="near_duplicates", neighbours=2) == [6, 5]
    assert found(detector="prada", neighbours=2) == [6, 1]


def test_what_a_window_measures_is_small_where_something_is_wrong():
    """PRADA's is that of the distances within three deviations; points at 0 and 1 are 2 - 2 exp(-1/2) apart."""
    near = torch.from_numpy(norm.ppf((torch.arange(30) + 0.5) / 30)).float()
    prada = QueryMonitor(detector="prada").measure(torch.cat([near, torch.tensor([50.0, torch.inf])]), near)
    assert prada == pytest.approx(shapiro(near.numpy()).statistic, abs=1e-6) and prada > 0.98
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    assert float(discrepancy(zero, one, torch.tensor(1.0))) == pytest.approx(2 - 2 * math.exp(-0.5))
    mmd = QueryMonitor(detector="mmd")
    mmd.learned = {"honest": one, "width": torch.tensor(1.0)}
    assert mmd.measure(near, zero) == pytest.approx(2 * math.exp(-0.5) - 2)
    assert QueryMonitor(detector="near_duplicates").measure(torch.tensor([1.0, 2, torch.inf]), near) == 1.5


def test_the_threshold_lies_twice_as_far_from_the_median_as_the_quantile(learned, monkeypatch):
    """Of numbers 1 to 5: the quartile is 2, the median 3, the threshold 1; half of the other windows are below."""
    asked, numbers = [], [torch.arange(1.0, 6), torch.tensor([0.0, 0.5, 1.0, 2.0])]

    def windows(self, points, labels):
        asked.append({point.numpy().tobytes() for point in points})
        return numbers[len(asked) - 1]

    monkeypatch.setattr(QueryMonitor, "honest_windows", windows)
    monitor = learned(QueryMonitor(false_alarms=0.25, **SMALL))
    assert float(monitor.learned["threshold"]) == 1 and monitor.facts()["false_alarms"] == 0.5
    assert not asked[0] & asked[1], "one half for the threshold, the other to try it on"


@pytest.mark.parametrize("detector", ["near_duplicates", "prada", "mmd"])
def test_honest_clients_are_left_alone(calibrated, trained_cnn, digits8, detector):
    """Honest windows that the threshold was not made of, and a stranger who asks the test digits in random order.

    Measured false alarms: of near_duplicates and mmd 0 %, of prada 3.6 %.
    """
    monitor = calibrated(detector)
    assert monitor.facts()["false_alarms"] <= 0.05
    x = digits8.private.test.x[torch.randperm(225, generator=torch.Generator().manual_seed(0))]
    customer, answers = asked(monitor, trained_cnn, x, 25)
    assert customer.facts == {"queries_refused": 0.0, "flagged_at": -1.0} and answers == len(x)


@pytest.mark.parametrize("detector", ["near_duplicates", "prada", "mmd"])
def test_small_steps_are_found_within_two_hundred_queries(calibrated, trained_cnn, steps, detector):
    """Measured: at query 60, the first full window. A stub that forgets after 20 queries never finds them."""
    customer, answers = asked(calibrated(detector), trained_cnn, steps)
    assert 0 < customer.facts["flagged_at"] <= 200 and answers == customer.facts["flagged_at"] - 1
    forgetful = calibrated(detector)
    assert all(asked(forgetful, trained_cnn, part)[0].facts["flagged_at"] < 0 for part in steps[:200].split(20))


def test_a_flagged_client_is_blocked_or_degraded_or_noted(calibrated, trained_cnn, steps):
    x = steps[:200]
    degraded, noted = (calibrated("near_duplicates", action=action) for action in ("degrade", "log"))
    scores = trained_cnn.predict_proba(x)
    answers = {}
    for name, monitor in (("degrade", degraded), ("log", noted)):
        customer = Customer()
        found = [monitor.answer(x[rows], scores[rows], customer) for rows in torch.arange(200).split(20)]
        answers[name], at = torch.cat(found), customer.facts["flagged_at"]
        assert 0 < at <= 200 and customer.facts["queries_refused"] == 0
    assert torch.equal(answers["log"], scores)
    late = math.ceil(at / 20) * 20
    assert torch.equal(answers["degrade"][late:].sort(1).values[:, :-1], torch.zeros(200 - late, 4))
    assert torch.equal(answers["degrade"].argmax(1), scores.argmax(1))


def test_without_limits_and_detector_it_is_the_identity(trained_cnn, digits8):
    x = digits8.private.test.x
    scores = trained_cnn.predict_proba(x)
    customer = Customer()
    assert QueryMonitor(cap=None, detector="none").answer(x, scores, customer) is scores
    assert customer.facts == {"queries_refused": 0.0}


def test_what_is_refused_stands_in_the_rows_and_utility_is_whole(make_cell, tmp_path):
    """A second run of the cell starts with a new client, so that it ends where the first one did."""
    words = ["attack=nearest_public", "attack.batch_size=50", "evaluation.models=[mlp]", *TINY]
    limited = [*words, "defense=query_monitor", "defense.cap=120", "defense.detector=none"]
    outcomes = []
    for _ in range(2):
        cell = make_cell(*limited, folder=tmp_path)
        cell.rebuild = True
        outcomes.append(cell.run())
        assert sum(cell.result.ledger["queries"].values()) == 100 and "defense.cap" in cell.result.stopped
    scores = {(one.metric, one.variant): one.value for one in outcomes[0].scores}
    assert scores["queries_refused", ""] == 50
    assert {(one.metric, one.variant): one.value for one in outcomes[1].scores} == pytest.approx(scores, nan_ok=True)
    assert any("ended early: The service refused a query" in note for note in outcomes[0].notes)
    plainly = make_cell(*words, folder=tmp_path)
    assert torch.equal(cell.full_case.utility["correct"], plainly.full_case.utility["correct"])
    assert len(cell.full_case.utility["correct"]) > 120


def test_wrong_options_are_said_in_one_sentence(calibrated):
    for options, said in (({"cap": 0}, r"defense\.cap"), ({"neighbours": 100}, r"defense\.neighbours")):
        with pytest.raises(UserError, match=said):
            QueryMonitor(**options)
    with pytest.raises(UserError, match=r"three windows.*defense\.window=500"):
        calibrated("mmd", window=500)


def test_a_refused_batch_costs_no_allowance(calibrated, trained_cnn, digits8, steps):
    x = digits8.private.test.x
    for options in ({"cap": 50}, {"cap": None, "burst": 50, "refill": 1e-6}):
        monitor, customer = QueryMonitor(detector="none", **options), Customer()
        for size, answered in ((30, True), (30, False), (20, True), (1, False)):
            try:
                monitor.answer(x[:size], trained_cnn.predict_proba(x[:size]), customer)
                assert answered
            except QueryRefused:
                assert not answered
        assert float(customer.memory["answers"]) == 50
    watched, customer = calibrated("near_duplicates", cap=1000), Customer()
    with pytest.raises(QueryRefused, match="raised the alarm"):
        watched.answer(steps[:200], trained_cnn.predict_proba(steps[:200]), customer)
    assert "answers" not in customer.memory


def alarms_of(model, split, public, **options):
    """Returns what a monitor that has seen the private digits says of false alarms on ``public``."""
    train, none = split.private.train, split.private.train[torch.arange(0)]
    monitor = QueryMonitor(**{"cap": None, "calibration": 400, **SMALL, **options})
    with seeded(0):
        data = DefenderData(train, none, public)
        monitor.learn(model, DefenseContext(split.spec, data, 0, torch.device("cpu")))
    return monitor.facts()


@pytest.mark.parametrize("detector", ["prada", "mmd"])
def test_every_detector_says_how_often_strangers_set_it_off(trained_cnn, digits8, detector):
    """Which may be often: ``prada`` flags every fifth window of digits that it has never seen."""
    said = alarms_of(trained_cnn, digits8, digits8.public, detector=detector)
    assert said.keys() == {"false_alarms", "false_alarms_strangers"}
    assert all(0 <= share <= 1 for share in said.values())


def test_false_alarms_are_rows_of_every_cell_that_is_watched(make_cell, tmp_path):
    words = ["attack=inversion_network_instance", "attack.epochs=1", "metric=[mse]", *TINY]
    watched = ["defense=query_monitor", "defense.window=60", "defense.neighbours=20", "defense.action=log"]
    rows = {one.metric for one in make_cell(*words, *watched, folder=tmp_path).run().scores}
    assert {"false_alarms", "false_alarms_strangers", "flagged_at", "queries_refused"} <= rows


def test_how_often_strangers_set_it_off_is_said(trained_cnn, digits8):
    """Public digits in random order are left alone, and one picture that everybody repeats is not."""

    def alarms(public):
        return alarms_of(trained_cnn, digits8, public)

    said = alarms(digits8.public)
    assert said["false_alarms_strangers"] <= 0.05
    repeated = Examples(digits8.public.x[:1].repeat(80, 1, 1, 1), digits8.public.y[:1].repeat(80))
    again, few = alarms(repeated), alarms(repeated[torch.arange(59)])
    assert again["false_alarms_strangers"] == 1
    assert few == {"false_alarms": said["false_alarms"]} and again["false_alarms"] == said["false_alarms"]


def test_an_attacker_who_knows_the_cap_asks_in_batches_that_use_it_up(trained_cnn, digits8):
    monitor, answered = QueryMonitor(cap=100, detector="none"), []
    for words in QueryMonitor.card.adaptive:
        size = plan_cell(compose(["budget=smoke", "defense=query_monitor", *words.split()])).config["attack"][
            "batch_size"
        ]
        answered.append(asked(monitor, trained_cnn, digits8.private.train.x[:200], size)[1])
    assert answered == [64, 96]
