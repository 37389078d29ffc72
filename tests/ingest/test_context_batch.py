"""Context of drives on a real lake: from a recording and files of anyone to rows with sources, and anew when a file changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import h3
import numpy as np
import pytest
from formats import samples
from formats.samples import write_mcap

from fleet_assets.capture.deliver import deliver
from fleet_assets.formats import ros2
from fleet_assets.ingest import assets
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.ingest.context_batch import context_batch, joined
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.schema import apply
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
START = "2023-11-14T22:13:20Z"  # of samples.T0_NS
CELL = h3.latlng_to_cell(55.0, 10.0, 3)


@pytest.fixture
def installation(lakefs_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FLEET_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("FLEET_CONTEXT", str(tmp_path / "context"))
    (tmp_path / "context").mkdir()
    return lakefs_home


def recorded(path: Path) -> Path:
    """A drive whose positions are all in one place."""
    still, zero = np.array([0.0, 0.0, 9.8]), np.zeros(3)
    made = {
        "/imu": lambda t_ns: ros2.imu(t_ns, "imu", still, zero),
        "/gnss": lambda t_ns: ros2.nav_sat_fix(t_ns, "gnss", 55.0, 10.0, 3.0, 1.5),
    }
    messages = [
        replace(m, data=made[m.topic](m.t_host_ns - 3_000_000)) if m.topic in made else m for m in samples.drive(3.0)
    ]
    return write_mcap(path, messages)


def test_context_is_published_with_its_sources_and_anew_when_a_file_changes(installation: Home, tmp_path: Path) -> None:
    home = installation
    lake = Lake.open(home, "context")
    lake.ensure()
    apply(lake)
    drive = deliver(recorded(tmp_path / "a.mcap"), home.landing, vehicle="car7", start=START).drive_id
    ingested = ingest_batch(home, lake, [drive], run_id="ingest", parallel=False)
    assert ingested.published is not None, ingested.audit_summary
    (home.context / "zones.csv").write_text(f"h3_cell,region\n{CELL},Funen\n")
    (home.context / "vehicles.csv").write_text(
        "name,model\n" + "".join(f"Car-{number:02d},Van {number}\n" for number in range(1, 30))
    )
    (home.context / "weather.csv").write_bytes(b"\xff\xfe useless")

    first = context_batch(home, lake, [drive, "car8--20260101T000000Z"], run_id="one")
    assert {outcome.drive_id: outcome.status for outcome in first.drives} == {
        drive: "published",
        "car8--20260101T000000Z": "skipped",
    }
    assert first.published is not None
    snapshot = lake.at(first.published.commit_id)
    (row,) = snapshot.scan("ingest.context").to_pylist()
    assert (row["region"], row["light"], row["vehicle_model"], row["weather"]) == ("funen", "night", "Van 7", "fog")
    assert row["match_weight"] > 1
    claims = {(c["field"], c["source"]): c for c in snapshot.scan("ingest.context_claims").to_pylist()}
    assert claims["weather", "recording"]["chosen"]
    assert claims["vehicle_model", "vehicle register"]["detail"] == "entry Car-07"
    assert claims["vehicle_model", "vehicle register"]["match_weight"] == row["match_weight"]
    shares = {column.column: column.share for column in joined(snapshot)}
    assert shares == {"region": 1.0, "weather": 1.0, "vehicle_model": 1.0}
    # What was used is kept as it was; what is useless is not.
    kept = {item.path for item in lake.repository.list(first.published.commit_id, "context/")}
    assert len(kept) == 2

    (home.context / "weather.csv").write_text(
        "station,time_utc,latitude_deg,longitude_deg,weather\nodense,2023-11-14T22:00:00Z,55.1,10.1,clear\n"
    )
    (home.context / "vehicles.csv").unlink()
    second = context_batch(home, lake, [drive], run_id="two")
    assert second.published is not None
    (row,) = lake.at(second.published.commit_id).scan("ingest.context").to_pylist()
    assert (row["vehicle_model"], row["contradictions"], row["weather"]) == (None, 1, "fog")
    warned = assets._joined(lake.at())  # of the only drive, the model is no longer known
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "vehicle_model 0% of at least 50%" in (warned.description or "")
    (contradiction,) = (
        lake.at()
        .query("SELECT field, source, value, detail FROM ingest.context_claims WHERE NOT agrees", limit=9)
        .to_pylist()
    )
    assert contradiction == {
        "field": "weather",
        "source": "weather table",
        "value": "clear",
        "detail": "odense, 12.8 km, 13 min",
    }
    versions = [lake.at(o.published.commit_id).versions([drive]) for o in (first, second) if o.published]
    assert versions[0][drive, "ingest.context"].version != versions[1][drive, "ingest.context"].version
    assert versions[0][drive, "ingest.imu"] == versions[1][drive, "ingest.imu"]

    # A drive that leaves for quarantine takes its context along.
    (next(home.landing.iterdir()) / "a.mcap").write_bytes(b"damaged")
    assert ingest_batch(home, lake, [drive], run_id="again", parallel=False).drives[0].status == "quarantined"
    assert lake.at().scan("ingest.context").num_rows == lake.at().scan("ingest.context_claims").num_rows == 0
