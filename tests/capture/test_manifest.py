"""Manifests are read without trust, and written so that they can be read."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from capture.conftest import CONTENT, START, document, put_document, put_files, put_recording
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.files import ManifestError, check_name
from fleet_assets.capture.manifest import (
    MAX_BYTES,
    MAX_FILES,
    NAME,
    Manifest,
    ManifestFile,
    parse,
    printable,
    read_manifest,
    recording_id,
)
from fleet_assets.errors import FleetError

SHA = hashlib.sha256(b"a").hexdigest()
A = {"path": "a", "bytes": 1, "sha256": SHA}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    context = {"weather": {"value": "fog\tthick", "source": "operator"}}
    manifest = Manifest(DriveKey.of("car7", START), tuple(put_files(tmp_path, CONTENT)), context)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    read_manifest(tmp_path).verify(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration", "drive.mcap", NAME]


def test_identity_is_the_set_of_file_hashes(tmp_path: Path) -> None:
    one = put_recording(tmp_path / "1", {"a": b"1", "b": b"2"})
    other = put_recording(tmp_path / "2", {"x/y": b"2", "z": b"1", "again": b"1"}, vehicle="car8")
    assert one.recording_id == other.recording_id == recording_id(file.sha256 for file in one.files)
    assert one.recording_id != put_recording(tmp_path / "3", {"a": b"1"}).recording_id


def test_an_unreadable_manifest_is_not_written(tmp_path: Path) -> None:
    files = tuple(put_files(tmp_path, {"a": b"a"}))
    manifest = Manifest(DriveKey.of("car7", START), files, {"k": {"value": "\x00", "source": "s"}})
    with pytest.raises(ManifestError, match="not printable"):
        manifest.write(tmp_path)
    assert not (tmp_path / NAME).exists()


HOSTILE: dict[str, tuple[Any, str]] = {
    "empty": (b"", "no JSON"),
    "truncated": (json.dumps(document()).encode()[:-9], "no JSON"),
    "binary": (b"\x89MCAP0\r\n", "no JSON"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "no JSON"),
    "key twice": (b'{"manifest_version": 1, "manifest_version": 1}', "no JSON"),
    "not a number": (json.dumps(document()).replace('"bytes": 1', '"bytes": NaN').encode(), "no JSON"),
    "an array": ([], "no object"),
    "no version": ({}, "version"),
    "another version": (document(manifest_version=2), "version 2"),
    "a true version": (document(manifest_version=True), "version"),
    "no vehicle": (document(vehicle=None), "vehicle is missing"),
    "a bad vehicle": (document(vehicle="../car"), "vehicle id"),
    "no start": (document(start=None), "start is missing"),
    "no time": (document(start="yesterday"), "no ISO 8601"),
    "no time zone": (document(start="2026-01-02T03:04:05"), "no time zone"),
    "the year 1": (document(start="0001-01-01T00:00:00+00:01"), "cannot start"),
    "no files": (document(files=[]), "0 files"),
    "a file that is a number": (document(files=[1]), r"files\[0\] is missing or no object"),
    "listed twice": (document(files=[A, {**A, "path": "A"}]), "listed twice"),
    "parent": (document(files=[{**A, "path": "../a"}]), "not allowed"),
    "parent inside": (document(files=[{**A, "path": "x/../../a"}]), "not allowed"),
    "absolute": (document(files=[{**A, "path": "/etc/passwd"}]), "not allowed"),
    "other slash": (document(files=[{**A, "path": "..\\a"}]), "not allowed"),
    "a line break": (document(files=[{**A, "path": "a\nb"}]), "not allowed"),
    "a null byte": (document(files=[{**A, "path": "a\0b"}]), "not allowed"),
    "half a character": (document(files=[{**A, "path": "\ud800"}]), "not allowed"),
    "turned text": (document(files=[{**A, "path": "a\u202egpj.exe"}]), "not allowed"),
    "a long name": (document(files=[{**A, "path": "a" * 1025}]), "not allowed"),
    "a name too long for the disk": (document(files=[{**A, "path": "a" * 1000}]), "cannot be read"),
    "itself": (document(files=[{**A, "path": NAME}]), "lists itself"),
    "a missing file": (document(files=[{**A, "path": "b"}]), "b is missing"),
    "negative bytes": (document(files=[{**A, "bytes": -1}]), "bytes"),
    "true bytes": (document(files=[{**A, "bytes": True}]), "bytes"),
    "another size": (document(files=[{**A, "bytes": 2}]), "has 1 bytes, its manifest says 2"),
    "no hash": (document(files=[{**A, "sha256": SHA[:-1]}]), "64 lower-case hex digits"),
    "a hash in capitals": (document(files=[{**A, "sha256": SHA.upper()}]), "64 lower-case hex digits"),
    "a context that is text": (document(context="fog"), "context is missing or no object"),
    "context without source": (document(context={"k": {"value": "v"}}), "source is missing"),
    "a long context": (document(context={"k": {"value": "v" * 1001, "source": "s"}}), "Longer than 1000"),
    "many entries": (document(context={str(n): {"value": "", "source": ""} for n in range(201)}), "201 context"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_refused_with_reason_and_remedy(name: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[name]
    with pytest.raises(FleetError, match=reason) as caught:
        read_manifest(put_document(tmp_path / "r", content))
    assert caught.value.remedy
    assert "\n" not in caught.value.what
    assert len(str(caught.value)) < 600


def test_a_huge_manifest_is_refused_before_it_is_read_into_objects(tmp_path: Path) -> None:
    folder = put_document(tmp_path / "r", b" " * (MAX_BYTES + 1))
    with pytest.raises(ManifestError, match="larger than"):
        read_manifest(folder)
    put_document(folder, b"[" + b"[]," * (10 * MAX_FILES) + b"[]]")
    with pytest.raises(ManifestError, match="values"):
        read_manifest(folder)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    st.sampled_from(["manifest_version", "vehicle", "start", "files", "context", "path", "bytes", "sha256"]),
)
@settings(deadline=None)
def test_any_value_in_any_field_is_taken_or_refused(value: Any, name: str) -> None:
    content = document() if name not in A else document(files=[{**A, name: value}])
    if name not in A:
        content[name] = value
    try:
        manifest = parse(content)
    except FleetError:
        return
    assert manifest.files


@given(st.text(max_size=30))
def test_names_that_pass_stay_below_their_folder(name: str) -> None:
    try:
        check_name(name)
    except ManifestError:
        return
    path = os.path.normpath(os.path.join("/landing/r", name))
    assert path == f"/landing/r/{name}"


@given(st.text(max_size=30), st.integers(1, 20))
def test_printable_text_is_taken_as_it_is(text: str, limit: int) -> None:
    once = printable(text, limit)
    assert len(once) <= limit
    assert printable(once, limit) == once


SPECIAL = {
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "socket": lambda path: _bind(path),
}


def _bind(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the whole path may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["a", NAME])
def test_special_files_are_not_opened(kind: str, name: str, tmp_path: Path) -> None:
    folder = put_document(tmp_path / "r", document())
    (folder / name).unlink()
    SPECIAL[kind](folder / name)
    with pytest.raises(ManifestError, match=rf"{name} is a {kind}, no regular file"):
        read_manifest(folder)


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"a")
    folder = put_document(tmp_path / "r", document(files=[{**A, "path": "x/a"}]))
    (folder / "x").symlink_to(tmp_path / "outside")
    with pytest.raises(ManifestError, match="lies behind, a link"):
        read_manifest(folder)


def test_verify_names_the_file_that_differs(tmp_path: Path) -> None:
    put_recording(tmp_path)
    manifest = read_manifest(tmp_path)
    (tmp_path / "drive.mcap").write_bytes(b"pAyload")
    assert read_manifest(tmp_path) == manifest  # sizes are right: only hashing tells
    with pytest.raises(ManifestError, match=r"drive\.mcap is not what its manifest says"):
        manifest.verify(tmp_path)


def test_a_file_that_is_longer_than_listed_is_not_read_to_its_end(tmp_path: Path) -> None:
    manifest = Manifest(DriveKey.of("car7", START), (ManifestFile("a", 1, SHA),), {})
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 40)  # sparse: reading all of it would take minutes
    with pytest.raises(ManifestError, match="is not what its manifest says"):
        manifest.verify(tmp_path)
