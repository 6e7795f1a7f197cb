"""The board: the pages that people look at, and what these load. How to add one: `heartlane/board/README.md`."""
