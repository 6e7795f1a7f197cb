"""Heartlane: the control plane for fleets of workers that work the lanes of an approved plan side by side."""

__version__ = "0.1.0"
