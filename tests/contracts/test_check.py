"""What `fleet contracts check` and `docs` find."""

from __future__ import annotations

import shutil

from fleet_assets.contracts import loader
from fleet_assets.contracts.check import check, docs_are_current, stale_docs, write_docs
from fleet_assets.contracts.generate import ddl
from fleet_assets.contracts.loader import contract_files, load_streams, load_tables


def test_all_contracts_keep_the_standard_and_our_rules():
    assert [str(finding) for finding in check()] == []


def test_reference_pages_are_current():
    assert stale_docs() == [], "run `fleet contracts docs`"


def test_check_goes_on_after_the_first_mistake(tmp_path, table_text, stream_text):
    table = tmp_path / "demo.things.odcs.yaml"
    table.write_text(
        table_text.replace("status: active", "status: active\ncolour: red").replace("value: row", "value: all")
    )
    stream = tmp_path / "demo.odcs.yaml"
    stream.write_text(stream_text.replace("version: 1.0.0", "version: one"))
    found = check([table, stream, tmp_path / "gone.odcs.yaml"])
    assert [(finding.path.name, bool(finding.remedy)) for finding in found] == [
        ("demo.things.odcs.yaml", True),
        ("demo.things.odcs.yaml", True),
        ("demo.odcs.yaml", True),
        ("gone.odcs.yaml", True),
    ]
    assert "colour" in found[0].what
    assert "value: all" in table.read_text().splitlines()[found[1].line - 1]


def test_a_mistake_in_one_table_hides_none_in_a_stream(tmp_path, monkeypatch):
    for folder in ("tables", "streams", "context"):
        shutil.copytree(loader.FOLDER / folder, tmp_path / folder)
    monkeypatch.setattr(loader, "FOLDER", tmp_path)
    monkeypatch.setattr(loader, "load_tables", loader.load_tables.__wrapped__)

    def spoil(name: str, old: str, new: str) -> None:
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new, 1))

    spoil("tables/ingest.context.odcs.yaml", "- ingest.gnss.latitude_deg", "- no.such.latitude_deg")
    (source,) = check()
    assert "there is no source 'no.such" in source.what
    spoil("tables/ingest.labels.odcs.yaml", "status: active", "status: active\nversion: one")
    spoil("streams/imu.odcs.yaml", "version: ", "version: v")
    spoil("streams/lidar.odcs.yaml", "version: ", "version: v")
    found = {finding.path.name for finding in check()}
    assert {"ingest.labels.odcs.yaml", "imu.odcs.yaml", "lidar.odcs.yaml"} <= found
    # What goes to that table says that it waits for it; all else can be judged.
    others = {path.name for path in contract_files("streams")} - found
    assert {"gnss.odcs.yaml", "camera_front.odcs.yaml"} <= others


def test_the_standard_is_asked_and_says_where(tmp_path, table_text, table_of):
    path = tmp_path / "demo.things.odcs.yaml"
    path.write_text(
        table_text.replace("    required: true\n    description: Day.", "    required: 'yes'\n    description: Day.")
    )
    first = check([path])[0]
    assert first.place == "schema[0].properties[1].required"
    assert "'yes'" in path.read_text().splitlines()[first.line - 1]


def test_one_topic_has_one_stream(tmp_path, stream_text):
    paths = []
    for name, topic in (("demo", "/demo"), ("demo_two", "/demo[_/]?.*"), ("third", "/third")):
        path = tmp_path / f"{name}.odcs.yaml"
        path.write_text(
            stream_text.replace("name: demo\nversion", f"name: {name}\nversion").replace("[/demo]", f"['{topic}']")
        )
        paths.append(path)
    (finding,) = check([paths[1], paths[0], paths[2]])
    assert "belongs to demo_two already" in finding.what


def test_pages_are_written_once_and_stale_ones_removed(tmp_path):
    assert not docs_are_current(tmp_path)
    written = write_docs(tmp_path)
    assert "ingest.imu.md" in written
    assert docs_are_current(tmp_path)
    (tmp_path / "ingest.old.md").write_text("gone")
    (tmp_path / "streams.md").write_text("edited")
    assert write_docs(tmp_path) == ["ingest.old.md", "streams.md"]
    assert write_docs(tmp_path) == []
    for name in load_streams():
        assert f"## {name}" in (tmp_path / "streams.md").read_text()


def test_ddl_says_what_the_contract_says():
    text = ddl(load_tables()["ingest.quarantine"], "s3a://fleet/b/tables/ingest/quarantine")
    assert text.startswith("CREATE TABLE IF NOT EXISTS delta.`s3a://fleet/b/tables/ingest/quarantine` (")
    assert "`drive_id` string NOT NULL COMMENT 'Key of the drive" in text
    assert "`samples` array<string> NOT NULL" in text
    assert "USING delta\nPARTITIONED BY (day)\n" in text
    assert "'delta.enableDeletionVectors' = 'false'" in text


def test_ddl_quotes_what_people_write(table_of, table_text):
    text = ddl(table_of(table_text.replace("description: Speed.", "description: The car's \\ speed.")), "x")
    assert "COMMENT 'The car\\'s \\\\ speed. [m/s]'" in text
