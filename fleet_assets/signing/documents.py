"""Signed documents.

In: a JSON object that says in `_type` what it is for, and keys. Out: one file {"signed": ..., "signatures": [...]}, the shape of
TUF metadata; or, from such a file, the object, after enough trusted keys have been found to have signed it. What is signed is
the object's canonical JSON, so white space and order in the file do not matter, and nothing is read from it before that.
JSON whose hash or signature lies elsewhere is read here too (`read_json`): bounded, an object, each key once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet_assets.errors import FleetError
from fleet_assets.signing.keys import KeyRing, SigningKey

DOCUMENT_BYTES_LIMIT = 64 << 20
_SIGNATURES_LIMIT = 64


def canonical(document: Any) -> bytes:
    """One form for equal content: sorted keys, no white space, UTF-8. Raises FleetError for numbers that have no one form."""
    _check(document, "the document", 0)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check(value: Any, where: str, depth: int) -> None:
    if depth > 32:
        raise FleetError("A document to be signed is nested too deep", where=where, remedy="Make it flatter.")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise FleetError(
                    "A document to be signed has a key that is no text", where=where, remedy="Make it one."
                )
            _check(key, where, depth)
            _check(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float):
        raise FleetError("A document to be signed has a fraction", where=where, remedy="Write it as text or integer.")
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FleetError("A document to be signed has half a character", where=where, remedy="Remove it.") from None
    elif value is not None and not isinstance(value, int):
        raise FleetError(
            f"A document to be signed has a {type(value).__name__}", where=where, remedy="Use JSON's types."
        )


def sign(document: Mapping[str, Any], keys: Sequence[SigningKey]) -> bytes:
    """The file for a document, signed by each key. document: has `_type`."""
    if not isinstance(document.get("_type"), str):
        raise FleetError("A document to be signed does not say what it is for", remedy="Give it a `_type`.")
    message = canonical(document)
    signatures = [{"keyid": key.id, "sig": key.sign(message).hex()} for key in keys]
    return canonical({"signed": document, "signatures": signatures})


def verify(file: bytes, keys: KeyRing, *, type: str, threshold: int = 1, name: str = "the document") -> dict[str, Any]:
    """The document, if threshold different trusted keys have signed it and its `_type` is the expected one.

    Raises FleetError else; the type is part of what is signed, so a signature for one purpose is none for another.
    """
    untrusted = FleetError(
        f"{name} is not signed by a trusted key", remedy="Fetch it anew, or trust the key that signed."
    )
    if len(file) > DOCUMENT_BYTES_LIMIT:
        raise FleetError(f"{name} has {len(file)} bytes, too many for a signed document", remedy="Fetch it anew.")
    try:
        envelope = json.loads(file, object_pairs_hook=once)
        document, signatures = envelope["signed"], envelope["signatures"]
        pairs = [(str(item["keyid"]), bytes.fromhex(item["sig"])) for item in signatures[:_SIGNATURES_LIMIT]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FleetError(f"{name} is no signed document", remedy="Fetch it anew.") from error
    if not isinstance(document, dict):
        raise FleetError(f"{name} is no signed document", remedy="Fetch it anew.")
    message = canonical(document)
    trusted = {id_ for id_, signature in pairs if (key := keys.get(id_)) is not None and key.holds(signature, message)}
    if len(trusted) < threshold:
        raise untrusted
    if document.get("_type") != type:
        raise FleetError(
            f"{name} is signed as {document.get('_type')!r}, not as {type!r}", remedy="Fetch the right one."
        )
    return document


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(object_pairs_hook=)`: a key that is there twice is a ValueError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def read_json(path: Path, *, limit_bytes: int, remedy: str) -> dict[str, Any]:
    """A JSON object from a file that may be anything. Raises FleetError if it is none, or too big."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy=remedy) from error
    return parse_json(content, str(path), limit_bytes=limit_bytes, remedy=remedy)


def parse_json(content: bytes, name: str, *, limit_bytes: int, remedy: str) -> dict[str, Any]:
    """As read_json, from bytes."""
    try:
        if len(content) > limit_bytes:
            raise ValueError(f"more than {limit_bytes} bytes")
        document = json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{name} is no JSON", where=str(error)[:100], remedy=remedy) from error
    if not isinstance(document, dict):
        raise FleetError(f"{name} is no JSON object", remedy=remedy)
    return document
