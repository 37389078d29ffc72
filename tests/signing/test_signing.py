"""Keys are kept encrypted; a document counts only when a trusted key signed exactly this content for this purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.errors import FleetError
from fleet_assets.signing.documents import canonical, sign, verify
from fleet_assets.signing.keys import KeyRing, PublicKey, SigningKey

PASSPHRASE = "correct horse battery"
DOCUMENT = {"_type": "bundle", "files": {"a": {"bytes": 3, "sha256": "00"}}, "name": "ä"}


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "k", PASSPHRASE)


def test_a_key_comes_back_with_its_passphrase_only(tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "k"
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    assert SigningKey.read(path, PASSPHRASE).id == key.id == PublicKey.read(tmp_path / "k.pub").id
    with pytest.raises(FleetError, match="does not open"):
        SigningKey.read(path, "another passphrase")
    with pytest.raises(FleetError, match="there already"):
        SigningKey.create(path, PASSPHRASE)
    path.chmod(0o640)
    with pytest.raises(FleetError, match="Others can read"):
        SigningKey.read(path, PASSPHRASE)


def test_short_passphrases_and_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="too short"):
        SigningKey.create(tmp_path / "k", "short")
    (tmp_path / "x.pub").write_text("hello")
    with pytest.raises(FleetError, match="no public key"):
        KeyRing.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FleetError, match="No key is trusted"):
        KeyRing.read(tmp_path / "empty")


def test_a_plain_private_key_is_refused(tmp_path: Path, key: SigningKey) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    path = tmp_path / "plain"
    path.write_bytes(key.key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(FleetError, match="not encrypted"):
        SigningKey.read(path, PASSPHRASE)


def test_signed_content_comes_back_and_its_spelling_does_not_matter(key: SigningKey) -> None:
    file, ring = sign(DOCUMENT, [key]), KeyRing([key.public])
    assert verify(file, ring, type="bundle") == DOCUMENT
    assert verify(json.dumps(json.loads(file), indent=4).encode(), ring, type="bundle") == DOCUMENT
    with pytest.raises(FleetError, match="signed as 'bundle'"):
        verify(file, ring, type="release")


def test_only_trusted_keys_count_and_each_once(tmp_path: Path, key: SigningKey) -> None:
    other = SigningKey.create(tmp_path / "other", PASSPHRASE)
    file = sign(DOCUMENT, [key, key])
    with pytest.raises(FleetError, match="not signed by a trusted key"):
        verify(file, KeyRing([other.public]), type="bundle")
    with pytest.raises(FleetError, match="not signed by a trusted key"):
        verify(file, KeyRing([key.public, other.public]), type="bundle", threshold=2)
    both = sign(DOCUMENT, [key, other])
    assert verify(both, KeyRing([key.public, other.public]), type="bundle", threshold=2) == DOCUMENT


def test_every_flipped_bit_is_refused_or_changes_nothing(key: SigningKey) -> None:
    file, ring = sign(DOCUMENT, [key]), KeyRing([key.public])
    for index in range(len(file)):
        for bit in range(8):
            broken = bytearray(file)
            broken[index] ^= 1 << bit
            try:
                found = verify(bytes(broken), ring, type="bundle")
            except FleetError:
                continue
            assert found == DOCUMENT  # such as an upper-case digit of the signature


@pytest.mark.parametrize(
    "file",
    [b"", b"{}", b"[]", b'{"signed":1,"signatures":[]}', b'{"signed":{"_type":"bundle"},"signatures":{}}', b"[" * 100_000,
     b'{"signed":{"_type":"bundle","_type":"x"},"signatures":[]}', b'{"signed":{"a":1e400},"signatures":[]}', b"\xff\xfe"],
)  # fmt: skip
def test_hostile_files_are_refused(file: bytes, key: SigningKey) -> None:
    with pytest.raises(FleetError):
        verify(file, KeyRing([key.public]), type="bundle")


def test_fractions_have_no_one_form() -> None:
    with pytest.raises(FleetError, match="fraction"):
        canonical({"a": [0.5]})
    with pytest.raises(FleetError, match="half a character"):
        canonical({"a": "\ud800"})


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=10,
)


@given(JSON)
@settings(deadline=None)
def test_canonical_form_is_json_and_its_own_fixed_point(document: object) -> None:
    form = canonical(document)
    assert json.loads(form) == document
    assert canonical(json.loads(form)) == form
