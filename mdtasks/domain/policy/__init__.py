"""All that an operator may change while the system runs: the model, how a candidate is read and judged, what it does.

Pure. ``Policy()`` is what holds when nobody said anything; ``examine`` judges what somebody sends; ``effective`` adds
what the environment of a process says; ``plan`` holds demand against the providers' limits.
"""

from mdtasks.domain.policy.checks import Examined, check, examine
from mdtasks.domain.policy.effects import Effects, beat_entries, effects
from mdtasks.domain.policy.facts import Facts, Offer
from mdtasks.domain.policy.leaves import Change, canonical, diff, digest, leaves, needs_restart
from mdtasks.domain.policy.model import Policy, TierPolicy
from mdtasks.domain.policy.quotas import Plan, plan
from mdtasks.domain.policy.variables import VARIABLES, Effective, effective
from mdtasks.domain.policy.wrongs import Wrong

__all__ = [
    "VARIABLES",
    "Change",
    "Effective",
    "Effects",
    "Examined",
    "Facts",
    "Offer",
    "Plan",
    "Policy",
    "TierPolicy",
    "Wrong",
    "beat_entries",
    "canonical",
    "check",
    "diff",
    "digest",
    "effective",
    "effects",
    "examine",
    "leaves",
    "needs_restart",
    "plan",
]
