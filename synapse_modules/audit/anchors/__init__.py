"""Anchors: places outside the log's database that keep its signed checkpoints, and tell when the log was rolled back.

Whoever controls the database can rewrite the log, but not the checkpoints that a file on another file system, an HTTP
endpoint, a time stamping authority or a witness has already taken. What came after the last anchored checkpoint is not
protected yet.
"""
