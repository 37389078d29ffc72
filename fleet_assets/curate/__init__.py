"""Curation: scenarios, clips, splits, datasets, and the samples that training reads."""
