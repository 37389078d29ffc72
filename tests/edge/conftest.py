"""A key that signs bundles, and the ring of who trusts it."""

from __future__ import annotations

import pytest

from fleet_assets.signing.keys import KeyRing, SigningKey


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("keys") / "key", "a passphrase for tests")


@pytest.fixture(scope="session")
def ring(key: SigningKey) -> KeyRing:
    return KeyRing([key.public])
