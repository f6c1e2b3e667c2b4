"""Take what may be secret out of objects and logs before they leave the cluster: pure.

Whoever sends a support file sends it to strangers. So values are taken out by where they stand
(environment, arguments, headers, a volume driver's attributes, annotations with whole manifests)
and by what they look like (keys, tokens, passwords in URLs, what follows a word like `--token`);
names stay, since they say what was configured. In doubt a value goes. What has been taken out is
counted, so that its reader knows that something stood there.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REMOVED: Final = "<removed>"

# A word must end as one: passRate, tokens, author and tokenizer name nothing secret. A key alone
# does not, either: `key=` in our logs and `key` of a taint name an object or a label.
_NAMES: Final = (
    r"pass(?:word|wd|phrase)|(?:pass|pwd|token|auth(?:orization)?)(?![a-z])|secret|credentials?"
    r"|cookie|signature|(?<=[\w-])key(?![a-z])|(?-i:(?<![a-z])KEY(?![a-z]))"
)
# What else is in such a word; without a bound, a long one would be read once for each name in it.
_REST: Final = r"[\w-]{0,80}"
# How tokens begin that name their issuer, a registry of models or of GPUs' software among them.
_ISSUERS: Final = r"hf|gh[oprsu]|github_pat|glpat|nvapi|xox[abp]|sk|pk"
_BY_NAME: Final = "value after a secret's name"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# A value: to its closing quote, which may be escaped; or a list; or a word.
_VALUE: Final = (
    rf"(?:(?P<quote>\\*[\"'])(?!{REMOVED})(?:(?!(?P=quote))(?:\\.|.))+"
    rf"|(?!\\*[\"']?{REMOVED})(?:[\[(][^\])\n]*[\])]?|[^\s\"';&}}]+))"
)
# What stands between an option and its value, in a shell's line or in a list of JSON.
_THEN: Final = r"(?:=|\\*[\"']\s*,\s*|\s+)"
# Whole manifests that tools keep beside an object, values and all.
_ANNOTATIONS_OUT: Final = frozenset(
    {
        "kapp.k14s.io/original",
        "kopf.zalando.org/last-handled-configuration",
        "kubectl.kubernetes.io/last-applied-configuration",
        "objectset.rio.cattle.io/applied",
    }
)
_ARGUMENTS: Final = frozenset({"command", "args", "extraArgs"})
# A word of an option is its name; what is written onto one letter is a value: -pX, -DX.
_OPTION = re.compile(r"(?s)(--[A-Za-z][\w.-]*|-[A-Za-z])(=?)(.*)")
_PROGRAM = re.compile(r"[\w./-]+")
# What drivers of volumes are told: of csi, of flexVolume.
_ATTRIBUTES: Final = frozenset({"volumeAttributes", "options"})
# What may be secret, as it looks, and what is left of it.
_LOOKS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    (
        "private key",
        re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*KEY-----|\Z)"),
        REMOVED,
    ),
    ("token", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"), REMOVED),
    ("token", re.compile(rf"\b(?:{_ISSUERS})[_-][\w-]{{16,}}"), REMOVED),
    # An image's tag or digest is none.
    ("token", re.compile(r"(?<![\w:/@.-])[0-9a-f]{40}(?!\w)"), REMOVED),
    ("access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), REMOVED),
    ("password in a URL", re.compile(r"\b(\w+://(?:[^\s/:@]*:)?)[^\s/@]+(@)"), rf"\1{REMOVED}\2"),
    # A header's value goes on to the end of the line, or of its quotes.
    (
        _BY_NAME,
        re.compile(
            r"(?i)((?:authorization|cookie)\\*[\"']?\s*[=:]++[ \t]*+(?:\\*[\"'])?+)"
            rf"(?!{REMOVED})[^\"'\\\n]+"
        ),
        rf"\1{REMOVED}",
    ),
    ("token", re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.+/=~-]{8,}"), rf"\1{REMOVED}"),
    (
        _BY_NAME,
        re.compile(rf"(?i)((?:{_NAMES}){_REST}\\*[\"']?\s*[=:]++>?+\s*){_VALUE}"),
        rf"\1\g<quote>{REMOVED}",
    ),
    (
        _BY_NAME,
        re.compile(
            rf"(?i)((?<![\w-])(?:--?{_REST}(?:{_NAMES}){_REST}"
            rf"|(?:-u|--(?:proxy-)?user)(?={_THEN}\\*[\"']?[^\s:\"']+:)){_THEN})"
            rf"(?!\\*[\"']?-){_VALUE}"
        ),
        rf"\1\g<quote>{REMOVED}",
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
        """Return an API object, or a part of one, without what may be secret.

        | What                                       | What is left                  |
        |--------------------------------------------|-------------------------------|
        | `name` with `value`: environment, headers  | the name                      |
        | command, arguments                         | the program, names of options |
        | attributes of a volume's driver            | their names                   |
        | a text whose name is a secret's            | the name                      |
        | managed fields, annotations with manifests | nothing                       |
        | any other text                             | what looks like no secret     |
        """
        if isinstance(value, Mapping):
            kept = {key: self._entry(key, below) for key, below in self._kept(value).items()}
            if "name" in kept and "value" in kept:
                kept["value"] = self._taken("value of a name")
            return kept
        if isinstance(value, list):
            return [self.object(one) for one in value]
        return self.text(value) if isinstance(value, str) else value

    def _kept(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: below
            for key, below in value.items()
            if key != "managedFields" and key not in _ANNOTATIONS_OUT
        }

    def _entry(self, key: str, value: Any) -> Any:
        if isinstance(value, list) and key in _ARGUMENTS:
            return [self._argument(one, key, at) for at, one in enumerate(value)]
        if isinstance(value, Mapping) and key in _ATTRIBUTES:
            return {name: self._taken("attribute of a volume") for name in value}
        # A reference to a Secret is a name, and names stay.
        is_name = key.endswith(("Name", "Ref", "name")) or key == "topologyKey"
        if isinstance(value, str) and _SECRET_NAME.search(key) and not is_name:
            return self._taken(_BY_NAME)
        return self.object(value)

    def _argument(self, value: Any, key: str, at: int) -> str:
        """Return an option without its value, or the program that is run."""
        text = str(value)
        if key == "command" and not at and _PROGRAM.fullmatch(text):
            return text
        if (option := _OPTION.fullmatch(text)) is None:
            return self._taken("argument")
        name, sign, given = option.groups()
        return f"{name}{sign}{self._taken('argument') if given else ''}"

    def _taken(self, kind: str) -> str:
        self.removed[kind] += 1
        return REMOVED
