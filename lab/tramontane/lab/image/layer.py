"""A folder as a layer: a tar that is the same whenever and by whomever it is made.

Sorted names, root's numbers, modes 0644 and 0755, and one date for all. The date is the first that
a zip can have, not the commit's: a layer whose content is the same keeps its digest, and nodes
have it already. gzip's output is that of the zlib that compresses; another zlib may make
another archive of the same content.
"""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

MTIME = 315532800  # 1980-01-01
_WORLD = {"tmp"}  # may be written by all, with the sticky bit


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in a file.

    Attributes:
        digest: of the compressed file, by which registries know it.
        diff_id: of the tar in it, by which a configuration names it.
    """

    path: Path
    digest: str
    diff_id: str
    size: int
    unpacked: int
    created_by: str


def write_layer(tree: Path, path: Path, created_by: str) -> Layer:
    """Write a folder as a compressed layer."""
    plain = path.with_suffix(".tar")
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
        for file in _walk(tree):
            _add(archive, file, str(file.relative_to(tree)))
    with (
        plain.open("rb") as source,
        path.open("wb") as out,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=9, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, 1 << 20)
    layer = Layer(
        path=path,
        digest=sha256_of(path),
        diff_id=sha256_of(plain),
        size=path.stat().st_size,
        unpacked=plain.stat().st_size,
        created_by=created_by,
    )
    plain.unlink()
    return layer


def write_tar(files: dict[str, Path | bytes], path: Path) -> None:
    """Write files under names of our choice as a plain tar, in the order of their names."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, source in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.mtime = MTIME
            if isinstance(source, bytes):
                _add_bytes(archive, entry, source)
            else:
                entry.mode = 0o755 if os.access(source, os.X_OK) else 0o644
                entry.size = source.stat().st_size
                with source.open("rb") as file:
                    archive.addfile(entry, file)


def sha256_of(path: Path) -> str:
    """Return the digest of a file as OCI writes it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _walk(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*"), key=lambda one: one.relative_to(tree).parts)


def _add(archive: tarfile.TarFile, file: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.mtime = MTIME
    if file.is_symlink():
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(file.readlink()), 0o777
        archive.addfile(entry)
    elif file.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name in _WORLD else 0o755
        archive.addfile(entry)
    else:
        entry.mode = 0o755 if os.access(file, os.X_OK) else 0o644
        entry.size = file.stat().st_size
        with file.open("rb") as source:
            archive.addfile(entry, source)


def _add_bytes(archive: tarfile.TarFile, entry: tarfile.TarInfo, data: bytes) -> None:
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
