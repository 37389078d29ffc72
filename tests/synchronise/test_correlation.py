"""A clock that only motion tells, on simulated drives: /pose on the sensors' clock, without arrival stamps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ingest.decoding import decode, tables
from simulate.conftest import START, write
from synchronise.drives import MS, clocks, whole

from fleet_assets.synchronise.clock_model import Line

DRIVES = 20


def poses_without_arrival(folder: Path, seed: int) -> tuple[dict[str, Any], np.ndarray, Line]:
    """A drive of a minute: the row of /pose in synchronise.clock_models, its stamps, and the truth from beside the recording."""
    truth = write(folder / "made" / "a.mcap", seed=seed, seconds=60.0, unique_s=None, payload_every_s=60.0)
    decoded = decode(folder, folder / "made" / "a.mcap", start=START.isoformat())
    found = tables(decoded)
    poses = found["ingest.poses"]
    number = poses.column_names.index("t_host_ns")
    never = pa.nulls(poses.num_rows, pa.int64())
    found["ingest.poses"] = poses.set_column(number, poses.schema.field(number), never)
    (row,) = clocks(whole(found, decoded.item.drive_id))["pose"]
    (known,) = truth["clocks"]["vehicle_pc"]
    line = Line(known["t_anchor_ns"], known["offset_ns"], known["skew_ppm"])
    return row, poses["t_device_ns"].to_numpy(), line


@pytest.mark.slow
def test_a_clock_by_motion_on_simulated_drives(tmp_path: Path) -> None:
    """95 of 100: within 1 ms in the middle of the drive and 2 ms at its ends. A turn rate with noise of 0.002 rad/s cannot tell
    a skew to 0.1 ppm within a minute: it tells some 10 ppm, and the model says so."""
    middle_ns, worst_ns, off_ppm, claims_ns, claims_ppm = [], [], [], [], []
    for seed in range(DRIVES):
        row, t_ns, true = poses_without_arrival(tmp_path / str(seed), seed)
        assert (row["method"], row["status"]) in {("correlation", "ok"), ("none", "insufficient")}
        if row["status"] == "insufficient":
            assert row["offset_ns"] is None
            continue
        told = Line(row["t_anchor_ns"], row["offset_ns"], row["skew_ppm"])
        off_ns = np.abs(told.apply(t_ns) - true.apply(t_ns))
        middle_ns.append(off_ns[off_ns.size // 2])
        worst_ns.append(off_ns.max())
        off_ppm.append(abs(told.skew_ppm - true.skew_ppm))
        claims_ns.append(row["residual_p95_ns"])
        claims_ppm.append(row["skew_error_ppm"])
    assert len(middle_ns) >= DRIVES // 2
    assert np.percentile(middle_ns, 95) < MS
    assert np.percentile(worst_ns, 95) < 2 * MS
    # What a model says about itself is true, and nobody is told of a tenth of a ppm.
    assert np.mean(np.array(worst_ns) <= 2 * np.array(claims_ns)) >= 0.95
    assert np.mean(np.array(off_ppm) <= 3 * np.array(claims_ppm)) >= 0.95
    assert min(claims_ppm) > 1
