"""Ceremonies on the command line, as holders run them."""

from __future__ import annotations

from pathlib import Path

import pytest
from signing.ceremony import PASSPHRASE, make_keys, roles_file

from fleet_assets.errors import FleetError
from fleet_assets.throw_away import ROOT_HOLDERS
from fleet_assets.throw_away import run as fleet


def test_a_ceremony_from_keys_to_a_new_root(tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text(PASSPHRASE + "\n")
    phrase.chmod(0o600)
    with_phrase = ("--passphrase-file", phrase)
    made = fleet("keys", "create", tmp_path / "ada2", *with_phrase)[0]
    assert (tmp_path / "ada2").stat().st_mode & 0o777 == 0o600
    make_keys(tmp_path)
    where = ("--releases", tmp_path / "releases")
    assert fleet("keys", "list", *where) == {"root": None, "roles": [], "next": None}
    assert fleet("keys", "propose", roles_file(tmp_path), *where)["missing"] == 2
    signed = [fleet("keys", "sign", "--key", tmp_path / name, *with_phrase, *where) for name in ROOT_HOLDERS[:2]]
    assert [progress["published"] for progress in signed] == [False, True]
    fleet("keys", "rotate", "ada", made["public"], *where)
    for name in ROOT_HOLDERS[1:]:
        fleet("keys", "sign", "--key", tmp_path / name, *with_phrase, *where)
    listed = fleet("keys", "list", *where)
    assert listed["root"]["version"] == 2
    assert [row["key"] for row in listed["roles"] if row["holder"] == "ada"] == [made["id"]]
    assert fleet("keys", "revoke", "fay", *where)["version"] == 3

    phrase.chmod(0o644)
    with pytest.raises(FleetError, match="Others can read"):
        fleet("keys", "sign", "--key", tmp_path / "bo", *with_phrase, *where)
