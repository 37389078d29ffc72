"""How far a run is, while it works."""

import dagster as dg

from fleet_assets import runs


def test_progress_counts_steps_so_that_one_run_of_many_drives_tells_something() -> None:
    seen: list[tuple[int, int]] = []

    @dg.asset
    def first() -> None:
        pass

    @dg.asset(deps=[first])
    def second(context: dg.AssetExecutionContext) -> None:
        seen.append(runs._steps(context.instance, context.instance.get_runs()))

    with dg.DagsterInstance.ephemeral() as instance:
        assert runs._steps(instance, []) == (0, 1)
        assert dg.materialize([first, second], instance=instance).success
        seen.append(runs._steps(instance, instance.get_runs()))
    assert seen == [(1, 2), (2, 2)]
