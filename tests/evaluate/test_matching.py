"""Evidence set against the truth: what counts as hit, and at which threshold."""

from __future__ import annotations

import numpy as np
from evaluate.made import evidence

from fleet_assets.edge.domain import band_names
from fleet_assets.evaluate.evidence import NOMINAL, PRECISION, RECALL, matched

BANDS_M = (0, 15, 30, 48)


def test_detections_count_from_the_shipped_threshold_on() -> None:
    found = matched(evidence(drives=9), NOMINAL, radius_m=2.0, bands_m=BANDS_M)
    counted = {ppm: found.rows(RECALL, (ppm, ppm, ppm)) for ppm in (0, 500_000, 800_000, 1_000_000)}
    hits = [int(rows.hit.sum()) for rows in counted.values()]
    assert hits[0] == hits[1] > hits[2] > hits[3] == 0  # confidences are from 0.5 to 1
    rows = found.rows(PRECISION, (0, 1_000_001, 0))  # no pedestrians
    assert set(rows.slices["class"]) == {"vehicle", "cyclist"}
    assert rows.hit.size == (found.found_class != 1).sum()


def test_every_object_is_found_once_at_most_and_every_hit_is_one() -> None:
    found = matched(evidence(drives=9), NOMINAL, radius_m=2.0, bands_m=BANDS_M)
    assert (found.truth_confidence >= 0).sum() == found.found.hit.sum()
    assert np.isfinite(found.found_error_m).sum() == found.found.hit.sum()
    assert (found.found_error_m[found.found.hit] <= 2.0).all()


def test_bands_reach_from_an_edge_up_to_the_next() -> None:
    found = matched(evidence(drives=1), NOMINAL, radius_m=2.0, bands_m=(2, 12, 22))
    assert band_names((2, 12, 22)) == ("2-12", "12-22")
    assert set(found.truth.slices["distance"]) == {"2-12", "12-22"}  # at 2, 7, 12, 17 m; beyond 22 m nothing counts
    count = {band: int((found.truth.slices["distance"] == band).sum()) for band in ("2-12", "12-22")}
    assert count["2-12"] == count["12-22"] > 0
