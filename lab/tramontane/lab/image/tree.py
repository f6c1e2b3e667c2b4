"""The three layers of an image as folders: what packages bring, sieved, and compiled ahead.

    base    /usr, /lib64 …          Debian's C library and Python
    deps    /opt/tramontane         a virtual environment with packages of uv.lock
    code    /opt/tramontane/lib/…   our own modules

Python's bytecode comes along, since a root that is read only could never keep it, and each start
would compile 500 modules anew. It is not checked against the source (PEP 552, unchecked): nobody
changes the source in an image. The base's own Python compiles, through its own loader, so whatever
Python runs here does not matter.
"""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tramontane.lab.calls import call
from tramontane.lab.image.recipe import ROOT, Base, Recipe, Sieve
from tramontane.lab.paths import LabError

HOME = PurePosixPath("opt/tramontane")
USER = 65532
_READ_S = 60
_LOADER = "lib64/ld-linux-x86-64.so.2"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, as Debian itself has them
_FOLDERS = ("dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var")
_FILES = {
    "etc/group": f"root:x:0:\nnogroup:x:65534:\ntramontane:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"tramontane:x:{USER}:{USER}:tramontane:/tmp:/usr/sbin/nologin\n"
    ),
}
_SCRIPT = """#!/{home}/bin/python
import sys

from {module} import {function}

sys.exit({function}())
"""


def base_tree(base: Base, debs: Mapping[str, Path], tree: Path) -> None:
    """Make the base in an empty folder; `debs` are the files of its packages by name."""
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True)
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name, path in debs.items():
        _unpack(path, tree, base.sieve)
        _keep_status(name, path, tree)
    for name, text in _FILES.items():
        (tree / name).write_text(text)
    (tree / "etc" / "os-release").symlink_to("../usr/lib/os-release")
    _certificates(tree)
    python = f"python{base.python}"
    for name in ("python3", "python"):
        (tree / "usr" / "bin" / name).symlink_to(python)
    _compile(tree, base, tree, f"usr/lib/{python}")


def deps_tree(base: Base, base_root: Path, packages: Path, recipe: Recipe, tree: Path) -> None:
    """Make the virtual environment in an empty folder from installed `packages`."""
    home = tree / HOME
    (home / "bin").mkdir(parents=True)
    modules = site(base, tree)
    modules.parent.mkdir(parents=True)
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for name in ("python", "python3", f"python{base.python}"):
        (home / "bin" / name).symlink_to(f"/usr/bin/python{base.python}")
    shutil.copytree(packages, modules, symlinks=True)
    _sift(modules, recipe.sieve)
    _compile(base_root, base, tree, str(modules.relative_to(tree)))


def code_tree(base: Base, base_root: Path, recipe: Recipe, version: str, tree: Path) -> None:
    """Make the layer of our own code in an empty folder."""
    modules = site(base, tree)
    for source in recipe.sources:
        below = Path(source).relative_to(Path(source).parts[0])  # without the source root
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, modules / below, ignore=_not_ours, dirs_exist_ok=True)
        else:
            (modules / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, modules / below)
    for source, place in recipe.files.items():
        (modules / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, modules / place)
    metadata = modules / f"tramontane-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(
        f"Metadata-Version: 2.4\nName: tramontane\nVersion: {version}\n"
        "License-Expression: Apache-2.0\n"
    )
    shutil.copy(ROOT / "LICENSE", metadata.parent)
    for name, target in recipe.scripts.items():
        module, _, function = target.partition(":")
        script = tree / HOME / "bin" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(_SCRIPT.format(home=HOME, module=module, function=function))
        script.chmod(0o755)
    _compile(base_root, base, tree, str(modules.relative_to(tree)))


def site(base: Base, tree: Path) -> Path:
    """Return where modules lie in a tree."""
    return tree / HOME / "lib" / f"python{base.python}" / "site-packages"


def _not_ours(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".") or name == "__pycache__"]


def _unpack(deb: Path, tree: Path, sieve: Sieve) -> None:
    """Unpack a package as root would, but for owners: the layer has root's numbers anyway."""
    with subprocess.Popen(  # noqa: S603 - Debian's own tool
        ["dpkg-deb", "--fsys-tarfile", deb],  # noqa: S607 - from PATH, as apt
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                _take(archive, member, tree, sieve)
        code = process.wait(_READ_S)
    if code != 0:
        raise LabError(f"image: dpkg-deb must read {deb} (got exit code {code}); remove the file")


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Path, sieve: Sieve) -> None:
    member.name = _merged(member.name)
    if member.isdir() or sieve.drops(member.name):
        return
    if member.islnk():
        member.linkname = _merged(member.linkname)
    (tree / member.name).parent.mkdir(parents=True, exist_ok=True)
    archive.extract(member, tree, set_attrs=False, filter="tar")
    if member.isfile():
        (tree / member.name).chmod(0o755 if member.mode & 0o111 else 0o644)


def _merged(name: str) -> str:
    """Return a path as it is where /lib and /bin are links into /usr."""
    name = name.removeprefix("./")
    top = name.partition("/")[0]
    return f"usr/{name}" if top in _MERGED else name


def _keep_status(name: str, deb: Path, tree: Path) -> None:
    """Write what scanners read to know the packages of an image without dpkg's database."""
    folder = tree / "var" / "lib" / "dpkg" / "status.d"
    folder.mkdir(parents=True, exist_ok=True)
    control = subprocess.run(  # noqa: S603 - Debian's own tool
        ["dpkg-deb", "--field", deb],  # noqa: S607 - from PATH, as apt
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    (folder / name).write_text(control.rstrip("\n") + "\nStatus: install ok installed\n")


def _certificates(tree: Path) -> None:
    """Do what the package's own script does: one file of all authorities, where OpenSSL looks."""
    parts = sorted((tree / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle = tree / _CERTIFICATES
    bundle.parent.mkdir(parents=True)
    bundle.write_text("".join(part.read_text() for part in parts))
    shutil.rmtree(tree / "usr/share/ca-certificates")
    openssl = tree / "usr/lib/ssl"
    openssl.mkdir(exist_ok=True)
    (openssl / "cert.pem").symlink_to(f"/{_CERTIFICATES}")
    (openssl / "certs").symlink_to("/etc/ssl/certs")


def _sift(folder: Path, sieve: Sieve) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif sieve.drops(str(path.relative_to(folder))):
            path.unlink()


def _compile(root: Path, base: Base, tree: Path, folder: str) -> None:
    """Compile what is in a folder of the tree, by the Python of the base in `root`.

    One process and a fixed hash seed: then the bytecode is the same each time.
    """
    argv: list[str | Path] = [
        root / _LOADER, "--library-path", root / _LIBRARIES,
        root / "usr" / "bin" / f"python{base.python}", "-B", "-S", "-s",
        "-m", "compileall", "-f", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash",
        "-s", tree, "-p", "/", tree / folder,
    ]  # fmt: skip
    call(
        argv,
        f"image: all modules below {folder} must compile",
        f"leave out those that cannot, in {os.path.relpath(ROOT / 'images', Path.cwd())}",
        env={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
    )
