"""Tell which version of an engine an image has.

| spec.engine | version |
|---|---|
| version "0.32" or "v0.32.1" | 0.32, 0.32.1 |
| no version, image registry.local/vllm:v0.32.0-cu130 | 0.32.0 |
| no version, image by digest or with the tag "latest" | not known |
"""

import re
from typing import Final

from tramontane.api.inferencedeployment import Engine

_NUMBER: Final = re.compile(r"(?:^|[-_])v?(\d+(?:\.\d+)+)")


def version_of(engine: Engine) -> str:
    """Return the version, digits and dots; empty where it is not known. The spec's comes first."""
    found = _NUMBER.search(engine.version or _tag(engine.image))
    return found[1] if found else ""


def repository(image: str) -> str:
    """Return the last part of an image's name, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _tag(image: str) -> str:
    # A colon before the last slash is that of the registry's port.
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def series(version: str, parts: int) -> str:
    """Return the first `parts` numbers of a version, by which flags are filed; all if fewer."""
    return ".".join(version.split(".")[:parts])


def in_order(versions: list[str]) -> list[str]:
    """Return versions from the oldest to the newest."""
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])
