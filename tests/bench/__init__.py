"""The core of the bench that needs no servers."""
