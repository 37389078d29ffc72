"""A ceremony with throw-away keys, as tests need it: files on disk, threshold 2, one holder more than needed."""

from __future__ import annotations

from pathlib import Path

from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import Roles
from fleet_assets.signing.roots import Roots

PASSPHRASE = "a passphrase for tests"
ROOT_HOLDERS, TARGETS_HOLDERS = ("ada", "bo", "cy"), ("dee", "eli", "fay")
ROLES = """
[keys]
{keys}
[root]
threshold = 2
expires_days = 365
holders = ["ada", "bo", "cy"]
[targets]
threshold = 2
expires_days = 180
holders = ["dee", "eli", "fay"]
[snapshot]
threshold = 1
expires_days = 30
holders = ["snapshot"]
[timestamp]
threshold = 1
expires_days = 7
holders = ["timestamp"]
"""


def make_keys(folder: Path) -> dict[str, SigningKey]:
    """One key per holder, in files of their names."""
    names = (*ROOT_HOLDERS, *TARGETS_HOLDERS, "snapshot", "timestamp")
    return {name: SigningKey.create(folder / name, PASSPHRASE) for name in names}


def roles_file(folder: Path) -> Path:
    names = (*ROOT_HOLDERS, *TARGETS_HOLDERS, "snapshot", "timestamp")
    path = folder / "roles.toml"
    path.write_text(ROLES.format(keys="\n".join(f'{name} = "{name}.pub"' for name in names)))
    return path


def held(folder: Path, roots: Roots) -> dict[str, SigningKey]:
    """Keys, and the first root, signed by two of three."""
    keys = make_keys(folder)
    roots.propose(Roles.read(roles_file(folder)))
    for name in ROOT_HOLDERS[:2]:
        roots.sign(keys[name])
    return keys
