"""Spool to database: segments, rows, and the process that takes them there."""
