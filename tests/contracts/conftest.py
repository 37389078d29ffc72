"""A small contract of each kind as text, for tests that break or change one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_assets.contracts.document import parse_document
from fleet_assets.contracts.loader import stream_from, table_from
from fleet_assets.contracts.model import StreamContract, TableContract

TABLE = """\
apiVersion: v3.1.0
kind: DataContract
id: demo.things
name: demo.things
version: 1.2.3
status: active
description:
  purpose: Things, one row each.
team:
  name: fleet
schema:
- name: things
  logicalType: object
  physicalType: delta
  properties:
  - name: drive_id
    logicalType: string
    physicalType: string
    required: true
    description: Key of the drive.
    classification: none
    primaryKey: true
    primaryKeyPosition: 1
  - name: day
    logicalType: date
    physicalType: date
    required: true
    description: Day.
    classification: none
    partitioned: true
    partitionKeyPosition: 1
  - name: count
    logicalType: integer
    physicalType: long
    description: How many.
    classification: none
  - name: limit
    logicalType: integer
    physicalType: long
    description: How many there may be.
    classification: none
  - name: speed_mps
    logicalType: number
    physicalType: double
    description: Speed.
    classification: none
    customProperties:
    - property: unit
      value: m/s
  - name: state
    logicalType: string
    physicalType: string
    description: State.
    classification: none
  - name: parts
    logicalType: array
    physicalType: array<struct<name:string,bytes:long>>
    description: Parts.
    classification: none
  quality:
  - name: speed is possible
    type: custom
    engine: greatExpectations
    description: A road vehicle.
    implementation:
      type: expect_column_values_to_be_between
      kwargs:
        column: speed_mps
        min_value: 0
        max_value: 150
    customProperties:
    - property: scope
      value: row
    - property: blocking
      value: true
  - name: state is known
    type: custom
    engine: greatExpectations
    description: States there are.
    implementation:
      type: expect_column_values_to_be_in_set
      kwargs:
        column: state
        value_set: [on, off]
    customProperties:
    - property: scope
      value: table
    - property: blocking
      value: true
customProperties:
- property: owner
  value: team:fleet
- property: perDrive
  value: true
- property: keepsQuarantined
  value: false
- property: retentionClass
  value: permanent
- property: residency
  value: fleet region
""".replace("[on, off]", "['on', 'off']")

STREAM = """\
apiVersion: v3.1.0
kind: DataContract
id: stream.demo
name: demo
version: 1.0.0
status: active
description:
  purpose: A stream.
team:
  name: fleet
schema:
- name: demo
  logicalType: object
  physicalType: stream
  properties:
  - name: gyro_z_radps
    logicalType: number
    physicalType: double
    required: true
    description: Yaw rate.
customProperties:
- property: owner
  value: team:fleet
- property: kind
  value: imu
- property: topics
  value: [/demo]
- property: nominalRateHz
  value: 100
- property: gapLimitPeriods
  value: 1.5
- property: clockDomain
  value: logger
- property: stampPoint
  value: sample
- property: retentionClass
  value: raw
- property: residency
  value: fleet region
- property: personalData
  value: none
"""


@pytest.fixture
def table_text() -> str:
    return TABLE


@pytest.fixture
def stream_text() -> str:
    return STREAM


@pytest.fixture
def table_of() -> Callable[[str], TableContract]:
    """A table contract from text."""
    return lambda text: table_from(parse_document(text, Path("demo.things.odcs.yaml")))


@pytest.fixture
def stream_of() -> Callable[[str], StreamContract]:
    """A stream contract from text."""
    return lambda text: stream_from(parse_document(text, Path("demo.odcs.yaml")))
