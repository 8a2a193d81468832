"""The audit log: records, a Merkle tree over them, signed checkpoints, and bundles that anybody can verify."""
