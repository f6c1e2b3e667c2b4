"""Make the page: the locked npm packages, checked by tsc and packed by esbuild, in the cache.

The packages lie in a folder named after the lock file, what was built from them in one named after
all sources, so that a changed panel costs seconds and not minutes.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tramontane.lab.paths import LabError, cache_dir

PAGE = Path(__file__).parent / "page"
_LOCK = "package-lock.json"
_MANIFESTS = (".npmrc", "package.json", "tsconfig.json", _LOCK)
_DONE = ".done"


def digest(paths: Iterable[Path]) -> str:
    """Return a short name for exactly these contents."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def sources(page: Path = PAGE) -> list[Path]:
    """Return all that the page is made of."""
    ours = [path for path in (page / "src").rglob("*") if path.is_file()]
    return [*(page / name for name in _MANIFESTS), page / "index.html", *sorted(ours)]


def _npm() -> str:
    if found := shutil.which("npm"):
        return found
    raise LabError(
        "npm: must be on PATH to make the page that draws the boards (got none); install Node.js"
        " 20 or newer with npm (Debian: apt-get install nodejs npm)"
    )


def _call(argv: list[str], folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - npm with our own arguments
        argv, cwd=folder, env=os.environ | {"CI": "true"}, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines()[-25:])
        raise LabError(
            f"{' '.join(argv[1:])}: must end with 0 in {folder} (got {done.returncode}):\n{tail}"
        )


def _copy_manifests(page: Path, folder: Path) -> None:
    for name in _MANIFESTS:
        shutil.copyfile(page / name, folder / name)


def installed(page: Path = PAGE) -> Path:
    """Return the folder with exactly the packages of the lock; install them if it is not there.

    Raises:
        LabError: there is no npm, or it failed.
    """
    folder = cache_dir() / f"pictures-{digest([page / _LOCK, page / '.npmrc'])}"
    if not (folder / _DONE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _copy_manifests(page, folder)
        _call([_npm(), "ci"], folder)
        (folder / _DONE).touch()
    return folder


def build(page: Path = PAGE) -> Path:
    """Return the folder of the built page (`index.html`, `main.js`, `main.css`, `img`).

    Raises:
        LabError: there is no npm, or it failed, or the sources have a mistake.
    """
    folder = installed(page)
    built = folder / f"page-{digest(sources(page))}"
    if not (built / _DONE).exists():
        shutil.rmtree(folder / "src", ignore_errors=True)
        shutil.copytree(page / "src", folder / "src")
        _copy_manifests(page, folder)
        _call([_npm(), "run", "--silent", "build", "--", f"--outdir={built}"], folder)
        shutil.copyfile(page / "index.html", built / "index.html")
        icons = folder / "node_modules" / "@grafana" / "ui" / "dist" / "public" / "img"
        shutil.copytree(icons, built / "img", dirs_exist_ok=True)
        (built / _DONE).touch()
    return built
