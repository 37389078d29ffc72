"""A ceremony with throw-away keys, as tests need it: files on disk, threshold 2, one holder more than needed."""

from __future__ import annotations

from pathlib import Path

from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import ONLINE, Roles
from fleet_assets.signing.roots import Roots
from fleet_assets.throw_away import APPROVERS, ROOT_HOLDERS, roles_text

PASSPHRASE = "a passphrase for tests"
_NAMES = (*ROOT_HOLDERS, *APPROVERS, *ONLINE)


def make_keys(folder: Path) -> dict[str, SigningKey]:
    """One key per holder, in files of their names."""
    return {name: SigningKey.create(folder / name, PASSPHRASE) for name in _NAMES}


def roles_file(folder: Path) -> Path:
    path = folder / "roles.toml"
    path.write_text(roles_text({name: f"{name}.pub" for name in _NAMES}))
    return path


def held(folder: Path, roots: Roots) -> dict[str, SigningKey]:
    """Keys, and the first root, signed by two of three."""
    keys = make_keys(folder)
    roots.propose(Roles.read(roles_file(folder)))
    for name in ROOT_HOLDERS[:2]:
        roots.sign(keys[name])
    return keys
