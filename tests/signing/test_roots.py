"""Ceremonies: who may sign what changes only when enough root keys say so, and a lost or stolen key is no dead end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from signing.ceremony import PASSPHRASE, held, make_keys, roles_file

from fleet_assets.errors import FleetError
from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import Roles
from fleet_assets.signing.roots import Roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(tmp_path / "roots")


@pytest.fixture
def keys(tmp_path: Path, roots: Roots) -> dict[str, SigningKey]:
    return held(tmp_path / "keys", roots)


def holders(roots: Roots, role: str) -> tuple[str, ...]:
    return Roles.of(roots.current()).roles[role].holders


def test_the_first_root_counts_when_enough_holders_have_signed(tmp_path: Path, roots: Roots) -> None:
    keys = make_keys(tmp_path)
    with pytest.raises(FleetError, match="no root"):
        roots.current()
    assert roots.propose(Roles.read(roles_file(tmp_path))).missing == 2
    assert roots.sign(keys["ada"]).missing == 1
    assert roots.sign(keys["ada"]).missing == 1, "one holder counts once"
    with pytest.raises(FleetError, match="no root key"):
        roots.sign(keys["dee"])
    done = roots.sign(keys["cy"])
    assert (done.published, set(done.signed.values())) == (True, {"ada", "cy"})
    assert roots.current().version == 1
    with pytest.raises(FleetError, match="No root is proposed"):
        roots.sign(keys["bo"])


def test_a_key_is_rotated_and_the_old_one_counts_no_more(
    tmp_path: Path, roots: Roots, keys: dict[str, SigningKey]
) -> None:
    new = SigningKey.create(tmp_path / "ada2", PASSPHRASE)
    roots.propose(Roles.of(roots.current()).with_key("ada", new.public))
    roots.sign(keys["bo"])
    # Two of the new holders: the old ones have not agreed yet.
    assert not roots.sign(new).published
    assert roots.sign(keys["cy"]).published
    roots.propose(Roles.of(roots.current()))
    with pytest.raises(FleetError, match="no root key"):
        roots.sign(keys["ada"])
    roots.sign(new)
    assert roots.sign(keys["bo"]).version == 3


@pytest.mark.parametrize("where", ["a key under an id of its own", "a second key of a holder", "a key in no role"])
def test_a_proposed_root_says_no_more_than_its_holders_are_shown(
    tmp_path: Path, roots: Roots, keys: dict[str, SigningKey], where: str
) -> None:
    """Somebody who can write to the folder would have the others sign a key that approves releases under dee's name."""
    evil = SigningKey.create(tmp_path / "evil", PASSPHRASE)
    roots.propose(Roles.of(roots.current()))
    path = roots.folder / "next.root.json"
    document = json.loads(path.read_bytes())
    known, targets = document["signed"]["keys"], document["signed"]["roles"]["targets"]
    copied = json.loads(json.dumps(known[keys["dee"].id]))
    copied["keyval"]["public"] = evil.public.key.public_bytes_raw().hex()
    if where == "a key under an id of its own":
        known.pop(keys["dee"].id)
        targets["keyids"] = [key_id if key_id != keys["dee"].id else "0" * 64 for key_id in targets["keyids"]]
        known["0" * 64] = copied
    else:
        known[evil.id] = copied
        if where == "a second key of a holder":
            targets["keyids"] = [key_id if key_id != keys["dee"].id else evil.id for key_id in targets["keyids"]]
        else:
            copied["x-fleet-holder"] = "mallory"
    path.write_text(json.dumps(document))
    with pytest.raises(FleetError, match=r"two keys of one holder|is in no role"):
        roots.sign(keys["ada"])


def test_a_lost_root_key_is_replaced_by_the_others(roots: Roots, keys: dict[str, SigningKey]) -> None:
    roots.propose(Roles.of(roots.current()).without("ada"))
    roots.sign(keys["bo"])
    assert roots.sign(keys["cy"]).published
    assert holders(roots, "root") == ("bo", "cy")
    with pytest.raises(FleetError, match="threshold of 2 with 1 holders"):
        Roles.of(roots.current()).without("bo")


def test_with_too_many_lost_root_keys_nothing_changes_any_more(
    tmp_path: Path, roots: Roots, keys: dict[str, SigningKey]
) -> None:
    thief = SigningKey.create(tmp_path / "thief", PASSPHRASE)
    roles = Roles.of(roots.current())
    mallory = Roles(
        roles.roles, {**roles.keys, "bo": thief.public, "cy": SigningKey.create(tmp_path / "t2", PASSPHRASE).public}
    )
    roots.propose(mallory)
    roots.sign(keys["ada"])
    progress = roots.sign(thief)
    assert (progress.published, progress.missing) == (False, 1)
    assert roots.current().version == 1


def test_a_targets_key_is_replaced_by_the_root(tmp_path: Path, roots: Roots, keys: dict[str, SigningKey]) -> None:
    roots.propose(Roles.of(roots.current()).without("fay"))
    roots.sign(keys["ada"])
    roots.sign(keys["bo"])
    assert holders(roots, "targets") == ("dee", "eli")
    assert holders(roots, "root") == ("ada", "bo", "cy")


def test_a_changed_chain_is_refused(roots: Roots, keys: dict[str, SigningKey]) -> None:
    path = roots.path(1)
    document = json.loads(path.read_bytes())
    document["signed"]["roles"]["targets"]["threshold"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="does not follow"):
        roots.current()
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(FleetError, match="no root metadata"):
        roots.current()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("threshold = 2", "threshold = 1", "at least 2"),
        ("threshold = 2", "threshold = 4", "no more than there are"),
        ('"ada", "bo", "cy"', '"ada", "ada", "bo"', "holder twice"),
        ('"ada", "bo", "cy"', '"ada", "bo", "zoe"', "without a key"),
        ('"ada", "bo", "cy"', '"ada", "bo", "snapshot"', "in one of the channel's"),
        ('"ada", "bo", "cy"', '"ada", "bo"', "cy has a key and is in no role"),
        ('bo = "bo.pub"', 'bo = "ada.pub"', "same key"),
        ('bo = "bo.pub"', 'bo = "roles.toml"', "no public key"),
        ("expires_days = 365", "expires_days = 0.5", "whole numbers"),
        ("[timestamp]", "[stamp]", "not just keys"),
        ("[timestamp]", "[timestamp", "no TOML"),
    ],
)
def test_mistakes_in_a_roles_file_are_named(tmp_path: Path, old: str, new: str, what: str) -> None:
    make_keys(tmp_path)
    path = roles_file(tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(FleetError, match=what):
        Roles.read(path)


def test_a_root_says_what_its_roles_file_says(tmp_path: Path, roots: Roots, keys: dict[str, SigningKey]) -> None:
    said, read = Roles.of(roots.current()), Roles.read(roles_file(tmp_path / "keys"))
    assert list(said.lines()) == list(read.lines())
