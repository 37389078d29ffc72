"""The data flywheel of an autonomous fleet as one declarative Dagster asset graph."""

__version__ = "0.1.0"
