"""The root of every error that is a user's to mend.

ProjectError
├── SpecError            a model spec that is incomplete or contradicts itself
├── SignatureError       a version that is unsigned, or not what was signed
├── ManifestError        a manifest that is missing, unreadable or does not match its files
├── ModelConfigError     a model's config.pbtxt that is missing or is none
├── FolderError          a folder that cannot be copied whole
├── PublishError         a version that could not be written; nothing was published
├── EntityError          what a caller gave of an entity that is none, or that no table has
├── training.errors.*    data, checkpoints
├── export.errors.*      graphs, gates, engines
├── deploy.errors.*      environment, server
├── clients.errors.*     connection, input, server
├── store.errors.*       database, spool, backups
└── benchmarks.errors.*  tools, measurements
"""


class ProjectError(Exception):
    """A failure that is the user's to mend: what failed, what was found and expected, and what to do next."""

    def __init__(self, fact: str, *, note: str | None = None, hint: str | None = None) -> None:
        lines = [fact]
        if note:
            lines.append(f"Note: {note}")
        if hint:
            lines.append(f"Hint: {hint}")
        super().__init__("\n".join(lines))


class SpecError(ProjectError):
    """A model spec is incomplete or contradicts itself."""


class SignatureError(ProjectError):
    """A version could not be signed, is unsigned, or is not what was signed."""


class ManifestError(ProjectError):
    """A release manifest is missing, unreadable, or disagrees with the files beside it."""


class ModelConfigError(ProjectError):
    """A model's configuration is missing or is none."""


class FolderError(ProjectError):
    """A folder holds a link that leads out of it, or what is no file."""


class PublishError(ProjectError):
    """A version could not be written; the model repository is as it was."""


class EntityError(ProjectError):
    """What a caller gave is no such entity, or nothing is known of it that a model needs.

    Attributes:
        entity: Which one, if it is one.
        row: Of which row, from 0.
    """

    entity: str | None = None
    row: int = 0
