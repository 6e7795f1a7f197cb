"""`python -m docs.generate`: write every generated block anew. Says which pages changed."""

from __future__ import annotations

import sys

from docs.generate.pages import ROOT, pages, written_anew


def main() -> int:
    changed = 0
    for path in pages():
        page = path.read_text("utf-8")
        new = written_anew(page)
        if new != page:
            path.write_text(new, "utf-8")
            print(f"written: {path.relative_to(ROOT)}")
            changed += 1
    if not changed:
        print("Every page was up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
