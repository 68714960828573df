"""CPU of the commands that need no torch, against a bare Hydra application: ``python benchmarks/startup.py``."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from figures import Figure, cpu_seconds, report, sized

LIMIT = 1.5
RUNS = sized(11, 1)
COMMANDS = ("--help", "list", "plan grid=first")

HELLO = """
import hydra

@hydra.main(version_base="1.3", config_path=".", config_name="hello")
def main(cfg):
    print(cfg.name)

main()
"""

#: Runs the command line and exits with 1 where torch was imported.
WITHOUT_TORCH = "import sys; from mibench.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="mibench-startup-") as name:
        folder = Path(name)
        (folder / "hello.py").write_text(HELLO)
        (folder / "hello.yaml").write_text("name: world\n")
        hello: list[float] = []
        seconds: dict[str, list[float]] = {command: [] for command in COMMANDS}
        for _ in range(RUNS):
            hello.append(cpu_seconds(["hello.py"], cwd=folder))
            for command in COMMANDS:
                seconds[command].append(cpu_seconds(["-m", "mibench", *command.split()]))
    for command in COMMANDS:
        cpu_seconds(["-c", WITHOUT_TORCH, *command.split()])
    figures = [Figure("bare Hydra application: CPU", statistics.median(hello), "s")]
    for command in COMMANDS:
        ratio = statistics.median(a / b for a, b in zip(seconds[command], hello, strict=True))
        figures.append(Figure(f"mibench {command} / bare Hydra application", ratio, "x", LIMIT))
    return figures


if __name__ == "__main__":
    raise SystemExit(report(measure()))
