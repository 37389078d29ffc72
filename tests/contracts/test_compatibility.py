"""What breaks readers is found, and asks for a new major version."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from fleet_assets.contracts import shapes
from fleet_assets.contracts.check import contracts_at, diff, last_release
from fleet_assets.contracts.compatibility import changes, needed_version, version_findings
from fleet_assets.contracts.document import ContractError
from fleet_assets.errors import FleetError

COLUMN = """\
  - name: extra
    logicalType: integer
    physicalType: long
    description: More.
    classification: none
"""
RULE = """\
  - name: count is not negative
    type: custom
    engine: greatExpectations
    description: A count.
    implementation:
      type: expect_column_values_to_be_between
      kwargs:
        column: count
        min_value: 0
    customProperties:
    - property: scope
      value: row
    - property: blocking
      value: true
"""

# Each: what is replaced, by what, the step, a word of the change. None: nothing changes.
TABLE_CHANGES = {
    "nothing": ("apiVersion", "# said again\napiVersion", None, ""),
    "reworded": ("Things, one row each.", "All things.", "patch", "description"),
    "column reworded": ("description: Speed.", "description: How fast.", "patch", "speed_mps: reworded"),
    "column added": ("  - name: limit", COLUMN + "  - name: limit", "minor", "extra: added"),
    "required column added": (
        "  - name: limit",
        COLUMN + "    required: true\n  - name: limit",
        "major",
        "extra: added, required",
    ),
    "column renamed": ("name: speed_mps\n", "name: velocity_mps\n", "major", "renamed to velocity_mps?"),
    "type": ("physicalType: array<struct<name:string,bytes:long>>", "physicalType: array<string>", "major", "type"),
    "unit": ("value: m/s", "value: km/h", "major", "unit m/s became km/h"),
    "required": ("description: How many.", "description: How many.\n    required: true", "major", "required now"),
    "optional": ("    required: true\n    description: Day.", "    description: Day.", "major", "may be null"),
    "key": ("    primaryKey: true\n    primaryKeyPosition: 1\n", "", "major", "primary key"),
    "partitions": ("    partitioned: true\n    partitionKeyPosition: 1\n", "", "major", "partitions"),
    "kept": ("keepsQuarantined\n  value: false", "keepsQuarantined\n  value: true", "major", "keepsQuarantined"),
    "set narrowed": ("['on', 'off']", "['on']", "major", "no longer allows 'off'"),
    "set widened": ("['on', 'off']", "['on', 'off', 'idle']", "minor", "asks something else"),
    "bound": ("max_value: 150", "max_value: 90", "minor", "asks something else"),
    "rule added": (
        "customProperties:\n- property: owner",
        RULE + "customProperties:\n- property: owner",
        "minor",
        "added",
    ),
    "scope": ("value: row", "value: drive", "minor", "scope"),
    "retention": ("value: permanent", "value: raw", "minor", "retention_class"),
    "residency": ("value: fleet region", "value: eu", "minor", "residency"),
    "owner": ("team:fleet", "team:other", "patch", "owner"),
}


@pytest.mark.parametrize("case", TABLE_CHANGES)
def test_changes_of_a_table(case, table_text, table_of):
    old, new, step, word = TABLE_CHANGES[case]
    assert old in table_text
    before = table_of(table_text)
    changed = table_text.replace(old, new, 1)
    if case == "column renamed":
        changed = changed.replace("column: speed_mps", "column: velocity_mps")
    after = table_of(changed)
    found = changes(before, after)
    lowest = {None: "1.2.3", "patch": "1.2.4", "minor": "1.3.0", "major": "2.0.0"}[step]
    assert needed_version(before, found) == lowest
    if step is None:
        assert not found
        assert not version_findings({"demo.things": before}, {"demo.things": after})
        return
    assert found[0].step == step
    assert word in "; ".join(change.what for change in found)
    (finding,) = version_findings({"demo.things": before}, {"demo.things": after})
    assert lowest in finding.remedy
    raised = table_of(changed.replace("version: 1.2.3", f"version: {lowest}"))
    assert not version_findings({"demo.things": before}, {"demo.things": raised})


STREAM_CHANGES = {
    "stamp": ("value: sample", "value: start", "major"),
    "clock": ("value: logger", "value: sensor", "major"),
    "topic gone": ("[/demo]", "[/other]", "major"),
    "topic added": ("[/demo]", "[/demo, /other]", "minor"),
    "rate": ("value: 100", "value: 50", "minor"),
    "column": ("name: gyro_z_radps", "name: gyro_x_radps", "major"),
    "reworded": ("A stream.", "Streams.", "patch"),
}


@pytest.mark.parametrize("case", STREAM_CHANGES)
def test_changes_of_a_stream(case, stream_text, stream_of):
    old, new, step = STREAM_CHANGES[case]
    assert changes(stream_of(stream_text), stream_of(stream_text.replace(old, new, 1)))[0].step == step


def test_versions_do_not_go_back(table_text, table_of):
    before, after = table_of(table_text), table_of(table_text.replace("version: 1.2.3", "version: 1.2.2"))
    assert version_findings({"t": before}, {"t": after})


def test_a_contract_does_not_vanish(table_text, table_of):
    (finding,) = version_findings({"demo.things": table_of(table_text)}, {})
    assert "is gone" in finding.what


def test_a_table_does_not_become_a_stream(table_text, table_of, stream_text, stream_of):
    with pytest.raises(TypeError):
        changes(table_of(table_text), stream_of(stream_text))


def test_the_working_tree_fits_the_last_release():
    """Compares with the last release tag; before the first release, with nothing."""
    found = diff()
    assert not found.findings, "\n".join(map(str, found.findings))


def test_no_contract_breaks_readers_without_a_new_major_version():
    """Compares with the file of accepted shapes, which `fleet contracts docs` does not write while something is broken."""
    found = shapes.findings(shapes.contracts())
    assert not found, "\n".join(map(str, found))
    assert shapes.is_current(shapes.contracts()), "run `fleet contracts docs`"


def test_a_breaking_change_is_not_accepted_until_the_version_says_so(tmp_path, table_text, table_of):
    file = tmp_path / "shapes.json"
    before, stream = table_of(table_text), shapes.contracts()["lidar"]
    today = {before.name: before, stream.name: stream}
    assert shapes.accept(today, file)
    assert not shapes.accept(today, file)
    accepted = file.read_text()
    for case, (old, new, step, _) in TABLE_CHANGES.items():
        if step != "major" or case == "column renamed":
            continue
        broken = table_of(table_text.replace(old, new, 1))
        with pytest.raises(ContractError) as caught:
            shapes.accept({**today, broken.name: broken}, file)
        assert "2.0.0" in caught.value.remedy, case
        assert file.read_text() == accepted
        raised = replace(broken, version="2.0.0")
        assert not shapes.findings({**today, raised.name: raised}, file)
    moved = replace(stream, clock_domain="another")
    assert [finding.path for finding in shapes.findings({**today, stream.name: moved}, file)] == [stream.path]
    with pytest.raises(ContractError, match=r"demo\.things 1\.2\.3 is gone"):
        shapes.accept({stream.name: stream}, file)
    assert shapes.accept({**today, raised.name: raised}, file)


@pytest.fixture
def project(tmp_path, table_text):
    """A repository with one contract, tagged v0.1.0."""

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    folder = tmp_path / "fleet_assets" / "contracts" / "tables"
    folder.mkdir(parents=True)
    (folder / "demo.things.odcs.yaml").write_text(table_text)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v0.1.0")
    git("tag", "v0.0.9")
    git("tag", "vnext")
    (folder / "demo.broken.odcs.yaml").write_text("name: demo.broken\n")
    git("add", ".")
    git("commit", "-qm", "two")
    return tmp_path


def test_contracts_of_a_release_are_read_from_git(project, table_text, table_of):
    assert last_release(project) == "v0.1.0"
    old, unreadable = contracts_at("v0.1.0", project)
    assert not unreadable
    assert old["demo.things"].fingerprint == table_of(table_text).fingerprint
    _, unreadable = contracts_at("HEAD", project)
    assert [error.path.name for error in unreadable] == ["demo.broken.odcs.yaml"]
    found = diff("v0.1.0", project)
    assert ["is gone" in finding.what for finding in found.findings] == [True]
    assert "ingest.imu" in found.added


@pytest.mark.parametrize("ref", ["nowhere", "--all", "-h"])
def test_an_unknown_reference(ref, project):
    with pytest.raises(FleetError, match="git rev-parse failed"):
        contracts_at(ref, project)


def test_without_a_repository_nothing_was_released(tmp_path):
    assert last_release(tmp_path) is None
