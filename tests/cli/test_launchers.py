"""Sweeps through submitit: the same rows as one process gives, and what is left of a job that is killed."""

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mibench.leaderboard.shards import read_shard
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install hydra-submitit-launcher")

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

#: Four cells of two victims: the packs are one attack each, so that both jobs need both victims.
GRID = ["attack=dlg,idlg", "dataset.size=8", "seed=0,1", "setting.rounds=2", "metric=[psnr]", "pack=2"]
TINY = ["budget=smoke", "attack.iterations=2", "attack.restarts=1", "threads=1", "device=cpu"]

SLURM_CONF = """
ClusterName=mibench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of one node on the loopback, without accounting; gives the environment that its commands need."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"needs slurm-wlm and munge; there is no {', '.join(absent)}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(SLURM_CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=free_ports(2)))
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": PATH}
    munged = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munged],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D"],
    )
    started = []
    try:
        for words in daemons:
            log = folder / f"{words[0]}.out"
            with log.open("w") as out:
                started.append((subprocess.Popen(words, env=environment, stdout=out, stderr=out), log))
            time.sleep(0.3)
        wait_until_idle(started, environment)
        yield environment
        subprocess.run(["scancel", "--full", "--signal=KILL", f"--user={os.getuid()}"], env=environment, check=False)
    finally:
        for process, _ in reversed(started):
            process.terminate()
        for process, _ in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # slurmd waits for the steps of a killed job
                process.kill()
                process.wait()


def wait_until_idle(started, environment):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for process, log in started:
            if process.poll() is not None:
                pytest.skip(f"{process.args[0]} may not be started here: {log.read_text()[-300:]}")
        done = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True, check=False)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.1)
    pytest.skip(f"Slurm's node did not come up here: {done.stdout}{done.stderr}")


@pytest.fixture
def launch(request, tmp_path):
    """Starts a sweep through the launcher that the test is parametrized with."""
    name, started = request.param, []
    environment = request.getfixturevalue("slurm") if name == "submitit_slurm" else os.environ

    def start(*words):
        process = subprocess.Popen(
            command(tmp_path, f"hydra/launcher={name}", *words), cwd=ROOT, env={**environment, "MIBENCH_PROGRESS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a job of submitit_local is in its sweep's group
        process.wait()


def command(folder, *words):
    paths = [f"paths.store={folder}/store", f"paths.results={folder}/results"]
    return [sys.executable, "-m", "mibench", "-m", *TINY, *words, *paths]


def finish(process):
    _, err = process.communicate(timeout=240)
    return process.returncode, err


def shards(folder):
    return {path.stem: read_shard(path) for path in sorted((folder / "results" / "shards").glob("*.parquet"))}


def numbers(frame):
    return frame.drop(
        columns=["seconds", "training_seconds", "judge_seconds", "peak_memory_mb", "created_at", "git_commit"]
    )


def trainings(folder):
    """How many victims the jobs of a sweep began to train, by the bars in their logs."""
    logs = (folder / "results" / "hydra").glob("*/.submitit/*/*_log.err")
    return sum(len(re.findall(r"victim +: +0%", log.read_text())) for log in logs)


def holders(lock):
    """The processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.path.realpath(link) == str(lock):
                found.add(int(link.parts[2]))
    return found


@pytest.fixture(scope="module")
def basic(mibench, places, tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic")
    status, _, err = mibench("-m", *TINY, *GRID, *places(folder))
    assert status == 0, err
    return shards(folder)


@pytest.mark.parametrize("launch", ["submitit_local", "submitit_slurm"], indirect=True)
def test_the_rows_are_those_of_one_process_and_every_shared_victim_is_trained_once(
    request, launch, basic, mibench, places, tmp_path, monkeypatch
):
    if "submitit_local" in request.node.name:  # whose jobs alone need processes of their own
        monkeypatch.chdir(ROOT)
        monkeypatch.setenv("MIBENCH_PROGRESS", "1")
        status, _, err = mibench("-m", *TINY, "hydra/launcher=submitit_local", *GRID, *places(tmp_path))
    else:
        status, err = finish(launch(*GRID))
    assert status == 0, err
    assert "4 cells to run in 2 jobs" in err and "4 measured, 0 failed" in err
    found = shards(tmp_path)
    assert list(found) == list(basic) and len(found) == 4
    for cell_id, frame in basic.items():
        pd.testing.assert_frame_equal(numbers(frame), numbers(found[cell_id]), check_exact=True)
    assert len(list((tmp_path / "store" / "victim").glob("*/manifest.json"))) == 2  # one per seed
    assert trainings(tmp_path) == 2

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "shards").iterdir()}
    status, _, err = mibench("-m", *TINY, *GRID, *places(tmp_path))
    assert status == 0 and "0 cells to run in 0 jobs" in err and "4 that stand already" in err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "shards").iterdir()}


@pytest.mark.parametrize(
    "launch", [pytest.param("submitit_local", marks=pytest.mark.slow), "submitit_slurm"], indirect=True
)
def test_a_killed_job_leaves_a_failed_row_and_the_others_go_on(launch, tmp_path):
    paths = [f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results"]
    endless, short = (
        plan_cell(compose([*TINY, "attack=dlg", f"attack.iterations={count}", *paths])).cell_id
        for count in (1000000, 2)
    )
    process = launch("attack=dlg", "attack.iterations=1000000,2")
    claim = tmp_path / "results" / "claims" / f"{endless}.lock"
    end = time.monotonic() + 60
    while not (running := holders(claim)) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(running) == 1
    os.kill(running.pop(), signal.SIGKILL)
    status, err = finish(process)
    assert status == 1 and "1 measured, 1 failed" in err
    found = shards(tmp_path)
    assert "ok" in set(found[short]["status"]) and set(found[endless]["status"]) == {"failed"}
    assert "killed" in (reason := found[endless]["reason"].item())
    assert (tmp_path / "results" / reason.rpartition("log: ")[2].rstrip(")")).is_file()
