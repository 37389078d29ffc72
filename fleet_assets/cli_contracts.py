"""`fleet contracts`: tables from their contracts, mistakes in them, what changed, and pages about them.

In: arguments. Out: a table for people, or JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet_assets import console
from fleet_assets.console import Exit
from fleet_assets.services.home import Home

contracts_app = typer.Typer(
    no_args_is_help=True, help="Contracts of tables and streams. Example: `fleet contracts check`"
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@contracts_app.command("apply")
def contracts_apply(json: Json = False) -> None:
    """Create and evolve the tables on main. Example: `fleet contracts apply`"""
    from fleet_assets.lake.lake import Lake
    from fleet_assets.lake.schema import apply

    with console.waiting("making tables"):
        changes = apply(Lake.open(Home.open()))
    console.print_rows([{"change": change} for change in changes], title="Applied", empty="Up to date.", as_json=json)


@contracts_app.command("check")
def contracts_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Contract files; all when none are given.")] = None,
    json: Json = False,
) -> None:
    """Every mistake in the contracts, with file, place and remedy. Example: `fleet contracts check`"""
    from fleet_assets.contracts.check import check

    findings = [{"what": e.what, "where": e.where, "remedy": e.remedy} for e in check(paths or ())]
    console.print_rows(findings, title="Mistakes", empty="All contracts are right.", as_json=json)
    if findings:
        raise typer.Exit(Exit.FINDINGS)


@contracts_app.command("diff")
def contracts_diff(
    since: Annotated[str | None, typer.Argument(help="Git reference; the last release when none is given.")] = None,
    json: Json = False,
) -> None:
    """What changed in the contracts, and whether their versions say so. Example: `fleet contracts diff v0.1.0`"""
    from fleet_assets.contracts.check import diff

    found = diff(since)
    rows = [{"contract": c.contract, "change": c.what, "needs": c.step} for c in found.changes]
    rows += [{"contract": name, "change": "new", "needs": "-"} for name in found.added]
    wrong = [str(error) for error in (*found.findings, *found.unreadable)]
    if json:
        console.print_json({"since": found.since, "changes": rows, "findings": wrong})
    else:
        title = f"Since {found.since}" if found.since else "Nothing was released yet: all contracts are new"
        console.print_rows(rows, title=title, empty=f"Nothing changed since {found.since}.", as_json=False)
        for sentence in wrong:
            console.say(sentence)
    if wrong:
        raise typer.Exit(Exit.FINDINGS)


@contracts_app.command("docs")
def contracts_docs(json: Json = False) -> None:
    """Write the reference pages in docs/reference, and the shapes that the next change is compared with.

    A change that breaks readers is refused until the contract has a new major version. Example: `fleet contracts docs`
    """
    from fleet_assets.contracts import shapes
    from fleet_assets.contracts.check import write_docs

    changed = [shapes.FILE.name] if shapes.accept(shapes.contracts()) else []
    rows = [{"page": name} for name in [*changed, *write_docs()]]
    console.print_rows(rows, title="Written", empty="The reference pages are current.", as_json=json)
