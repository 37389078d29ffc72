"""Live features: one kernel per view, with explicit state, fed record by record in order of arrival.

In: records (records.py) and the state. Out: the view's features at a time. A kernel module has VERSION, FEATURES, STATE (a
structured dtype that starts as zeros) and `replay(state, records, cut_ns, out)`, which feeds the records and reads the features
at each cut. A vehicle calls it with one record or with many: the bits are the same.

Same bits on every machine: no fastmath, a fixed order of operations, only + - x / sqrt and elementary.py. What a kernel does not
know is NaN. A change of a kernel changes its identity (fleet_assets/edge/identity.py), and needs a new VERSION.
"""
