"""A key that signs bundles, and the ring of who trusts it; a vehicle between two releases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleet_assets.signing.keys import KeyRing, SigningKey

if TYPE_CHECKING:
    from edge.scene import Scene


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("keys") / "key", "a passphrase for tests")


@pytest.fixture(scope="session")
def ring(key: SigningKey) -> KeyRing:
    return KeyRing([key.public])


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    from edge.scene import make_scene  # what it needs takes long to import

    return make_scene(tmp_path_factory.mktemp("world"))


@pytest.fixture
def scene(untouched: Scene, tmp_path: Path) -> Scene:
    """A copy to be attacked."""
    from edge.scene import copy_of

    return copy_of(untouched, tmp_path / "world")
