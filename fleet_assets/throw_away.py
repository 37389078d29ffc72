"""A ceremony with throw-away keys, for demonstrations and tests: by the commands of a real one, with every key in one folder.

In: a folder of releases without a root, and a new folder for keys. Out: the first root, signed, and each holder's key file. Who
has this folder needs nobody's approval: never provision a real vehicle with such a root.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from typer.main import get_command

from fleet_assets.package.releases import Releases
from fleet_assets.signing.files import write_durably
from fleet_assets.signing.keys import PUBLIC_SUFFIX, SigningKey

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

    @property
    def passphrase_file(self) -> Path:
        return self.folder / PHRASE

    @cached_property
    def keys(self) -> Mapping[str, SigningKey]:
        """By holder's name."""
        passphrase = self.passphrase_file.read_text()
        return {name: SigningKey.read(self.folder / name, passphrase) for name in (*ROOT_HOLDERS, *APPROVERS)}

    def with_key(self, holder: str) -> tuple[str | Path, ...]:
        """What a command that signs as the holder is told."""
        return "--key", self.folder / holder, "--passphrase-file", self.passphrase_file


def hold(releases: Releases, folder: Path) -> Ceremony:
    """Raises FleetError if there is a root already, or the folder has keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    held, where = Ceremony(folder), ("--releases", releases.folder)
    write_durably(held.passphrase_file, secrets.token_urlsafe(24).encode(), mode=0o600)
    for name in (*ROOT_HOLDERS, *APPROVERS):
        run("keys", "create", folder / name, "--passphrase-file", held.passphrase_file)
    public = {name: f"{name}{PUBLIC_SUFFIX}" for name in (*ROOT_HOLDERS, *APPROVERS)}
    public |= {row["role"]: str(Path(row["public"]).absolute()) for row in run("release", "online", *where)}
    (folder / "roles.toml").write_text(roles_text(public), encoding="utf-8")
    run("keys", "propose", folder / "roles.toml", *where)
    for name in ROOT_HOLDERS[:2]:
        run("keys", "sign", *held.with_key(name), *where)
    return held


def run(*arguments: str | Path) -> Any:
    """A `fleet` command, in this process; gives what its --json prints. Raises what the command raises, and RuntimeError when it
    ends with findings."""
    with redirect_stdout(io.StringIO()) as said:
        code = _command().main([*map(str, arguments), "--json"], prog_name="fleet", standalone_mode=False)
    if code:
        raise RuntimeError(f"fleet {' '.join(map(str, arguments))} ended with {code}: {said.getvalue()}")
    return json.loads(said.getvalue())


@cache
def _command() -> Any:
    from fleet_assets.cli import app  # which the demo is a command of

    return get_command(app)


def roles_text(public: Mapping[str, str]) -> str:
    """A roles file. public: file of the public key by holder's name, and of snapshot and timestamp."""
    lines = "\n".join(f'{name} = "{file}"' for name, file in public.items())
    return _ROLES.format(keys=lines, root=_list(ROOT_HOLDERS), targets=_list(APPROVERS))


def _list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
