"""ROS 2 bags: what only they can have wrong."""

from __future__ import annotations

from pathlib import Path

from formats.sample_bags import rosbag2_sqlite

from fleet_assets.formats.rosbag2 import RosBag2Reader


def test_a_schema_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """SQLite names the table in its error, which Python then cannot decode; found by `make fuzz`, variant 2936 of seed 1."""
    sample = rosbag2_sqlite(tmp_path)
    bag = tmp_path / sample.main
    content = bag.read_bytes().replace(b"tabletopicstopics", b"table\xd4opicstopics", 1)
    bag.write_bytes(content.replace(b"CREATE TABLE topics", b"CREATE TABLX topics", 1))
    reader = RosBag2Reader(sample.files)
    assert reader.info().t_start_ns is None
    assert not list(reader.read(None))
    [refusal] = reader.refusals
    assert "schema" in refusal.reason
    assert refusal.position == "drive/drive.db3"
