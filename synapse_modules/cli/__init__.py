"""`govctl`: a client of the governance API, the offline verifier, and the demo. Knows neither Synapse nor Twisted."""
