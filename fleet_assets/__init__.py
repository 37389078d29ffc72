"""The data flywheel of an autonomous fleet as one declarative Dagster asset graph."""
