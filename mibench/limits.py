"""What a file from someone else may take: read as data, and looked at before memory is given to it.

Every reader of files that mibench did not write itself goes through here. A limit is far above what honest files need
and far below what brings a machine down; the error names the file and the limit.
"""

from __future__ import annotations

import contextlib
import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError, told

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image
    from torch import Tensor

MIB, GIB = 1 << 20, 1 << 30

#: Bytes of a file of weights or of an update: a model of eight billion parameters in float32.
TENSORS = 32 * GIB

#: Bytes of the header of a safetensors file: a hundred bytes for each of 160,000 tensors.
HEADER = 16 * MIB

#: Bytes of JSON, yaml or CSV that are read as a whole: the index of FFHQ, the largest that is read, has 255 MB.
TEXT = GIB

#: Levels of a yaml: a claim has three.
DEPTH = 50

#: Pixels of a picture: from here on Pillow warns of a bomb; in RGB they take 256 MiB.
PIXELS = 89_478_485

#: Formats of pictures that are opened. Pillow knows more, and hands some of them to programs of the machine.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "MPO")

#: Rows of one shard or study: the largest committed study has some ten thousand.
ROWS = 5_000_000

#: Bytes of a parquet file's rows once they are decoded.
DECODED = 4 * GIB

#: Bytes that an archive may hold once it is unpacked: all of ImageNet.
UNPACKED = 200 * GIB

#: How many times larger than on the disk a compressed file may become where it is held in memory, and the bytes that
#: are no matter.
INFLATION, SMALL = 200, 64 * MIB


def plain_file(path: Path, where: str, limit: int) -> Path:
    """Return the path of a plain file that is not too large; no folder, device or pipe, which may have no end.

    Args:
        path: The file.
        where: How messages name it: the option that gives it, or its path.
        limit: The most bytes that it may have.

    Raises:
        UserError: Naming the file and the limit.
    """
    try:
        there, size = path.is_file(), path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{where} cannot be read ({reason}).") from error
    if not there:
        raise UserError(f"{where} is not a file.")
    if size > limit:
        raise UserError(f"{where} has {said(size)}, and at most {said(limit)} are read.")
    return path


def content(path: Path, where: str, limit: int) -> bytes:
    """Return the bytes of a plain file.

    Raises:
        UserError: If it cannot be read, or is larger than ``limit``.
    """
    try:
        return plain_file(path, where, limit).read_bytes()
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}).") from error


def said(size: int) -> str:
    """Return a number of bytes in words.

    >>> said(32 * GIB), said(300)
    ('32.0 GiB', '300 bytes')
    """
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def safetensors_of(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file on the CPU, and the words of its header.

    Raises:
        UserError: If it is none, or its header or the file is too large.
    """
    from safetensors import safe_open

    plain_file(path, where, TENSORS)
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > path.stat().st_size:
            raise UserError(f"{where} cannot be read as safetensors (its header says it is longer than the file).")
        if header > HEADER:
            raise UserError(f"{where} has a header of {said(header)}, and at most {said(HEADER)} are read.")
        with safe_open(path, framework="pt") as held:
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (it is no mapping)
            return tensors, dict(held.metadata() or {})
    except UserError:
        raise
    except Exception as error:  # whatever the decoder raises for a damaged file
        raise UserError(f"{where} cannot be read as safetensors ({reason_of(error)}).") from error


def pickled_tensors(source: Path | bytes, where: str) -> Any:
    """Return what ``torch.load`` reads of a ``.pt`` file, which cannot execute anything.

    Raises:
        pickle.UnpicklingError: If it wants to, or is damaged.
        UserError: If it would inflate: ``torch.save`` does not compress.
    """
    import torch

    file = io.BytesIO(source) if isinstance(source, bytes) else plain_file(source, where, TENSORS)
    if zipfile.is_zipfile(file):
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with zipfile.ZipFile(file) as pack:
            inflated = sum(one.file_size for one in pack.infolist())
        if inflated > max(2 * size, SMALL):
            raise UserError(
                f"{where} is refused: its {said(size)} would inflate to {said(inflated)}, and weights as torch.save "
                "writes them are not compressed."
            )
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats of earlier versions
        return torch.load(file, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def open_image(source: Path | bytes, decode: bool = True) -> Iterator[Image.Image]:
    """Yield a picture.

    Args:
        source: The file, or what it holds.
        decode: Decode the pixels too; without, its size and its texts are known.

    Raises:
        UserError: If it is none of a known format, is damaged, or has too many pixels.
    """
    from PIL import Image

    where = "A picture" if isinstance(source, bytes) else str(source)
    if isinstance(source, Path):
        plain_file(source, where, GIB)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of the same limit, which is an error here
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        if image.width * image.height > PIXELS:
            raise Image.DecompressionBombError
        if decode:
            image.load()
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{where} has more pixels than the {PIXELS:,} that are read; make it smaller or take it out."
        ) from error
    except Exception as error:  # whatever a decoder raises for a damaged file
        reason = reason_of(error)
        raise UserError(f"{where} cannot be read as an image ({reason}); repair it or take it out.") from error
    with image:
        yield image


def parquet_rows(path: Path) -> pa.Table:
    """Return the rows of a parquet file, decoded a part at a time where they might be too many.

    Raises:
        UserError: If it is no parquet file, or its rows are too many or too large.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain_file(path, str(path), TENSORS)
    try:
        with pa.OSFile(str(path)) as opened, pq.ParquetFile(opened) as file:
            meta = file.metadata
            if meta.num_rows > ROWS:
                raise UserError(f"{path} says it has {meta.num_rows:,} rows, and at most {ROWS:,} are read.")
            encoded = sum(max(0, meta.row_group(place).total_byte_size) for place in range(meta.num_row_groups))
            if encoded > DECODED:
                raise UserError(f"{path} holds {said(encoded)} of rows, and at most {said(DECODED)} are read.")
            if meta.num_rows * encoded <= DECODED:  # no row can be larger than all that is encoded
                return file.read(use_threads=False)
            parts, size = [], 0
            for part in file.iter_batches(max(16, min(65536, DECODED // max(1, encoded))), use_threads=False):
                parts.append(part)
                if (size := size + part.nbytes) > DECODED:
                    raise UserError(f"The rows of {path} decode to more than {said(DECODED)}, which is not read.")
            return pa.Table.from_batches(parts, file.schema_arrow)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is no readable parquet file ({reason_of(error)}).") from error


def yaml_of(text: str, where: str) -> Any:
    """Return what a yaml holds, by libyaml where it is there, which crashes where it nests too deeply.

    Raises:
        yaml.YAMLError: If it is none.
        UserError: If it nests too deeply, or refers to itself.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH or isinstance(event, yaml.AliasEvent):
            raise UserError(f"{where} nests more than {DEPTH} deep, or has references, which are not read.")
    return yaml.load(text, loader)


def check_archive(names_and_sizes: Mapping[str, int], folder: Path, room: int) -> None:
    """Refuse an archive that would write outside of a folder, or more than there is room for.

    Args:
        names_and_sizes: Bytes by member.
        folder: Where it is to be unpacked.
        room: Free bytes there.

    Raises:
        UserError: Naming the member or the limit.
    """
    for name in names_and_sizes:
        try:
            inside = (folder / name).resolve().is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside or "\\" in name:
            raise UserError(f"The archive was not unpacked: '{name}' in it would be written outside of its folder.")
    total, limit = sum(names_and_sizes.values()), min(UNPACKED, room)
    if total > limit:
        raise UserError(f"The archive was not unpacked: it would take {said(total)}, and at most {said(limit)} are.")


def check_inflation(sizes: Mapping[str, int], path: Path) -> None:
    """Refuse a compressed file whose parts, held in memory, would be far larger than it is.

    Raises:
        UserError: Naming the file and the limit.
    """
    total, size = sum(sizes.values()), path.stat().st_size
    if total > max(INFLATION * size, SMALL):
        raise UserError(
            f"{path} is refused: its {said(size)} would inflate to {said(total)}, more than {INFLATION} times as much."
        )


def gunzipped(path: Path, limit: int) -> bytes:
    """Return what a gzip file holds, of at most ``limit`` bytes.

    Raises:
        UserError: If it is none, or holds more.
    """
    import gzip

    try:
        with gzip.open(plain_file(path, str(path), TENSORS)) as file:
            held = file.read(limit + 1)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is no complete gzip file ({reason_of(error)}).") from error
    if len(held) > limit:
        raise UserError(f"{path} would inflate to more than {said(limit)}, which is not read.")
    return held


def reason_of(error: BaseException) -> str:
    """Return what an exception says, on one short line."""
    return told(error)[:120].rstrip(".")
