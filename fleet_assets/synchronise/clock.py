"""How each stream's clock maps to the drive's reference clock.

In: the stamps of a drive's streams, the receiver's UTC, and motion that several sensors see. Out: Clocks, with one model per
stream and segment: where a device clock jumps, a new one starts. What cannot be told is *insufficient*, and a clock that no line
describes is *rejected*, with the evidence; nothing is guessed.

A drive's base clock is the logger's, where records have arrival stamps, else that of its key stream. UTC comes from GNSS time
on the base clock. A device clock is brought to the base by arrival (lower hull of device and host stamps), by its domain, or
by correlating motion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from fleet_assets.kernels.clock import correlate, fit_lag, lower_hull_line
from fleet_assets.synchronise.clock_model import ClockModel, Clocks, Line, Stamps, median_ns, on_reference

# GNSS fixes that an offset by reference needs, and how far they may scatter (interquartile range).
MIN_FIXES = 10
MAX_SPREAD_NS = 500_000_000
MAX_HULL_SPREAD_NS = 5_000_000  # above this, more than arrival scatters them
# Pairs of stamps that a model by arrival needs.
MIN_PAIRS = 20
# A device clock that leaves its pace and its distance to arrival by more than this has jumped.
JUMP_NS = 20_000_000
STALL_NS = 3_000_000_000  # no record is later than this
# Parts of the pairs of stamps that a skew is told from again, to tell how well it is known.
SKEW_PARTS = 8
# Beyond these a line does not describe a clock: crystals stay within 100 ppm, and arrival within a second.
MAX_SKEW_PPM = 1000.0
MAX_RESIDUAL_NS = 1_000_000_000
# Correlation: rate of the common grid, least overlap (also as a share of the shorter signal), least excitation (standard
# deviation), least agreement, and by how much the peak must beat its best rival. On a straight road nothing varies, and no lag
# is better than another; over a few seconds, some lag between any two drives fits well.
GRID_HZ = 100.0
MIN_OVERLAP_S = 20.0
MIN_OVERLAP_SHARE = 0.5
MIN_YAW_RATE_RADPS = 0.02
MIN_SPEED_MPS = 0.5
MIN_CORRELATION = 0.9
MIN_LEAD = 0.1
MAX_SPAN_S = 86_400.0  # a stray stamp would make a grid of years
# The lag is then fitted: over how much of the grid both signals are smoothed, and what skew clocks have, as a standard deviation.
SMOOTHING = 41
LIKELY_SKEW_PPM = 50.0


@dataclass(frozen=True)
class Motion:
    """Motion as one stream sees it: t_ns on the stream's own clock, int64 [n]; values, float64 [n], finite."""

    stream: str
    t_ns: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What clocks are told from. gnss_time: stream -> UTC told by the receiver, null as minimum of int64. motion: yaw rate
    [rad/s] by stream, the best first; speed: the same in m/s."""

    streams: Mapping[str, Stamps]
    gnss_time: Mapping[str, np.ndarray] = field(default_factory=dict)
    motion: Mapping[str, Motion] = field(default_factory=dict)
    speed: Mapping[str, Motion] = field(default_factory=dict)


NO_TIME = np.iinfo(np.int64).min


def estimate(evidence: Evidence, key_stream: str | None) -> Clocks:
    """Models of every stream that has stamps, and of the logger's clock."""
    streams = {name: stamps for name, stamps in sorted(evidence.streams.items()) if stamps.t_ns.size}
    on_host = any(stamps.t_host_ns is not None for stamps in streams.values())
    base_domain = streams[key_stream].contract.clock_domain if key_stream in streams else None
    to_base = {name: _to_base(name, streams[name], on_host, base_domain) for name in streams}
    for name, models in to_base.items():
        if [model.status for model in models] == ["insufficient"]:
            to_base[name] = [_by_correlation(models[0], evidence, to_base, key_stream)]
    utc = _utc(evidence, streams, to_base)
    models = [_chained(model, utc, on_host, key_stream) for models in to_base.values() for model in models]
    return Clocks(models, (utc.line if utc else Line(0, 0)) if on_host else None)


def _to_base(name: str, stamps: Stamps, on_host: bool, base_domain: str | None) -> list[ClockModel]:
    t_ns = stamps.t_ns
    whole = ClockModel(name, stamps.clock, int(t_ns.min()), int(t_ns.max()), int(t_ns.min()), None, rows=t_ns.size)
    if stamps.clock == "host":
        return [replace(whole, offset_ns=0, method="shared", confidence=1.0, status="ok", evidence="logger clock")]
    if stamps.t_device_ns is not None and stamps.t_host_ns is not None:
        return _by_arrival(whole, stamps.t_device_ns, stamps.t_host_ns, stamps.contract.until_end_ns)
    if not on_host and base_domain is not None and stamps.contract.clock_domain == base_domain:
        why = f"same clock domain as the key stream: {base_domain}"
        return [replace(whole, offset_ns=0, method="shared", confidence=1.0, status="ok", evidence=why)]
    return [whole]


def _by_arrival(whole: ClockModel, device: np.ndarray, host: np.ndarray, whole_sweep_ns: int) -> list[ClockModel]:
    """One model per segment. A clock that jumps more often than a segment needs pairs has no segments to speak of."""
    jumps = _jumps(device, host)
    if jumps.size > device.size // MIN_PAIRS:
        return [replace(whole, status="rejected", evidence=f"{jumps.size} jumps in {device.size} records")]
    borders = [0, *jumps.tolist(), device.size]
    models = []
    for segment, (first, end) in enumerate(pairwise(borders)):
        part = device[first:end]
        low, high = int(part.min()), int(part.max())
        model = replace(
            whole, t_from_ns=low, t_to_ns=high, t_anchor_ns=low, segment=segment, first_row=first, rows=end - first
        )
        models.append(_hull(model, part, host[first:end], whole_sweep_ns))
    return models


def _jumps(device: np.ndarray, host: np.ndarray) -> np.ndarray:
    """The first row after each jump.

    The device clock leaves its pace, arrival does not follow, and it stays so. Records that are lost change the steps of both
    clocks alike; records that are late, or overtaken, leave the least distance between the clocks as it is before and after.
    Stamps that run back further than any record is late have jumped in any case.
    """
    if device.size < 3:
        return np.zeros(0, dtype=np.int64)
    device_step, host_step, distance = np.diff(device), np.diff(host), host - device
    back = np.flatnonzero(device_step < -STALL_NS) + 1
    off_pace = np.abs(device_step - median_ns(device_step)) > JUMP_NS // 2
    window = max(MIN_PAIRS, int(STALL_NS / max(float(np.median(host_step)), 1.0)))
    lasting = []
    for row in np.flatnonzero(off_pace & (np.abs(device_step - host_step) > JUMP_NS)) + 1:
        near = np.searchsorted(back, row, side="right")
        first = max(row - window, back[near - 1] if near else 0)
        end = min(row + window, back[near] if near < back.size else device.size)
        if first < row and abs(int(distance[first:row].min()) - int(distance[row:end].min())) > JUMP_NS // 2:
            lasting.append(row)
    return np.union1d(back, np.array(lasting, dtype=np.int64))


def _hull(model: ClockModel, device: np.ndarray, host: np.ndarray, whole_sweep_ns: int) -> ClockModel:
    """Device to host by the lower hull of their difference: delay only ever adds to it. whole_sweep_ns: what a record waits
    for the end of its sweep."""
    if device.size < MIN_PAIRS:
        return replace(model, evidence=f"{device.size} pairs of stamps; a model by arrival needs {MIN_PAIRS}")
    order = np.argsort(device, kind="stable")
    base = int(np.min(host - device))  # of a record that took no time, but for the rest of its sweep
    x = (device[order] - model.t_anchor_ns).astype(np.float64)
    y = (host[order] - device[order] - base).astype(np.float64)
    slope, at_zero = lower_hull_line(x, y)
    residual = y - (at_zero + slope * x)
    p95 = int(np.percentile(residual, 95))
    found = f"lower hull of {device.size} device and arrival stamps"
    if abs(slope) * 1e6 > MAX_SKEW_PPM or p95 > MAX_RESIDUAL_NS:
        why = f"{found}: {slope * 1e6:.0f} ppm, 95 % of arrivals within {p95 / 1e9:.2f} s"
        return replace(model, status="rejected", residual_p95_ns=p95, evidence=why)
    return replace(
        model,
        offset_ns=base + round(at_zero) - whole_sweep_ns,
        skew_ppm=slope * 1e6,
        skew_error_ppm=_skew_error_ppm(x, y),
        method="arrival",
        residual_p95_ns=p95,
        spread_ns=int(np.subtract(*np.percentile(residual, [75, 25]))),
        confidence=1.0,
        status="ok",
        evidence=found,
    )


def _skew_error_ppm(x: np.ndarray, y: np.ndarray) -> float:
    """Standard error of the skew: the lines under every eighth point, from the first, the second ... on, differ by so much. On
    the safe side: the line under all points is nearer to the truth than the mean of those."""
    slopes = [lower_hull_line(x[part::SKEW_PARTS], y[part::SKEW_PARTS])[0] for part in range(SKEW_PARTS)]
    return float(np.std(slopes, ddof=1) / np.sqrt(SKEW_PARTS) * 1e6)


def _by_correlation(
    model: ClockModel, evidence: Evidence, to_base: Mapping[str, Sequence[ClockModel]], key_stream: str | None
) -> ClockModel:
    """From motion that this stream and one with a known clock both see: yaw rate, else speed."""
    why = [model.evidence] if model.evidence else []
    if key_stream is not None and key_stream in to_base:
        lag_s = (model.t_from_ns - to_base[key_stream][0].t_from_ns) / 1e9
        why.append(f"first stamp {abs(lag_s):.2f} s {'after' if lag_s >= 0 else 'before'} {key_stream}'s")
    for quantity, signals, least in (
        ("yaw rate", evidence.motion, MIN_YAW_RATE_RADPS),
        ("speed", evidence.speed, MIN_SPEED_MPS),
    ):
        mine = signals.get(model.stream)
        known = [signal for name, signal in signals.items() if name != model.stream and _whole(to_base[name])]
        if mine is None or not known:
            continue
        found = _correlated(model, mine, known[0], to_base[known[0].stream][0], quantity, least)
        if found.ok:
            return replace(found, evidence="; ".join([*why, found.evidence]))
        why.append(found.evidence)
    if model.stream not in {*evidence.motion, *evidence.speed}:
        why.append("no motion signal to correlate")
    return replace(model, evidence="; ".join(why) or "no motion signal on a known clock to correlate with")


def _correlated(
    model: ClockModel, mine: Motion, reference: Motion, clock: ClockModel, quantity: str, least: float
) -> ClockModel:
    if max(_span_s(reference), _span_s(mine)) > MAX_SPAN_S:
        return replace(model, evidence="stamps that span more than a day: no motion to correlate")
    start, theirs = _resampled(clock.apply(reference.t_ns), reference.values)
    begin, ours = _resampled(mine.t_ns, mine.values)
    if min(theirs.size, ours.size) < MIN_OVERLAP_S * GRID_HZ:
        return replace(model, evidence=f"{quantity}: shorter than {MIN_OVERLAP_S:.0f} s, which tells no lag")
    if min(np.std(theirs), np.std(ours)) < least:
        return replace(model, evidence=f"{quantity} varies by less than {least}: no lag is better than another")
    overlap = max(MIN_OVERLAP_S * GRID_HZ, MIN_OVERLAP_SHARE * min(theirs.size, ours.size))
    lag, peak, rival = correlate(theirs, ours, int(overlap))
    found = f"{quantity} against {reference.stream}: correlation {peak:.2f}, next best {rival:.2f}"
    if peak < MIN_CORRELATION or peak - rival < MIN_LEAD:
        return replace(model, evidence=found)
    fit = fit_lag(theirs, ours, lag, SMOOTHING, LIKELY_SKEW_PPM * 1e-6)
    if fit is None or abs(fit.skew) * 1e6 > MAX_SKEW_PPM:
        return replace(model, evidence=f"{found}; no lag fits")
    step_ns = 1e9 / GRID_HZ
    anchor = (model.t_anchor_ns - begin) / step_ns  # samples after our first
    error_ns = step_ns * np.hypot(fit.lag_error, fit.skew_error * fit.half_span)
    return replace(
        model,
        offset_ns=start - begin + round(step_ns * (fit.lag + fit.skew * (anchor - fit.middle))),
        skew_ppm=float(fit.skew * 1e6),
        skew_error_ppm=float(fit.skew_error * 1e6),
        method="correlation",
        residual_p95_ns=round(1.96 * error_ns),
        confidence=peak,
        status="ok",
        evidence=found,
    )


def _span_s(motion: Motion) -> float:
    return (int(motion.t_ns.max()) - int(motion.t_ns.min())) / 1e9


def _whole(models: Sequence[ClockModel]) -> bool:
    """One model for all of the stream."""
    return len(models) == 1 and models[0].ok


def _resampled(t_ns: np.ndarray, values: np.ndarray) -> tuple[int, np.ndarray]:
    """On a grid of GRID_HZ from the first stamp, which is given too."""
    order = np.argsort(t_ns, kind="stable")
    t_ns, values = t_ns[order], values[order]
    start = int(t_ns[0])
    t_s = (t_ns - start) / 1e9
    grid = np.arange(0.0, t_s[-1], 1.0 / GRID_HZ)
    return start, np.interp(grid, t_s, values)


@dataclass(frozen=True)
class _Utc:
    line: Line
    skew_error_ppm: float | None
    spread_ns: int
    residual_p95_ns: int
    confidence: float
    evidence: str


def _utc(evidence: Evidence, streams: Mapping[str, Stamps], to_base: Mapping[str, Sequence[ClockModel]]) -> _Utc | None:
    """Base clock to UTC from the receiver's time, after what is off by more than five robust deviations has gone.

    Where the rest agrees well, only arrival delays it: lower hull, with skew where the hull knows it. Where it scatters, as
    times that are told in whole tenths of a second do, delay goes both ways: the median.
    """
    best: _Utc | None = None
    for name, told_ns in sorted(evidence.gnss_time.items()):
        if name not in streams:
            continue
        t_ns, known = on_reference(to_base[name], streams[name].t_ns)
        known &= told_ns != NO_TIME
        difference = told_ns[known] - t_ns[known]
        if difference.size < MIN_FIXES:
            continue
        middle = median_ns(difference)
        deviation = np.abs(difference - middle)
        near = deviation <= 5 * 1.4826 * max(float(np.median(deviation)), 1e6)
        kept = difference[near]
        base_error_ppm = max((model.skew_error_ppm or 0.0 for model in to_base[name] if model.ok), default=0.0)
        line, error_ppm = _utc_line(t_ns[known][near], kept, base_error_ppm)
        residual = kept - line.apply(t_ns[known][near]) + t_ns[known][near]
        spread = int(np.subtract(*np.percentile(residual, [75, 25])))
        share = kept.size / difference.size
        why = f"{kept.size} of {difference.size} GNSS times of {name}"
        found = _Utc(line, error_ppm, spread, int(np.percentile(np.abs(residual), 95)), share, why)
        if spread <= MAX_SPREAD_NS and (best is None or found.spread_ns < best.spread_ns):
            best = found
    return best


def _utc_line(t_ns: np.ndarray, difference_ns: np.ndarray, base_error_ppm: float) -> tuple[Line, float | None]:
    """t_ns: of the receiver's records on the base clock; difference_ns: UTC minus that; base_error_ppm: how well t_ns itself is
    known. Gives the line, and the standard error of its skew where it tells one."""
    middle = median_ns(difference_ns)
    if t_ns.size < MIN_PAIRS:
        return Line(0, middle), None
    order = np.argsort(t_ns, kind="stable")
    anchor = int(t_ns[order[0]])
    x, y = (t_ns[order] - anchor).astype(np.float64), (middle - difference_ns[order]).astype(np.float64)
    slope, at_zero = lower_hull_line(x, y)
    scatter_ns = np.subtract(*np.percentile(y - slope * x, [75, 25]))
    if scatter_ns > MAX_HULL_SPREAD_NS or abs(slope) * 1e6 > MAX_SKEW_PPM:
        return Line(0, middle), None
    error_ppm = float(np.hypot(_skew_error_ppm(x, y), base_error_ppm))
    if abs(slope) * 1e6 <= 3 * error_ppm:
        return Line(0, middle - round(float(y.min()))), error_ppm  # a skew that is not told apart from none
    return Line(anchor, middle - round(at_zero), -slope * 1e6), error_ppm


def _together(model: ClockModel, utc_error_ppm: float | None) -> float | None:
    """Standard error of a skew to the base and on to UTC; of the base alone where UTC tells none."""
    errors = [error for error in (model.skew_error_ppm, utc_error_ppm) if error is not None]
    return float(np.hypot.reduce(errors)) if errors else None


def _chained(model: ClockModel, utc: _Utc | None, on_host: bool, key_stream: str | None) -> ClockModel:
    """Stream to base to UTC."""
    if not model.ok or model.offset_ns is None:
        return model
    if utc is None:
        base = "the logger's clock" if on_host else f"the clock of {key_stream}"
        return replace(model, evidence=f"{model.evidence}; no GNSS time: {base} is the reference")
    # At the model's anchor, first on the base clock and then in UTC; skews of some ppm add up.
    anchor_ns = model.t_anchor_ns + model.offset_ns
    drift_ns = round(utc.line.skew_ppm * 1e-6 * (anchor_ns - utc.line.t_anchor_ns))
    return replace(
        model,
        offset_ns=model.offset_ns + utc.line.offset_ns + drift_ns,
        skew_ppm=model.skew_ppm + utc.line.skew_ppm * (1 + model.skew_ppm * 1e-6),
        skew_error_ppm=_together(model, utc.skew_error_ppm),
        method="reference" if model.method == "shared" else model.method,
        spread_ns=utc.spread_ns if model.spread_ns is None else max(model.spread_ns, utc.spread_ns),
        residual_p95_ns=(model.residual_p95_ns or 0) + utc.residual_p95_ns,
        confidence=min(model.confidence, utc.confidence),
        evidence=f"{model.evidence}; UTC from {utc.evidence}",
    )
