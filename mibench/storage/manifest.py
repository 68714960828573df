"""The manifest of an artifact: what it is, its facts, and checksums over all of it.

In the second form a manifest holds the SHA-256 of the tensors, their size, and a ``checksum``: the SHA-256 of
everything else in it. The tensors say in their header that there must be one. The first form, which earlier versions
wrote, has the SHA-256 of the tensors alone; such artifacts stay readable, and their facts are taken as they stand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mibench.errors import StoreError

#: The form that is written.
FORM = 2

#: What the header of the tensors says in that form.
HEADER: Mapping[str, str] = {"mibench_form": str(FORM)}

#: What a manifest of any form holds, with its type.
FIELDS: Mapping[str, type] = {"kind": str, "key": dict, "facts": dict, "sha256": str}


class DamagedError(Exception):
    """Why an artifact cannot be used, as a clause; its reader sets it aside."""


def canonical(value: Any) -> str:
    """Return plain data as one text; the order of mappings does not matter."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=True)


def sealed(kind: str, digest: str, key: Mapping[str, Any], facts: Mapping[str, Any], tensors: bytes) -> bytes:
    """Return the manifest of an artifact, under its checksum."""
    said = {
        "form": FORM,
        "kind": kind,
        "digest": digest,
        "key": key,
        "facts": facts,
        "bytes": len(tensors),
        "sha256": hashlib.sha256(tensors).hexdigest(),
    }
    plain = json.loads(json.dumps(said))  # as it will be read: keys of mappings are strings then
    return json.dumps({**plain, "checksum": checksum_of(plain)}, sort_keys=True, indent=1).encode()


def checksum_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its checksum."""
    said = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(canonical(said).encode()).hexdigest()


def read_manifest(raw: bytes, kind: str, digest: str) -> dict[str, Any]:
    """Return the manifest of the artifact that lies as ``kind/digest``, of whatever form.

    Raises:
        DamagedError: If it is none, was cut or changed, or belongs to another artifact.
        StoreError: If a later version of mibench wrote it.
    """
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamagedError("its manifest cannot be read" if raw.strip() else "its manifest is empty") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), of) for name, of in FIELDS.items()):
        raise DamagedError("its manifest is not one")
    if "form" in manifest or "checksum" in manifest:
        if manifest.get("checksum") != checksum_of(manifest):
            raise DamagedError("the checksum of its manifest differs")
        if manifest.get("form") != FORM:
            raise StoreError(
                f"Artifact {kind}/{digest} is of form {manifest.get('form')}, which a later version of mibench wrote; "
                "update mibench or set paths.store to another folder."
            )
    if manifest["kind"] != kind or manifest.get("digest", digest) != digest:
        raise DamagedError("it belongs to another place")
    return manifest


def check_tensors(manifest: Mapping[str, Any], tensors: bytes) -> None:
    """Compare the tensors of an artifact with its manifest.

    Raises:
        DamagedError: If they are not those, or say that the manifest was shortened.
    """
    if hashlib.sha256(tensors).hexdigest() != manifest["sha256"]:
        raise DamagedError("the checksum of its tensors differs")
    if "checksum" not in manifest and said_in(tensors) != {}:
        raise DamagedError("its manifest has lost its checksum")


def said_in(tensors: bytes) -> Any:
    """Return what the header of a safetensors file says beside the tensors; nothing where it says nothing."""
    length = int.from_bytes(tensors[:8], "little")
    try:
        return json.loads(tensors[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedError("its tensors cannot be read") from error
