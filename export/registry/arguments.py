"""The commands about approvals, and their arguments."""

import argparse

from cli.commands import Command


def _approve(command: argparse.ArgumentParser) -> None:
    _decide(command)
    command.add_argument(
        "--version",
        type=_version,
        metavar="N",
        help="of the registered model, as in models:/FAMILY/N (default: the challenger, what was exported last)",
    )


def _decide(command: argparse.ArgumentParser) -> None:
    _family(command)
    command.add_argument(
        "--by", required=True, metavar="NAME", help="who answers for it; the account is noted beside it"
    )
    command.add_argument("--reason", required=True, metavar="TEXT", help="why, for whoever reads the history")
    command.add_argument(
        "--environment", metavar="NAME", help="one of configs/approval.toml (default: its last, production)"
    )


def _history(command: argparse.ArgumentParser) -> None:
    _family(command)
    command.add_argument(
        "--repair", action="store_true", help="move MLflow's aliases to what was approved, where they are not"
    )


def _approvers(command: argparse.ArgumentParser) -> None:
    command.add_argument("family", metavar="FAMILY", help="its name in MLflow's registry")
    command.add_argument("names", nargs="*", metavar="NAME", help="accounts of the MLflow server")


def _family(command: argparse.ArgumentParser) -> None:
    command.add_argument("family", metavar="FAMILY", help="its name in MLflow's registry")
    command.add_argument("--json", action="store_true", help="JSON on stdout")


def _version(text: str) -> str:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a version's number, 1 or more")
    return str(int(text))


OF_REGISTRY = (
    Command(
        "approve",
        "make a registered release the champion, or what another environment has: after its files, its gates and its "
        "approver were looked at, who must not be the one that trained it",
        "export.registry.commands:approve",
        _approve,
    ),
    Command(
        "revoke",
        "take the last approval back: the environment has again what it had before",
        "export.registry.commands:revoke",
        _decide,
    ),
    Command(
        "history",
        "what each environment has, and who approved what, when and why; exit code 1 where MLflow's aliases differ",
        "export.registry.commands:history",
        _history,
    ),
    Command(
        "approvers",
        "let accounts of a MLflow server approve releases of a family; for the server's administrator",
        "export.registry.commands:approvers",
        _approvers,
    ),
)
