"""`fleet gate check | show | diff`: what models must reach, what they reached, and how that changes.

In: arguments. Out: what they ask for, as in `cli`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.cli_keys import Json, Releases, releases_folder
from fleet_assets.console import Exit
from fleet_assets.errors import FleetError

gate_app = typer.Typer(
    no_args_is_help=True, help="Gates, and verdicts by them. Example: `fleet gate show evaluation/record`"
)


@gate_app.command("check")
def check(
    gates: Annotated[list[str] | None, typer.Argument(help="Names or files; ours unless given.")] = None,
    json: Json = False,
) -> None:
    """Read gate files and list them; exit code 3 and every file's mistake if there is one. Example: `fleet gate check`"""
    from fleet_assets.curate.scenarios import scenario_slices
    from fleet_assets.evaluate.gate_file import GATES, gate_path, load_gate

    rows, mistakes = [], []
    for name in gates or sorted(path.stem for path in GATES.glob("*.yaml")):
        try:
            gate = load_gate(gate_path(name), scenario_slices())
        except FleetError as error:
            mistakes.append(error)
            continue
        rows.append(
            {
                "gate": f"{gate.name} {gate.version}",
                "profile": gate.profile,
                "cells": len(gate.limits) + len(gate.fairness),
                "rehearsals": len(gate.rehearsals),
                "outside": [", ".join(f"{k}={v}" for k, v in one.slice.items()) for one in gate.outside],
                "sha256": gate.sha256,
            }
        )
    console.print_rows(rows, title="Gates", empty="No gate.", as_json=json)
    for mistake in mistakes:
        console.print_error(mistake)
    if mistakes:
        raise typer.Exit(Exit.FINDINGS)


@gate_app.command("show")
def show(
    what: Annotated[str, typer.Argument(help="The folder of an evaluation record, a verdict's file, or a gate.")],
    json: Json = False,
) -> None:
    """A verdict, judged anew from its record; or the cells of a gate. Exit code 3 for a verdict without PASS.

    Examples: `fleet gate show evaluation/record`, `fleet gate show full`
    """
    from fleet_assets.evaluate.gate_file import gate_path, load_gate

    path = Path(what)
    if path.is_dir() or path.suffix == ".json":
        _show_verdict(path, json)
        return
    gate = load_gate(gate_path(what))
    rows: list[dict[str, Any]] = [
        {"cell": cell.name, "demands": f"at least {cell.limit_ppm / 1e6:g}", **vars(cell.minimum)}
        for cell in gate.limits
    ]
    rows += [
        {"cell": cell.name, "demands": f"at most {cell.allowance_ppm / 1e6:g} below", **vars(cell.minimum)}
        for cell in gate.fairness
    ]
    console.print_rows(rows, title=f"Gate {gate.name} {gate.version}, profile {gate.profile}", empty="", as_json=json)


def _show_verdict(path: Path, json: bool) -> None:
    from fleet_assets.edge.verdict import Status, Verdict
    from fleet_assets.evaluate.gate import Judgement
    from fleet_assets.evaluate.record import read_record, verify
    from fleet_assets.evaluate.table import headline, report_rows, verdict_rows

    if path.is_dir():
        verdict = verify(path)
        record = read_record(path)
        rows = report_rows(Judgement(record.gate, record.evidence).report(verdict))
    else:
        verdict = Verdict.read(path)
        verdict.check()
        rows = verdict_rows(verdict)
    console.print_rows(rows, title=headline(verdict), empty="", as_json=json)
    if verdict.status is not Status.PASS:
        raise typer.Exit(Exit.FINDINGS)


@gate_app.command("diff")
def diff(
    old: Annotated[str, typer.Argument(help="Name or file of the gate before.")],
    new: Annotated[str, typer.Argument(help="Name or file of the gate after.")],
    releases: Releases = None,
    json: Json = False,
) -> None:
    """What changed between two gates; exit code 1 if the new one loosens something that no approver of releases approved in it.

    Example: `git show v1.0.0:fleet_assets/contracts/gates/full.yaml > /tmp/before.yaml; fleet gate diff /tmp/before.yaml full`
    """
    from fleet_assets.evaluate.gate_diff import differences, refuse_unapproved
    from fleet_assets.evaluate.gate_file import gate_path, load_gate
    from fleet_assets.signing.roots import Roots

    before, after = (load_gate(gate_path(name)) for name in (old, new))
    rows = [change.row() for change in differences(before, after)]
    console.print_rows(rows, title=f"{old} -> {new}", empty="The gates ask for the same.", as_json=json)
    folder = releases_folder(releases)
    approvers = Roots.of(folder).approvers()
    refuse_unapproved(before, after, approvers)
    if approvers is None and any(row["loosens"] for row in rows):
        console.say(f"{folder} has no root yet, so any name counts here; at signing, only those of approvers do.")
