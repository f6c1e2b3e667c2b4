"""What a support file must never have in it, and what it must keep to be of use."""

import json
from typing import Any

import pytest

from tramontane.cli.supportstrip import REMOVED, Stripper

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJlLW9mLWFubmE"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"GET / Authorization: Bearer {JWT}", "GET / Authorization: Bearer <removed>"),
        ("hf_abcdefghijklmnopqrstuv is used", "<removed> is used"),
        ("key AKIAIOSFODNN7EXAMPLE given", "key <removed> given"),
        ("s3://anna:hunter2@store/x", "s3://anna:<removed>@store/x"),
        ("--hf-token=abc123 --steps=4", "--hf-token=<removed> --steps=4"),
        ("DB_PASS=p4ss authToken: x1", "DB_PASS=<removed> authToken: <removed>"),
        ('{"password": "p4ss", "steps": 4}', '{"password": "<removed>", "steps": 4}'),
        ("export WANDB_API_KEY=0123abcd; run", "export WANDB_API_KEY=<removed>; run"),
        ("https://s/x?X-Amz-Signature=ab12&e=3", "https://s/x?X-Amz-Signature=<removed>&e=3"),
        (f"before {KEY} after", "before <removed> after"),
        ("nvapi-abcdefghijklmnopqrst is used", "<removed> is used"),
        ("github_pat_abcdefghijklmnopqrst is used", "<removed> is used"),
        ("train --api-key p4ss --steps 4", "train --api-key <removed> --steps 4"),
        ("sh -c 'login --token p4ss'", "sh -c 'login --token <removed>'"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, kept: str) -> None:
    strip = Stripper()
    assert strip.text(text) == kept
    assert strip.removed.total() >= 1
    assert strip.text(kept) == kept, "stripping twice changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "step 4 loss 2.1 tokens/s 3000",
        "quarantine gpu-0017: xid-79",
        "--max-tokens 512 --tokenizer auto --token-file --steps 4",
        "--max-tokens=512 --tokenizer=auto author: anna passRate: 0.92",
        "registry.hall/train:1",
        "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "http://10.88.0.1:8000/metrics",
        "uid 0f9a1bd2-7f3e-4f3f-9d6e-7d8f3f1c2b4a",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    strip = Stripper()
    assert strip.text(text) == text
    assert not strip.removed


def job(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "llama",
            "managedFields": [{"manager": "kubectl"}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": '{"env": "s3cr3t-0"}',
                "team": "red",
            },
        },
        "spec": {
            "nodes": 4,
            "template": {
                "spec": {
                    "automountServiceAccountToken": False,
                    "imagePullSecrets": [{"name": "pull"}],
                    "containers": [{"name": "trainer", **container}],
                }
            },
        },
    }


def test_no_planted_secret_is_left_and_the_rest_is() -> None:
    planted = [f"s3cr3t-{number}" for number in range(8)]
    raw = job(
        image="registry.hall/train:1",
        env=[
            {"name": "STEPS", "value": planted[1]},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "token"}}},
        ],
        command=["train", "--api-key", planted[2], f"--token={planted[3]}", "--steps", "4"],
        args=["sh", "-c", f"PASSWORD={planted[4]} run"],
    )
    raw["spec"]["webhookPassword"] = planted[5]
    raw["spec"]["headers"] = {"Authorization": f"Basic {planted[6]}"}
    raw["status"] = {"message": f"url http://u:{planted[7]}@host/"}
    strip = Stripper()
    left = strip.object(raw)
    text = json.dumps(left)
    assert [one for one in planted if one in text] == []
    assert strip.removed["environment"] == 1
    container = left["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.hall/train:1"
    assert container["env"][0] == {"name": "STEPS", "value": REMOVED}
    assert container["env"][1]["valueFrom"]["secretKeyRef"] == {"name": "store", "key": "token"}
    assert container["command"] == [
        "train", "--api-key", REMOVED, f"--token={REMOVED}", "--steps", "4",
    ]  # fmt: skip
    assert left["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert left["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert left["metadata"] == {"name": "llama", "annotations": {"team": "red"}}
