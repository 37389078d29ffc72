"""The channel as an asset: it publishes what was approved and nothing else, and stays current."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from package.parts import approve, candidate, make_world

from fleet_assets.deploy.assets import CHANNEL, release_channel
from fleet_assets.package.releases import State
from fleet_assets.resources import FleetResource
from fleet_assets.services.home import Home


def run(home: Path) -> dict[str, dg.MetadataValue]:
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [release_channel], instance=instance, resources={"fleet": FleetResource(home_path=str(home))}
        )
        (event,) = done.asset_materializations_for_node(CHANNEL.to_python_identifier())
    return dict(event.metadata)


@pytest.mark.slow
def test_it_publishes_what_was_approved_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run(home)["releases"].value == []
    world = make_world(Home.open(home).data)
    one, two = candidate(world, "one", seed=1), candidate(world, "two", seed=2)
    assert "targets" not in run(home)
    approve(world, one)
    assert run(home)["targets"].value == "1"
    assert [world.releases.release(id_).state for id_ in (one, two)] == [State.RELEASED, State.GATED]
    assert (run(home)["targets"].value, run(home)["timestamp"].value) == ("1", "3")
    approve(world, two)
    assert run(home)["targets"].value == "2"
    assert [world.releases.release(id_).state for id_ in (one, two)] == [State.RETIRED, State.RELEASED]
