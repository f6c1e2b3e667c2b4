"""What this process has written, laid over caches that do not show it yet."""

from dataclasses import replace

from tramontane.controllers.trainingjob.assumed import Assumed
from tramontane.controllers.trainingjob.observe import epoch_of
from unit.trainingjob.builders import NOW, a_gang, a_job, a_pod, going


def test_a_created_pod_is_there_before_the_cache_shows_it_and_once_after() -> None:
    assumed, pod = Assumed(), a_pod(0, "b0")
    assumed.created(pod, NOW)

    assert assumed.pods([], NOW) == (pod,)
    assumed.seen(None, pod)
    assert assumed.pods([pod], NOW) == (pod,)
    assumed.seen(pod, None)
    assert assumed.pods([], NOW) == ()


def test_a_pod_that_the_cache_never_showed_is_forgotten_after_a_while() -> None:
    assumed = Assumed()
    assumed.created(a_pod(0, "b0"), NOW)

    assert assumed.pods([], NOW + 31) == ()


def test_a_deleted_pod_is_going_and_its_successor_is_not() -> None:
    assumed, pod = Assumed(), a_pod(0, "b0")
    assumed.deleted(pod.uid, NOW)

    assert assumed.pods([pod], NOW) == (going(pod),)
    successor = a_pod(0, "b4", 2)
    assert assumed.pods([successor], NOW) == (successor,)


def test_a_raised_epoch_counts_before_the_cache_shows_it() -> None:
    assumed, pod = Assumed(), a_pod(0, "b0", 1)
    assumed.raised(pod.uid, 2, NOW)

    [shown] = assumed.pods([pod], NOW)
    assert epoch_of(shown) == 2
    later = replace(pod, annotations={"tramontane.dev/epoch": "3"})
    assert assumed.pods([later], NOW) == (later,)


def test_a_pod_that_went_without_us_has_vanished_until_the_next_is_made() -> None:
    assumed, pod = Assumed(), a_pod(3, "b3", 2)

    assumed.seen(pod, None)
    assert assumed.vanished == {3: 2}
    assumed.created(a_pod(3, "b3", 3), NOW)
    assert assumed.vanished == {}


def test_a_pod_that_we_deleted_has_not_vanished() -> None:
    assumed, pod = Assumed(), a_pod(3, "b3", 2)
    assumed.deleted(pod.uid, NOW)

    assumed.seen(going(pod), None)

    assert assumed.vanished == {}


def test_the_newer_gang_counts() -> None:
    assumed, old = Assumed(), a_gang(a_job())
    metadata = old.metadata.model_copy(update={"generation": 2})
    new = old.model_copy(update={"metadata": metadata})
    assumed.applied(new)

    assert assumed.gang(old) is new
    assert assumed.gang(None) is new
    assert assumed.gang(new.model_copy()) is not None
    assert assumed.gang(old) is old, "once the cache knew ours it has its word again"


def test_a_gang_that_was_deleted_is_not_held_on_to() -> None:
    assumed = Assumed()
    assumed.applied(a_gang(a_job()))
    assumed.gang_gone()

    assert assumed.gang(None) is None


def test_a_refusal_is_believed_for_a_while() -> None:
    assumed = Assumed(refusal=("quota", NOW + 10))

    assert assumed.refused(NOW) == "quota"
    assert assumed.refused(NOW + 10) is None
