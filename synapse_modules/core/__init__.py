"""The ground floor: vocabularies, errors, ports. Imports nothing above it and neither Synapse nor Twisted."""
