"""Garbage: what was never committed goes when it is a day old, and nothing else; on a real lakeFS."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import time
from pathlib import Path

import pytest
from lake.conftest import new_lake
from lake.publisher import IMU, publish, rows_by_mark

from fleet_assets.lake import ranges
from fleet_assets.lake.garbage import CannotTell, collect, last_mark
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.sweep import sweep
from fleet_assets.services.home import Home

pytestmark = pytest.mark.services
A, B = "car1--20260101T080000Z", "car2--20260101T090000Z"


def storage(lake: Lake) -> Path:
    return lake.home.root / "lakefs" / "objects" / lake.repository.name


def objects(lake: Lake) -> set[Path]:
    return {path for path in (storage(lake) / "data").rglob("*") if path.is_file()}


def age(lake: Lake, hours: float = 25) -> None:
    """As if everything were older."""
    then = time.time() - hours * 3600
    for path in storage(lake).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def put(lake: Lake, branch: str, path: str, data: bytes = b"x" * 1000) -> Path:
    """Where its bytes lie."""
    before = objects(lake)
    lake.repository.put(branch, path, data)
    (made,) = objects(lake) - before
    return made


def test_only_what_was_never_committed_and_is_a_day_old_goes(lake: Lake) -> None:
    repository = lake.repository
    publish(lake, [A, B], run_id="first", mark=1.0)
    old = lake.at().commit_id
    publish(lake, [A], run_id="second", mark=2.0)

    repository.create_branch("gone", "main")
    never = put(lake, "gone", "never")
    vanished = put(lake, "gone", "committed")
    repository.delete("gone", ["never"])
    repository.commit("gone", "kept by its id alone")
    by_id = repository.commit_id("gone")
    staged = put(lake, "gone", "staged")
    repository.delete_branch("gone")

    repository.create_branch("tagged", "main")
    tagged = put(lake, "tagged", "tagged")
    repository.commit("tagged", "kept by a tag")
    repository.tag("garbage-test", "tagged")
    repository.delete_branch("tagged")

    repository.create_branch("living", "main")
    overwritten = put(lake, "living", "work")
    work = put(lake, "living", "work", b"newer")
    part = storage(lake) / f"{'0' * 32}-00001"
    part.write_bytes(b"of an upload that was given up")
    own = {path.name for path in (storage(lake) / "_lakefs").iterdir()}

    assert collect(lake).removed_objects == 0  # all of it is young
    assert all(path.exists() for path in (never, staged, overwritten, part))

    age(lake)
    young = put(lake, "living", "young")
    repository.delete("living", ["young"])
    mark = collect(lake)

    assert not any(path.exists() for path in (never, staged, overwritten, part))
    assert mark.removed_objects >= 4
    assert mark.unreached_bytes >= vanished.stat().st_size
    assert mark.held_bytes == sum(path.stat().st_size for path in objects(lake))
    assert mark == last_mark(lake.home, repository.name)
    assert young.exists()
    assert tagged.exists()
    assert {path.name for path in (storage(lake) / "_lakefs").iterdir()} == own
    assert repository.get(by_id, "committed") == b"x" * 1000
    assert repository.get("garbage-test", "tagged") == b"x" * 1000
    assert repository.get("living", "work") == work.read_bytes() == b"newer"
    assert rows_by_mark(lake, IMU) == {A: {(2.0, 100)}, B: {(1.0, 100)}}
    assert rows_by_mark(lake, IMU, old) == {A: {(1.0, 100)}, B: {(1.0, 100)}}
    assert collect(lake).removed_objects == 0


def test_what_a_branch_alone_holds_stays_until_it_is_swept_and_its_commits_stay_then(lake: Lake) -> None:
    """As the audit leaves it when it refuses rows: a branch with commits, and no lease."""
    branch = f"tx-test-run-{int(time.time()) - 90_000}-0123abcd"
    lake.repository.create_branch(branch, "main")
    refused = put(lake, branch, "refused")
    lake.repository.commit(branch, "refused by the audit")
    commit_id = lake.repository.commit_id(branch)
    never = put(lake, branch, "never")
    age(lake)
    assert collect(lake).unreached_bytes == 0
    assert refused.exists()
    assert never.exists()

    assert len(list(sweep(lake, older_than_s=0))) == 1
    mark = collect(lake)
    assert (mark.removed_objects, mark.removed_bytes) == (1, 1000)
    assert not never.exists()
    assert mark.unreached_bytes >= 1000
    assert lake.repository.get(commit_id, "refused") == b"x" * 1000


def test_a_run_in_progress_loses_nothing(lake: Lake) -> None:
    def meanwhile(step: int) -> None:
        age(lake)
        collect(lake)

    publish(lake, [A, B], run_id="run", mark=1.0, before_leaving=lambda tx: meanwhile(0), on_step=meanwhile)
    publish(lake, [A], run_id="again", mark=2.0, before_leaving=lambda tx: meanwhile(0), on_step=meanwhile)
    age(lake)
    collect(lake)
    assert rows_by_mark(lake, IMU) == {A: {(2.0, 100)}, B: {(1.0, 100)}}


@pytest.mark.parametrize("damage", ["truncated", "not a database", "of another form", "without rows"])
def test_a_damaged_memory_is_made_anew(lake: Lake, damage: str) -> None:
    publish(lake, [A], run_id="first", mark=1.0)
    age(lake)
    before = collect(lake)
    memory = lake.home.run / f"garbage-{lake.repository.name}.sqlite"
    if damage == "truncated":
        os.truncate(memory, memory.stat().st_size // 2)
    elif damage == "not a database":
        memory.write_bytes(b"nothing" * 1000)
    else:
        with sqlite3.connect(memory) as known:
            known.execute("DROP TABLE commits" if damage == "of another form" else "DELETE FROM addresses")
        known.close()
    lake.repository.create_branch("gone", "main")
    never = put(lake, "gone", "never")
    lake.repository.delete_branch("gone")
    age(lake)
    after = collect(lake)
    assert not never.exists()
    assert (after.removed_objects, after.held_bytes) == (1, before.held_bytes)
    assert rows_by_mark(lake, IMU) == {A: {(1.0, 100)}}


def test_at_any_doubt_nothing_goes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.repository.create_branch("gone", "main")
    never = put(lake, "gone", "never")
    lake.repository.delete_branch("gone")
    age(lake)
    own = max((storage(lake) / "_lakefs").glob("?" * 64), key=lambda path: len(ranges.read(path).addresses))
    whole = own.read_bytes()

    own.write_bytes(whole[:-100])
    age(lake)
    with pytest.raises(CannotTell, match="cannot be read"):
        collect(lake)
    own.unlink()
    with pytest.raises(CannotTell, match="are missing"):
        collect(lake)
    own.write_bytes(whole)

    # lakeFS was killed while it wrote one: nobody's, once it is old.
    (own.parent / ("0" * 64)).write_bytes(whole[:10])
    with pytest.raises(CannotTell, match="cannot be read"):
        collect(lake)

    monkeypatch.setenv("FLEET_LAKEFS_URL", lake.home.lakefs_url)
    with pytest.raises(CannotTell, match="not in this installation"):
        collect(lake)
    monkeypatch.delenv("FLEET_LAKEFS_URL")
    elsewhere = Lake(dataclasses.replace(lake.home, root=lake.home.root / "other"), lake.repository)
    with pytest.raises(CannotTell, match="not in this installation"):
        collect(elsewhere)

    assert never.exists()
    age(lake)
    assert collect(lake).removed_objects >= 1
    assert not never.exists()


def test_a_long_range_is_read_whole_and_a_changed_byte_loses_no_address(lakefs_home: Home, tmp_path: Path) -> None:
    """An index of two levels: long paths, and many blocks, which fill up with what users say of their objects."""
    lake = new_lake(lakefs_home, [])
    repository = lake.repository
    repository.create_branch("long", "main")
    for number in range(300):
        about = {"number": f"{number:03d}{os.urandom(700).hex()}"}
        repository.s3.put_object(
            Bucket=repository.name, Key=f"long/{'deep/' * 60}{number:04d}", Body=b"", Metadata=about
        )
    repository.commit("long", "300 objects")
    here = f"local://{storage(lake)}/"
    wanted = {item.address.removeprefix(here) for item in repository.list("long")}
    paths = list((storage(lake) / "_lakefs").glob("?" * 64))
    found = {path: ranges.read(path) for path in paths}
    assert {address for contents in found.values() for address in contents.addresses} == wanted
    longest = max(found, key=lambda path: len(found[path].addresses))
    assert {part for contents in found.values() for part in contents.ranges} <= {path.name for path in paths}

    data = longest.read_bytes()
    assert ranges._table(memoryview(data))[1][b"rocksdb.block.based.table.index.type"] == b"\2\0\0\0"
    changed = tmp_path / longest.name
    for place in range(0, len(data), 1 + len(data) // 500):
        changed.write_bytes(data[:place])
        with pytest.raises(ranges.Unreadable):
            ranges.read(changed)
        changed.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        with contextlib.suppress(ranges.Unreadable):  # a byte that nothing hangs on
            assert ranges.read(changed) == found[longest]
