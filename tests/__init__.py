"""Tests of synapse-governance, in layers: unit, storage, module, e2e."""
