"""From a form to a validated value. Browsers send every field; one that was left blank counts as not given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from mdtasks.domain.errors import MdtasksError
from mdtasks.domain.hints import hint_for
from mdtasks.domain.jobs import invalid_request
from mdtasks.web.parsing import Query, refuse_unknown

Asked = TypeVar("Asked", bound=Query)


def filled(request: Request, model: type[Asked]) -> Asked:
    """What a form that reads asks for, in the query. Raises InvalidRequestError naming the field."""
    return _validated(request.query_params.multi_items(), model)


def parsed(request: Request, model: type[Asked]) -> Asked:
    """What a form that posts says. Raises InvalidRequestError naming the field."""
    return _validated(request.state.form.multi_items(), model)


@dataclass(frozen=True, slots=True)
class Sent:
    """A form as its page shows it: what was typed, what is wrong with it by field, and why it was refused as a whole.

    Without anything it is a form that nobody has sent yet.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    wrongs: Mapping[str, str] = field(default_factory=dict)
    refused: MdtasksError | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the page that shows it."""
        return self.refused.http_status if self.refused else 422 if self.wrongs else 200

    def get(self, name: str, otherwise: str = "") -> str:
        """What was typed into a field."""
        return self.values.get(name, otherwise)


def examined(request: Request, model: type[Asked]) -> tuple[Asked | None, Sent]:
    """What a form that posts says, None where something is wrong with it; and the form, so that its page can show it
    again with every wrong value told at its field. Raises InvalidRequestError for a field that the form does not have.
    """
    sent = dict(request.state.form.multi_items())
    refuse_unknown(sent, model, "field")
    try:
        return model.model_validate({name: value for name, value in sent.items() if value.strip()}), Sent(sent)
    except ValidationError as exc:
        wrongs: dict[str, str] = {}
        for error in exc.errors(include_url=False, include_input=False):
            rule = str(error["msg"]).removeprefix("Value error, ")
            wrongs.setdefault(str(error["loc"][0]), f"{rule}: {hint_for(error)}")
        return None, Sent(sent, wrongs)


def refusal(sent: Sent, error: MdtasksError) -> Sent:
    """The form with what it was refused for, at the field that is to blame if it has one."""
    name = getattr(error, "field", "")
    if name in sent.values:
        return Sent(sent.values, {name: f"{error.message}; {error.hint}" if error.hint else error.message})
    return Sent(sent.values, {}, error)


def _validated(given: Iterable[tuple[str, str]], model: type[Asked]) -> Asked:
    values = {name: value.strip() for name, value in given if value.strip()}
    refuse_unknown(values, model, "field")
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise invalid_request(exc) from exc
