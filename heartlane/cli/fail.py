"""`heartlane fail`: from within a lane, say that it can't be done."""

from __future__ import annotations

from heartlane.cli.in_a_lane import parser, speak


def main(arguments: list[str]) -> int:
    """Run `heartlane fail ARGUMENTS…`; its exit code."""
    options = parser("fail", "From within a lane: say that this attempt can't do it, and why.", arguments=" WHY")
    options.add_argument("message", metavar="WHY", help="what stands in the way, for people and for the next attempt")
    options.add_argument("--fatal", action="store_true", help="nor can any other attempt: the lane ends as failed")
    return speak(arguments, options, lambda given: {"verb": "fail", "message": given.message, "fatal": given.fatal})
