"""A vehicle with a release, and a channel with the next one: what tests of updates begin with.

In: a folder. Out: a Scene in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from package.parts import HARDWARE, World, make_world, released

from fleet_assets.edge.floor import Floor
from fleet_assets.edge.update import REASONS, UpdateRefused
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.package.releases import Releases


@dataclass(frozen=True)
class Scene:
    """One release is installed on the vehicle, and a second one is published."""

    world: World
    vehicle: Vehicle
    first: str
    second: str
    earlier: Path  # the channel as it was when the first was installed

    @property
    def metadata(self) -> Path:
        return self.world.channel / "metadata"

    @property
    def archive(self) -> Path:
        return next((self.world.channel / "targets" / HARDWARE).glob(f"{self.second}.*"))

    @property
    def delta(self) -> Path:
        return next((self.world.channel / "targets" / HARDWARE).glob("*.delta"))

    def refused(self) -> str:
        """The reason for which the vehicle does not update. Its running release is whole."""
        with pytest.raises(UpdateRefused) as caught:
            self.vehicle.update(self.world.channel)
        assert self.vehicle.running().release == self.first
        assert caught.value.reason in REASONS
        return caught.value.reason


def make_scene(folder: Path) -> Scene:
    world = make_world(folder)
    first = released(world, "first", seed=1)
    vehicle = Vehicle.init(world.folder / "vehicle", world.releases.roots.path(1), HARDWARE, Floor())
    slot, new = vehicle.update(world.channel)
    assert (slot.release, new) == (first, True)
    shutil.copytree(world.channel, world.folder / "earlier")
    second = released(world, "second", seed=2)
    return Scene(world, vehicle, first, second, world.folder / "earlier")


def copy_of(made: Scene, folder: Path) -> Scene:
    """To be attacked."""
    shutil.copytree(made.world.folder, folder, symlinks=True)
    world = replace(made.world, releases=Releases(folder / "releases"), folder=folder)
    return replace(made, world=world, vehicle=Vehicle.open(folder / "vehicle"), earlier=folder / "earlier")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
