"""Which licences a person will work with, and which weights that rules out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from egoworld_ops.errors import BadSettings
from egoworld_ops.models.registry import REGISTRY
from egoworld_ops.section import Section


class PolicySettings(Section):
    """What may be used. Not part of any digest: it decides whether there are results, not what they are."""

    licences: Literal["any", "commercial"] = "any"
    """`commercial` refuses to run, release and export what rests on weights whose licence does not plainly allow commercial use."""


ANY = PolicySettings()
"""Every licence will do."""


def check(culprit: str, weights: Iterable[str], policy: PolicySettings) -> None:
    """Raise BadSettings where something rests on weights that the policy rules out; a weight that is not in the registry has no known licence.

    Args:
        culprit: what rests on them.
    """
    known = {name: REGISTRY.get(name) for name in sorted(set(weights))}
    ruled_out = [
        f"{name} ({entry.licence.name}, commercial use: {entry.licence.commercial}, {entry.licence.url})"
        if entry
        else f"{name} (unknown licence)"
        for name, entry in known.items()
        if entry is None or entry.licence.commercial != "yes"
    ]
    if policy.licences == "commercial" and ruled_out:
        cure = 'Choose a backend without them; or set policy.licences = "any" if you have the right to use them'
        raise BadSettings(culprit, f"policy.licences is commercial, and it rests on {', '.join(ruled_out)}", cure)
