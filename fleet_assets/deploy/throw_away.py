"""A ceremony with throw-away keys, for demonstrations and tests: the same steps as a real one, with every key in one folder.

In: a folder of releases without a root, and a new folder for keys. Out: the first root, signed, and each holder's key file. Who
has this folder needs nobody's approval: never provision a real vehicle with such a root.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_assets.deploy.channel import make_online_keys
from fleet_assets.package.releases import Releases
from fleet_assets.signing.files import write_durably
from fleet_assets.signing.keys import PUBLIC_SUFFIX, SigningKey
from fleet_assets.signing.roles import Roles

ROOT_HOLDERS, APPROVERS = ("ada", "bo", "cy"), ("dee", "eli", "fay")
PHRASE = "passphrase"
_ROLES = """\
[keys]
{keys}

[root]
threshold = 2
expires_days = 365
holders = {root}

[targets]
threshold = 2
expires_days = 180
holders = {targets}

[snapshot]
threshold = 1
expires_days = 30
holders = ["snapshot"]

[timestamp]
threshold = 1
expires_days = 7
holders = ["timestamp"]
"""


@dataclass(frozen=True)
class Ceremony:
    """folder: key files by holder's name, passphrase, roles.toml."""

    folder: Path
    keys: Mapping[str, SigningKey]

    @property
    def passphrase_file(self) -> Path:
        return self.folder / PHRASE


def hold(releases: Releases, folder: Path) -> Ceremony:
    """Raises FleetError if there is a root already, or the folder has keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    passphrase = secrets.token_urlsafe(24)
    write_durably(folder / PHRASE, passphrase.encode(), mode=0o600)
    keys = {name: SigningKey.create(folder / name, passphrase) for name in (*ROOT_HOLDERS, *APPROVERS)}
    public = {name: f"{name}{PUBLIC_SUFFIX}" for name in keys}
    public |= {
        role: str((releases.online / f"{role}{PUBLIC_SUFFIX}").absolute()) for role in make_online_keys(releases)
    }
    (folder / "roles.toml").write_text(roles_text(public), encoding="utf-8")
    releases.roots.propose(Roles.read(folder / "roles.toml"))
    for name in ROOT_HOLDERS[:2]:
        releases.roots.sign(keys[name])
    return Ceremony(folder, keys)


def roles_text(public: Mapping[str, str]) -> str:
    """A roles file. public: file of the public key by holder's name, and of snapshot and timestamp."""
    lines = "\n".join(f'{name} = "{file}"' for name, file in public.items())
    return _ROLES.format(keys=lines, root=_list(ROOT_HOLDERS), targets=_list(APPROVERS))


def _list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
