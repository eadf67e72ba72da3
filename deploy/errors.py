"""Errors of the deploy stage.

DeployError
├── SetupError           the environment of the pip-installed server could not be made
├── RequirementsError    a model's own packages cannot be read, locked or installed
├── SettingsError        what was asked for cannot be: an address, a user, a key, a file of TLS
├── RepositoryError      what is in the model repository cannot be served
├── AlreadyRunningError  `up` while a server is up
├── NotRunningError      no server is up, or the one that is does not answer
├── AccessError          the server asks for another admin key; who would get ours, or wrote its record, is another
├── StartError           the server did not start, or nothing could be served; strictly: not everything
├── ModelError           a model did not load, or does not answer
│   └── WrongAnswerError a version loaded, and answers its golden requests wrong
├── GateError            a release does not pass the serve gate
├── ChangeError          a reload, roll back or promotion did not happen
└── DrillError           the drill could not be done, or something in it went wrong
"""

from contracts.errors import ProjectError


class DeployError(ProjectError):
    """The deploy stage cannot go on."""


class SetupError(DeployError):
    """The environment of the pip-installed server could not be made."""


class RequirementsError(DeployError):
    """A model's own packages cannot be read, locked or installed."""


class SettingsError(DeployError):
    """What was asked for cannot be: an address, a user, a key, a file of TLS."""


class RepositoryError(DeployError):
    """What is in the model repository cannot be served: no such model or version, or ensembles that disagree."""


class AlreadyRunningError(DeployError):
    """`up` while a server of ours is up."""


class NotRunningError(DeployError):
    """No server is up, or the one that is does not answer."""


class AccessError(DeployError):
    """The server has another admin key, another process listens in its place, or its record may be another user's."""


class StartError(DeployError):
    """The server did not start, or nothing of the repository could be served; where all was asked for, not all."""


class ModelError(DeployError):
    """A model did not load, is not ready, or does not answer."""


class NoAnswerError(ModelError):
    """A model took too long to answer."""


class WrongAnswerError(ModelError):
    """A version loaded, and does not answer its golden requests as the reference did when it was released."""


class GateError(DeployError):
    """A release does not load by itself, or does not answer its golden requests as it was proven to."""


class ChangeError(DeployError):
    """A reload, roll back or promotion did not happen; what served before still does, unless it says otherwise."""


class DrillError(DeployError):
    """The drill could not be done, or something in it did not go as it should."""
