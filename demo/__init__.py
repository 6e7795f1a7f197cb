"""Heartlane at work in half a minute: `python -m demo` (or `make demo`)."""
