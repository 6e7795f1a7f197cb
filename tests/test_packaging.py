"""What a user gets who installs Heartlane: a whole wheel, and commands that start without the server's libraries."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from heartlane import __version__

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"heartlane-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = archive.read(f"heartlane-{__version__}.dist-info/entry_points.txt").decode()
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "heartlane").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    assert "heartlane = heartlane.cli.main:main" in entry_points


def test_the_command_line_starts_without_the_servers_libraries() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    base, extra = (
        {canonicalize_name(Requirement(line).name) for line in lines}
        for lines in (project["dependencies"], project["optional-dependencies"]["server"])
    )
    hidden = sorted(
        module
        for module, distributions in metadata.packages_distributions().items()
        if {canonicalize_name(name) for name in distributions} & (extra - base)
    )
    assert {"granian", "sqlalchemy", "fastapi", "orjson"} <= set(hidden)
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({hidden!r}))  # None there: importing it fails as if it weren't installed\n"
        "sys.argv = ['heartlane', '--help']\n"
        "from heartlane.cli.main import main\n"
        "main()\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "serve" in answer.stdout


def base_modules() -> set[str]:
    """Every module that a plain `pip install heartlane` brings, through all that its requirements need in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    names: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in names:
            continue
        names.add(name)
        needs = map(Requirement, metadata.requires(name) or [])
        waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return {
        module
        for module, distributions in metadata.packages_distributions().items()
        if {canonicalize_name(distribution) for distribution in distributions} & names
    }


def test_the_client_works_with_the_base_install_alone() -> None:
    base = base_modules()
    hidden = sorted(set(metadata.packages_distributions()) - base - {"heartlane"})
    assert {"granian", "sqlalchemy", "fastapi", "orjson", "jiter", "structlog", "uvloop"} <= set(hidden)
    assert {"httpx", "pydantic"} <= base
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({hidden!r}))  # None there: importing it fails as if it weren't installed\n"
        "import heartlane\n"
        "assert not {'httpx', 'pydantic', 'asyncio'} & set(sys.modules), 'importing the package must cost nothing'\n"
        "from heartlane import AsyncClient, Client\n"
        "from heartlane.client import LaneLost, NoLane, Unreachable, RetryPolicy\n"
        "client = Client('http://127.0.0.1:9', 'hlt_x', retry=RetryPolicy(tries=1), trust_env=False)\n"
        "try:\n"
        "    client.claim(role='backend', wait_seconds=0)\n"
        "except Unreachable:\n"
        "    print('no server')\n"
        "client.close()\n"
        "layers = {name.split('.')[1] for name in sys.modules if name.startswith('heartlane.')}\n"
        "assert layers == {'client', 'lanes', 'wire'}, layers\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "no server\n"), answer.stderr
