"""What is in an image, as a CycloneDX bill of materials: Debian's packages and Python's.

It is read from the trees that became the layers, so it lists what is there and nothing else.
Licences stand where a package states one in a form for machines: Python's do, Debian's copyright
files, which are in the image, do not.

Source: CycloneDX 1.6; package URLs by github.com/package-url/purl-spec.
"""

import json
import uuid
from collections.abc import Iterable
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tramontane.lab.image.debian import Package
from tramontane.lab.image.oci import Image

_SPACE = uuid.UUID("5f0c5a6e-7c0e-5b0c-9d43-3a4f8f7d1c55")  # of our serial numbers


def write_sbom(image: Image, digest: str, debian: Iterable[Package], site: Path, path: Path) -> int:
    """Write the bill of an image; return how many packages it lists."""
    found = sorted(site.glob("*.dist-info/METADATA"), key=lambda one: one.parent.name.lower())
    parts = [_debian(one, image.architecture) for one in debian] + [_python(one) for one in found]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": image.created,
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": image.name,
                "version": image.version,
                "purl": f"pkg:oci/{image.name}@{quote(digest, safe='')}?tag={image.version}",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": parts,
    }
    path.write_text(json.dumps(bill, indent=1) + "\n")
    return len(parts)


def _debian(package: Package, architecture: str) -> dict[str, Any]:
    version = quote(package.version, safe=".+~-")
    purl = f"pkg:deb/debian/{package.name}@{version}?arch={architecture}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }


def _python(metadata: Path) -> dict[str, Any]:
    said = HeaderParser().parsestr(metadata.read_text("utf-8"))
    name, version = str(said["Name"]).lower().replace("_", "-"), str(said["Version"])
    purl = f"pkg:pypi/{name}@{quote(version, safe='.+')}"
    part: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if licences := _licences(said):
        part["licenses"] = licences
    return part


def _licences(said: Message) -> list[dict[str, Any]]:
    """Return an SPDX expression where the package states one, else the name that it gives."""
    if expression := said["License-Expression"]:
        return [{"expression": str(expression)}]
    stated = str(said["License"] or "").strip()
    if stated and "\n" not in stated:  # some put the whole text there
        return [{"license": {"name": stated}}]
    classes = [str(one) for one in said.get_all("Classifier", [])]
    names = [one.rpartition(" :: ")[2] for one in classes if one.startswith("License :: ")]
    return [{"license": {"name": name}} for name in names]
