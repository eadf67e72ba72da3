"""Who approved what, and why.

python -m export approve FAMILY --by NAME --reason TEXT [--environment production] [--version 3]
python -m export revoke FAMILY --by NAME --reason TEXT [--environment production]
python -m export history FAMILY [--json] [--repair]
python -m export approvers FAMILY NAME…
"""

import argparse
import json
from dataclasses import asdict

from cli.progress import Progress
from cli.tables import Table, console, table
from contracts import layout
from contracts.names import RULE, is_model_name
from export.errors import ApprovalError
from export.registry import approval, rules, store
from export.registry import history as histories
from export.registry.approval import Decision
from export.registry.approvers import allow
from export.registry.history import History
from export.registry.ledger import Entry
from export.registry.rules import Environment


def approve(options: argparse.Namespace) -> int:
    """Approve a release for an environment, once its files, its gates and its approver were looked at."""
    family, read, progress = _family(options), rules.read(layout.approval_rules()), Progress()
    environment = read.environment(options.environment)
    with store.opened(f"approve {family}") as client:
        made = approval.approve(
            client, family, options.version, environment, read, by=options.by, reason=options.reason, say=progress.say
        )
    return _tell(options, family, environment, made)


def revoke(options: argparse.Namespace) -> int:
    """Take the last approval for an environment back."""
    family, read = _family(options), rules.read(layout.approval_rules())
    environment = read.environment(options.environment)
    with store.opened(f"revoke an approval of {family}") as client:
        made = approval.revoke(client, family, environment, by=options.by, reason=options.reason)
    return _tell(options, family, environment, made)


def history(options: argparse.Namespace) -> int:
    """Show what every environment has, and who decided what and why.

    Returns:
        The exit code: 1 if an alias, or a version, is not what was approved.
    """
    family, read = _family(options), rules.read(layout.approval_rules())
    with store.opened(f"read the approvals of {family}") as client:
        found = histories.read(client, family, read)
        if options.repair and found.faults:
            for state in found.states:
                if state.faults and not state.deleted:
                    approval.follow(client, family, state.environment)
            found = histories.read(client, family, read)
    if options.json:
        print(json.dumps(_described(found), indent=2))
        return 1 if found.faults else 0
    out = console(width=150)
    out.print(_environments(found))
    if found.ledger.entries:
        out.print(_entries(found))
    for fault in found.faults:
        out.print(f"✗ {fault}", soft_wrap=True)
    if gone := [state.environment.name for state in found.states if state.deleted]:
        out.print(f"Next: python -m export revoke {family} --environment {gone[0]} --by NAME --reason TEXT")
    elif any(state.faults for state in found.states):
        out.print(f"Next: python -m export history {family} --repair, which moves the aliases to what was approved")
    elif not found.ledger.entries:
        out.print(f"Next: python -m export approve {family} --by NAME --reason TEXT")
    return 1 if found.faults else 0


def approvers(options: argparse.Namespace) -> int:
    """Let accounts of a MLflow server approve releases of a family."""
    family = _family(options)
    with store.opened(f"let somebody approve {family}") as client:
        allow(client, family, options.names)
    print(f"{', '.join(options.names) or 'Nobody more'} may approve releases of {family} now")
    print(f"Next, as one of them: python -m export approve {family} --by NAME --reason TEXT")
    return 0


def _tell(options: argparse.Namespace, family: str, environment: Environment, made: Decision) -> int:
    entry = made.entry
    if options.json:
        told = {"number": made.number, "new": made.new, **asdict(entry), "aliases": environment.aliases}
        print(json.dumps(told, indent=2))
        return 0
    has = f"models:/{family}/{entry.version}, {entry.release}" if entry.version else "nothing"
    before = f"; before: models:/{family}/{entry.before}" if entry.before else ""
    since = f" (entry {made.number}{before})" if made.new else f": already, since entry {made.number} by {entry.by}"
    print(f"{environment.name} has {has}{since}")
    if entry.figures:
        print(f"Figures: {_figures(entry)}")
    if made.replaced is not None:
        print(f"Before: {_figures(made.replaced)}")
    for remark in entry.remarks:
        print(f"Noted: {remark}")
    print(f"Aliases: {', '.join(environment.aliases)}. The account: {entry.account}, beside {entry.by}")
    print(f"Next: python -m export history {family}")
    return 0


def _environments(found: History) -> Table:
    shown = table("environment", "version", "release", "approved (UTC)", "by", left=5)
    for state in found.states:
        entry, name = state.entry, ", ".join(state.environment.aliases)
        if entry is None:
            shown.add_row(name, "—", "", "", "")
        else:
            shown.add_row(name, str(entry.version), entry.release, _when(entry), _who(entry))
    shown.add_row("challenger", found.challenger or "—", "", "", "")
    return shown


def _entries(found: History) -> Table:
    headings = ("entry", "at (UTC)", "decision", "by", "reason", "figures")
    shown = table(*headings, left={*headings} - {"entry"}, title=f"Approvals of {found.family}")
    for number, entry in found.ledger.entries.items():
        if entry is None:
            shown.add_row(str(number), "", "cannot be read", "", "", "")
            continue
        what = f"{entry.environment}: {entry.before or '—'} → {entry.version or '—'}"
        what = what if entry.action == "approve" else f"{what} (revoked)"
        reason = "; ".join((entry.reason, *entry.remarks))
        shown.add_row(str(number), _when(entry), what, _who(entry), reason, _figures(entry))
    return shown


def _described(found: History) -> dict[str, object]:
    return {
        "family": found.family,
        "challenger": found.challenger,
        "environments": {
            state.environment.name: {"version": state.version, "aliases": state.environment.aliases}
            for state in found.states
        },
        "entries": [
            {"number": number, **(asdict(entry) if entry else {"unreadable": True})}
            for number, entry in found.ledger.entries.items()
        ],
        "faults": found.faults,
    }


def _figures(entry: Entry) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in entry.figures.items())


def _when(entry: Entry) -> str:
    return entry.at[:16].replace("T", " ")


def _who(entry: Entry) -> str:
    return f"{entry.by} ({entry.account})"


def _family(options: argparse.Namespace) -> str:
    family = str(options.family)
    if not is_model_name(family):
        raise ApprovalError(f"a family cannot be called {family!r}", note=f"a name has {RULE}")
    return family
