"""Take what may be secret out of objects and logs before they leave the cluster: pure.

Whoever sends a support file sends it to strangers. So values are taken out by where they stand
(environment, arguments after a word like `--token`, annotations with whole manifests) and by what
they look like (keys, tokens, passwords in URLs); names stay, since they say what was configured.
What has been taken out is counted, so that its reader knows that something stood there.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REMOVED: Final = "<removed>"

# A word must be one: passRate, tokens, author and tokenizer name nothing secret.
_NAMES: Final = (
    r"pass(?:word|wd|phrase)|(?<![a-z])pass(?![a-z])|secret|token(?![a-z])|credentials?"
    r"|auth(?:orization)?(?![a-z])|cookie|signature|(?:api|access|private|session)[-_]?key"
)
# How tokens begin that name their issuer, a registry of models or of GPUs' software among them.
_ISSUERS: Final = r"hf|gh[oprsu]|github_pat|glpat|nvapi|xox[abp]|sk|pk"
_BY_NAME: Final = "value after a secret's name"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# Whole manifests that tools keep beside an object, values and all.
_ANNOTATIONS_OUT: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
# What may be secret, as it looks, and what is left of it.
_LOOKS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    (
        "private key",
        re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*KEY-----|\Z)"),
        REMOVED,
    ),
    ("token", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"), REMOVED),
    ("token", re.compile(rf"\b(?:{_ISSUERS})[_-][\w-]{{16,}}"), REMOVED),
    ("token", re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.+/=~-]{8,}"), rf"\1{REMOVED}"),
    ("access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), REMOVED),
    ("password in a URL", re.compile(r"(\w+://[^\s/:@]*:)[^\s/@]+(@)"), rf"\1{REMOVED}\2"),
    (
        _BY_NAME,
        re.compile(
            rf"(?i)([\w-]*(?:{_NAMES})[\w-]*[\"']?\s*[=:]\s*[\"']?)"
            rf"(?!{REMOVED}|bearer\s|basic\s)[^\s\"',;&}}]+"
        ),
        rf"\1{REMOVED}",
    ),
    # In one string, as a shell gets it: `train --api-key X`.
    (
        _BY_NAME,
        re.compile(rf"(?i)((?<!\S)--?[\w-]*(?:{_NAMES})[\w-]*\s+)(?!{REMOVED}|-)[^\s\"';]+"),
        rf"\1{REMOVED}",
    ),
)


@dataclass(slots=True)
class Stripper:
    """Take secrets out; `removed` counts what was taken, by kind."""

    removed: Counter[str] = field(default_factory=Counter)

    def text(self, text: str) -> str:
        """Return a text without what looks like a secret. O(length)."""
        for kind, pattern, instead in _LOOKS:
            text, count = pattern.subn(instead, text)
            if count:
                self.removed[kind] += count
        return text

    def object(self, value: Any) -> Any:
        """Return an API object, or a part of one, without what may be secret."""
        if isinstance(value, Mapping):
            return {key: self._entry(key, below) for key, below in self._kept(value).items()}
        if isinstance(value, list):
            return self._list(value)
        return self.text(value) if isinstance(value, str) else value

    def _kept(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: below
            for key, below in value.items()
            if key != "managedFields" and key not in _ANNOTATIONS_OUT
        }

    def _entry(self, key: str, value: Any) -> Any:
        if key == "env" and isinstance(value, list):
            return [self._variable(one) for one in value]
        if isinstance(value, str) and _SECRET_NAME.search(key):
            # A reference to a Secret is a name, and names stay.
            if key.endswith(("Name", "Ref", "name")):
                return value
            self.removed[_BY_NAME] += 1
            return REMOVED
        return self.object(value)

    def _variable(self, variable: Any) -> Any:
        """Return an environment variable without its value; where it comes from stays."""
        if isinstance(variable, dict) and "value" in variable:
            self.removed["environment"] += 1
            return {**variable, "value": REMOVED}
        return self.object(variable)

    def _list(self, values: list[Any]) -> list[Any]:
        """Return a list; of `--token X` the X is taken out as well."""
        kept: list[Any] = []
        for value in values:
            before = kept[-1] if kept else None
            is_value = isinstance(before, str) and before.startswith("-") and "=" not in before
            if is_value and isinstance(value, str) and _SECRET_NAME.search(str(before)):
                self.removed[_BY_NAME] += 1
                kept.append(REMOVED)
            else:
                kept.append(self.object(value))
        return kept
