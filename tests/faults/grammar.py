"""Random command lines: values, overrides, flags of Hydra and whole lists of words, drawn from a seed."""

import itertools
import random
import shlex
import string
from collections.abc import Sequence

from mibench.cli.main import SUBCOMMANDS
from mibench.planning.catalogue import AXES, choices, entries

WORDS = [
    "null",
    "true",
    "false",
    "none",
    "gmi",
    "cpu",
    "a",
    "''",
    '""',
    "-",
    "nan",
    "inf",
    "é",
    "人",
    "🦊",
    "x" * 300,
    "",
]
NUMBERS = shlex.split(f"0 1 -1 3 0.5 1e-3 -0.0 1e400 {'9' * 30} 1_000 0x10 .5 -inf 1e ٣ +1")
REFERENCES = [
    "${seed}", "${nope}", "${attack}", "${oc.env:NOPE}", "${by_budget:1,2}", "${seed", "${foo:1}", "$", "???", "${}",
    "${oc.env:HOME}", "${oc.decode:1}", "${oc.decode:'[1'}", "${by_batch:{1:2}}", "${by_budget:}", "${attack.name}",
    "${now:%Y}", "${hydra:job.num}", "${oc.select:nope,1}", "${oc.dict.keys:attack}", "${oc.create:{a:1}}", "${.}",
    "${..seed}", "${${seed}}", "${seed}${seed}", "x${seed}", "\\${seed}", "${oc.deprecated:seed}", "${python_version:}",
]  # fmt: skip
BROKEN = [
    "[", "{a:", "'", '"', "a b", "a:b", "\\", "#", "a=b", "(", "%s", "\n", "\t", "a\u2028b", "range(3)", "int(x)",
    "'a\"", "\\'", '"\\""', "'it''s'", ",", ",,", "a,", "[,]", "{}", "[]", "{:}", "{a}", "\r", "\x1b[31m", "\u202e",
    "a\u0301", "[[[]", "]", "}", ")", "~", "@", "+", "=", "==",
]  # fmt: skip
CALLS = shlex.split(r"""
range(0,3) range(5,1) range(0,1,0) range(0,nan) range(1.5) choice(1,2) choice() interval(0,1) glob(*) glob([a*,b*])
shuffle(1,2,3) sort(3,1) tag(a,1) str(1) float(1e5) bool(x) json_str({}) int(\'1\') extend_list(1) sort(1,a)
shuffle(range(0,4)) nope(1) choice(range(0,3))
""")
LONG = [
    "x" * 5000, "9" * 5000, ".".join("a" * 200), "[" + "1," * 400 + "1]", "[" * 60 + "]" * 60,
    "{a:" * 40 + "1" + "}" * 40,
]  # fmt: skip
HYDRA = shlex.split("""
hydra.verbose=[nan] hydra.verbose=true hydra.verbose=[mibench,hydra] hydra.verbose=1e9 hydra.job.name=x
hydra.job.chdir=true hydra.mode=MULTIRUN hydra.mode=RUN hydra.mode=x hydra.output_subdir=x hydra.run.dir=.
hydra.sweep.dir=x hydra.sweep.subdir=${nope} hydra/launcher=basic hydra/launcher=nope hydra/sweeper=basic
hydra/sweeper=nope hydra/job_logging=disabled hydra/job_logging=nope hydra/hydra_logging=none
hydra.searchpath=[nope] hydra.searchpath=[file://.] hydra.searchpath=1 hydra.callbacks.x=1
+hydra.callbacks.x._target_=os.getcwd hydra.nope=1 hydra=1 ~hydra hydra/output=default
hydra.job.config.override_dirname.kv_sep=x hydra.launcher._target_=os.getcwd hydra.job_logging=null
hydra.help.template=x hydra.runtime.cwd=x ++hydra=x
""")
FLAGS = [
    shlex.split(line)
    for line in """-m; --multirun; --cfg job; --cfg hydra; --cfg all; --cfg x; --cfg; -c job; --info; --info all
--info defaults; --info defaults-tree; --info plugins; --info searchpath; --info config; --info x; --help; -h
--hydra-help; --version; --config-name cell; --config-name nope; --config-name ''; -cn budget/smoke; --config-dir .
--config-dir nope; --config-dir ''; --config-dir; -cd /dev/null; --config-path .; -cp nope; --package attack; -p nope
--package a.b; --resolve; --resolve --cfg job; --run; -r; --shell-completion; -sc query=bash; --experimental-rerun x.pkl
--experimental-rerun .; --nope; --; -; -mm; -m --cfg job; -m --info; -m --help""".replace("\n", ";").split(";")
]
#: The cells whose keys are drawn: they differ in everything.
CHOICES = [
    "attack=dlg",
    "attack=mi_face logger=wandb",
    "dataset=bank_marketing attack=fredrikson_map",
    "dataset=image_folder dataset.root=. target=checkpoint target.factory=torch.nn:Linear",
    "attack=gmi defense=dp_sgd",
]
#: Words that most cells take.
SOUND = shlex.split("""
seed=1 seed=0,1 budget=smoke budget=paper defense=none defense=rounding,bido threads=1 device=cpu time_limit=5 pack=2
control=none overwrite=always overwrite=failed knowledge.labels=true evaluation.count=1 evaluation.models=[mlp,cnn]
metric=[] 'metric=[knn_distance, mse]' query_budget=100 precision=bfloat16 seeds=all convergence=check
attack=mi_face,dlg ~logger.mode +grid.note=x ++seed=3 "paths.data=./a b" paths.results=é/人 "paths.results='it\\'s'"
target=mlp setting=central evaluation.seed=${seed} seed=range(0,3) attack=glob(mi_*)
""")
#: Words behind a subcommand.
PLAIN = shlex.split("""
attacks collect first abc é .. / '*' grid=first cells=true study=x a=b name=x kinds= kinds=x metric=[psnr] '' ' '
paths.results=r paths.results=/dev/null paths.data=d
""")


class Grammar:
    """Draws command lines.

    Args:
        draw: Where randomness comes from.
        keys: Pairs of the choices that make a cell, and one of its keys.
    """

    def __init__(self, draw: random.Random, keys: Sequence[tuple[str, str]]) -> None:
        self.draw, self.keys = draw, keys

    def value(self, depth: int = 0) -> str:
        """Return a value, nested up to four deep."""
        draw = self.draw
        kind = draw.randrange(12 if depth < 4 else 7)
        if kind < 2:
            return draw.choice(NUMBERS)
        if kind < 4:
            return draw.choice(WORDS)
        if kind < 6:
            return draw.choice([*REFERENCES, *BROKEN])
        if kind == 6:
            return draw.choice(draw.choice([CALLS, CALLS, LONG]))
        inner = [self.value(depth + 1) for _ in range(draw.randrange(3))]
        if kind == 7:
            return f"[{','.join(inner)}]"
        if kind == 8:
            return "{" + ",".join(f"{draw.choice(['a', 'name', '_target_', '1', 'é'])}:{one}" for one in inner) + "}"
        if kind == 9:
            quote = draw.choice("'\"")
            return f"{quote}{','.join(inner)}{quote}"
        return draw.choice([",", " ", ""]).join(inner)

    def misspelt(self, key: str) -> str:
        """Return a key with one letter changed, left out or put in."""
        place, letter = self.draw.randrange(len(key)), self.draw.choice(string.ascii_lowercase + "._-é[ @/:")
        return key[:place] + self.draw.choice([letter, "", letter + key[place]]) + key[place + 1 :]

    def override(self, key: str) -> str:
        """Return a word that sets, adds or deletes something, of a key or of what resembles it."""
        draw = self.draw
        kind, block = draw.randrange(32), key.partition(".")[0]
        if kind >= 20:
            return draw.choice(SOUND)
        if kind < 8:
            return f"{key}={self.value()}"
        if kind < 10:
            return f"{self.misspelt(key)}={self.value()}"
        if kind == 10:
            return draw.choice(
                [f"~{key}", f"~{block}", f"~{key}={self.value()}", f"{key}=", f"+{key}", f"++{key}", "~", "+", "="]
            )
        if kind in (11, 12):
            return (
                f"{draw.choice(['+', '++', '~'])}{draw.choice([key, f'{key}.x', 'x', f'{block}.x.y'])}={self.value()}"
            )
        if kind == 13:
            return f"{block}={self.value()}"
        if kind == 14:
            axis = draw.choice(AXES)
            return f"{axis}={draw.choice([one.name for one in entries(axis)])}"
        if kind == 15:
            return f"{block}.{draw.choice(['name', '_target_', 'variant_of', 'access'])}={self.value()}"
        if kind == 16:
            return draw.choice(HYDRA)
        if kind == 17:
            package = draw.choice(["_global_", "x", "attack", "_global_.prior", "", "é"])
            return f"{draw.choice(['', '+', '~'])}{draw.choice(AXES)}@{package}={self.value()}"
        if kind == 18:
            own = draw.choice(
                ["pack", "time_limit", "grid", "grid.axes", "grid.exclude", "pack_file", "pack_index", "seed"]
            )
            return f"{draw.choice(['', '', '+'])}{own}={self.value()}"
        return "".join(draw.choice(string.printable.replace("-", "") + "é人") for _ in range(draw.randrange(1, 12)))

    def cell(self) -> list[str]:
        """Return the words of a cell: what makes it, overrides, and now and then flags, in a random order."""
        draw = self.draw
        choice, key = draw.choice(self.keys)
        words = [
            self.override(one)
            for one in [key, *(draw.choice(self.keys)[1] for _ in range(3))][: draw.choice([1, 1, 2, 4])]
        ]
        said = {word.partition("=")[0] for word in words}
        given = [
            word for word in [*choice.split(), "paths.results=r", "paths.store=s"] if word.partition("=")[0] not in said
        ]
        parts = [[word] for word in words]
        if draw.randrange(4) == 0:
            parts += [draw.choice([["-m"], *FLAGS]) for _ in range(draw.choice([1, 1, 2]))]
            draw.shuffle(parts)
        if ["-m"] in parts and draw.randrange(3) == 0:
            parts.append([f"grid={draw.choice([*choices('grid'), 'nope'])}"])
        return [*given, *itertools.chain(*parts)]

    def subcommand(self) -> list[str]:
        """Return a subcommand and words behind it."""
        draw = self.draw
        command = draw.choice([one for one in SUBCOMMANDS if one != "fetch"] * 3 + ["fetch"])
        words = [draw.choice([*PLAIN, self.override(draw.choice(self.keys)[1])]) for _ in range(draw.randrange(4))]
        return [command, *words, *(draw.choice(FLAGS) if draw.randrange(10) == 0 else [])]

    def line(self) -> list[str]:
        """Return the words of one command line."""
        return self.subcommand() if self.draw.randrange(5) == 0 else self.cell()
