"""Errors of the gateway as a command. What a caller of the doors is told is a Refusal: gateway/refusals.py.

GatewayError
├── SettingsError   a setting that is unknown, or not what it must be
├── KeysError       a key that cannot be made, found or changed
└── StartError      the gateway, or the Triton beside it, did not start
"""

from contracts.errors import ProjectError


class GatewayError(ProjectError):
    """The gateway cannot go on."""


class SettingsError(GatewayError):
    """A setting is unknown, or not what it must be."""


class KeysError(GatewayError):
    """A key cannot be made, found or changed."""


class StartError(GatewayError):
    """The gateway, or the Triton beside it, did not start."""
