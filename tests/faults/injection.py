"""What goes wrong at the n-th file operation of a process: a full or broken disk, a kill, a power cut, a signal."""

import builtins
import contextlib
import errno
import io
import json
import os
import signal
from pathlib import Path

#: What happens at the n-th operation, by the name of a fault.
FAULTS = {
    "full": "the operation fails with ENOSPC, half of a write is on disk, and every later write fails too",
    "broken": "the operation fails once with EIO",
    "kill": "half of a write is on disk, and the process is gone (SIGKILL)",
    "power": "as kill, and every file that was written and never flushed to disk is empty",
    "clock": "time_limit rings",
    "ctrl-c": "SIGINT",
    "term": "SIGTERM",
}

#: Faults after which nothing of the process runs on.
SUDDEN = ("kill", "power")

#: Operations that need room on the disk.
TAKES_ROOM = ("write", "create")


class Disk:
    """Counts what a process does to files below a folder, and strikes at one operation.

    Operations are ``write``, ``flush`` (fsync), ``rename``, ``unlink`` (of files and folders) and ``create`` (of a
    folder). What pyarrow and safetensors write in native code counts as one write.

    Args:
        root: The folder; what lies elsewhere is not counted.
        journal: Where the operations are written to when the process ends or is ended.
        fault: A name of :data:`FAULTS`; empty to count alone.
        at: Number of the operation, from 1.
    """

    def __init__(self, root: Path, journal: Path, fault: str = "", at: int = 0) -> None:
        self.root, self.journal, self.fault, self.at = f"{root.resolve()}/", journal, fault, at
        self.done: list[tuple[str, str, bool]] = []
        self.unflushed: set[tuple[int, int]] = set()
        self.real = {name: getattr(os, name) for name in ("write", "fsync", "rename", "replace", "unlink", "mkdir")}

    def below(self, path, folder=None) -> str:
        """Return a path relative to the root, empty where it lies elsewhere."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        base = os.readlink(f"/proc/self/fd/{folder}") if folder is not None else os.getcwd()
        whole = os.path.normpath(os.path.join(base, os.fsdecode(path)))
        return whole.removeprefix(self.root) if whole.startswith(self.root) else ""

    def operation(self, verb: str, path: str, half=lambda: None) -> None:
        """Count one operation, and strike where it is its turn; ``half`` does half of it."""
        if not path:
            return
        self.done.append((verb, path, callable(signal.getsignal(signal.SIGALRM))))
        if self.fault == "full" and len(self.done) > self.at and verb in TAKES_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if len(self.done) == self.at:
            self.strike(path, half)

    def strike(self, path: str, half) -> None:
        """Let the fault happen."""
        if self.fault == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self.fault in ("full", *SUDDEN):
            half()
        if self.fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.fault == "power":
            self.cut()
        if self.fault in SUDDEN:
            self.write_journal()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault in ("clock", "ctrl-c", "term"):
            signal.raise_signal({"clock": signal.SIGALRM, "ctrl-c": signal.SIGINT, "term": signal.SIGTERM}[self.fault])

    def wrote(self, path) -> None:
        """Remember a file, by path or descriptor, as not yet flushed."""
        there = os.stat(path)
        self.unflushed.add((there.st_dev, there.st_ino))

    def cut(self) -> None:
        """Empty every file that was written and not flushed, wherever it was renamed to."""
        for file in Path(self.root).rglob("*"):
            there = file.lstat()
            if (there.st_dev, there.st_ino) in self.unflushed and file.is_file():
                os.truncate(file, 0)

    def write_journal(self) -> None:
        """Write down what was done."""
        descriptor = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.real["write"](descriptor, json.dumps(self.done).encode())
        os.close(descriptor)

    def install(self) -> None:
        """Put the disk between this process and its files, for good."""
        self._install_open()
        self._install_calls()
        self._install_native()

    def _install_open(self) -> None:
        disk, real = self, io.open

        class Raw(io.FileIO):
            def write(self, data):
                half = lambda: (io.FileIO.write(self, bytes(data)[: len(data) // 2]), disk.wrote(self.fileno()))  # noqa: E731
                disk.operation("write", disk.below(self.fileno()), half)
                count = super().write(data)
                disk.wrote(self.fileno())
                return count

        def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not {*mode} & {*"wax+"} or not disk.below(file):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            disk.wrote(raw.fileno())
            if buffering == 0:
                return raw
            binary = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline, buffering == 1)

        builtins.open = io.open = opened

    def _install_calls(self) -> None:
        real = self.real

        def write(descriptor, data):
            half = lambda: real["write"](descriptor, bytes(data)[: len(data) // 2])  # noqa: E731
            path = self.below(descriptor)
            self.operation("write", path, half)
            if path:
                self.wrote(descriptor)
            return real["write"](descriptor, data)

        def fsync(descriptor):
            self.operation("flush", self.below(descriptor))
            real["fsync"](descriptor)
            there = os.fstat(descriptor)
            self.unflushed.discard((there.st_dev, there.st_ino))

        def renamed(name):
            def rename(source, target, *, src_dir_fd=None, dst_dir_fd=None):
                self.operation("rename", self.below(target, dst_dir_fd))
                real[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

            return rename

        def removed(call):
            def remove(path, *, dir_fd=None):
                self.operation("unlink", self.below(path, dir_fd))
                call(path, dir_fd=dir_fd)

            return remove

        def mkdir(path, mode=0o777, *, dir_fd=None):
            if not os.path.isdir(path):
                self.operation("create", self.below(path, dir_fd))
            real["mkdir"](path, mode, dir_fd=dir_fd)

        os.write, os.fsync, os.fdatasync, os.mkdir = write, fsync, fsync, mkdir
        os.rename, os.replace = renamed("rename"), renamed("replace")
        os.unlink = os.remove = removed(real["unlink"])
        os.rmdir = removed(os.rmdir)

    def _install_native(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        import safetensors.torch

        def halved(call, place):
            def wrapped(*arguments, **options):
                path = arguments[place]
                if not isinstance(path, str | Path) or not self.below(path):
                    return call(*arguments, **options)

                def half():
                    with contextlib.suppress(AttributeError):  # of a table; a writer has written its magic bytes
                        call(*arguments, **options).close()
                    os.truncate(path, os.path.getsize(path) // 2)
                    self.wrote(path)

                self.operation("write", self.below(path), half)
                found = call(*arguments, **options)
                self.wrote(path)
                return found

            return wrapped

        pq.write_table = halved(pq.write_table, 1)
        pa.ipc.new_file = halved(pa.ipc.new_file, 0)
        safetensors.torch.save_file = halved(safetensors.torch.save_file, 1)
