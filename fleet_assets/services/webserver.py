"""The Dagster UI behind a Host check: `python -m fleet_assets.services.webserver --port P --code M`.

In: DAGSTER_HOME, a port, the module (or file) of the definitions. Out: a server on loopback. Dagster's own webserver has neither
sign-in nor Host check, so any web page that a user opens could reach it through a name that resolves to 127.0.0.1.
"""

import argparse
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from fleet_assets.errors import FleetError
from fleet_assets.services.orchestrator import CODE_LOCATION, LOCAL_HOSTS


def serve(host: str, port: int, code: str, *, names: Sequence[str]) -> None:
    """Serve the UI until a signal ends it. names: what the Host header may say, beside the local names."""
    import uvicorn
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget, PythonFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    target: ModuleTarget | PythonFileTarget
    if code.endswith(".py"):
        target = PythonFileTarget(python_file=code, attribute=None, working_directory=None, location_name=None)
    else:
        target = ModuleTarget(module_name=code, attribute=None, working_directory=None, location_name=None)
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target, code_server_log_level="warning") as context,
    ):
        app = create_app_from_workspace_process_context(context)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_HOSTS, *names])
        uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


def heartbeats(dagster_home: Path) -> dict[str, tuple[float, bool]]:
    """Part of the daemon -> (time of its last sign of life in s since the epoch, whether it is well)."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        return {
            name: (status.last_heartbeat.timestamp if status.last_heartbeat else 0.0, bool(status.healthy))
            for name, status in instance.get_daemon_statuses().items()
            if status.required
        }


def prepare() -> None:
    """Make the databases of DAGSTER_HOME."""
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        instance.get_runs(limit=1)
        instance.all_instigator_state()
        instance.get_asset_keys(limit=1)


def check_host(host: str, *, allow_remote: bool) -> None:
    """Raises FleetError for an address that others can reach, unless that was asked for by name."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and not allow_remote:
        raise FleetError(
            f"The web UI has no sign-in, and {host} can be reached by others",
            remedy="Use 127.0.0.1, or say --allow-remote and put a proxy with sign-in in front.",
        )


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="The Dagster UI of one installation.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--prepare", action="store_true", help="Make the databases of DAGSTER_HOME, and end.")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--code", default=CODE_LOCATION, help="Module or file that holds the definitions.")
    parser.add_argument("--name", action="append", default=[], help="A name that the Host header may say.")
    parser.add_argument("--allow-remote", action="store_true", help="Listen on an address that others can reach.")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare()
        return
    try:
        check_host(arguments.host, allow_remote=arguments.allow_remote)
    except FleetError as error:
        parser.error(str(error))
    serve(arguments.host, arguments.port, arguments.code, names=arguments.name)


if __name__ == "__main__":
    main()
