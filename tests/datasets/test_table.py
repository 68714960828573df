import pandas as pd
import pytest
import torch

from mibench.cli.main import main
from mibench.datasets.table import Table
from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell

OPTIONS = {"response": "bought", "sensitive": "marital"}


def records(rows=200, start=0):
    """Different records by ``number``; who is married buys."""
    marital = [("single", "married", "widowed")[n % 3] for n in range(start, start + rows)]
    return pd.DataFrame(
        {
            "number": range(start, start + rows),
            "bought": ["yes" if one == "married" else "no" for one in marital],
            "marital": marital,
            "zip": [90 + n % 4 for n in range(start, start + rows)],
        }
    )


@pytest.fixture
def file(tmp_path):
    records().to_csv(tmp_path / "own.csv", index=False)
    return tmp_path / "own.csv"


def test_records_are_coded_by_column(file):
    split = Table(file=file, **OPTIONS, categorical=["zip"]).load()
    assert [(column.name, column.values) for column in split.spec.columns] == [
        ("number", ()), ("marital", ("married", "single", "widowed")), ("zip", ("90", "91", "92", "93")),
    ]  # fmt: skip
    assert split.class_names == ("no", "yes") and split.sensitive == "marital"
    known = records().set_index("number")
    for (number, marital, code), label in zip(split.private.train.x.tolist(), split.private.train.y, strict=True):
        assert known.loc[int(number), "marital"] == split.spec.columns[1].values[int(marital)]
        assert known.loc[int(number), "zip"] == int(split.spec.columns[2].values[int(code)])
        assert known.loc[int(number), "bought"] == split.class_names[int(label)]


def test_shares_of_the_file_are_parted_without_overlap(file):
    split = Table(file=file, **OPTIONS, public_fraction=0.5, test_fraction=0.2).load()
    parts = [split.public, split.private.test, split.private.train]
    assert [len(part) for part in parts] == [100, 20, 80]
    assert len(torch.cat([part.x[:, 0] for part in parts]).unique()) == 200
    assert Table(file=file, **OPTIONS).load().public is None


def test_files_of_their_own(file, tmp_path):
    records(50, 1000).to_parquet(tmp_path / "others.parquet")
    records(30, 2000).to_csv(tmp_path / "test.csv", index=False, sep=";")
    split = Table(file=file, **OPTIONS, public_file=tmp_path / "others.parquet").load()
    assert len(split.public) == 50 and len(split.private.train) + len(split.private.test) == 200
    file.write_text(records().to_csv(index=False, sep=";"))
    split = Table(file=file, **OPTIONS, separator=";", test_file=tmp_path / "test.csv").load()
    assert len(split.private.test) == 30 and len(split.private.train) == 200


def test_the_content_counts_and_not_the_path(file, tmp_path):
    def cell(path):
        words = ["attack=fredrikson_map", "dataset=table", f"dataset.file={path}"]
        return plan_cell(compose([*words, "dataset.response=bought", "dataset.sensitive=marital"])).cell_id

    moved = tmp_path / "moved.csv"
    moved.write_bytes(file.read_bytes())
    assert cell(file) == cell(moved)
    moved.write_text(records(150).to_csv(index=False))
    assert cell(file) != cell(moved)


def test_a_cell_infers_what_the_model_knows(file, tmp_path, capsys):
    """Two of three values give no answer of their own, so at most the married are certain."""
    words = ["attack=fredrikson_map", "dataset=table", f"dataset.file={file}", "dataset.response=bought"]
    words += ["dataset.sensitive=marital", "dataset.public_fraction=0.4", "budget=smoke", "device=cpu"]
    assert main([*words, f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results"]) == 0
    assert "attribute_accuracy" in capsys.readouterr().out


def spoiled(**columns):
    return records().assign(**columns)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"response": None}, r"needs dataset\.response"),
        ({"file": None}, r"needs dataset\.file"),
        ({"response": "bougt"}, "has no column 'bougt'; it has number, bought"),
        ({"sensitive": "bought"}, "is no column that the model sees; choose one of number, marital, zip"),
        ({"categorical": ["nope"]}, "has no column 'nope'"),
        ({"public_fraction": 1.0}, "public_fraction to be a number from 0 to below 1, but got '1.0'"),
        ({"test_fraction": 0.0}, "test_fraction to be a number between 0 and 1, but got '0.0'"),
        ({"file": spoiled(zip=None)}, "Column 'zip' of dataset.file has 200 missing values"),
        ({"public_file": spoiled(marital="divorced")}, "has the value 'divorced', which dataset.file has not"),
        ({"public_file": spoiled(zip="here")}, "Column 'zip' of dataset.public_file holds words"),
        ({"public_file": records().drop(columns="zip")}, "dataset.public_file has no column 'zip'"),
        ({"file": records(2)}, "too few records"),
        (
            {"file": spoiled(number=[float("inf"), *range(199)])},
            "'number' .* has 1 values that are infinite",
        ),
        ({"file": spoiled(number=[1e308, -1e39, *range(198)])}, "has 2 values that are infinite or beyond 3e.38"),
        ({"public_file": spoiled(zip=[float("-inf")] * 200)}, "'zip' of dataset.public_file has 200 values"),
        (
            {"file": spoiled(bought="yes")},
            r"'bought' .*has one value \('yes'\).*another dataset.response",
        ),
        ({"sensitive": "number"}, r"number is a column of numbers.*choose one of marital, or set dataset.categorical"),
        ({"file": spoiled(marital="single")}, r"marital has one value \('single'\)"),
    ],
)
def test_mistakes_are_named(options, said, file, tmp_path):
    for key, value in options.items():
        if isinstance(value, pd.DataFrame):
            value.to_csv(tmp_path / f"{key}.csv", index=False)
            options = {**options, key: tmp_path / f"{key}.csv"}
    with pytest.raises(UserError, match=said):
        Table(**{"file": file, **OPTIONS, **options}).load()


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as a table"):
        Table(file=tmp_path / "x.parquet", **OPTIONS).load()
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(UserError, match="cannot be read as a table"):
        Table(file=tmp_path / "x.csv", **OPTIONS).load()
