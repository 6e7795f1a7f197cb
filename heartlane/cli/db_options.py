"""What every verb of `heartlane db` takes."""

from __future__ import annotations

from typing import Annotated

import typer

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///path or postgresql://…. Default: HEARTLANE_DATABASE, else a file in the user's data folder.",
        show_default=False,
    ),
]
