"""`fleet datasets`: which datasets there are, what one is made of, and how two differ.

In: arguments. Out: a table for people, or JSON.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

datasets_app = typer.Typer(no_args_is_help=True, help="Datasets and what is in them. Example: `fleet datasets list`")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Name = Annotated[str, typer.Argument(help="Name of a dataset.", metavar="NAME")]


@datasets_app.command("list")
def list_datasets(json: Json = False) -> None:
    """All datasets: recipe, commit, drives, clips. Example: `fleet datasets list`"""
    from fleet_assets.curate.dataset import datasets
    from fleet_assets.lake.lake import Lake

    rows = [
        {name: value for name, value in row.items() if name != "manifest"}
        for row in datasets(Lake.open(Home.open()).at())
    ]
    if not json:
        rows = [{**row, "commit_id": row["commit_id"][:12]} for row in rows]
    console.print_rows(rows, title=f"{len(rows)} datasets", empty="No datasets.", as_json=json)


@datasets_app.command("show")
def show(
    name: Name,
    slice_: Annotated[
        str | None,
        typer.Option(
            "--slice", help="Which scenarios hold a slice, such as one that a gate blocked on.", metavar="KEY=VALUE"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What a dataset is made of: drives and splits, what was left out and why, coverage, findings.

    Examples: `fleet datasets show NAME`, and what fills a slice: `fleet datasets show NAME --slice light=night`
    """
    from fleet_assets.curate.coverage import scenarios_holding
    from fleet_assets.curate.dataset import coverage_of, open_dataset
    from fleet_assets.lake.lake import Lake

    lake = Lake.open(Home.open())
    manifest, snapshot = open_dataset(lake, name)
    if slice_ is not None:
        dimension, value = _slice(slice_)
        rows = scenarios_holding(lake.at(), dimension, value, list(manifest.drives))
        title = f"Scenarios in drives where {dimension} is {value}, now on main"
        console.print_rows(rows, title=title, empty=f"No drive has {dimension} {value}.", as_json=json)
        return
    cover = coverage_of(snapshot, name)
    if json:
        console.print_json({"manifest": manifest.document, "manifest_object": manifest.path, "coverage": cover})
        return
    drives = [
        {
            "drive_id": drive,
            "split": about["split"],
            **about["slices"],
            "clips": about["clips"],
            "frames": about["frames"],
            "labelled_frames": about["labels"]["labelled_frames"],
        }
        for drive, about in manifest.drives.items()
    ]
    recipe = manifest.document["recipe"]
    title = f"{name}: recipe {recipe['name']} {recipe['version']} at commit {manifest.commit_id[:12]}"
    console.print_rows(drives, title=title, empty="No drives.", as_json=False)
    shown = (
        "dimension",
        "value",
        "class_name",
        "split",
        "drives",
        "frames",
        "objects",
        "missing_drives",
        "missing_objects",
    )
    console.print_rows(
        [{key: row[key] for key in shown} for row in cover], title="Coverage", empty="None.", as_json=False
    )
    for what, reasons in manifest.document["left_out"].items():
        for key, why in reasons.items():
            console.say(f"left out: {key}: {why}" if what == "drives" else f"left out: {why} clips: {key}")
    for findings in manifest.document["findings"].values():
        for finding in findings:
            console.say(f"finding: {finding}")


@datasets_app.command("find")
def find(
    predicate: Annotated[
        str, typer.Argument(help="Condition over the frame view; see docs/curate.md.", metavar="PREDICATE")
    ],
    at: Annotated[str, typer.Option("--at", help="Branch, tag or commit of the lake.", metavar="REF")] = "main",
    limit: Annotated[int, typer.Option(help="At most so many drives.", min=1)] = 100,
    json: Json = False,
) -> None:
    """Which drives hold what is asked for, and in how many frames; Spark looks.

    Example: `fleet datasets find "scenario.night AND surroundings.pedestrians_30m >= 3"`
    """
    from fleet_assets.curate.mining import find as search
    from fleet_assets.curate.scenarios import condition
    from fleet_assets.lake.lake import Lake

    home = Home.open()
    checked = condition(predicate)
    rows = search(home, Lake.open(home).at(at), checked, limit=limit)
    console.print_rows(rows, title=f"{len(rows)} drives", empty="No drive holds it.", as_json=json)


@datasets_app.command("diff")
def diff(
    one: Name, other: Annotated[str, typer.Argument(help="Another.", metavar="OTHER")], json: Json = False
) -> None:
    """What differs between two datasets: recipe, policies, drives, splits, versions. Example: `fleet datasets diff NAME OTHER`"""
    from fleet_assets.curate.dataset import open_dataset
    from fleet_assets.curate.manifest import difference
    from fleet_assets.lake.lake import Lake

    lake = Lake.open(Home.open())
    rows: list[dict[str, Any]] = difference(open_dataset(lake, one)[0], open_dataset(lake, other)[0])
    console.print_rows(rows, title=f"{len(rows)} differences", empty="They are the same.", as_json=json)


def _slice(text: str) -> tuple[str, str]:
    from fleet_assets.curate.coverage import DIMENSIONS
    from fleet_assets.curate.predicates import SCENARIO

    dimension, equals, value = text.partition("=")
    if dimension not in (*DIMENSIONS, SCENARIO) or not equals or not value:
        raise FleetError(
            f"{text!r} is no slice",
            remedy=f"Write one of {', '.join((*DIMENSIONS, SCENARIO))} and a value, such as light=night.",
        )
    return dimension, value
