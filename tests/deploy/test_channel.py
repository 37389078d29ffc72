"""A channel that cannot publish what was approved publishes what it can, stays current, and says what is wrong."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from package.parts import World, approve, candidate, make_world, released

from fleet_assets.deploy.channel import advance, publish, refresh
from fleet_assets.edge.floor import Demand, Floor
from fleet_assets.errors import FleetError
from fleet_assets.package.releases import State

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_below_a_floor_that_was_raised_since_nothing_is_published_and_the_channel_is_current(world: World) -> None:
    released(world, "first", seed=1)
    second = candidate(world, "second", seed=2)
    approve(world, second)
    floor = Floor(demands=(Demand("recall", {"class": "pedestrian", "light": "night"}, 890_000),))
    (world.releases.folder / "floor.json").write_text(json.dumps(floor.to_document()))
    before = refresh(world.releases)
    with pytest.raises(FleetError, match=f"{second[:12]} was not published: .*below the floor"):
        advance(world.releases)
    after = refresh(world.releases)
    assert (after.targets, after.timestamp) == (before.targets, before.timestamp + 2)


def test_of_two_that_publish_at_once_one_comes_first_and_the_other_is_told(world: World) -> None:
    """Both were approved as the next version: it is written once."""
    both = [candidate(world, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    for id_ in both:
        approve(world, id_)

    def ended(id_: str) -> str:
        try:
            return str(publish(world.releases, id_).targets)
        except FleetError as error:
            return error.what

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(both, pool.map(ended, both), strict=True))
    (first,) = (id_ for id_ in both if found[id_] == "1")
    (second,) = (id_ for id_ in both if id_ != first)
    assert "Nobody has signed" in found[second]
    assert [world.releases.release(id_).state for id_ in (first, second)] == [State.RELEASED, State.GATED]


def test_one_that_was_damaged_does_not_hold_up_another(world: World) -> None:
    damaged, whole, gone = (candidate(world, name, seed=seed) for seed, name in enumerate(("one", "two", "three")))
    approve(world, damaged)
    approve(world, whole)
    archive = world.releases.archive(damaged)
    made = archive.stat()
    with open(archive, "ab") as file:
        file.write(b"more")
    os.utime(archive, ns=(made.st_atime_ns, made.st_mtime_ns))  # still the oldest
    world.releases.archive(gone).unlink()
    with pytest.raises(FleetError, match=f"The archive of {damaged[:12]} was changed"):
        advance(world.releases)
    assert world.releases.release(whole).state is State.RELEASED
    assert advance(world.releases) is not None, "what was signed for the version before does not count any more"
