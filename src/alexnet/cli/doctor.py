"""``alexnet doctor``."""

from __future__ import annotations

from alexnet.cli.options import Common


def doctor(*, common: Common = Common()) -> None:
    """Tell what this machine has, what will be used, and why.

    For example:

        alexnet doctor
    """
    from alexnet.cli.output import emit, say, table
    from alexnet.tasks.doctor import examine

    findings = examine()
    if common.json:
        emit({group: {f.name: f.to_dict() for f in found} for group, found in findings.items()})
        return
    for group, found in findings.items():
        table([group, "", ""], ([one.name, one.value, one.why] for one in found))
        say()
