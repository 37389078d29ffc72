"""Who may sign what: the roles file, and the root metadata that says the same, signed.

In: a TOML file with four roles, and the public keys that it names; or root metadata. Out: Roles, checked.

    [keys]                         # holder = public key, relative to this file
    ada = "ada.pub"
    [root]
    threshold = 2                  # so many different keys must sign
    expires_days = 365
    holders = ["ada", "bo", "cy"]

and so for `targets` (who approves releases), `snapshot` and `timestamp` (the channel's own). Keys of root and targets are kept
offline; no key is in an offline role and in one of the channel's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tuf.api.metadata import Key, Role, Root

from fleet_assets.errors import FleetError
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.keys import PublicKey

OFFLINE, ONLINE = ("root", "targets"), ("snapshot", "timestamp")
NAMES = (*OFFLINE, *ONLINE)
# One person alone changes neither who may sign nor what is released.
LEAST_THRESHOLD = {"root": 2, "targets": 2, "snapshot": 1, "timestamp": 1}
_HOLDERS_LIMIT, _DAYS_LIMIT, _FILE_LIMIT = 32, 3650, 1 << 16
_HOLDER = re.compile(r"\w[\w .@-]{0,63}")


@dataclass(frozen=True)
class Holding:
    """One role: how many of its holders must sign, and for how many days that is good."""

    threshold: int
    expires_days: int
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Roles:
    """roles: by NAMES. keys: by holder. Raises FleetError for what no fleet should run on."""

    roles: Mapping[str, Holding]
    keys: Mapping[str, PublicKey]

    def __post_init__(self) -> None:
        for name in NAMES:
            role = self.roles[name]
            if len(set(role.holders)) != len(role.holders) or not set(role.holders) <= self.keys.keys():
                raise _wrong(f"{name} names a holder twice, or one without a key", "List each once, with a key.")
            if not LEAST_THRESHOLD[name] <= role.threshold <= len(role.holders):
                raise _wrong(
                    f"{name} has a threshold of {role.threshold} with {len(role.holders)} holders",
                    f"Take at least {LEAST_THRESHOLD[name]}, and no more than there are holders.",
                )
        if len({key.id for key in self.keys.values()}) != len(self.keys):
            raise _wrong("Two holders have the same key", "Give each holder a key of their own.")
        both = self._of(OFFLINE) & self._of(ONLINE)
        if both:
            raise _wrong(f"{min(both)} is in an offline role and in one of the channel's", "Take a key for each.")

    def refuse_idle(self) -> Roles:
        """The same. Raises FleetError for a key in no role, of what is proposed; a root that counts already may have some."""
        idle = self.keys.keys() - self._of(NAMES)
        if idle:
            raise _wrong(f"{min(idle)} has a key and is in no role", "Give them a role, or leave the key out.")
        return self

    def _of(self, names: tuple[str, ...]) -> set[str]:
        return {holder for name in names for holder in self.roles[name].holders}

    @classmethod
    def read(cls, path: Path) -> Roles:
        """The roles file. Raises FleetError with the place of the mistake."""
        try:
            with open(path, "rb") as file:
                document = tomllib.loads(file.read(_FILE_LIMIT).decode())
        except OSError as error:
            raise FleetError(f"Cannot read {path}: {error.strerror}", remedy="Name a roles file.") from error
        except ValueError as error:
            raise FleetError(f"{path} is no TOML", where=str(error), remedy="See docs/releases.md.") from error
        if set(document) != {"keys", *NAMES}:
            raise FleetError(f"{path} has not just keys, {', '.join(NAMES)}", remedy="See docs/releases.md.")
        try:
            return cls(
                {name: _holding(document[name], name) for name in NAMES},
                {holder: _key(path, holder, file) for holder, file in _entries(document["keys"])},
            ).refuse_idle()
        except FleetError as error:
            error.where = error.where or str(path)
            raise

    @classmethod
    def of(cls, root: Root) -> Roles:
        """What root metadata says: all of it, for by this people see whose keys they put in. Raises FleetError if it has other
        keys than ours, or more than a key for each holder."""
        try:
            keys = {
                key_id: PublicKey(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"])))
                for key_id, key in root.keys.items()
            }
            holders = {key_id: tuf.holder_of(key) for key_id, key in root.keys.items()}
            roles = {
                name: Holding(
                    root.roles[name].threshold,
                    tuf.expires_days(root, name),
                    tuple(sorted(holders[key_id] for key_id in root.roles[name].keyids)),
                )
                for name in NAMES
            }
        except (ValueError, KeyError) as error:
            raise _wrong("The root has a key that is no Ed25519 key", "Restore the folder of roots.") from error
        if len(set(holders.values())) != len(holders) or any(key.id != key_id for key_id, key in keys.items()):
            raise _wrong("The root has two keys of one holder, or one under another's id", "Propose it anew.")
        return cls(roles, {holders[key_id]: key for key_id, key in keys.items()})

    def root(self, version: int, now: datetime) -> Root:
        """Root metadata that says this, unsigned."""
        keys: dict[str, Key] = {key.id: tuf.tuf_key(key, holder) for holder, key in self.keys.items()}
        roles = {
            name: Role(
                sorted(self.keys[holder].id for holder in role.holders),
                role.threshold,
                tuf.days_field(role.expires_days),
            )
            for name, role in self.roles.items()
        }
        expires = tuf.expiry(now, self.roles["root"].expires_days)
        return Root(version=version, expires=expires, keys=keys, roles=roles, consistent_snapshot=True)

    def with_key(self, holder: str, key: PublicKey) -> Roles:
        """The holder has another key from now on, in all their roles."""
        self._known(holder)
        return replace(self, keys={**self.keys, holder: key})

    def without(self, holder: str) -> Roles:
        """The holder signs nothing any more. Raises FleetError if a role then has too few holders."""
        self._known(holder)
        roles = {
            name: replace(role, holders=tuple(one for one in role.holders if one != holder))
            for name, role in self.roles.items()
        }
        return Roles(roles, {name: key for name, key in self.keys.items() if name != holder})

    def _known(self, holder: str) -> None:
        if holder not in self.keys:
            raise FleetError(f"{holder} holds no key", remedy=f"Holders are {', '.join(sorted(self.keys))}.")

    def lines(self) -> Iterator[dict[str, Any]]:
        """One row per role and holder, for people."""
        for name, role in self.roles.items():
            for holder in role.holders:
                yield {
                    "role": name,
                    "threshold": f"{role.threshold} of {len(role.holders)}",
                    "holder": holder,
                    "key": self.keys[holder].id,
                    "expires_days": role.expires_days,
                }


def _wrong(what: str, remedy: str) -> FleetError:
    return FleetError(what, remedy=remedy)


def _entries(found: object) -> list[tuple[str, str]]:
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise _wrong("[keys] does not name a file for each holder", 'Write holder = "file.pub".')
    return list(found.items())


def _key(path: Path, holder: str, file: str) -> PublicKey:
    if not _HOLDER.fullmatch(holder):
        raise _wrong(f"{holder!r} is no name of a holder", "Take letters, digits, spaces, and . @ - _.")
    return PublicKey.read(path.parent / file)


def _holding(found: object, name: str) -> Holding:
    if not isinstance(found, dict) or set(found) != {"threshold", "expires_days", "holders"}:
        raise _wrong(f"[{name}] has not just threshold, expires_days and holders", "See docs/releases.md.")
    threshold, days, holders = found["threshold"], found["expires_days"], found["holders"]
    if type(threshold) is not int or type(days) is not int or not 0 < days <= _DAYS_LIMIT:
        raise _wrong(f"[{name}] needs whole numbers", f"expires_days is at most {_DAYS_LIMIT}.")
    if not isinstance(holders, list) or not 0 < len(holders) <= _HOLDERS_LIMIT:
        raise _wrong(f"[{name}] needs a list of holders", f"At most {_HOLDERS_LIMIT}.")
    if not all(isinstance(holder, str) for holder in holders):
        raise _wrong(f"[{name}] has a holder that is no name", "Holders are names of [keys].")
    return Holding(threshold, days, tuple(holders))
