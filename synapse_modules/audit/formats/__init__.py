"""Further formats of an export, beside the signed bundle."""
