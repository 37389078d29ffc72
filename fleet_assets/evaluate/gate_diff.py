"""How a gate differs from the one before, and who approved what is looser.

In: two gates. Out: changes, each with the sentence by which the newer gate's `approvals` must name it if it is a loosening. A
loosening nobody approved is refused, by `fleet gate diff` and by the gate itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from fleet_assets.edge.verdict import PPM
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.gate_file import Approval, Gate, Minimum


@dataclass(frozen=True)
class Change:
    """text: such as `pedestrian recall, light=night: limit 0.6 -> 0.57`. loosens: it lets more models pass, or claims less."""

    text: str
    loosens: bool
    approval: Approval | None = None

    def row(self) -> dict[str, Any]:
        """For people."""
        by, why = (self.approval.by, self.approval.why) if self.approval else (None, None)
        return {"change": self.text, "loosens": self.loosens, "approved_by": by, "why": why}


def differences(old: Gate, new: Gate) -> list[Change]:
    """All of them, loosened ones first; with the newer gate's approvals."""
    approved = {approval.loosened: approval for approval in new.approvals}
    found = [
        Change(text, loosens, approved.get(text) if loosens else None)
        for text, loosens in (*_of_the_whole(old, new), *_of_the_domain(old, new), *_of_cells(old, new))
    ]
    return sorted(found, key=lambda change: not change.loosens)


def refuse_unapproved(old: Gate, new: Gate, approvers: Collection[str] | None = None) -> list[Change]:
    """The differences. approvers: names that count, as `signing.roots.Roots.approvers` gives them; None for any, before there is
    a root. Raises FleetError for a loosening that names none of them."""
    changes = differences(old, new)
    for change in changes:
        if not change.loosens:
            continue
        if change.approval is None:
            raise FleetError(
                f"Gate {new.name} is looser than before, and nobody approved it: {change.text}",
                remedy=f"Add to `approvals`: {{loosened: '{change.text}', by: NAME, why: ...}}.",
            )
        if approvers is not None and change.approval.by not in approvers:
            raise FleetError(
                f"{change.approval.by} cannot approve what gate {new.name} loosens: {change.text}",
                remedy=f"One of {', '.join(sorted(approvers))} can.",
            )
    return changes


def _of_the_whole(old: Gate, new: Gate) -> Iterator[tuple[str, bool]]:
    if old.profile != new.profile:
        yield f"profile {old.profile} -> {new.profile}", True
    if old.level_ppm != new.level_ppm:
        yield f"level {_share(old.level_ppm)} -> {_share(new.level_ppm)}", new.level_ppm > old.level_ppm
    if old.match_radius_m != new.match_radius_m:
        looser = new.match_radius_m > old.match_radius_m
        yield f"match radius {old.match_radius_m:g} m -> {new.match_radius_m:g} m", looser
    if old.distance_m != new.distance_m:
        less = new.distance_m[0] > old.distance_m[0] or new.distance_m[-1] < old.distance_m[-1]
        yield f"distance bands {_bands(old)} -> {_bands(new)}", less
    if old.equal_precision_ppm != new.equal_precision_ppm:
        yield f"equal precision {_share(old.equal_precision_ppm)} -> {_share(new.equal_precision_ppm)}", False


def _of_the_domain(old: Gate, new: Gate) -> Iterator[tuple[str, bool]]:
    for name in old.domain:
        for value in old.domain[name]:
            if value not in new.domain[name]:
                yield f"{name}={value}: left the operating domain", True
        for value in new.domain[name]:
            if value not in old.domain[name]:
                yield f"{name}={value}: joined the operating domain", False
    before, now = ([dict(outside.slice) for outside in gate.outside] for gate in (old, new))
    for slice_ in now:
        if slice_ not in before:
            yield f"{_conditions(slice_)}: left the operating domain", True
    for slice_ in before:
        if slice_ not in now:
            yield f"{_conditions(slice_)}: joined the operating domain", False


def _of_cells(old: Gate, new: Gate) -> Iterator[tuple[str, bool]]:
    # What a cell demands, as numbers of which a lower one is looser.
    before, now = (
        {cell.name: ("limit", cell.limit_ppm, cell.minimum) for cell in gate.limits}
        | {cell.name: ("allowance", -cell.allowance_ppm, cell.minimum) for cell in gate.fairness}
        for gate in (old, new)
    )
    for name, (what, strict_ppm, minimum) in before.items():
        if name not in now:
            yield f"{name}: no longer judged", True
            continue
        _, new_ppm, new_minimum = now[name]
        if new_ppm != strict_ppm:
            yield f"{name}: {what} {_share(abs(strict_ppm))} -> {_share(abs(new_ppm))}", new_ppm < strict_ppm
        if new_minimum != minimum:
            looser = new_minimum.drives < minimum.drives or new_minimum.positives < minimum.positives
            yield f"{name}: at least {_evidence(minimum)} -> {_evidence(new_minimum)}", looser
    for name, (what, strict_ppm, _) in now.items():
        if name not in before:
            yield f"{name}: {what} {_share(abs(strict_ppm))}, new", False


def _share(ppm: int) -> str:
    return f"{ppm / PPM:g}"


def _bands(gate: Gate) -> str:
    return "/".join(f"{edge:g}" for edge in gate.distance_m)


def _conditions(slice_: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in slice_.items())


def _evidence(minimum: Minimum) -> str:
    return f"{minimum.drives} drives and {minimum.positives} positives"
