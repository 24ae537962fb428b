"""From a form to a validated value. Browsers send every field; one that was left blank counts as not given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from mdtasks.domain.jobs import invalid_request
from mdtasks.web.parsing import Query, refuse_unknown

Asked = TypeVar("Asked", bound=Query)


def filled(request: Request, model: type[Asked]) -> Asked:
    """What a form that reads asks for, in the query. Raises InvalidRequestError naming the field."""
    return _validated(request.query_params.multi_items(), model)


def parsed(request: Request, model: type[Asked]) -> Asked:
    """What a form that posts says. Raises InvalidRequestError naming the field."""
    return _validated(request.state.form.multi_items(), model)


def _validated(given: Iterable[tuple[str, str]], model: type[Asked]) -> Asked:
    values = {name: value.strip() for name, value in given if value.strip()}
    refuse_unknown(values, model, "field")
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise invalid_request(exc) from exc
