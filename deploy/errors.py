"""Errors of the deploy stage.

DeployError
├── SetupError           the environment of the pip-installed server could not be made
├── AlreadyRunningError  `up` while a server is up
└── ServerError          the server did not start, or a model did not load
"""

from contracts.errors import ProjectError


class DeployError(ProjectError):
    """The deploy stage cannot go on."""


class SetupError(DeployError):
    """The environment of the pip-installed server could not be made."""


class AlreadyRunningError(DeployError):
    """`up` while a server of ours is up."""


class ServerError(DeployError):
    """The server did not start, or a model in it is not ready."""
