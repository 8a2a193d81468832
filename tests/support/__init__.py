"""Real servers for tests, on loopback and free ports; README.md beside this file is the short reference."""
