"""A candidate: parts that were judged together, the same bytes for the same parts, and never parts that were not."""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from package.parts import HARDWARE, World, candidate, make_parts, make_world

from fleet_assets.edge import payload as parts_of
from fleet_assets.edge.payload import Payload, member, unpack
from fleet_assets.edge.verdict import Status
from fleet_assets.errors import FleetError
from fleet_assets.package.candidate import build_candidate
from fleet_assets.package.evidence import empty_fields
from fleet_assets.package.policy import STATEMENTS, load_release_policy
from fleet_assets.package.releases import State

POLICY = load_release_policy()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def test_it_holds_what_was_judged_and_says_where_it_comes_from(world: World, tmp_path: Path) -> None:
    id_ = candidate(world, "one")
    payload = unpack(world.releases.archive(id_), tmp_path / "out")
    assert payload.verdict().status is Status.PASS
    evidence = payload.evidence()
    assert empty_fields(evidence) == []
    assert set(STATEMENTS) < set(evidence["un_r156"])
    assert evidence["provenance"]["drives"]["test"] == ["car2--20260101T080000Z"]
    bom = json.loads((payload.folder / parts_of.BOM).read_bytes())
    model = next(part for part in bom["components"] if part["type"] == "machine-learning-model")
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"class=pedestrian, light=night", "class=pedestrian, light=day"} < {metric["slice"] for metric in metrics}
    card = (payload.folder / parts_of.CARD).read_text()
    assert "Verdict: PASS" in card
    assert "class pedestrian, distance 30-48" in card
    release = world.releases.release(id_)
    assert (release.state, release.hardware, release.profile) == (State.GATED, HARDWARE, "full")


def test_the_same_parts_give_the_same_bytes(world: World) -> None:
    parts = make_parts(world.folder / "same", seed=7)
    first = build_candidate(world.releases, parts, HARDWARE, POLICY)
    assert build_candidate(world.releases, parts, HARDWARE, POLICY) == first
    other = make_world(world.folder / "other")
    assert build_candidate(other.releases, parts, HARDWARE, POLICY) == first


def test_a_candidate_without_pass_is_kept_and_says_why(world: World) -> None:
    release = world.releases.release(candidate(world, "blind", seed=8, night=0.2))
    assert (release.state, release.verdict.status) == (State.CANDIDATE, Status.FAIL)
    assert "pedestrian recall, light=night" in release.row()["blocked_by"]


def test_parts_of_different_releases_do_not_mix(world: World) -> None:
    one, two = make_parts(world.folder / "mix1", seed=11), make_parts(world.folder / "mix2", seed=12)
    for wrong, what in (
        (replace(one, model=two.model), "another model"),
        (replace(one, features=two.features, features_key=two.features_key), "another feature bundle"),
        (replace(one, evaluation=two.evaluation), "another model"),
    ):
        with pytest.raises(FleetError, match=what):
            build_candidate(world.releases, wrong, HARDWARE, POLICY)
    other = replace(one.provenance, dataset_commit="beef")
    with pytest.raises(FleetError, match="another dataset"):
        build_candidate(world.releases, replace(one, provenance=other), HARDWARE, POLICY)
    with pytest.raises(FleetError, match="another machine"):
        build_candidate(world.releases, one, "cpu_aarch64", POLICY)
    with pytest.raises(FleetError, match="not signed by a trusted key"):
        build_candidate(world.releases, replace(one, features_key=two.features_key), HARDWARE, POLICY)


def test_a_verdict_that_was_edited_is_not_packaged(world: World, tmp_path: Path) -> None:
    parts = make_parts(tmp_path, night=0.2)
    path = parts.evaluation / "verdict.json"
    path.write_text(path.read_text().replace("FAIL", "PASS"))
    with pytest.raises(FleetError, match=r"verdict\.json is not the file that was recorded"):
        build_candidate(world.releases, parts, HARDWARE, POLICY)


@pytest.mark.parametrize("name", STATEMENTS)
def test_an_empty_statement_stops_it(world: World, tmp_path: Path, name: str) -> None:
    policy = replace(POLICY, statements={**POLICY.statements, name: " "})
    with pytest.raises(FleetError, match=re.escape(f"un_r156.{name}")):
        build_candidate(world.releases, make_parts(tmp_path), HARDWARE, policy)


def test_a_provenance_that_is_not_whole_stops_it(world: World, tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    for field, value in (("dataset_commit", ""), ("drives", {"train": ()}), ("code", {}), ("training", {"run": ""})):
        wrong = replace(parts, provenance=replace(parts.provenance, **{field: value}))
        with pytest.raises(FleetError, match=f"provenance.{field}"):
            build_candidate(world.releases, wrong, HARDWARE, POLICY)
    with pytest.raises(FleetError, match="no hardware class"):
        build_candidate(world.releases, parts, "abacus", POLICY)


def test_a_model_without_golden_vectors_is_none(world: World, tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    (parts.model / "golden.npz").unlink()
    with pytest.raises(FleetError, match=r"golden\.npz is no part"):
        build_candidate(world.releases, parts, HARDWARE, POLICY)


# ---- archives that somebody else made --------------------------------------------------------------------------------


def test_hostile_archives_are_refused(world: World, tmp_path: Path) -> None:
    whole = world.releases.archive(candidate(world, "hostile", seed=21))
    for index, (entry, content) in enumerate(
        [
            (tarfile.TarInfo("../escape"), b"x"),
            (tarfile.TarInfo("/etc/escape"), b"x"),
            (tarfile.TarInfo("more.txt"), b"x"),
            (tarfile.TarInfo("card.md"), b"twice"),
            (link("card.md", tarfile.SYMTYPE), b""),
            (link("model", tarfile.LNKTYPE), b""),
            (link("fifo", tarfile.FIFOTYPE), b""),
        ]
    ):
        archive = tmp_path / f"{index}.tar"
        archive.write_bytes(whole.read_bytes())
        with tarfile.open(archive, "a") as tar:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        with pytest.raises(FleetError):
            unpack(archive, tmp_path / f"out{index}")
    assert not (tmp_path / "escape").exists()


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "/etc/passwd"
    return entry


def test_archives_that_are_more_than_their_bytes_are_refused(tmp_path: Path) -> None:
    """A sparse file of which nearly nothing is there, and headers within headers without an end."""
    sparse = tarfile.TarInfo("card.md")
    sparse.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "card.md",
        "GNU.sparse.size": str(50 << 20), "GNU.sparse.map": f"{(50 << 20) - 1},1",
    }  # fmt: skip
    sparse.size = 1
    with tarfile.open(tmp_path / "sparse.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(sparse, io.BytesIO(b"x"))
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 0
    (tmp_path / "nested.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) * 3000)
    for name in ("sparse", "nested"):
        for read in (
            lambda archive: member(archive, "card.md"),
            lambda archive: unpack(archive, tmp_path / archive.stem),
        ):
            with pytest.raises(FleetError):
                read(tmp_path / f"{name}.tar")
    assert sum(path.stat().st_size for path in (tmp_path / "sparse").rglob("*") if path.is_file()) < 1 << 20


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.7])
def test_archives_that_are_cut_off_are_refused(world: World, tmp_path: Path, kept: float) -> None:
    content = world.releases.archive(candidate(world, f"cut{kept}", seed=22)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FleetError):
        unpack(tmp_path / "cut.tar", tmp_path / "out")


@pytest.mark.parametrize("name", ["model/model.onnx", "features/features.snapshot", "card.md", "manifest.json"])
def test_a_changed_file_is_found(world: World, tmp_path: Path, name: str) -> None:
    unpack(world.releases.archive(candidate(world, f"changed{name}", seed=23)), tmp_path / "out")
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FleetError):
        Payload.open(tmp_path / "out").verdict()
