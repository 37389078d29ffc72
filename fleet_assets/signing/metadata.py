"""TUF metadata: our keys in it, and files that may be anything.

In: keys as in `keys`, metadata files. Out: `tuf` metadata objects; every way in which a file is no such metadata is a FleetError.
Key ids are those of `keys`, and the name of a key's holder is part of what root metadata signs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Key, Metadata, Root, Signed
from tuf.api.serialization import SerializationError

from fleet_assets.errors import FleetError
from fleet_assets.signing.keys import PublicKey, SigningKey

METADATA_BYTES_LIMIT = 4 << 20
_HOLDER, _DAYS = "x-fleet-holder", "x-fleet-expires-days"


def tuf_key(key: PublicKey, holder: str | None = None) -> SSlibKey:
    """A public key as metadata lists it. holder: who has it."""
    found = SSlibKey.from_crypto(key.key, keyid=key.id)
    if holder is not None:
        found.unrecognized_fields[_HOLDER] = holder
    return found


def holder_of(key: Key) -> str:
    """Who has a key that root metadata lists; else the start of its id."""
    return str(key.unrecognized_fields.get(_HOLDER, key.keyid[:12]))


def expires_days(root: Root, role: str) -> int:
    """For how many days new metadata of a role is good. Raises FleetError if the root does not say so."""
    found = root.roles[role].unrecognized_fields.get(_DAYS)
    if type(found) is not int or not 0 < found < 10_000:
        raise FleetError(f"The root does not say how long {role} metadata is good", remedy="Propose a root anew.")
    return found


def days_field(days: int) -> dict[str, int]:
    """What `expires_days` reads, for the fields of a role."""
    return {_DAYS: days}


def expiry(now: datetime, days: int) -> datetime:
    """Whole seconds: metadata has no finer ones."""
    return now.astimezone(UTC).replace(microsecond=0) + timedelta(days=days)


def add_signature(metadata: Metadata[Any], key: SigningKey) -> None:
    """One more signature; a second one of the same key replaces its first."""
    metadata.sign(CryptoSigner(key.key, tuf_key(key.public)), append=True)


def signers(root: Root, role: str, metadata: Metadata[Any]) -> dict[str, str]:
    """Keys of the role whose signatures hold: id -> holder."""
    found = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures).signed
    return {key_id: holder_of(key) for key_id, key in sorted(found.items())}


def parse(content: bytes, kind: type[Signed], name: str) -> Metadata[Any]:
    """Metadata of one kind, its signatures not yet checked. Raises FleetError if it is something else."""
    wrong = FleetError(f"{name} is no {kind.type} metadata", remedy="Fetch it anew from where it was signed.")
    if len(content) > METADATA_BYTES_LIMIT:
        raise wrong
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
        metadata.signed_bytes  # noqa: B018 - what has no canonical form, such as a fraction, is refused here
    except (SerializationError, RepositoryError, ValueError, RecursionError) as error:
        raise wrong from error
    if metadata.signed.type != kind.type:
        raise wrong
    return metadata


def read(path: Path, kind: type[Signed]) -> Metadata[Any]:
    """As parse, from a file."""
    try:
        with open(path, "rb") as file:
            content = file.read(METADATA_BYTES_LIMIT + 1)
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy="Name a file that is there.") from error
    return parse(content, kind, str(path))
