"""A required node affinity means what it means to Kubernetes."""

import pytest

from tramontane.api.errors import InvalidValue
from tramontane.scheduler.affinity import decode_terms, satisfies
from tramontane.scheduler.gangs import Ask
from unit.scheduler.builders import WHOLE, Hall, gang


def term(key: str, operator: str, *values: str) -> dict[str, object]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("terms", "labels", "expected"),
    [
        ([], {}, True),
        ([term("disk", "In", "a", "b")], {"disk": "b"}, True),
        ([term("disk", "In", "a", "b")], {"disk": "c"}, False),
        ([term("disk", "In", "a")], {}, False),
        ([term("disk", "NotIn", "a")], {"disk": "a"}, False),
        ([term("disk", "NotIn", "a")], {}, True),
        ([term("disk", "Exists")], {"disk": ""}, True),
        ([term("disk", "Exists")], {}, False),
        ([term("disk", "DoesNotExist")], {}, True),
        ([term("disk", "DoesNotExist")], {"disk": "a"}, False),
        ([term("size", "Gt", "9")], {"size": "10"}, True),
        ([term("size", "Gt", "10")], {"size": "10"}, False),
        ([term("size", "Lt", "10")], {"size": "9"}, True),
        ([term("size", "Lt", "10")], {"size": "small"}, False),
        ([term("size", "Lt", "10")], {}, False),
        ([term("disk", "In", "a"), term("size", "Exists")], {"size": "1"}, True),
        (
            [
                {
                    "matchExpressions": [
                        {"key": key, "operator": "Exists"} for key in ("disk", "size")
                    ]
                }
            ],
            {"size": "1"},
            False,
        ),
    ],
)  # fmt: skip
def test_terms(terms: list[dict[str, object]], labels: dict[str, str], expected: bool) -> None:
    assert satisfies(labels, decode_terms(terms)) is expected


@pytest.mark.parametrize(
    "bad", [term("disk", "Like", "a"), term("size", "Gt"), {"matchFields": [{"key": "x"}]}, {}]
)
def test_what_cannot_be_read_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match="node affinity"):
        decode_terms([bad])


def test_gangs_go_where_their_affinity_says() -> None:
    hall = Hall([])
    for number in range(4):
        hall.add(0, labels={"disk": "nvme" if number % 2 else "sata"})
    ask = Ask(WHOLE, affinity=decode_terms([term("disk", "NotIn", "sata")]))
    done = hall.decide(gang("two", 2, ask=ask), gang("more", 1, ask=ask, created_s=10**9))
    placement = done.outcomes["ns/two"].placement
    assert placement is not None
    assert placement.seats == ("r0-1", "r0-3")
    assert done.outcomes["ns/more"].reason == "WaitingForCapacity"
