"""POST /v1/feedback: a rating of an answer.

    {"request_id": "req_…", "rating": 1, "comment": "…"}

`request_id` is the `x-request-id` of the answer; `rating` is -1, 0 or 1. The response says whether
it is kept: `{"kept": true}`.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from moaa.gateway.access import Caller
from moaa.gateway.body import checked_fields, read_object
from moaa.gateway.feedback.records import Records
from moaa.gateway.wire import ApiError
from moaa.recipe.document import Part


class Rating(Part):
    """The body of a request. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")
    request_id: str = Field(min_length=1, max_length=128)
    rating: int = Field(ge=-1, le=1)
    comment: str | None = Field(None, max_length=4_000)


def rate(records: Records | None, caller: Caller, body: bytes) -> dict[str, Any]:
    """Keep the rating in this body. Raises ApiError: 404 if the gateway keeps no feedback, 403 if
    the key has not agreed, 400 if the body is not a rating."""
    if records is None:
        raise ApiError(404, "This gateway keeps no feedback.", "not_found")
    if not caller.rights.feedback:
        raise ApiError(403, "No feedback is kept of this key (`feedback`).", "feedback_off")
    _, data, _ = read_object(body)
    given = checked_fields(data, Rating)
    kept = records.rated(caller.name, given.request_id, given.rating, given.comment)
    return {"object": "feedback", "request_id": given.request_id, "kept": kept}
