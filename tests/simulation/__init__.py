"""Heartlane in a world of its own: one process, no clock but a simulated one, every run the same for the same seed."""
