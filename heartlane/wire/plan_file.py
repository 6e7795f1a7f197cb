"""A plan as people write it into a file: the body of the request, but for what a file says better.

The project and the milestone go by name, and a prompt may stand in a file of its own. What isn't known is refused: in a
request it may be a newer client's, in a file it is a slip of the pen. `schema` is the same for editors.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from heartlane.lanes import bounds
from heartlane.wire.fields import Name, Opt, PlanTitle
from heartlane.wire.requests import LaneBody, RequestBody

PATH_MAX: Final = 4_096
SCHEMA_PATH: Final = "/schemas/plan.json"
"""Where a server publishes the schema."""
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID: Final = "urn:heartlane:schemas:plan"


class LaneOfFile(LaneBody):
    """One lane: a piece of work that one worker does by itself."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"not": {"required": ["prompt", "promptFile"]}})

    promptFile: Opt[Annotated[str, Field(min_length=1, max_length=PATH_MAX)]] = None  # noqa: N815 - as its siblings
    """A file that holds the prompt; relative to the plan's file."""

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if self.prompt is not None and self.promptFile is not None:
            raise PydanticCustomError("two_prompts", "must have a prompt or a promptFile, not both")
        return self


class PlanFile(RequestBody):
    """A plan: what is to be done, lane by lane. Workers begin once it is approved."""

    model_config = ConfigDict(extra="forbid")

    project: Opt[Name] = None
    """The project's name or id. Left out: what --project says, or the only project that there is."""
    title: PlanTitle
    """What it is called."""
    milestone: Opt[Name] = None
    """The name or id of a milestone of the project."""
    lanes: Annotated[list[LaneOfFile], Field(min_length=1, max_length=bounds.LANES_PER_PLAN_MAX)]
    """What is to be done, each by one worker."""


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a plan's file."""
    found = PlanFile.model_json_schema()
    _tidy(found)
    return {"$schema": DIALECT, "$id": SCHEMA_ID, "title": "A plan of Heartlane", **found}


def _tidy(node: Any) -> None:
    """Take out what no editor should show: titles that repeat names, defaults that are null."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    if "default" in node and node["default"] is None:
        del node["default"]
    for value in node.values():
        _tidy(value)
