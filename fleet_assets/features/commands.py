"""`fleet features`: what there is, what a service says of an entity, and which kernels there have been.

In: arguments. Out: a table for people, or JSON.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

features_app = typer.Typer(no_args_is_help=True, help="Features and their kernels. Example: `fleet features list`")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Ref = Annotated[str, typer.Option("--at", help="Branch, tag or commit of the lake.", metavar="REF")]


@features_app.command("list")
def list_features(json: Json = False) -> None:
    """Every feature of every view: type, meaning, owner, kernel. Example: `fleet features list`"""
    from fleet_assets.features.catalogue import catalogue

    rows = catalogue()
    console.print_rows(rows, title=f"{len(rows)} features", empty="No features.", as_json=json)


@features_app.command("get")
def get(
    service: Annotated[str, typer.Argument(help="Feature service, such as perception_context_v1.")],
    entity: Annotated[list[str], typer.Option(help="A join key, as key=value. Repeatable.", metavar="KEY=VALUE")],
    at: Ref = "main",
    time: Annotated[str | None, typer.Option(help="As known then, ISO 8601, UTC; now unless given.")] = None,
    json: Json = False,
) -> None:
    """What a service says of one entity, at a commit and a time.

    Example: `fleet features get perception_context_v1 --entity drive_id=car7--20260102T030405Z --entity frame=7`
    """
    from fleet_assets.features.catalogue import look_up

    found = look_up(service, _pairs(entity), ref=at, time=time)
    if json:
        console.print_json(found)
        return
    rows = [{"feature": name, "value": value} for name, value in found["features"].items()]
    title = f"{service} at commit {found['commit_id'][:12]}, as known at {found['time']}; status {found['status']}"
    console.print_rows(rows, title=title, empty="No features.", as_json=False)
    views = [{"view": name, "status": status} for name, status in found["views"].items()]
    console.print_rows(views, title="What each view knew", empty="No views.", as_json=False)


@features_app.command("history")
def history(
    record: Annotated[bool, typer.Option("--record", help="Write new versions of kernels down.")] = False,
    at: Ref = "main",
    json: Json = False,
) -> None:
    """Versions and identities of the kernels, and how many drives of the lake were made by each.

    Examples: `fleet features history`, after a kernel has a new VERSION: `fleet features history --record`
    """
    from fleet_assets.features import identity
    from fleet_assets.features.catalogue import kernel_history
    from fleet_assets.lake.lake import Lake

    if record:
        for line in identity.record():
            console.say(f"written down: {line}")
    findings = identity.check()
    home = Home.open()
    rows = kernel_history(Lake.open(home).at(at) if _has_lake(home) else None)
    console.print_rows(rows, title="Kernels", empty="No kernels.", as_json=json)
    for finding in findings:
        console.say(str(finding))
    if findings:
        raise typer.Exit(console.Exit.FINDINGS)


@features_app.command("docs")
def docs(json: Json = False) -> None:
    """Write a page per feature view in docs/views. Example: `fleet features docs`"""
    from fleet_assets.contracts.check import write_docs
    from fleet_assets.features.pages import FOLDER, pages

    rows = [{"page": name} for name in write_docs(FOLDER, pages)]
    console.print_rows(rows, title="Written", empty="The pages are current.", as_json=json)


def _has_lake(home: Home) -> bool:
    from fleet_assets.services.supervisor import status

    return any(service.name == "lakefs" and service.ready for service in status(home))


def _pairs(entity: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in entity:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise FleetError(f"{pair!r} is no join key", remedy="Write --entity key=value, such as --entity frame=7.")
        found[key] = value
    return found
