"""Fetching from an object store: signatures, listings, ranges, retries, going on after a crash."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tramontane.controllers.inferencedeployment.podfiles import weightfetch, weightstore
from tramontane.controllers.inferencedeployment.podfiles.weightfetch import Fetch, fingerprint
from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
    FetchFailed,
    Mismatch,
    Missing,
)
from tramontane.controllers.inferencedeployment.podfiles.weightstore import Item, Signer, Store
from unit.inferencedeployment.bucket import SIGNED_ENV, TOKEN, Bucket, problem_of, serving

PREFIX = "claims/v7/"
FILES = {
    "config.json": b'{"a": 1}',
    "empty": b"",
    "model.safetensors": bytes(i * 7 % 251 for i in range(10_000)),
    "sub/with blank+plus&ümlaut%41~.bin": b"x" * 1000,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weightstore, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(weightstore, "LAST_PAUSE_S", 0.002)
    monkeypatch.setattr(weightfetch, "PART_B", 4096)
    monkeypatch.setattr(weightfetch, "READ_B", 1000)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with serving({PREFIX + name: data for name, data in FILES.items()}) as found:
        yield found


def listed(bucket: Bucket, prefix: str = PREFIX, name: str = "models", **env: str) -> list[Item]:
    with Store(bucket.url, name, SIGNED_ENV | env) as store:
        return weightstore.listing(store, prefix)


def fetched(bucket: Bucket, folder: Path) -> dict[str, bytes]:
    target = folder / "files"
    target.mkdir(exist_ok=True)
    with Store(bucket.url, "models", SIGNED_ENV) as store:
        items = weightstore.listing(store, PREFIX)
        Fetch(store, items, str(target)).run(str(folder / "journal"))
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


# signatures


def test_the_published_example_is_signed_as_published() -> None:
    """Amazon S3 API Reference, "Example: GET Bucket (List Objects)"."""
    key, secret = SIGNED_ENV["AWS_ACCESS_KEY_ID"], SIGNED_ENV["AWS_SECRET_ACCESS_KEY"]
    headers = Signer("us-east-1", key, secret).headers(
        "examplebucket.s3.amazonaws.com", "/", "max-keys=2&prefix=J", 1369353600.0
    )
    assert headers["authorization"].endswith(
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/models", "list-type=2&prefix=a%2Fb%20c"),
        ("/models", "a=2&a-b=1&A=0"),
        ("/models/a%20b/c%2Bd/%C3%BC~-_.", ""),
        ("/base/models//double/../dots", "x="),
    ],
    ids=["list", "order", "quoted", "dots"],
)
@pytest.mark.parametrize("token", ["", TOKEN], ids=["", "token"])
def test_botocore_signs_the_same(path: str, query: str, token: str) -> None:
    key, secret = SIGNED_ENV["AWS_ACCESS_KEY_ID"], SIGNED_ENV["AWS_SECRET_ACCESS_KEY"]
    signer = Signer(SIGNED_ENV["AWS_REGION"], key, secret, token)
    headers = signer.headers("store:9000", path, query, 1764412345.6)
    url = f"http://store:9000{path}" + (f"?{query}" if query else "")
    assert not problem_of("GET", url, headers)
    assert problem_of("GET", url + "x", headers)


def test_a_session_token_is_sent(bucket: Bucket) -> None:
    assert listed(bucket, AWS_SESSION_TOKEN=TOKEN)


def test_without_a_key_nothing_is_signed(bucket: Bucket) -> None:
    bucket.is_open = True
    assert listed(bucket, AWS_ACCESS_KEY_ID="")
    bucket.is_open = False
    with pytest.raises(FetchFailed, match=r"must be readable \(got 403 Signature.*keys and the cl"):
        listed(bucket, AWS_ACCESS_KEY_ID="")
    assert bucket.problems == [bucket.problems[0]]
    assert bucket.problems[0].endswith("no signature")


# listings


@pytest.mark.parametrize("page", [1, 2, 3, 1000], ids=str)
@pytest.mark.parametrize("prefix", [PREFIX, PREFIX.rstrip("/")], ids=["slash", "no slash"])
def test_all_pages_are_listed(bucket: Bucket, page: int, prefix: str) -> None:
    bucket.page = page
    bucket.objects["claims/v70/config.json"] = b"not ours"
    bucket.objects[PREFIX] = b""
    bucket.objects[PREFIX + "sub/"] = b""
    bucket.objects[PREFIX + ".git/config"] = b"hidden"
    items = listed(bucket, prefix)
    assert {item.path: item.size for item in items} == {
        name: len(data) for name, data in FILES.items()
    }
    assert not bucket.problems


def test_a_store_that_does_not_quote_keys(bucket: Bucket) -> None:
    bucket.is_quoting = False
    assert {item.path for item in listed(bucket)} == set(FILES)


def test_a_whole_bucket_can_be_listed(bucket: Bucket) -> None:
    items = listed(bucket, "")
    assert {item.path for item in items} == {PREFIX + name for name in FILES}


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "a//b", "./a", "/etc/passwd", ".."], ids=lambda key: key
)
def test_a_key_that_leads_out_is_refused(bucket: Bucket, key: str) -> None:
    bucket.objects[PREFIX + key] = b"x"
    with pytest.raises(Mismatch, match="must be a plain path below the prefix"):
        listed(bucket)


@pytest.mark.parametrize(
    ("name", "prefix", "message"),
    [
        ("models", "nothing/here", r"/models/nothing/here/: must have objects \(got none\)"),
        ("other", PREFIX, r"/other: must exist \(got 404 NoSuchBucket\)"),
    ],
    ids=["prefix", "bucket"],
)
def test_a_source_that_is_not_there(bucket: Bucket, name: str, prefix: str, message: str) -> None:
    with pytest.raises(Missing, match=message):
        listed(bucket, prefix, name)


@pytest.mark.parametrize("endpoint", ["", "store", "ftp://store", "http://"], ids=str)
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    with pytest.raises(FetchFailed, match="endpoint and bucket must be given"):
        Store(endpoint, "models", {})


def test_nobody_answers() -> None:
    store = Store("http://127.0.0.1:9", "models", {})
    with pytest.raises(FetchFailed, match=r"must answer \(got .*refused\), 8 times"):
        weightstore.listing(store, PREFIX)


@pytest.mark.parametrize(
    "data",
    [b"<html>hello</html>", b"", b'<!DOCTYPE x [<!ENTITY y "z">]><ListBucketResult/>', b"<List"],
    ids=["page", "nothing", "dtd", "cut"],
)
def test_an_answer_that_is_no_listing(data: bytes) -> None:
    with pytest.raises(weightstore.Again, match="must be a ListBucketResult"):
        weightstore._page(data, PREFIX)


# fetching


def test_files_arrive_whole(bucket: Bucket, tmp_path: Path) -> None:
    assert fetched(bucket, tmp_path) == FILES
    assert not bucket.problems
    assert bucket.fetched_b == sum(map(len, FILES.values()))
    quoted = "/models/claims/v7/sub/with%20blank%2Bplus%26%C3%BCmlaut%2541~.bin"
    assert quoted in bucket.paths


@pytest.mark.parametrize(
    "faults",
    [
        ["500"],
        ["503", "429", "503"],
        ["cut"] * 7,
        ["drop", "drop"],
        ["cut", "500", "drop"] * 3,
        ["cut"] * 30,
    ],
    ids=["500", "slow down", "cut", "drop", "mixed", "with progress"],
)
def test_faults_are_outwaited(bucket: Bucket, tmp_path: Path, faults: list[str]) -> None:
    bucket.faults = list(faults)
    assert fetched(bucket, tmp_path) == FILES


def test_after_a_cut_only_the_rest_is_asked_for(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weightfetch, "THREADS", 1)
    bucket.objects = {PREFIX + "x": bytes(4096)}
    bucket.faults = ["cut"]
    fetched(bucket, tmp_path)
    assert [span for _, span in bucket.ranges] == ["bytes=0-4095", "bytes=2048-4095"]


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        (["500"] * 200, FetchFailed, r"must answer \(got 500 SlowDown\), 8 times"),
        (["403"], FetchFailed, r"must be readable \(got 403"),
        (["gone"], Missing, r"must exist \(got 404 NoSuchKey\)"),
        (["other"], FetchFailed, "must not change while it is fetched"),
    ],
    ids=["broken", "forbidden", "disappears", "replaced"],
)
def test_faults_that_end_it(
    bucket: Bucket, tmp_path: Path, faults: list[str], error: type[Exception], message: str
) -> None:
    bucket.faults = faults
    with pytest.raises(error, match=message):
        fetched(bucket, tmp_path)


def test_a_store_without_ranges(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weightfetch, "THREADS", 1)
    bucket.objects = {PREFIX + "x": b"1" * 100}
    bucket.faults = ["whole"]
    assert fetched(bucket, tmp_path) == {"x": b"1" * 100}
    bucket.objects = {PREFIX + "x": b"1" * 9000}
    bucket.faults = ["whole"] * 3
    with pytest.raises(FetchFailed, match=r"must give bytes 0-4095/9000 \(got bytes 0-8999/9000\)"):
        fetched(bucket, tmp_path)


def test_a_later_run_fetches_only_what_lacks(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weightfetch, "THREADS", 1)
    bucket.faults = ["", "", "", "403"]
    with pytest.raises(FetchFailed):
        fetched(bucket, tmp_path)
    had = len(bucket.ranges) - 1
    with (tmp_path / "journal").open("a") as journal:
        journal.write('["model.safetens')
    bucket.ranges.clear()
    assert fetched(bucket, tmp_path) == FILES
    assert len(bucket.ranges) == 5 - had


def test_another_listing_is_fetched_anew(bucket: Bucket, tmp_path: Path) -> None:
    fetched(bucket, tmp_path)
    bucket.ranges.clear()
    assert fetched(bucket, tmp_path) == FILES
    assert not bucket.ranges
    other = FILES | {"model.safetensors": b"other" * 2000}
    del other["config.json"]
    bucket.objects = {PREFIX + name: data for name, data in other.items()}
    assert fetched(bucket, tmp_path) == other
    assert bucket.fetched_b == sum(map(len, other.values()))


def test_a_path_that_is_file_and_folder(bucket: Bucket, tmp_path: Path) -> None:
    bucket.objects |= {PREFIX + "a": b"1", PREFIX + "a/b": b"2"}
    with pytest.raises(FetchFailed, match="must take the weights"):
        fetched(bucket, tmp_path)


def test_a_listing_has_one_fingerprint() -> None:
    one, two = Item("a", "p/a", 1, '"x"'), Item("b", "p/b", 2, '"y"')
    assert fingerprint([one, two]) == fingerprint([two, one])
    others = ([one], [one, two._replace(size=3)], [one, two._replace(etag='"z"')])
    assert fingerprint([one, two]) not in {fingerprint(other) for other in others}
