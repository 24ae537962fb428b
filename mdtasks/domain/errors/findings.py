"""What stored data shows to be wrong somewhere, without telling where: a person has to look."""

from __future__ import annotations

from mdtasks.domain.errors.base import MdtasksError


class SuspectBarsError(MdtasksError):
    """Bars and corporate actions do not fit each other."""

    code = "suspect_bars"


class ActionWithoutJumpError(SuspectBarsError):
    """An action that changes the price is on record, and the price went on as if nothing had happened, or otherwise."""

    code = "action_without_jump"


class NameUnclearError(MdtasksError):
    """A renaming or a delisting among the actions that something else on record contradicts. It is not followed."""

    code = "name_unclear"


class JumpWithoutActionError(SuspectBarsError):
    """The price jumped as by a split, and none is on record."""

    code = "jump_without_action"
