"""Errors of the store.

StoreError
├── DatabaseGoneError   the database is gone, slow, full, or has no connection left: later it may be there again
├── SchemaError         the database's schema is none of ours, or not the one this code is written for
├── UnknownError        nothing in the store has that name
├── SpoolError          a spool that cannot be used, or that another process writes from
├── PayloadError        whole inputs cannot be kept, or read again
└── BackupError         a backup that cannot be made, is damaged, or was not restored whole
"""

from contracts.errors import ProjectError


class StoreError(ProjectError):
    """Something could not be stored, or not be found again."""


class DatabaseGoneError(StoreError):
    """The database is gone, slow, full, or has no connection left."""


class SchemaError(StoreError):
    """The database's schema is none of ours, or not the one this code is written for."""


class UnknownError(StoreError):
    """Nothing in the store has that name."""


class SpoolError(StoreError):
    """A spool cannot be used, or another process writes from it."""


class PayloadError(StoreError):
    """Whole inputs cannot be kept, or read again."""


class BackupError(StoreError):
    """A backup cannot be made, is damaged, or was not restored whole."""
