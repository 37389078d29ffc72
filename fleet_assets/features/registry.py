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

from feast import FeatureStore
from feast.infra.registry.file import FileRegistryStore
from feast.repo_config import RegistryConfig
from feast.repo_contents import RepoContents

from fleet_assets.features.identity import REPO
from fleet_assets.services.home import Home


class InstallationRegistryStore(FileRegistryStore):
    """feature_store.yaml names the file; where it lies is decided by FLEET_HOME."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        folder = Home.open().root / "feast"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(registry_config.model_copy(update={"path": str(folder / registry_config.path)}), repo_path)


def feature_store() -> FeatureStore:
    """The store of FLEET_HOME's installation. Call `apply` once before."""
    return FeatureStore(repo_path=str(REPO))


def apply() -> None:
    """As `feast apply` in feature_repo/: the registry is what the definitions say."""
    from feast.repo_operations import apply_total

    store = feature_store()
    with _in_folder(REPO):
        apply_total(store.config, REPO, skip_source_validation=False)


def definitions() -> RepoContents:
    """What feature_repo/ defines, applied or not."""
    from feast.repo_operations import parse_repo

    with _in_folder(REPO):
        return parse_repo(REPO)


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """As Feast's own commands run there: its files import each other by name."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)
