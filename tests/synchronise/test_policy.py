"""Mistakes in the alignment policy are named with file, line, place and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_assets.contracts.document import ContractError
from fleet_assets.synchronise.policy import KINDS, PATH, load_alignment

MISTAKES = {
    "no mapping": ("", "- 1", "not a mapping", "top level"),
    "no YAML": ("key_streams: [lidar,", "key_streams: [lidar,, ", "no valid YAML", "line 5"),
    "entry missing": ("grid_hz: 10\n", "", "'grid_hz' is missing", "top level"),
    "entry unknown": ("grid_hz: 10", "grid_hz: 10\ngrid: 10", "'grid' is not known here", "top level"),
    "entry twice": ("grid_hz: 10", "grid_hz: 10\ngrid_hz: 10", "'grid_hz' is there twice", "grid_hz"),
    "version": ("version: ", "version: one # ", "'one' is no version", "version"),
    "rate of nought": ("grid_hz: 10", "grid_hz: 0", "0 is not above 0", "grid_hz"),
    "rate out of reach": ("grid_hz: 10", "grid_hz: .inf", "out of range", "grid_hz"),
    "no list": ("key_streams: [", "key_streams: lidar # [", "is not a list", "key_streams"),
    "stream unknown": ("[lidar, camera_front", "[lidra, camera_front", "'lidra' is not known", "key_streams[0]"),
    "kind missing": ("    imu: {method: linear}\n", "", "'imu' is missing", "policies.offline"),
    "kind unknown": ("    imu: {method: linear}", "    imu: {method: linear}\n    sonar: {}", "'sonar'", "policies.offline"),
    "method unknown": ("imu: {method: linear}", "imu: {method: cubic}", "'cubic' is not known", "policies.offline.imu.method"),
    "channel is text": ("imu: {method: linear}", "imu: linear", "not a mapping", "policies.offline.imu"),
    "tolerance missing": ("before_ms: 200}", "}", "'before_ms' is missing", "policies.offline.bus"),
    "tolerance misspelt": ("before_ms: 200}", "before_ms: 200, after: 1}", "'after' is not known", "policies.offline.bus"),
    "tolerance negative": ("before_ms: 200}", "before_ms: -1}", "-1 is not above 0", "policies.offline.bus.before_ms"),
    "tolerance is text": ("before_ms: 200}", "before_ms: soon}", "'soon' is not a number", "policies.offline.bus.before_ms"),
    "tolerance of a year": ("before_ms: 200}", "before_ms: 3.2e+10}", "out of range", "policies.offline.bus.before_ms"),
    "policy misnamed": ("  offline:", "  Off line:", "a policy called 'Off line'", "policies.Off line"),
    "waits for some": ("linear, wait_ms: 20", "linear", "imu has no wait_ms, but camera has", "policies.causal.imu"),
    "wait negative": ("linear, wait_ms: 20", "linear, wait_ms: -5", "-5 is not above 0", "policies.causal.imu.wait_ms"),
    "stream without orientation": ("[pose, imu, ", "[pose, gnss, ", "'gnss' is not known", "orientation[1]"),
    "limit unknown": ("limits: {residual_ms", "limits: {residual", "'residual' is not known", "limits"),
    "limit of no share": ("complete_share: 0.5", "complete_share: 50", "50 is no share", "limits.complete_share"),
    "required kind": ("required_kinds: [camera, lidar", "required_kinds: [camera, lidr", "'lidr'", "required_kinds[1]"),
    "motion missing": ("  accel_x_mps2:", "  accel_mps2:", "'accel_mps2' is not known", "ego"),
    "source without a stream": ("{stream: bus_vehicle, signal", "{signal", "'stream' is missing", "ego.speed_mps[0]"),
    "signal of no bus": ("{stream: gnss, column: speed", "{stream: gnss, signal: speed", "'signal'", "ego.speed_mps[1]"),
    "column unknown": ("gnss, column: speed_mps", "gnss, column: speed", "'speed' is not known", "ego.speed_mps[1].column"),
}  # fmt: skip


def test_the_policy_that_is_shipped() -> None:
    policy = load_alignment()
    assert [(policy.name, policy.causal) for policy in policy.policies] == [("offline", False), ("causal", True)]
    assert all(set(policy.channels) == set(KINDS) for policy in policy.policies)
    assert (policy.grid_period_ns, policy.gap_limit_without_rate_ns) == (100_000_000, 200_000_000)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str, tmp_path: Path) -> None:
    old, new, what, place = MISTAKES[mistake]
    text = PATH.read_text()
    assert old in text
    file = tmp_path / "own.yaml"
    file.write_text(text.replace(old, new, 1) if old else new)
    with pytest.raises(ContractError) as error:
        load_alignment(file)
    assert what in error.value.what
    assert error.value.what.startswith("own.yaml: ")
    assert place in str(error.value.where)
    assert str(error.value.where).startswith("line ")
    assert error.value.remedy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such file"):
        load_alignment(tmp_path / "none.yaml")


def test_a_change_is_another_fingerprint_and_a_comment_is_not(tmp_path: Path) -> None:
    changed, commented = tmp_path / "a.yaml", tmp_path / "b.yaml"
    changed.write_text(PATH.read_text().replace("before_ms: 200", "before_ms: 201"))
    commented.write_text("# more\n" + PATH.read_text())
    assert load_alignment(changed).fingerprint != load_alignment().fingerprint == load_alignment(commented).fingerprint
