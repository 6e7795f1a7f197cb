"""The board: what it serves, and how it is in a real browser."""
