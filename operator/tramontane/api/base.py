"""Give the models their base class and the field types that a CRD can express.

A model never validates what its schema cannot: what the API server took, every component can
read. Unknown fields are ignored, so that an older component survives a newer API server.

Fields are written `name: Annotated[Type, about("What it means.", example=…)] = default`; the
generator appends default and example to the description, which is what `kubectl explain` shows.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from tramontane.api import names
from tramontane.api.errors import InvalidValue
from tramontane.api.podtemplate import PodOverrides as PodOverrides  # noqa: PLC0414 - re-exported
from tramontane.api.podtemplate import PodTemplate as PodTemplate  # noqa: PLC0414 - re-exported
from tramontane.api.quantity import (
    DURATION_OR_AUTO_PATTERN,
    DURATION_PATTERN,
    INT_OR_PERCENT_PATTERN,
    PERCENT_PATTERN,
    QUANTITY_PATTERN,
)

# Words that the API writes in capitals where they are not the first.
_CAPITALS = {"id": "ID", "gpu": "GPU", "gpus": "GPUs"}


def to_camel(name: str) -> str:
    """Return the API's spelling of an attribute: `boot_id` → `bootID`, `from_` → `from`."""
    first, *rest = name.strip("_").split("_")
    return first + "".join(_CAPITALS.get(word, word[:1].upper() + word[1:]) for word in rest)


class Model(BaseModel):
    """Be the frozen base of every object and part of an object."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the API's form: camelCase keys, plain values, no nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def about(
    description: str,
    *,
    example: Any = None,
    list_type: Literal["atomic", "set", "map"] | None = None,
    keys: tuple[str, ...] = (),
    extra: dict[str, Any] | None = None,
    **constraints: Any,
) -> Any:
    """Return what the schema says of a field.

    Args:
        description: what it means, with its unit; one or more sentences.
        example: a value as people would write it.
        list_type: who may own items of a list under server-side apply; `map` needs `keys`.
        keys: the API names of the keys of a map-like list.
        extra: schema keys of its own, such as `checks.rules(...)`.
        **constraints: `ge`, `le`, `min_length`, `max_length`, `pattern`.
    """
    schema: dict[str, Any] = dict(extra or {})
    if list_type is not None:
        schema["x-kubernetes-list-type"] = list_type
    if keys:
        schema["x-kubernetes-list-map-keys"] = list(keys)
    return Field(
        description=description,
        examples=None if example is None else [example],
        json_schema_extra=schema or None,
        **constraints,
    )


def _plain_number(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
DurationOrAuto = Annotated[str, Field(pattern=DURATION_OR_AUTO_PATTERN, max_length=32)]
Percent = Annotated[str, Field(pattern=PERCENT_PATTERN, max_length=16)]
# A decimal number as a string: floats of different clients do not compare equal.
DecimalString = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", max_length=32)]
Quantity = Annotated[
    str,
    BeforeValidator(_plain_number),
    Field(pattern=QUANTITY_PATTERN),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "pattern": QUANTITY_PATTERN}),
]


def _number_or_percent(value: Any) -> Any:
    if re.fullmatch(INT_OR_PERCENT_PATTERN, str(value)) is None:
        raise InvalidValue('must be a number or a percentage up to "100%"', value)
    return value


IntOrPercent = Annotated[
    int | str,
    BeforeValidator(_number_or_percent),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "minimum": 0, "pattern": INT_OR_PERCENT_PATTERN}
    ),
]
# RFC 3339, e.g. 2026-12-01T00:00:00Z; `clock` converts.
Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
# A DNS label: a name inside an object.
Label = Annotated[str, Field(pattern=rf"^{_LABEL}$", min_length=1, max_length=63)]
# A DNS subdomain: the name of an object, a blade's among them.
Name = Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*$", min_length=1, max_length=253)]
# A label or annotation key, with or without a prefix.
Key = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        min_length=1,
        max_length=317,
    ),
]
LabelValue = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)
]
# A word of a program: a step, a state, a code.
Word = Annotated[str, Field(max_length=128)]
Line = Annotated[str, Field(max_length=1024)]
Text = Annotated[str, Field(max_length=32768)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]


class OwnerReference(Model):
    """Name the object that owns another."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """Hold what Tramontane reads of an object's metadata."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return `namespace/name`, or `name` in cluster scope: how caches and queues call it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Object(Model):
    """Be the base of the five kinds; each adds `spec` and `status`."""

    api_version: str = names.API_VERSION
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @property
    def key(self) -> str:
        """Return `metadata.key`."""
        return self.metadata.key
