"""The Feast registry of an installation, and the store that goes with it.

In: an installation, and the definitions in feature_repo/. Out: a registry file inside the installation, never in the repository;
and a FeatureStore over it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from feast import FeatureStore
from feast.infra.registry.file import FileRegistryStore
from feast.repo_config import RegistryConfig, RepoConfig
from feast.repo_contents import RepoContents
from pydantic import StrictStr

from fleet_assets.errors import FleetError
from fleet_assets.features.identity import REPO
from fleet_assets.features.online_files import OnlineFiles
from fleet_assets.features.online_store import SnapshotOnlineStore, SnapshotOnlineStoreConfig
from fleet_assets.services.home import Home


class InstallationRegistryStore(FileRegistryStore):
    """feature_store.yaml names the file; where it lies is decided by FLEET_HOME."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        folder = Home.open().root / "feast"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(registry_config.model_copy(update={"path": str(folder / registry_config.path)}), repo_path)


class InstallationOnlineStoreConfig(SnapshotOnlineStoreConfig):
    """path: relative to the installation's folder for Feast."""

    type: Literal["fleet_assets.features.registry.InstallationOnlineStore"] = (
        "fleet_assets.features.registry.InstallationOnlineStore"  # type: ignore[assignment]
    )
    path: StrictStr = "online"


class InstallationOnlineStore(SnapshotOnlineStore):
    """The online store over snapshots, in the installation that FLEET_HOME names."""

    def files(self, config: RepoConfig) -> OnlineFiles:
        if self._files is None:
            self._files = OnlineFiles(Home.open().root / "feast" / config.online_store.path / config.project)
        return self._files


def publish_online(snapshot: Path, service: str, store: FeatureStore | None = None) -> None:
    """What the online store (the installation's unless given) answers from, for the views of a service, in one step."""
    store = store or feature_store()
    online = store._get_provider().online_store
    if not isinstance(online, InstallationOnlineStore):
        raise FleetError(f"The online store is {type(online).__name__}", remedy="See feature_repo/feature_store.yaml.")
    online.files(store.config).publish(snapshot, service)


def feature_store(online: Path | None = None) -> FeatureStore:
    """The store of FLEET_HOME's installation. Call `apply` once before. online: a folder that it answers from instead of the
    installation's."""
    store = FeatureStore(repo_path=str(REPO))
    if online is not None:
        store.config.online_store.path = str(online)
    return store


def apply() -> None:
    """As `feast apply` in feature_repo/: the registry is what the definitions say. What Feast tells of it goes to standard error:
    a command's standard output is its answer."""
    from feast.repo_operations import apply_total

    store = feature_store()
    with _in_folder(REPO), contextlib.redirect_stdout(sys.stderr):
        apply_total(store.config, REPO, skip_source_validation=False)


def definitions() -> RepoContents:
    """What feature_repo/ defines, applied or not."""
    from feast.repo_operations import parse_repo

    with _in_folder(REPO):
        return parse_repo(REPO)


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """As Feast's own commands run there: its files import each other by name.

    Feast knows a definition file by its bare name, so a module of that name from elsewhere (a `services` of the caller's own)
    steps aside meanwhile: Feast would take it for ours, and find nothing in it.
    """
    before = Path.cwd()
    own = {path.stem: path for path in folder.glob("*.py")}
    aside = {
        name: module
        for name, module in sys.modules.items()
        if name in own and getattr(module, "__file__", None) != str(own[name])
    }
    for name in aside:
        del sys.modules[name]
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)
        sys.modules.update(aside)
