import numpy as np
import pytest
import torch

from mibench.datasets.bank_marketing import BankMarketing
from mibench.errors import DatasetNotFoundError, UserError
from mibench.planning.catalogue import entry
from mibench.planning.composition import compose

SIZES = {"private_train": 300, "private_test": 100, "public": 200, "held_out_train": 60, "held_out_test": 40}
HEADER = '"age";"job";"marital";"balance";"y"'


def write_table(file, rows=800):
    """Writes ``rows`` different records; clients who are married say yes, all others no."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    lines = [HEADER]
    for balance in range(rows):
        age, job = draw.integers(20, 60), draw.choice(["services", "admin."])
        marital = draw.choice(["single", "married", "divorced"], p=[0.5, 0.4, 0.1])
        lines.append(f'{age};"{job}";"{marital}";{balance - 10};"{"yes" if marital == "married" else "no"}"')
    file.write_text("\n".join(lines) + "\n")


@pytest.fixture
def table(tmp_path):
    write_table(tmp_path / "bank-full.csv")
    return tmp_path


def load(root, **options):
    return BankMarketing(data_root=root, **{**SIZES, **options}).load()


def test_the_schema_is_that_of_the_table(table):
    split = load(table)
    assert [column.name for column in split.spec.columns] == ["age", "job", "marital", "balance"]
    assert [column.values for column in split.spec.columns] == [
        (),
        ("admin.", "services"),
        ("divorced", "married", "single"),
        (),
    ]
    assert split.spec.shape == (4,)
    assert split.class_names == ("no", "yes")
    assert split.sensitive == "marital"


def test_codes_and_numbers_are_those_of_the_table(table):
    """Every record is found again in the file by its balance, which no two share."""
    lines = [line.replace('"', "").split(";") for line in (table / "bank-full.csv").read_text().splitlines()[1:]]
    split = load(table)
    train = split.private.train
    assert train.x.dtype == torch.float32
    for record, label in zip(train.x.tolist(), train.y.tolist(), strict=True):
        age, job, marital, balance = record
        said = [str(int(age)), split.spec.columns[1].values[int(job)], split.spec.columns[2].values[int(marital)]]
        assert lines[int(balance) + 10] == [*said, str(int(balance)), split.class_names[label]]


def test_no_record_is_in_two_parts(table):
    split = load(table)
    parts = [split.private.train, split.private.test, split.public, split.held_out.train, split.held_out.test]
    assert [len(part) for part in parts] == list(SIZES.values())
    balances = torch.cat([part.x[:, 3] for part in parts])
    assert len(balances.unique()) == sum(SIZES.values())
    assert not split.held_out_is_public


def test_the_seed_decides_the_parting(table):
    assert load(table).private.digest() == load(table).private.digest() != load(table, seed=1).private.digest()


def test_the_unpacked_archive_is_found_too(tmp_path):
    write_table(tmp_path / "bank" / "bank-full.csv")
    assert load(tmp_path).spec.classes == 2


def test_missing_data_name_both_places(tmp_path):
    with pytest.raises(DatasetNotFoundError) as error:
        load(tmp_path)
    assert str(tmp_path / "bank-full.csv") in str(error.value)
    assert str(tmp_path / "bank" / "bank-full.csv") in str(error.value)


def test_more_records_than_there_are(table):
    with pytest.raises(UserError, match=r"dataset\.private_train.* add up to 900 records, but the table has 800"):
        load(table, public=400)


def test_options_are_checked(table):
    with pytest.raises(UserError, match=r"dataset\.public to be a whole number of at least 1, but got '0'"):
        load(table, public=0)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "bank-full.csv").write_text("age,job\n1,2\n")
    with pytest.raises(UserError, match="no column 'y'"):
        load(tmp_path)


def test_the_yaml_brings_its_target_and_is_in_the_catalogue():
    cfg = compose(["attack=fredrikson_map", "dataset=bank_marketing"])
    assert cfg.target.name == "mlp"
    assert cfg.prior.name == "none"
    assert entry("dataset", "bank_marketing").card.tasks == ("attribute",)


def test_a_response_that_gives_the_column_away_is_found_out(table, make_cell, tmp_path):
    """The whole cell on this table: the sensitive value is inferred where the model knows it, and yes means married."""
    cell = make_cell(
        "attack=fredrikson_map",
        "dataset=bank_marketing",
        f"paths.data={table}",
        "budget.records=100",
        *[f"dataset.{name}={size}" for name, size in SIZES.items()],
        folder=tmp_path,
    )
    truth = cell.truth
    guess = cell.result.reconstruction.values
    married = truth.values == 1
    assert float(truth.correct.double().mean()) > 0.95, "the victim learnt the rule"
    assert bool((guess[married] == 1).all())
    assert not bool((guess[~married] == 1).any())


def test_the_real_table(data_root):
    split = BankMarketing(data_root=data_root).load()
    assert (len(split.private.train), len(split.private.test), len(split.public)) == (10000, 4000, 10000)
    assert sum(column.categorical for column in split.spec.columns) == 9
    assert split.spec.columns[2].values == ("divorced", "married", "single")
    married = float((split.private.train.x[:, 2] == 1).double().mean())
    assert abs(married - 0.602) < 0.02, "the share in the whole table"
