"""What assets get from the installation: the lake and the servers' addresses.

In: FLEET_HOME. Out: one resource, `fleet`.
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
