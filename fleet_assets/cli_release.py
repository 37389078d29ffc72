"""`fleet release` and `fleet trace`: candidates, approvals, the channel, and where a release comes from.

In: arguments. Out: what they ask for, as in `cli`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.cli_keys import Json, Key, PassphraseFile, open_key, releases_folder
from fleet_assets.cli_keys import Releases as Folder

if TYPE_CHECKING:
    from fleet_assets.deploy.channel import Published
    from fleet_assets.package.approve import Approval
    from fleet_assets.package.releases import Releases

release_app = typer.Typer(no_args_is_help=True, help="Releases. Example: `fleet release list`")
Id = Annotated[str, typer.Argument(metavar="RELEASE", help="8 or more characters of its id.")]


def _releases(folder: Path | None) -> Releases:
    from fleet_assets.package.releases import Releases

    return Releases(releases_folder(folder))


@release_app.command("list")
def list_(releases: Folder = None, json: Json = False) -> None:
    """All releases: candidate, gated, released or retired. Example: `fleet release list`"""
    found = _releases(releases)
    rows = [found.release(id_).row() for id_ in found.ids()]
    console.print_rows(
        rows, title="Releases", empty="No candidate yet: `fleet run package/release_candidate`.", as_json=json
    )


@release_app.command("show")
def show(release: Id, releases: Folder = None, json: Json = False) -> None:
    """The verdict of a release, a row per cell, and who has approved it. Example: `fleet release show 3f9c2a10`"""
    from fleet_assets.evaluate.table import verdict_rows

    found = _releases(releases)
    about = found.release(found.find(release))
    if json:
        console.print_json({**about.row(), "id": about.id, "cells": verdict_rows(about.verdict)})
        return
    _print_verdict(about.id, found)
    row = {key: value for key, value in about.row().items() if key not in ("verdict", "blocked_by")}
    console.print_rows([row], title="\nRelease", empty="", as_json=False)


@release_app.command("sign")
def sign(
    release: Id, key: Key, passphrase_file: PassphraseFile = None, releases: Folder = None, json: Json = False
) -> None:
    """Show the verdict, verify everything anew, and add one approver's signature. Without PASS it refuses.

    Example: `fleet release sign 3f9c2a10 --key /media/stick/dee`
    """
    from fleet_assets.package.approve import carried_by, changes_of_gate, verify_candidate
    from fleet_assets.package.approve import sign as add_signature

    found = _releases(releases)
    id_ = found.find(release)
    if not json:
        _print_verdict(id_, found)
    verdict = verify_candidate(found, id_)  # before anybody types a passphrase
    if not json:
        looser = [change.row() for change in changes_of_gate(found, id_, verdict) if change.loosens]
        carried = [found.release(other).row() for other in carried_by(found, id_)]
        for rows, title in (
            (looser, "Its gate is looser than that of the release before"),
            (carried, "Signed with it, as released before"),
        ):
            if rows:
                console.print_rows(rows, title=f"\n{title}", empty="", as_json=False)
    _print_approval(add_signature(found, id_, open_key(key, passphrase_file)), json)


@release_app.command("publish")
def publish(release: Id, releases: Folder = None, json: Json = False) -> None:
    """Make the channel point to a release that enough approvers have signed. Example: `fleet release publish 3f9c2a10`"""
    from fleet_assets.deploy.channel import publish as point_to

    found = _releases(releases)
    _print_published(point_to(found, found.find(release)), json)


@release_app.command("refresh")
def refresh(releases: Folder = None, json: Json = False) -> None:
    """Keep the channel current: a new timestamp, and roots that came since. Example: `fleet release refresh`"""
    from fleet_assets.deploy.channel import refresh as renew_timestamp

    _print_published(renew_timestamp(_releases(releases)), json)


@release_app.command("rollback")
def rollback(release: Id, releases: Folder = None, json: Json = False) -> None:
    """Start the approval of a release of earlier: a new version that points back. Approvers sign, then it is published.

    Example: `fleet release rollback 3f9c2a10`
    """
    from fleet_assets.package.approve import roll_back

    found = _releases(releases)
    _print_approval(roll_back(found, found.find(release)), json)


@release_app.command("renew")
def renew(release: Id, releases: Folder = None, json: Json = False) -> None:
    """Start the approval of what is released, once more: it expires, or a signer's key was revoked.

    Example: `fleet release renew 3f9c2a10`
    """
    from fleet_assets.package.approve import renew as again

    found = _releases(releases)
    _print_approval(again(found, found.find(release)), json)


@release_app.command("online")
def online(releases: Folder = None, json: Json = False) -> None:
    """Make the channel's own keys, and show their public halves for the roles file. Example: `fleet release online`"""
    from fleet_assets.deploy.channel import make_online_keys
    from fleet_assets.signing.keys import PUBLIC_SUFFIX

    found = _releases(releases)
    rows = [
        {"role": role, "public": str(found.online / f"{role}{PUBLIC_SUFFIX}"), "id": key.id}
        for role, key in make_online_keys(found).items()
    ]
    console.print_rows(rows, title="Keys of the channel", empty="", as_json=json)


def trace_command(
    release: Annotated[
        str, typer.Argument(metavar="RELEASE|REPORT", help="8 or more characters of an id, or a vehicle's report.")
    ],
    releases: Folder = None,
    json: Json = False,
) -> None:
    """From an artefact to verdict, data, features, code and approvers; needs no server. Example: `fleet trace 3f9c2a10`"""
    from fleet_assets.package.tracing import trace_of

    found = trace_of(_releases(releases), release)
    if json:
        console.print_json(found)
        return
    console.print_rows(found["verdict"].pop("cells"), title=f"Release {found['release']}", empty="", as_json=False)
    for name, value in found.items():
        if name not in ("_type", "release"):
            rows = value if isinstance(value, list) else [value]
            console.print_rows(
                rows, title=f"\n{name.replace('_', ' ').capitalize()}", empty=f"\n{name}: none", as_json=False
            )


def _print_verdict(id_: str, releases: Releases) -> None:
    from fleet_assets.evaluate.table import verdict_rows

    release = releases.release(id_)
    title = f"{id_[:12]} for {release.hardware}, profile {release.profile}: {release.verdict.status}"
    console.print_rows(verdict_rows(release.verdict), title=title, empty="", as_json=False)


def _print_approval(approval: Approval, json: bool) -> None:
    if json:
        console.print_json(asdict(approval))
        return
    names = ", ".join(approval.signed.values()) or "nobody"
    if approval.missing:
        console.say(f"{approval.release[:12]} is signed by {names}; {approval.missing} more must sign.")
    else:
        console.say(f"{approval.release[:12]} is signed by {names}: `fleet release publish {approval.release[:12]}`.")


def _print_published(published: Published, json: bool) -> None:
    row: dict[str, Any] = asdict(published)
    console.print_rows([row], title="The channel points to", empty="", as_json=json)
