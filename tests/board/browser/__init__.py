"""The board as people have it before them: in a real Chromium, on a real server."""
