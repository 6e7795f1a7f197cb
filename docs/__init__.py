"""The documentation: pages in Markdown, and in `generate` what writes those parts of them that the code knows best."""
