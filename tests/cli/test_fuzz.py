"""Whatever a person types: an exit status of 0, 1 or 2, no traceback, and where it is 2 one sentence on stderr."""

import json
import random
import socket
import string

import pytest

from mibench.cli import explaining
from mibench.cli.explaining import dotted, keys_there
from mibench.cli.main import SUBCOMMANDS, main
from mibench.planning.catalogue import AXES, entries
from mibench.planning.composition import compose
from mibench.running.cell import Cell

LISTS, PER_TEST = 500, 50
WORDS = ["null", "true", "false", "none", "gmi", "cpu", "a", "''", '""', "-", "nan", "inf", "é", "人", "🦊", "x" * 300]
NUMBERS = ["0", "1", "-1", "3", "0.5", "1e-3", "-0.0", "1e400", "9" * 30, "1_000", "0x10", ".5", "-inf"]
REFERENCES = ["${seed}", "${nope}", "${attack}", "${oc.env:NOPE}", "${by_budget:1,2}", "${seed", "${foo:1}", "$", "???"]
BROKEN = ["[", "{a:", "'", '"', "a b", "a:b", "\\", "#", "a=b", "(", "%s", "\n", "\t", "a\u2028b", "range(3)", "int(x)"]


CHOICES = [
    "attack=dlg",
    "attack=mi_face logger=wandb",
    "dataset=bank_marketing attack=fredrikson_map",
    "dataset=image_folder dataset.root=. target=checkpoint target.factory=torch.nn:Linear",
    "attack=gmi defense=dp_sgd",
]


@pytest.fixture(autouse=True)
def stopped(composed_once, monkeypatch, tmp_path):
    """Composing, planning, types and every constructor are real; a cell that would run is done, with status 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mibench.cli.run_command.run_planned", lambda plan: Cell(plan) and 0)
    monkeypatch.setattr(socket, "socket", None)


@pytest.fixture(scope="module")
def keys():
    """Every key of a few cells that differ in everything, each with the choices that make it."""
    return sorted((choice, key) for choice in CHOICES for key in dotted(compose(choice.split())))


def value(draw, depth=0):
    kind = draw.randrange(8 if depth < 2 else 5)
    if kind < 2:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice(WORDS)
    if kind == 4:
        return draw.choice([*REFERENCES, *BROKEN])
    inner = [value(draw, depth + 1) for _ in range(draw.randrange(3))]
    if kind == 5:
        return f"[{','.join(inner)}]"
    if kind == 6:
        return "{" + ",".join(f"{draw.choice(['a', 'name', '_target_', '1'])}:{one}" for one in inner) + "}"
    return ",".join(inner)


def misspelt(draw, key):
    place, letter = draw.randrange(len(key)), draw.choice(string.ascii_lowercase + "._-é[ ")
    return key[:place] + draw.choice([letter, "", letter + key[place]]) + key[place + 1 :]


def override(draw, key):
    kind = draw.randrange(16)
    if kind < 8:
        return f"{key}={value(draw)}"
    if kind < 10:
        return f"{misspelt(draw, key)}={value(draw)}"
    if kind == 10:
        return f"~{key}"
    if kind == 11:
        return f"{draw.choice(['+', '++', '~'])}{draw.choice([key, f'{key}.x', 'x'])}={value(draw)}"
    if kind == 12:
        return f"{key.partition('.')[0]}={value(draw)}"
    if kind == 13:
        axis = draw.choice(AXES)
        return f"{axis}={draw.choice([one.name for one in entries(axis)])}"
    if kind == 14:
        return f"{key.partition('.')[0]}.{draw.choice(['name', '_target_', 'variant_of', 'access'])}={value(draw)}"
    return "".join(draw.choice(string.printable.replace("-", "") + "é人") for _ in range(draw.randrange(1, 12)))


def check(words, capsys):
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        raise AssertionError(f"{json.dumps(words)} raised {type(error).__name__}: {error}") from error
    said = capsys.readouterr().err
    assert status in (0, 1, 2), words
    if "verbose=true" in words:
        return status
    assert "Traceback" not in said, words
    if status == 2:
        assert len(said.splitlines()) == 1 and said.strip(), (words, said)
    return status


@pytest.mark.parametrize(
    "batch",
    [number if number < 2 else pytest.param(number, marks=pytest.mark.slow) for number in range(LISTS // PER_TEST)],
)
def test_no_override_list_ends_in_a_traceback(batch, keys, capsys, monkeypatch):
    monkeypatch.setattr(explaining, "keys_there", lambda words: KEYS_THERE)
    draw, seen = random.Random(batch), set()
    for number in range(3 * PER_TEST):
        if number >= PER_TEST and 0 in seen:
            break  # enough, and not mistakes alone
        choice, key = draw.choice(keys)
        words = [override(draw, one) for one in [key, draw.choice(keys)[1]][: draw.choice([1, 1, 2])]]
        said = {word.partition("=")[0] for word in words}
        given = [*choice.split(), "paths.results=r", "paths.store=s"]
        seen.add(check([*(word for word in given if word.partition("=")[0] not in said), *words], capsys))
    assert seen >= {0, 2}, "the draws are of one kind"


KEYS_THERE = keys_there([])


def test_no_words_of_a_subcommand_end_in_a_traceback(keys, capsys):
    draw = random.Random(1)
    words = "attacks collect first abc é .. / * grid=first cells=true study=x a=b name=x kinds= kinds=x metric=[psnr]"
    plain = [*words.split(), "", " ", "paths.results=r", "paths.results=/dev/null", "paths.data=d"]
    for _ in range(150):
        command = draw.choice([one for one in SUBCOMMANDS if one != "fetch"] * 3 + ["fetch"])
        drawn = [draw.choice([*plain, override(draw, draw.choice(keys)[1])]) for _ in range(draw.randrange(4))]
        check([command, *drawn], capsys)
