import numpy as np
import pytest
import torch

from mibench.datasets.adult import BOUNDS, COLUMNS, Adult
from mibench.errors import DatasetNotFoundError, UserError
from mibench.planning.catalogue import entry
from mibench.planning.composition import compose

SIZES = {"private_train": 300, "private_test": 100, "public": 200, "held_out_train": 60, "held_out_test": 40}


def line(number, work="Private", dot=""):
    """Returns one record, told from all others by its weight; who is married earns more."""
    draw = np.random.default_rng(number)
    marital = draw.choice(["Divorced", "Married-civ-spouse", "Never-married"])
    income = ">50K" if marital == "Married-civ-spouse" else "<=50K"
    fields = [
        draw.integers(17, 91), work, 20000 + number, draw.choice(["Bachelors", "HS-grad"]), draw.integers(1, 17),
        marital, "Sales", draw.choice(["Husband", "Wife"]), draw.choice(["Black", "White"]),
        draw.choice(["Female", "Male"]), 0, 0, draw.integers(1, 100), "United-States", income + dot,
    ]  # fmt: skip
    return ", ".join(map(str, fields))


def write_table(root, train=500, test=300):
    """Writes both files: the first with an incomplete record and one twice, the second with its remark and dots."""
    (root / "adult").mkdir()
    known = [line(number, "State-gov" if number % 2 else "Private") for number in range(train)]
    (root / "adult" / "adult.data").write_text("\n".join([*known, line(9000, work="?"), known[0]]) + "\n\n")
    others = [line(number, dot=".") for number in range(train, train + test)]
    (root / "adult" / "adult.test").write_text("\n".join(["|1x3 Cross validator", *others]) + "\n\n")


@pytest.fixture
def table(tmp_path):
    write_table(tmp_path)
    return tmp_path


def load(root, **options):
    return Adult(data_root=root, **{**SIZES, **options}).load()


def parts(split):
    return [split.private.train, split.private.test, split.public, split.held_out.train, split.held_out.test]


def test_the_schema_is_that_of_the_files_with_the_published_bounds(table):
    split = load(table)
    assert tuple(column.name for column in split.spec.columns) == COLUMNS[:-1]
    assert split.spec.columns[1].values == ("Private", "State-gov")
    assert split.class_names == ("<=50K", ">50K")
    assert split.sensitive == "marital-status"
    for column in split.spec.columns:
        assert column.categorical == (column.name not in BOUNDS)
        assert (column.low, column.high) == BOUNDS.get(column.name, (None, None))


def test_codes_and_numbers_are_those_of_the_files(table):
    split = load(table)
    columns = split.spec.columns
    for record, label in zip(split.private.train.x.tolist(), split.private.train.y.tolist(), strict=True):
        number = int(record[2]) - 20000
        work = "State-gov" if number % 2 and number < 500 else "Private"
        said = [
            column.values[int(value)] if column.categorical else str(int(value))
            for column, value in zip(columns, record, strict=True)
        ]
        assert line(number, work) == ", ".join([*said, split.class_names[label]])


def test_no_record_is_in_two_parts_and_no_incomplete_one_in_any(table):
    split = load(table, held_out_test=140)
    weights = torch.cat([part.x[:, 2] for part in parts(split)])
    assert len(weights) == len(weights.unique()) == 800, "of both files, none twice"
    assert not bool((weights == 29000).any())


def test_the_seed_decides_the_parting(table):
    assert load(table).private.digest() == load(table).private.digest() != load(table, seed=1).private.digest()


def test_missing_data_name_the_file(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"adult\.data"):
        load(tmp_path)


def test_more_records_than_there_are(table):
    with pytest.raises(UserError, match=r"dataset\.private_train.* add up to 1100 records, but the table has 800"):
        load(table, public=600)


def test_another_file_is_refused(table):
    (table / "adult" / "adult.data").write_text("age,job\n1,2\n")
    with pytest.raises(UserError, match=r"no ages; it is not UCI's adult\.data"):
        load(table)


def test_the_yaml_brings_its_target_and_is_in_the_catalogue():
    assert compose(["attack=fredrikson_map", "dataset=adult"]).target.name == "mlp"
    cfg = compose(["attack=tableak", "dataset=adult"])
    assert (cfg.target.name, cfg.setting.name) == ("mlp", "federated")
    assert entry("dataset", "adult").card.tasks == ("attribute", "instance")


def test_the_real_table(data_root):
    try:
        split = Adult(data_root=data_root).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    assert [len(part) for part in parts(split)] == [10000, 4000, 10000, 10000, 4000]
    assert sum(column.categorical for column in split.spec.columns) == 8
    for index, column in enumerate(split.spec.columns):
        values = torch.cat([part.x[:, index] for part in parts(split)])
        if column.low is not None:
            assert column.low <= float(values.min()) <= float(values.max()) <= column.high
    rich = float(split.private.train.y.double().mean())
    assert abs(rich - 0.248) < 0.02, "the share in the whole table"
