from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.kube.store import Store


@dataclass(frozen=True)
class Thing:
    node: str
    gangs: tuple[str, ...] = ()


def by_node(thing: Thing) -> Iterable[str]:
    return (thing.node,)


def by_gang(thing: Thing) -> Iterable[str]:
    return thing.gangs


things = st.builds(Thing, st.sampled_from("xyz"), st.sets(st.sampled_from("gh")).map(tuple))
changes = st.lists(st.tuples(st.sampled_from("abcde"), st.none() | things), max_size=20)
worlds = st.dictionaries(st.sampled_from("abcde"), things)


@settings(deadline=None)  # a busy machine is no failure
@given(changes, worlds, changes)
def test_indexes_and_listeners_always_agree_with_the_cache(
    before: list[tuple[str, Thing | None]],
    relisted: dict[str, Thing],
    after: list[tuple[str, Thing | None]],
) -> None:
    store: Store[Thing] = Store("things")
    heard: dict[str, Thing] = {}

    def listen(key: str, old: Thing | None, new: Thing | None) -> None:
        assert heard.get(key) == old
        assert old != new
        if new is None:
            del heard[key]
        else:
            heard[key] = new

    store.add_listener(listen)
    store.add_index("node", by_node)
    store.add_index("gang", by_gang)
    for key, thing in [*before, ("", None), *after]:
        if key == "":
            store.replace(relisted)
            assert store.cache == relisted
        elif thing is None:
            store.drop(key)
        else:
            store.put(key, thing)
        assert store.cache == heard
        for node in "xyz":
            expected = [thing for thing in heard.values() if thing.node == node]
            assert sorted(map(id, store.by_index("node", node))) == sorted(map(id, expected))
        for gang in "gh":
            assert len(store.by_index("gang", gang)) == sum(
                gang in thing.gangs for thing in heard.values()
            )


def test_who_comes_late_hears_of_what_is_there() -> None:
    store: Store[Thing] = Store("things")
    store.put("a", Thing("x"))
    store.add_index("node", by_node)
    heard: list[str] = []
    store.add_listener(lambda key, _old, _new: heard.append(key))
    assert heard == ["a"]
    assert store.by_index("node", "x") == [Thing("x")]


def test_an_index_that_fails_on_an_object_leaves_it_out(caplog: pytest.LogCaptureFixture) -> None:
    store: Store[Thing] = Store("things")
    store.add_index("first", lambda thing: [thing.gangs[0]])
    store.put("a", Thing("x"))
    store.put("b", Thing("x", ("g",)))
    store.put("a", Thing("y"))
    store.drop("a")
    assert store.by_index("first", "g") == [Thing("x", ("g",))]
    assert "index failed resource=things index=first key=a" in caplog.text


def test_the_cache_cannot_be_written() -> None:
    store: Store[Thing] = Store("things")
    with pytest.raises(TypeError):
        store.cache["a"] = Thing("x")  # type: ignore[index]  # that is the point
