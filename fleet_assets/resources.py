"""What assets get from the installation, and from whoever starts a run.

In: FLEET_HOME; a run's configuration. Out: two resources, `fleet` and `profile`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from fleet_assets.services.home import Home

if TYPE_CHECKING:
    from fleet_assets.lake.lake import Lake


class FleetResource(dg.ConfigurableResource):
    """An installation. `home_path` empty: FLEET_HOME, else ./.fleet."""

    home_path: str = ""

    @property
    def home(self) -> Home:
        return Home.open(Path(self.home_path) if self.home_path else None)

    @property
    def lake(self) -> "Lake":
        from fleet_assets.lake.lake import Lake

        return Lake.open(self.home)


PROFILES = ("demo", "full")


class Profile(dg.ConfigurableResource):
    """How a model is made and judged, which the release names. `demo`: one fusion form, and a gate that a few minutes can meet.
    `full`: the bake-off, the whole gate, the rehearsals. The code path is the same."""

    name: str = "full"
