"""Driving with a release: the same objects as in evaluation, a line per frame, and what is left when parts are missing."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pytest
from train.conftest import Tiny

from fleet_assets.edge.domain import Domain
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.inference import infer
from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES
from fleet_assets.edge.recording import LiveStream, Recording
from fleet_assets.errors import FleetError
from fleet_assets.features.bundle_build import build_bundle
from fleet_assets.features.identity import in_bundle
from fleet_assets.features.snapshot_build import SnapshotView, build_snapshot
from fleet_assets.signing.keys import SigningKey
from fleet_assets.train.export import detections
from fleet_assets.train.recordings import frames_of_recordings

pytestmark = pytest.mark.slow
DOMAIN = Domain({}, ({"class": "vehicle", "distance": "15-100"},), (0.0, 15.0, 100.0))
_TAKES_TIME = ("model_ms", "outside_ms")
_VIEWS = ("ego_motion", "scene_context", "sensor_health")


def _view(name: str) -> SnapshotView:
    """One frame of another drive."""
    features = LIVE[name].FEATURES
    rows = pa.table(
        {"drive_id": ["other"], "frame": [0], "event_timestamp": [1], **{feature: [0.5] for feature in features}}
    )
    return SnapshotView(name, 1, ["drive_id", "frame"], features, rows, 0, "0" * 32)


def judged_so(conditions: Mapping[str, str]) -> Domain:
    """The domain, whatever the conditions."""
    return DOMAIN


@contextmanager
def piped(content: bytes) -> Iterator[IO[bytes]]:
    """A pipe into which the content is written while it is read."""
    out, into = os.pipe()

    def write() -> None:
        with os.fdopen(into, "wb") as end:
            end.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(out, "rb") as pipe:
        yield pipe
        assert pipe.read(1) == b"", "it was read to its end"
    writer.join()


def logged(log: Path) -> list[dict[str, Any]]:
    """Lines of a decision log, but for the times that they took."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in _TAKES_TIME} for line in lines]


@pytest.fixture(scope="module")
def slot(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_slot(tiny, tmp_path_factory.mktemp("slot"))


def make_slot(
    tiny: Tiny, folder: Path, views: tuple[str, ...] = _VIEWS, kernels: list[dict[str, str]] | None = None
) -> Path:
    key = SigningKey.create(folder / "key.pem", "a passphrase of a test")
    views_ = [_view(name) for name in views]
    build_snapshot(folder / "features.snapshot", views_, service="context", lakefs_commit="c" * 64, delta_versions={})
    build_bundle(
        folder / "features.snapshot", folder / "features", [key], kernels=kernels or list(map(in_bundle, views))
    )
    key.public.write(folder / "features.pub")
    shutil.copytree(tiny.exported.folder, folder / "model")
    return folder


def test_a_recording_gives_what_evaluation_finds(
    tiny: Tiny, slot: Path, recordings: list[Path], tmp_path: Path
) -> None:
    report = infer(Recording.open(recordings[1]), slot, judged_so, tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert report.frames == len(lines) > len(tiny.validation)
    frames = frames_of_recordings([recordings[1]])
    found = detections(Model.open(slot / "model"), frames)
    told = {line["t_ns"]: line for line in lines}
    assert len(found)
    for number, t_ns in enumerate(frames.t_ns.tolist()):
        line, here = told[t_ns], found.of_frames(number, number + 1)
        assert [one["class"] for one in line["objects"]] == [CLASSES[kind] for kind in here.class_id]
        assert [one["x_m"] for one in line["objects"]] == pytest.approx(here.x_m.tolist(), abs=0.01)
        assert [one["confidence"] for one in line["objects"]] == pytest.approx(here.confidence.tolist(), abs=1e-3)
        assert [one["relied_on"] for one in line["objects"]] == DOMAIN.holds(here).tolist()
        missing = [
            name for name, age in zip(("camera", "lidar", "radar"), frames.age_s[number], strict=True) if np.isnan(age)
        ]
        assert line["missing"] == missing
    document = report.to_document()
    assert document["fault"] is None
    assert 0 < document["objects_relied_on"] < document["objects"]
    assert document["frames"] == len(report.model_ms) == len(report.outside_ms)


def test_a_recording_that_is_cut_off_is_driven_as_far_as_it_goes(
    slot: Path, recordings: list[Path], tmp_path: Path
) -> None:
    whole = infer(Recording.open(recordings[0]), slot, judged_so, tmp_path / "whole.jsonl")
    cut = tmp_path / "cut.mcap"
    content = recordings[0].read_bytes()
    cut.write_bytes(content[: len(content) * 3 // 4])
    report = infer(Recording.open(cut), slot, judged_so, tmp_path / "log.jsonl")
    assert 0 < report.frames < whole.frames
    assert "damaged" in str(report.fault)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == report.frames


def test_a_bundle_without_the_models_features_is_refused(tiny: Tiny, recordings: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "slot"
    folder.mkdir()
    poor = make_slot(tiny, folder, ("ego_motion", "scene_context"))
    with pytest.raises(FleetError, match="sensor_health"):
        infer(Recording.open(recordings[0]), poor, judged_so, tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"identity": "0" * 32}, "scene_context is made by another kernel than the bundle's"),
        ({"contract": "99.0.0"}, "scene_context is made by another kernel than the bundle's"),
        ({"feature": "scene"}, "does not say which kernel makes scene_context"),
    ],
)
def test_a_bundle_of_other_kernels_is_refused(
    tiny: Tiny, recordings: list[Path], tmp_path: Path, change: dict[str, str], why: str
) -> None:
    (tmp_path / "slot").mkdir()
    kernels = [{**in_bundle(name), **(change if name == "scene_context" else {})} for name in _VIEWS]
    other = make_slot(tiny, tmp_path / "slot", kernels=kernels)
    with pytest.raises(FleetError, match=why):
        infer(Recording.open(recordings[0]), other, judged_so, tmp_path / "log.jsonl")


def test_a_live_stream_is_driven_as_its_recording(slot: Path, recordings: list[Path], tmp_path: Path) -> None:
    whole = infer(Recording.open(recordings[0]), slot, judged_so, tmp_path / "whole.jsonl")
    content = recordings[0].read_bytes()
    with piped(content) as pipe:
        report = infer(LiveStream(pipe), slot, judged_so, tmp_path / "live.jsonl")
    assert (report.frames, report.objects, report.fault) == (whole.frames, whole.objects, None)
    assert logged(tmp_path / "live.jsonl") == logged(tmp_path / "whole.jsonl")
    with piped(content[: len(content) * 3 // 4]) as pipe:
        report = infer(LiveStream(pipe), slot, judged_so, tmp_path / "live.jsonl")
    assert 0 < report.frames < whole.frames
    assert "The stream broke off (after message" in str(report.fault)
    assert logged(tmp_path / "live.jsonl") == logged(tmp_path / "whole.jsonl")[: report.frames]
