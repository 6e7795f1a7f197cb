"""goose: `goose run -t … --output-format stream-json`. Source: goose-cli's own.

It ends with `complete` whatever happened, and tells failed requests to its model as if the model had said them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heartlane.worker.agents.base import Usage
from heartlane.worker.agents.json_lines import Handler, JsonLines, Record
from heartlane.worker.agents.recipe import Agent, Login
from heartlane.worker.agents.values import add, count, error_status, error_text, first, list_of, record_of

_FAILED: Final = "Ran into this error:"
_OUT_OF_TURNS: Final = "I've reached the maximum number of actions"


class Goose(JsonLines):
    """goose's lines. An answer comes as several messages of one id."""

    name = "goose"

    def __init__(self) -> None:
        super().__init__()
        self._message_id: object = None

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "message": self.on_message,
            "notification": self.ignore,
            "model_change": self.on_model_change,
            "error": self.on_error,
            "complete": self.on_complete,
        }

    def on_message(self, record: Record) -> None:
        self.goes_on()
        message = record_of(record.get("message"))
        mine = message.get("role") == "assistant"
        message_id = message.get("id")
        if message_id is None or message_id != self._message_id:
            self.flush()
            self._message_id = message_id
        for block in list_of(message.get("content")):
            entry = record_of(block)
            match entry.get("type"):
                case "text" if mine:
                    self._text(entry.get("text"))
                case "toolRequest" | "frontendToolRequest":
                    called = record_of(entry.get("toolCall"))
                    called = record_of(called.get("value")) or called
                    self.start(entry.get("id"), called.get("name"), called.get("arguments"))
                case "toolResponse":
                    result = record_of(entry.get("toolResult"))
                    value = record_of(result.get("value"))
                    ok = result.get("status") != "error" and first(value, "isError", "is_error") is not True
                    self.end(entry.get("id"), ok)
                case "systemNotification" | "contextLengthExceeded" | "conversationCompacted":
                    if words := error_text(first(entry, "msg", "message")):
                        self.note(words)

    def _text(self, text: object) -> None:
        if isinstance(text, str) and text.startswith((_FAILED, _OUT_OF_TURNS)) and not self.joined:
            self.warn(text.removeprefix(_FAILED).partition("\n\nPlease retry if")[0].strip())
        else:
            self.join(text)

    def on_model_change(self, record: Record) -> None:
        self.identify(model=record.get("model"))

    def on_error(self, record: Record) -> None:
        self.warn(error_text(record), status=error_status(record))

    def on_complete(self, record: Record) -> None:
        """The end. Older versions count the last request alone; `total_tokens` may be null."""
        self.flush()
        read, written = count(record.get("input_tokens")), count(record.get("output_tokens"))
        total = count(record.get("total_tokens"))
        self.used_in_all(Usage(read, written, None, None, total if total is not None else add(read, written)))
        if self._trouble is None:
            self.succeeded()
        else:
            self.failed(None)


AGENT: Final = Agent(
    name="goose",
    title="goose",
    adapter=Goose,
    programs=("goose",),
    marks=("stream-json",),
    command=("goose", "run", "-t", "{prompt}", "--output-format", "stream-json"),
    environment={"GOOSE_MODE": "auto"},
    version=("goose", "--version"),
    install="Install goose as its documentation says (goose-docs.ai).",
    login=Login(
        variables=("GOOSE_PROVIDER",),
        cure="Run `goose configure`, or set GOOSE_PROVIDER, GOOSE_MODEL and the provider's API key.",
    ),
)
