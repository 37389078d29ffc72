"""The Spark Connect server of an installation.

In: a Home, infra/spark. Out: command and environment to run it on loopback with a token; a probe that uses the token.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from fleet_assets.services import cache, jars, java
from fleet_assets.services.home import Home, write_private
from fleet_assets.services.server import Answer, Server

_CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"


# On few cores, Java's usual collector lets the heap grow to twice what this one does, and is no faster.
_COLLECTOR = ("-XX:+UseSerialGC",) if (os.cpu_count() or 1) <= 4 else ()


def memory_mb() -> int:
    """Heap of the driver, which in local mode is all of Spark: FLEET_SPARK_MEMORY_MB, else a quarter of the machine.

    The rest is for what runs beside it: Python workers, lakeFS, Dagster and the runs (24 GiB gives 6 GiB).
    """
    chosen = os.environ.get("FLEET_SPARK_MEMORY_MB")
    return int(chosen) if chosen else min(max(psutil.virtual_memory().total // 4 // 2**20, 1024), 16384)


def server(home: Home, extra_jars: Path) -> Server:
    """How to run Spark Connect for this installation."""
    program, _ = java.find()
    scratch = home.scratch / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    properties = home.run / "spark.properties"
    write_private(properties, _properties(home, scratch))
    spark = jars.spark_home()
    return Server(
        name="spark",
        address=f"sc://localhost:{home.spark_port}",
        port=home.spark_port,
        command=(
            str(program),
            *java.MODULE_OPTIONS,
            f"-Xmx{memory_mb()}m",
            *_COLLECTOR,
            # A driver without memory answers nobody: end, and be started again.
            "-XX:+ExitOnOutOfMemoryError",
            f"-Djava.io.tmpdir={scratch}",
            f"-Dderby.system.home={scratch}",
            f"-Dlog4j2.configurationFile={cache.infra('spark', 'log4j2.properties')}",
            # Not spark.jars: Spark would serve those to executors from a port of its own.
            *("-cp", f"{spark}/jars/*:{extra_jars}/*"),
            "org.apache.spark.deploy.SparkSubmit",
            *("--properties-file", str(properties)),
            *("--class", _CLASS, "spark-internal"),
        ),
        environment={
            "SPARK_HOME": str(spark),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "MALLOC_ARENA_MAX": "2",  # of Python workers: each thread of theirs would keep what it once had
        },
        probe=lambda started: probe(home),
        stop_s=20.0,
    )


def _properties(home: Home, scratch: Path) -> str:
    own = {
        "spark.app.name": "fleet",
        "spark.master": os.environ.get("FLEET_SPARK_MASTER") or "local[*]",
        "spark.connect.grpc.binding.port": home.spark_port,
        "spark.connect.authenticate.token": home.spark_token,
        "spark.local.dir": scratch,
        "spark.sql.warehouse.dir": scratch / "warehouse",
        "spark.sql.shuffle.partitions": max(2 * (os.cpu_count() or 1), 8),
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
        "spark.hadoop.fs.s3a.endpoint": home.lakefs_url,
        "spark.hadoop.fs.s3a.connection.ssl.enabled": str(home.lakefs_url.startswith("https")).lower(),
        "spark.hadoop.fs.s3a.access.key": home.access_key_id,
        "spark.hadoop.fs.s3a.secret.key": home.secret_access_key,
        "spark.hadoop.fs.s3a.buffer.dir": scratch,
    }
    common = cache.infra("spark", "spark-defaults.conf").read_text()
    return common + "".join(f"{name} {value}\n" for name, value in own.items())


def probe(home: Home, token: str | None = None) -> Answer:
    """Whether Spark opens a session for the holder of the token (this installation's by default).

    Asks for Spark's version in a session of its own and ends that session. The two messages are written by hand: they
    are a few bytes, and importing pyspark to write them takes seconds.
    """
    import grpc  # type: ignore[import-untyped]  # ships no types

    session = _text(1, str(uuid.uuid4())) + _text(2, _text(1, "fleet-probe"))
    metadata = (("authorization", f"Bearer {token or home.spark_token}"),)
    # sc://HOST:PORT/;use_ssl=true, as the client reads it.
    where = urlsplit(home.spark_url)
    target = f"{where.hostname}:{where.port or 15002}"
    options = [("grpc.enable_http_proxy", 0)]
    if "use_ssl=true" in where.path:
        opened = grpc.secure_channel(target, grpc.ssl_channel_credentials())
    else:
        opened = grpc.insecure_channel(target, options=options)
    with opened as channel:

        def call(method: str, message: bytes) -> bytes:
            stub = channel.unary_unary(f"/spark.connect.SparkConnectService/{method}")
            return bytes(stub(message, timeout=20, metadata=metadata))

        try:
            call("AnalyzePlan", session + _text(10, ""))  # field 10: spark_version
            call("ReleaseSession", session)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return Answer(False, "refuses the token of this installation: is it another one's server?")
            return Answer(False, f"does not answer ({error.code().name})")
    return Answer(True, "answers")


def _text(number: int, value: str | bytes) -> bytes:
    """A length-delimited protobuf field of fewer than 128 bytes."""
    data = value.encode() if isinstance(value, str) else value
    return bytes((number << 3 | 2, len(data))) + data
