"""The board: the pages that people look at, and what these load."""
