"""Ed25519 keys: made, kept, named.

In: a file and a passphrase. Out: a key that signs, or a set of keys that may have signed. A private key lies on disk only
encrypted (PKCS #8, PBES2), readable by its owner alone. A key's id is the sha256 of its 32 public bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fleet_assets.errors import FleetError

LEAST_PASSPHRASE = 12
_KEY_FILE_LIMIT = 1 << 16
PUBLIC_SUFFIX = ".pub"


@dataclass(frozen=True)
class PublicKey:
    """Who may have signed."""

    key: Ed25519PublicKey

    @property
    def id(self) -> str:
        raw = self.key.public_bytes(pem.Encoding.Raw, pem.PublicFormat.Raw)
        return hashlib.sha256(raw).hexdigest()

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether this key signed the message."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def write(self, path: Path) -> None:
        path.write_bytes(self.key.public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Raises FleetError if the file is no Ed25519 public key in PEM."""
        try:
            key = pem.load_pem_public_key(_bytes_of(path))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FleetError(
                f"{path} is no public key", remedy="Name a file that `SigningKey.create` wrote."
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise FleetError(f"{path} is no Ed25519 key", remedy="Make one: other kinds are not used here.")
        return cls(key)


@dataclass(frozen=True)
class SigningKey:
    """Who signs."""

    key: Ed25519PrivateKey

    @classmethod
    def create(cls, path: Path, passphrase: str) -> SigningKey:
        """A new key in a new file, and its public half beside it. Raises FleetError if there is one already."""
        if len(passphrase) < LEAST_PASSPHRASE:
            raise FleetError(
                f"A passphrase of {len(passphrase)} characters is too short",
                remedy=f"Take at least {LEAST_PASSPHRASE}.",
            )
        key = Ed25519PrivateKey.generate()
        encrypted = key.private_bytes(
            pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(passphrase.encode())
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise FleetError(
                f"{path} is there already", remedy="A key is never replaced; choose another name."
            ) from None
        with os.fdopen(handle, "wb") as file:
            file.write(encrypted)
            file.flush()
            os.fsync(file.fileno())
        made = cls(key)
        made.public.write(path.with_name(path.name + PUBLIC_SUFFIX))
        return made

    @classmethod
    def read(cls, path: Path, passphrase: str) -> SigningKey:
        """Raises FleetError for a wrong passphrase, a key that is not encrypted or open to others, or another kind."""
        if path.exists() and path.stat().st_mode & 0o077:
            raise FleetError(f"Others can read {path}", remedy=f"chmod 600 {path}, and think of making a new key.")
        try:
            key = pem.load_pem_private_key(_bytes_of(path), passphrase.encode())
        except TypeError:
            raise FleetError(
                f"{path} is not encrypted", remedy="Keep private keys encrypted; make a new one."
            ) from None
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FleetError(
                f"{path} does not open", remedy="The passphrase is wrong, or the file is no private key."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise FleetError(f"{path} is no Ed25519 key", remedy="Make one: other kinds are not used here.")
        return cls(key)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key.public_key())

    @property
    def id(self) -> str:
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self.key.sign(message)


class KeyRing:
    """Keys whose signatures count. There is no default: whoever verifies says whom they trust."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = {key.id: key for key in keys}
        if not self._keys:
            raise FleetError("No key is trusted", remedy="Name at least one public key.")

    @classmethod
    def read(cls, *paths: Path) -> KeyRing:
        """Public keys of files, and of all `*.pub` in folders."""
        files = [
            file for path in paths for file in (sorted(path.glob(f"*{PUBLIC_SUFFIX}")) if path.is_dir() else [path])
        ]
        return cls(PublicKey.read(file) for file in files)

    def get(self, key_id: str) -> PublicKey | None:
        return self._keys.get(key_id)

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys.values())


def _bytes_of(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_KEY_FILE_LIMIT)
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy="Name a key file that is there.") from error
