"""When in its sweep a scanning sensor looks where a camera does, as the stamps show.

In: a sensor's and a camera's times on the reference clock. Out: a Phase, to be held against the sensor's contract. A camera
that is triggered by the sweep, or with it, keeps its distance to it; one that runs freely shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fleet_assets.contracts.loader import StreamContract
from fleet_assets.contracts.model import SWEEP_STAMPS
from fleet_assets.kernels import align
from fleet_assets.synchronise.clock_model import ClockModel, median_ns

MIN_SWEEPS = 20
# Length of the mean of unit vectors, one per sweep: 1 when the camera keeps its distance, near 0 when it runs freely.
MIN_CONCENTRATION = 0.9
# A camera or a sweep that differs by more than this share is no longer what the contract says.
PERIOD_TOLERANCE = 0.02
PHASE_TOLERANCE = 0.15


@dataclass(frozen=True)
class Phase:
    """period_ns: median from sweep to sweep. share, off: phase and its distance to the contract's; None: not shown."""

    period_ns: int
    share: float | None = None
    off: float | None = None


def phase_of(contract: StreamContract, t_ns: np.ndarray, camera_ns: np.ndarray) -> Phase | None:
    """t_ns: stamps of the sweeps, int64 [n] in order; camera_ns: int64 [m] in order. None for fewer than two sweeps."""
    if contract.scan_period_ns is None or t_ns.size < 2 or t_ns[0] == t_ns[-1]:
        return None
    phase = Phase(median_ns(np.diff(np.unique(t_ns))))  # a sweep may come in several records
    if camera_ns.size < 2 or phase.period_ns <= 0:
        return phase
    camera_period_ns = float(np.median(np.diff(camera_ns)))
    reach_ns = np.uint64(max(camera_period_ns, contract.scan_period_ns))
    ahead_ns = t_ns + contract.ahead_ns
    index, _ = align.nearest(ahead_ns, camera_ns, reach_ns, reach_ns)
    seen = index >= 0
    if seen.sum() < MIN_SWEEPS or camera_period_ns <= 0:
        return phase
    after_ns = (camera_ns[index[seen]] - ahead_ns[seen]).astype(np.float64)
    mean = np.mean(np.exp(2j * np.pi * after_ns / camera_period_ns))
    if np.abs(mean) < MIN_CONCENTRATION:
        return phase
    off = float(np.angle(mean) / (2 * np.pi) * camera_period_ns / contract.scan_period_ns)
    told = contract.phase if contract.phase is not None else SWEEP_STAMPS[contract.stamp_point]
    share = (told + off) % 1.0
    return replace(phase, share=share, off=None if contract.phase is None else off)


def with_phase(model: ClockModel, contract: StreamContract, phase: Phase | None) -> ClockModel:
    """The model with the phase of its stream, and with words in its evidence where the contract says something else."""
    if phase is None or contract.scan_period_ns is None:
        return model
    evidence = model.evidence
    if abs(phase.period_ns / contract.scan_period_ns - 1) > PERIOD_TOLERANCE:
        evidence += (
            f"; a sweep every {phase.period_ns / 1e6:.1f} ms, the contract says {contract.scan_period_ns / 1e6:g}"
        )
    if phase.share is not None and phase.off is not None and abs(phase.off) > PHASE_TOLERANCE:
        evidence += f"; looks ahead after {phase.share:.2f} of a sweep, the contract says {contract.phase:g}"
    return replace(model, scan_period_ns=phase.period_ns, phase=phase.share, phase_off=phase.off, evidence=evidence)


def reference_camera(times: Mapping[str, np.ndarray], preferred: tuple[str, ...]) -> np.ndarray:
    """Times of the camera that phases are told by: the first of the key streams that is one, else the first by name."""
    name = next((name for name in (*preferred, *sorted(times)) if name in times), None)
    return times[name] if name is not None else np.zeros(0, dtype=np.int64)
