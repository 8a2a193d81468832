"""Connections, statements and migrations for PostgreSQL and SQLite: the only home of dialect differences."""
