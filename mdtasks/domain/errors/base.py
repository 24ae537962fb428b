"""What all our errors are: a code, an HTTP status, an exit code, and a hint of what to do next."""

from __future__ import annotations

from typing import ClassVar


class MdtasksError(Exception):
    """Something mdtasks refuses or could not do."""

    #: Stable name of the error: JSON, metric label, ``error_class`` in the store.
    code: ClassVar[str] = "error"
    #: HTTP status that the web app answers with.
    http_status: ClassVar[int] = 500
    #: Exit code of the command line.
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from a worker's child to its parent by pickle; constructors here take keywords.
        return restored, (type(self), self.args, self.__dict__)

    def as_dict(self) -> dict[str, object]:
        """The error as HTTP and ``--json`` show it: code, message, hint."""
        return {"code": self.code, "error": self.message, "hint": self.hint}


def restored(cls: type[MdtasksError], args: tuple[object, ...], state: dict[str, object]) -> MdtasksError:
    """An error that was raised in another process, without the arguments that it was made of there."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error
