"""The partition set that all per-drive assets share.

In: drive keys registered by the landing sensor (or by `fleet run`). Out: one dynamic partition per drive.
"""

import dagster as dg

DRIVES = dg.DynamicPartitionsDefinition(name="drives")

# One run takes a range of drives, so that the fixed cost of a run is paid once for many of them; the limit keeps
# one failed run from holding up everything.
PER_DRIVE_BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=100)
