"""How good a model is, per slice, and whether that is good enough."""
