"""The only rooms that touch Synapse: public API behind ports, private symbols in ``internals``."""
