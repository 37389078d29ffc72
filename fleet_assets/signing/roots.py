"""The chain of roots: who may sign what, from the first ceremony on.

In: roles, and signatures of root keys. Out: a folder with each root that was ever good, and the one that is being signed.

    FOLDER/1.root.json, 2.root.json, ...   each signed by its own root keys and by those of the one before
    FOLDER/next.root.json                  proposed; becomes the next when enough holders have signed
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from fleet_assets.errors import FleetError
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.files import one_at_a_time, write_durably
from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import Roles

_NEXT = "next.root.json"
_PUBLISHED = re.compile(r"([1-9][0-9]{0,5})\.root\.json")


@dataclass(frozen=True)
class Progress:
    """How far a proposed root is. signed: id -> holder. missing: signatures that are still needed, at least."""

    version: int
    signed: dict[str, str]
    missing: int
    published: bool


class Roots:
    """A folder of roots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, releases: Path) -> Roots:
        """Those in a folder of releases."""
        return cls(releases / "roots")

    def path(self, version: int) -> Path:
        return self.folder / f"{version}.root.json"

    def versions(self) -> list[int]:
        names = (_PUBLISHED.fullmatch(path.name) for path in self.folder.glob("*.root.json"))
        return sorted(int(name[1]) for name in names if name)

    def chain(self) -> list[Metadata[Any]]:
        """All roots, each checked against the one before. Raises FleetError if one is missing or not signed well."""
        found: list[Metadata[Any]] = []
        for version in self.versions():
            root = tuf.read(self.path(version), Root)
            before = found[-1].signed if found else None
            whole = root.signed.version == version == len(found) + 1
            if not whole or not root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures):
                raise FleetError(
                    f"{self.path(version)} does not follow from the root before", remedy="Restore the folder of roots."
                )
            found.append(root)
        return found

    def current(self) -> Root:
        """The latest root. Raises FleetError before the first ceremony."""
        chain = self.chain()
        if not chain:
            raise FleetError(f"{self.folder} has no root", remedy="Hold the ceremony: `fleet keys propose ROLES.toml`.")
        root: Root = chain[-1].signed
        return root

    def approvers(self) -> tuple[str, ...] | None:
        """Who approves releases, and what a gate loosens: holders of the targets role. None before the first ceremony."""
        chain = self.chain()
        return Roles.of(chain[-1].signed).roles["targets"].holders if chain else None

    def at(self, version: int) -> Root:
        """One root of the chain."""
        chain = self.chain()
        if not 0 < version <= len(chain):
            raise FleetError(f"{self.folder} has no root {version}", remedy="Restore the folder of roots.")
        root: Root = chain[version - 1].signed
        return root

    def proposed(self) -> Metadata[Any] | None:
        path = self.folder / _NEXT
        return tuf.read(path, Root) if path.exists() else None

    def propose(self, roles: Roles, now: datetime | None = None) -> Progress:
        """Writes the next root, unsigned, in place of one that was proposed before."""
        with one_at_a_time(self.folder):
            root = Metadata(roles.root(len(self.chain()) + 1, now or datetime.now(UTC)))
            write_durably(self.folder / _NEXT, root.to_bytes())
            return self._progress(root)

    def sign(self, key: SigningKey) -> Progress:
        """Adds one signature to the proposed root, and publishes it when there are enough.

        Raises FleetError if nothing is proposed, or the key is no root key of the old root or the new.
        """
        with one_at_a_time(self.folder):
            root = self.proposed()
            chain = self.chain()
            if root is None or root.signed.version != len(chain) + 1:
                raise FleetError(
                    "No root is proposed", remedy="Propose one: `fleet keys propose`, `rotate` or `revoke`."
                )
            Roles.of(root.signed).refuse_idle()  # what the holder was shown is all that it says
            roots = [root.signed, *(known.signed for known in chain[-1:])]
            if not any(key.id in one.roles["root"].keyids for one in roots):
                raise FleetError(
                    f"{key.id[:12]} is no root key", remedy="`fleet keys list` shows whose signatures count."
                )
            tuf.add_signature(root, key)
            progress = self._progress(root)
            write_durably(self.path(progress.version) if progress.published else self.folder / _NEXT, root.to_bytes())
            if progress.published:
                (self.folder / _NEXT).unlink()
            return progress

    def progress(self) -> Progress | None:
        """Of the proposed root, if there is one."""
        root = self.proposed()
        return self._progress(root) if root else None

    def _progress(self, root: Metadata[Any]) -> Progress:
        chain = self.chain()
        before = chain[-1].signed if chain else None
        try:
            result = root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures)
        except (ValueError, RepositoryError) as error:
            raise FleetError("The proposed root does not say who signs it", remedy="Propose it anew.") from error
        names = {key_id: tuf.holder_of(key) for key_id, key in sorted(result.signed.items())}
        missing = max(result.first.missing, result.second.missing)
        return Progress(root.signed.version, names, missing, result.verified)
