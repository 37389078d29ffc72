"""A Spark Connect session with the installation's server.

In: an installation. Out: a SparkSession, one per process. The server holds Delta, S3 and lakeFS settings; a client only
needs its address and token.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

_sessions: dict[str, SparkSession] = {}
# Repeats of one call while the server restarts: 0.05, 0.2, 0.8, 3.2 s, then 5 s each. Spark's own go on for 10 minutes.
_REPEATS = 10
_LONGEST_PAUSE_MS = 5000


def spark_session(home: Home) -> SparkSession:
    """The process's session; a new one when the server was restarted. Raises FleetError when it does not answer."""
    session = _sessions.get(home.spark_url)
    if session is not None and _answers(session):
        return session
    # Read by the client; in the environment so that no address or process list carries it.
    os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"] = home.spark_token
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyspark's own imports warn about pandas and grpc versions
        from pyspark.errors import PySparkException
        from pyspark.sql.connect.client.retries import DefaultPolicy
        from pyspark.sql.connect.session import SparkSession

        try:
            session = SparkSession.builder.remote(home.spark_url).create()
            session.client.set_retry_policies([DefaultPolicy(_REPEATS, max_backoff=_LONGEST_PAUSE_MS)])
            session.sql("SELECT 1").collect()
        except (PySparkException, OSError) as error:
            raise FleetError(
                f"Spark Connect at {home.spark_url} does not answer",
                where=str(error).splitlines()[0],
                remedy="`fleet status` shows the servers, `fleet up` starts them.",
            ) from error
    _sessions[home.spark_url] = session
    return session


def close_sessions() -> None:
    """Ends the process's sessions while their servers still answer: at its end, pyspark would call a stopped one for a minute."""
    while _sessions:
        _sessions.popitem()[1].stop()


def _answers(session: SparkSession) -> bool:
    from pyspark.errors import PySparkException

    try:
        session.sql("SELECT 1").collect()
    except (PySparkException, OSError):
        return False
    return True
