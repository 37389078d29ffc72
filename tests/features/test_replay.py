"""Replaying a drive: one row per frame, from what had arrived, and nothing else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from features.drives import generated, made, payload_of, synchronised

from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.rules import evaluate
from fleet_assets.features.places import VISITS
from fleet_assets.features.policy import load_live_policy
from fleet_assets.features.replay import OUTPUTS, drive_records, frame_cuts
from fleet_assets.ingest.decode import DecodedDrive

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> DecodedDrive:
    return generated(tmp_path_factory.mktemp("drive"))[0]


@pytest.fixture(scope="module")
def inputs(decoded: DecodedDrive) -> dict[str, pa.Table]:
    return synchronised(decoded)


@pytest.fixture(scope="module")
def found(decoded: DecodedDrive, inputs: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return made(decoded, inputs)


def frames_of(inputs: dict[str, pa.Table]) -> pa.Table:
    frames = inputs["synchronise.frames"]
    return frames.filter(pc.equal(frames["policy"], load_live_policy().alignment))


def per_frame(found: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Without visits of places, which are no rows of frames."""
    return {name: rows for name, rows in found.items() if name != VISITS}


def test_one_row_per_frame_under_contract(inputs: dict[str, pa.Table], found: dict[str, pa.Table]) -> None:
    frames = frames_of(inputs)
    assert tuple(found) == OUTPUTS
    for name, rows in per_frame(found).items():
        assert rows.schema.equals(load_tables()[name].arrow_schema)
        rows.validate(full=True)
        assert rows["frame"].to_pylist() == frames["frame"].to_pylist()
        assert rows["t_ns"].to_pylist() == frames["t_ns"].to_pylist()
        assert [
            failure for scope in ("row", "drive", "table") for failure in evaluate(load_tables()[name], rows, scope)
        ] == []


def test_every_sensor_speaks_of_itself(found: dict[str, pa.Table]) -> None:
    last = {name: rows.slice(rows.num_rows - 1).to_pylist()[0] for name, rows in per_frame(found).items()}
    assert last["features.ego_motion"]["speed_mps"] > 5
    assert last["features.sensor_health"]["imu_rate_hz"] == pytest.approx(100, rel=0.02)
    assert last["features.scene_context"]["lidar_returns"] > 600
    nulls = {
        name
        for rows in per_frame(found).values()
        for name in rows.column_names
        if rows[name].null_count > rows.num_rows // 2
    }
    assert nulls == set()


def test_available_after_the_declared_delay(found: dict[str, pa.Table]) -> None:
    rows = found["features.ego_motion"]
    delay_ns = rows["available_ns"].to_numpy() - rows["t_ns"].to_numpy()
    assert ((delay_ns - load_live_policy().delay_ns >= 0) & (delay_ns - load_live_policy().delay_ns < 1000)).all()
    assert (rows["available_ns"].to_numpy() % 1000 == 0).all()


def test_what_comes_later_changes_nothing(
    decoded: DecodedDrive, inputs: dict[str, pa.Table], found: dict[str, pa.Table]
) -> None:
    """Records after a frame's wait are taken away: its features, and those of all frames before, stay bit for bit."""
    rows = found["features.ego_motion"]
    half = rows.num_rows // 2
    until_ns = rows["t_cut_ns"][half].as_py()
    early = {
        name: table.filter(pc.less_equal(table["t_host_ns"], until_ns)) if "t_host_ns" in table.column_names else table
        for name, table in inputs.items()
    }
    kept = pc.less_equal(early["synchronise.frames"]["frame"], half)
    early["synchronise.frames"] = early["synchronise.frames"].filter(kept)
    matches = early["synchronise.matches"]
    early["synchronise.matches"] = matches.filter(pc.less_equal(matches["frame"], half))
    for name, table in per_frame(made(decoded, early)).items():
        assert table.equals(found[name].slice(0, half + 1)), name


def test_a_record_that_is_late_does_not_count(
    decoded: DecodedDrive, inputs: dict[str, pa.Table], found: dict[str, pa.Table]
) -> None:
    """One speed that says 99 m/s, at the end of a frame's wait, which counts, or a nanosecond after, which does not."""
    policy = load_live_policy()
    cut_ns = frame_cuts(inputs, frames_of(inputs).sort_by("frame"), policy)
    messages = inputs["ingest.messages"]
    lidar = messages.filter(pc.equal(messages["stream"], "lidar")).sort_by("sequence")["t_host_ns"].to_numpy()
    assert np.array_equal(cut_ns, lidar + policy.wait_ns)
    frame, source = len(cut_ns) // 2, policy.sources["speed"][0]
    told = {}
    for late_ns in (0, 1):
        signals = inputs["ingest.bus_signals"].to_pylist()
        last = max(
            (row for row in signals if (row["stream"], row["signal"]) == (source.stream, source.signal)
             and row["t_host_ns"] <= cut_ns[frame]),
            key=lambda row: row["t_host_ns"],
        )  # fmt: skip
        last |= {"value": 99.0, "t_host_ns": int(cut_ns[frame]) + late_ns}
        tables = {**inputs, "ingest.bus_signals": pa.Table.from_pylist(signals, inputs["ingest.bus_signals"].schema)}
        records = drive_records(tables, policy, payload_of(decoded))
        assert (np.diff(records["t_host_ns"]) >= 0).all()
        told[late_ns] = made(decoded, tables)["features.ego_motion"]["speed_mps"][frame].as_py()
    honest = found["features.ego_motion"]["speed_mps"][frame].as_py()
    assert told[0] == 99.0
    assert abs(told[1] - honest) < 2.0


def test_without_arrival_nothing_is_known(decoded: DecodedDrive, inputs: dict[str, pa.Table]) -> None:
    """A recording that has no stamps of arrival cannot be replayed as it arrived."""
    silent = dict(inputs)
    for name in ("ingest.messages", "ingest.imu", "ingest.gnss", "ingest.bus_signals"):
        table = silent[name]
        at = table.column_names.index("t_host_ns")
        silent[name] = table.set_column(at, table.schema.field("t_host_ns"), pa.nulls(table.num_rows, pa.int64()))
    for name, rows in per_frame(made(decoded, silent)).items():
        assert rows.num_rows == frames_of(inputs).num_rows
        assert rows["t_cut_ns"].null_count == rows.num_rows
        features = rows.column_names[rows.column_names.index("t_cut_ns") + 1 :]
        assert all(rows[column].null_count == rows.num_rows for column in features), name
