"""`fleet keys`: the ceremonies of root and release keys.

In: arguments. Out: what they ask for, as in `cli`. A passphrase is asked for, or read from a file that only its owner can read;
it is never an argument or a variable.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.errors import FleetError

if TYPE_CHECKING:
    from fleet_assets.signing.keys import SigningKey
    from fleet_assets.signing.roots import Progress, Roots

keys_app = typer.Typer(no_args_is_help=True, help="Who may sign what. Example: `fleet keys list`")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Releases = Annotated[
    Path | None, typer.Option("--releases", help="The folder of releases; the installation's when none is given.")
]
Key = Annotated[Path, typer.Option("--key", help="A private key; its passphrase is asked for.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="The passphrase is the first line of this file (0600), or of a descriptor, as /dev/fd/3."),
]
_PASSPHRASE_LIMIT = 1024


def passphrase(file: Path | None, *, new: bool = False, what: str = "Passphrase") -> str:
    """From the file, else from a hidden prompt. Raises FleetError for a file that others can read."""
    if file is None:
        return str(typer.prompt(what, hide_input=True, confirmation_prompt=new, err=True))
    try:
        with open(file, encoding="utf-8") as lines:
            mode = os.fstat(lines.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise FleetError(f"Others can read {file}", remedy=f"chmod 600 {file}, and take a new passphrase.")
            return lines.readline(_PASSPHRASE_LIMIT).rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise FleetError(f"Cannot read {file}", where=str(error), remedy="Name a file with one line.") from error


def open_key(path: Path, file: Path | None) -> SigningKey:
    from fleet_assets.signing.keys import SigningKey

    return SigningKey.read(path, passphrase(file, what=f"Passphrase of {path.name}"))


def releases_folder(given: Path | None) -> Path:
    from fleet_assets.services.home import Home

    return given or Home.open().releases


def _roots(releases: Path | None) -> Roots:
    from fleet_assets.signing.roots import Roots

    return Roots.of(releases_folder(releases))


@keys_app.command("create")
def create(
    path: Annotated[Path, typer.Argument(help="A new file; its public half is written beside it.")],
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Make a key: encrypted, readable by you alone. Example: `fleet keys create /media/stick/ada`"""
    from fleet_assets.signing.keys import PUBLIC_SUFFIX, SigningKey

    key = SigningKey.create(path, passphrase(passphrase_file, new=True))
    row = {"key": str(path), "public": f"{path}{PUBLIC_SUFFIX}", "id": key.id}
    console.print_rows([row], title="Made", empty="", as_json=json)


@keys_app.command("list")
def list_(releases: Releases = None, json: Json = False) -> None:
    """Roles, holders and keys of the current root, and who has signed the next one. Example: `fleet keys list`"""
    from fleet_assets.signing.roles import Roles

    roots = _roots(releases)
    chain = roots.chain()
    root = chain[-1].signed if chain else None
    rows = list(Roles.of(root).lines()) if root else []
    progress = roots.progress()
    if json:
        about = {"version": root.version, "expires": root.expires.isoformat()} if root else None
        console.print_json({"root": about, "roles": rows, "next": progress and asdict(progress)})
        return
    title = f"Root {root.version}, good until {root.expires:%Y-%m-%d}" if root else ""
    console.print_rows(rows, title=title, empty="No root yet: `fleet keys propose ROLES.toml`.", as_json=False)
    if progress:
        _say(progress)


@keys_app.command("propose")
def propose(
    roles_file: Annotated[
        Path | None, typer.Argument(help="Who shall hold which role; as now, with a new expiry, when none is given.")
    ] = None,
    releases: Releases = None,
    json: Json = False,
) -> None:
    """Propose a root: the first one, or a change. Holders of root keys then sign it. Example: `fleet keys propose roles.toml`"""
    from fleet_assets.signing.roles import Roles

    roots = _roots(releases)
    _proposed(roots, Roles.read(roles_file) if roles_file else Roles.of(roots.current()), json)


@keys_app.command("rotate")
def rotate(
    holder: Annotated[str, typer.Argument(help="Whose key it is.")],
    new: Annotated[Path, typer.Argument(help="The new public key.")],
    releases: Releases = None,
    json: Json = False,
) -> None:
    """Propose another key for a holder, in all their roles. Example: `fleet keys rotate ada /media/stick/ada2.pub`"""
    from fleet_assets.signing.keys import PublicKey
    from fleet_assets.signing.roles import Roles

    roots = _roots(releases)
    _proposed(roots, Roles.of(roots.current()).with_key(holder, PublicKey.read(new)), json)


@keys_app.command("revoke")
def revoke(
    holder: Annotated[str, typer.Argument(help="Who signs nothing any more.")],
    releases: Releases = None,
    json: Json = False,
) -> None:
    """Propose a root without a holder: a key was lost, or somebody left. Example: `fleet keys revoke ada`"""
    from fleet_assets.signing.roles import Roles

    roots = _roots(releases)
    _proposed(roots, Roles.of(roots.current()).without(holder), json)


@keys_app.command("sign")
def sign(key: Key, passphrase_file: PassphraseFile = None, releases: Releases = None, json: Json = False) -> None:
    """Show what the proposed root changes, and sign it. Example: `fleet keys sign --key /media/stick/ada`"""
    from fleet_assets.signing.roles import Roles

    roots = _roots(releases)
    root = roots.proposed()
    if root is not None and not json:
        chain = roots.chain()
        before = Roles.of(chain[-1].signed) if chain else None
        _print_changes(_changes(before, Roles.of(root.signed)), root.signed.version)
    progress = roots.sign(open_key(key, passphrase_file))
    _print_progress(progress, json)


def _proposed(roots: Roots, roles: Any, json: bool) -> None:
    from fleet_assets.signing.roles import Roles

    chain = roots.chain()
    before = Roles.of(chain[-1].signed) if chain else None
    progress = roots.propose(roles)
    if not json:
        _print_changes(_changes(before, roles), progress.version)
    _print_progress(progress, json)


def _changes(before: Any, after: Any) -> list[dict[str, Any]]:
    old = {(row["role"], row["holder"], row["key"], row["threshold"]) for row in before.lines()} if before else set()
    new = {(row["role"], row["holder"], row["key"], row["threshold"]) for row in after.lines()}
    return [
        {"change": change, "role": role, "holder": holder, "key": key, "threshold": threshold}
        for change, rows in (("leaves", old - new), ("joins", new - old))
        for role, holder, key, threshold in sorted(rows)
    ]


def _print_changes(rows: Sequence[dict[str, Any]], version: int) -> None:
    title = f"Root {version} would change"
    console.print_rows(rows, title=title, empty="Nothing but the expiry would change.", as_json=False)


def _print_progress(progress: Progress, json: bool) -> None:
    if json:
        console.print_json(asdict(progress))
    else:
        _say(progress)


def _say(progress: Progress) -> None:
    names = ", ".join(progress.signed.values()) or "nobody"
    if progress.published:
        console.say(f"Root {progress.version} counts from now on; signed by {names}.")
    else:
        console.say(
            f"Root {progress.version} is proposed; signed by {names}; at least {progress.missing} more must sign."
        )
