"""The house rules that a reviewer would otherwise have to remember, checked on whatever part of the tree exists.

Which layer may import which, how long a module may be, that the core reads no clock, that the pins are whole, and that
nothing of one person's machine or of an unfinished thought is left in a file. The checks read sources and never import
the package.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ROOT / "bench" / "peers" / "inside"  # run by the interpreters of those whose packages they import
PACKAGE = ROOT / "heartlane"

# A layer and the layers below it that it may import; its own modules always.
LAYERS: dict[str, frozenset[str]] = {
    "lanes": frozenset(),
    "wire": frozenset({"lanes"}),
    "store": frozenset({"lanes", "wire"}),
    "sources": frozenset({"lanes", "wire"}),
    "server": frozenset({"lanes", "wire", "store", "sources"}),
    "board": frozenset({"lanes", "wire", "store", "server"}),
    "client": frozenset({"lanes", "wire"}),
    "worker": frozenset({"lanes", "wire", "client"}),
    "cli": frozenset({"lanes", "wire", "store", "sources", "server", "board", "client", "worker"}),
}
# Modules beside the layers: the version and the clients' names, and the door of `python -m heartlane`.
TOP_MODULES: dict[str, frozenset[str]] = {"__init__": frozenset({"client"}), "__main__": frozenset({"cli"})}

PACKAGE_LINES_MAX = 450
OTHER_LINES_MAX = 600

# What the pure core may take from the standard library: nothing that reads a clock, a disk, a socket or chance.
PURE_MODULES = frozenset(
    {
        "__future__",
        "abc",
        "collections",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "graphlib",
        "heapq",
        "itertools",
    }
    | {"json", "math", "operator", "re", "string", "types", "typing", "uuid"}
)
IMPURE_NAMES = frozenset({"uuid1", "uuid4", "uuid6", "uuid7", "open", "print", "input", "eval", "exec", "__import__"})
CLOCK_READS = frozenset({"now", "utcnow", "today"})

PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==[0-9][A-Za-z0-9.!+]*")
# The patterns are spelled so that they don't match this file.
LEFTOVER = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|registry\.yarnpkg\.com|deb\.debian\.org|files\.pythonhosted"
    r"|cdn\.jsdelivr\.net|unpkg\.com|cdnjs\.cloudflare\.com",
    re.IGNORECASE,
)
CONFLICT = re.compile(r"^(?:<{7}|>{7}|\|{7})(?: |$)")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/")


def tree_files() -> list[Path]:
    """Every file of the project: what git tracks or would add.

    Without git, as in an unpacked source archive, all that stands in the folder but what tools made.
    """
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        files = {ROOT / name for name in listed.decode().split("\0") if name}
    except (OSError, subprocess.CalledProcessError):
        made = re.compile(r"(?:^|/)(?:\.(?!ci/|git(?:ignore|attributes)$)|__pycache__/|build/|dist/)")
        files = {path for path in ROOT.rglob("*") if not made.search(path.relative_to(ROOT).as_posix())}
    return sorted(path for path in files if path.is_file() and not path.is_symlink())


def text_of(path: Path) -> str | None:
    """The file's text, or None where it is not a text file."""
    data = path.read_bytes()
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def hits(pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern stands in the project's text files, as `file:line: text`."""
    found = []
    for path in tree_files():
        for number, line in enumerate((text_of(path) or "").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def package_modules() -> list[Path]:
    return [path for path in tree_files() if path.suffix == ".py" and path.is_relative_to(PACKAGE)]


def imported(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Every import of a module, also those within functions: the line and the absolute dotted name.

    `from x import y` counts as `x.y`; `package` is the dotted name that relative imports count from.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def forbidden_imports(source: str, path: Path) -> list[str]:
    """The imports of a module that go against the direction of the layers. `path` is relative to the package folder."""
    first = path.parts[0] if len(path.parts) > 1 else path.stem
    allowed = LAYERS.get(first) if len(path.parts) > 1 else TOP_MODULES.get(first)
    if allowed is None:
        return [f"{path}: {first} has no place among the layers yet; give it one in LAYERS of {Path(__file__).name}"]
    package = ".".join(["heartlane", *path.parts[:-1]])
    wrong = []
    for line, name in imported(ast.parse(source), package):
        parts = name.split(".")
        if parts[0] != "heartlane" or len(parts) == 1 or parts[1] == "__version__":
            continue
        if parts[1] != first and parts[1] not in allowed:
            wrong.append(f"{path}:{line}: {first} imports {name}")
    return wrong


def impurities(source: str, path: Path) -> list[str]:
    """What makes a module of the core impure: an import that reaches the world, a clock read, a random id."""
    tree = ast.parse(source)
    wrong = [
        f"{path}:{line}: imports {name}"
        for line, name in imported(tree, "heartlane.lanes")
        if name.split(".")[0] not in PURE_MODULES | {"heartlane"} or name.split(".")[-1] in IMPURE_NAMES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in IMPURE_NAMES or (node.attr in CLOCK_READS and owner in {"datetime", "date"}):
                wrong.append(f"{path}:{node.lineno}: {owner}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in IMPURE_NAMES:
            wrong.append(f"{path}:{node.lineno}: {node.id}")
    return wrong


def pyproject() -> dict[str, dict[str, list[str]]]:
    """Each list of requirements in pyproject.toml, by the name of its extra ("" for the base)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    return {
        "build": {"requires": project["build-system"]["requires"]},
        "install": {"": project["project"]["dependencies"], **extras},
    }


def required_names() -> set[str]:
    """The canonical names of everything that any extra or the build installs, through all that these need in turn."""
    lists = pyproject()
    waiting = [Requirement(line) for group in lists.values() for lines in group.values() for line in lines]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name == "heartlane" or (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # not for this platform; the name itself must be pinned all the same
        waiting.extend(
            need
            for need in map(Requirement, needs)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        )
    return {name for name, _ in seen}


def test_layers_import_only_what_lies_below_them() -> None:
    modules = package_modules()
    assert modules, "no module found: this check would pass on nothing"
    wrong = [line for path in modules for line in forbidden_imports(path.read_text("utf-8"), path.relative_to(PACKAGE))]
    assert not wrong, "\n".join(wrong)


def test_the_core_reads_no_clock_and_nothing_of_the_world() -> None:
    core = [path for path in package_modules() if path.is_relative_to(PACKAGE / "lanes")]
    wrong = [line for path in core for line in impurities(path.read_text("utf-8"), path.relative_to(ROOT))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lanes/rules.py", "from heartlane.store import ledger"),
        ("lanes/rules.py", "from ..store import ledger"),
        ("wire/answers.py", "def late():\n    import heartlane.server.app"),
        ("store/store.py", "from heartlane import server"),
        ("server/app.py", "from heartlane.cli.main import main"),
        ("server/app.py", "from heartlane.board.pages import make_router"),
        ("client/aio.py", "from heartlane.store.ids import new_id"),
        ("worker/sidecar.py", "from heartlane.server import settings"),
        ("__init__.py", "from heartlane.cli import main"),
        ("helpers.py", ""),
        ("helpers/text.py", ""),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert len(forbidden_imports(source, Path(module))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lanes/rules.py", "from . import bounds\nfrom heartlane.lanes.run import Run\nimport json"),
        ("store/batch.py", "from ..lanes import rules\nfrom heartlane.wire import errors"),
        (
            "server/routes/runs.py",
            "from ...store.runs import read\nfrom ..errors import ApiError\nfrom heartlane import __version__",
        ),
        ("__main__.py", "from heartlane.cli.main import main"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert forbidden_imports(source, Path(module)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import random",
        "from uuid import uuid4",
        "import uuid\nnew = uuid.uuid4",
        "import datetime\nat = datetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\nread = datetime.utcnow",
        "from datetime import date\nday = date.today()",
        "text = open('file').read()",
    ],
)
def test_an_impurity_is_seen(source: str) -> None:
    assert len(impurities(source, Path("lanes/rules.py"))) == 1


def test_a_value_named_now_is_no_clock_read() -> None:
    source = (
        "from datetime import datetime\nimport uuid\ndef at(tx, now: datetime):\n    return tx.now, now, uuid.UUID(tx)"
    )
    assert impurities(source, Path("lanes/rules.py")) == []


def test_modules_are_short_enough_to_read_at_once() -> None:
    long = []
    for path in tree_files():
        if path.suffix == ".py":
            lines = len(path.read_text("utf-8").splitlines())
            bound = PACKAGE_LINES_MAX if path.is_relative_to(PACKAGE) else OTHER_LINES_MAX
            if lines > bound:
                long.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {bound}")
    assert not long, "\n".join(long)


def test_no_unfinished_thought_is_left() -> None:
    assert hits(LEFTOVER) == []


def test_no_merge_is_left_half_done() -> None:
    assert hits(CONFLICT) == []


def test_no_registry_or_asset_host_is_named() -> None:
    assert hits(REGISTRY) == []


def test_no_path_of_somebodys_machine_is_named() -> None:
    assert hits(MACHINE_PATH) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (LEFTOVER, "# TO" + "DO: later"),
        (CONFLICT, "<" * 7 + " HEAD"),
        (CONFLICT, ">" * 7 + " 0ae9504 (Tell of it)"),
        (REGISTRY, "https://PyPI" + ".org/simple"),
        (MACHINE_PATH, "open('/ho" + "me/me/x')"),
        (MACHINE_PATH, "cd /ro" + "ot/x"),
    ],
)
def test_the_patterns_see_what_they_look_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


@pytest.mark.parametrize("text", ["GET /api/ho" + "me/x", "mastodon", "src/wo" + "rk/x", "~/ho" + "me/x"])
def test_the_patterns_leave_plain_text_alone(text: str) -> None:
    assert not any(pattern.search(text) for pattern in (LEFTOVER, REGISTRY, MACHINE_PATH))


def test_constraints_are_plain_pins_of_everything_that_is_installed() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    odd = [line for line in pins if not PIN.fullmatch(line)]
    assert not odd, f"not of the form name==version: {odd}"
    names = [canonicalize_name(line.partition("==")[0]) for line in pins]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"pinned more than once: {twice}"
    missing = sorted((required_names() | {"pip", "hatchling", "editables"}) - set(names))
    assert not missing, f"not pinned (make lock): {missing}"


def test_every_library_that_is_imported_is_declared() -> None:
    declared = {
        canonicalize_name(Requirement(line).name) for lines in pyproject()["install"].values() for line in lines
    }
    providers = metadata.packages_distributions()
    unknown = []
    for path in tree_files():
        if path.suffix != ".py" or path.is_relative_to(OTHERS):
            continue
        for line, name in imported(ast.parse(path.read_text("utf-8")), "heartlane"):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or (ROOT / top).is_dir():
                continue
            distributions = {canonicalize_name(distribution) for distribution in providers.get(top, [])}
            if not distributions & declared:
                unknown.append(f"{path.relative_to(ROOT)}:{line}: {top}")
    assert not unknown, "imported, but in no list of pyproject.toml:\n" + "\n".join(unknown)


def test_the_files_that_people_run_can_be_run() -> None:
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111 == 0o111
    commands = [
        line for line in run.read_text("utf-8").splitlines() if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands == ["make test"]
