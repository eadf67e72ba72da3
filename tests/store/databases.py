"""Real databases for tests: SQLite in a file, and the PostgreSQL that the soak of the gateway has."""

from benchmarks.gateway.postgresql import PostgreSQL, postgresql

__all__ = ["PostgreSQL", "postgresql"]
