"""`python -m fleet_assets`: the `fleet` command, without its script on PATH."""

from fleet_assets.cli import main

main()
