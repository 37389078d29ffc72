"""Keys, signatures, verification: one for feature bundles and releases."""
