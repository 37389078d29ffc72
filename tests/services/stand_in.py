"""A code location of one asset, for tests of Dagster's servers that are not about our definitions."""

import dagster as dg


@dg.asset
def one() -> int:
    """Takes no time."""
    return 1


defs = dg.Definitions(assets=[one], jobs=[dg.define_asset_job("make_one", "one")])
