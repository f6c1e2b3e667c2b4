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
        (f"GET / Authorization: Bearer {JWT}", "GET / Authorization: <removed>"),
        ("sent Bearer 0123456789 to it", "sent Bearer <removed> to it"),
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
        ("wandb login 0123456789abcdef0123456789abcdef01234567", "wandb login <removed>"),
        ("curl -u bob:s3cr3t http://s/", "curl -u <removed> http://s/"),
        ("curl --user='bob:a b' http://s/", "curl --user='<removed>' http://s/"),
        ("MYSQL_PWD=p4ss DBPASS=p4ss run", "MYSQL_PWD=<removed> DBPASS=<removed> run"),
        ("train --key=p4ss --steps=4", "train --key=<removed> --steps=4"),
        ("KEY=p4ss train", "KEY=<removed> train"),
        ("HUB_TOKEN_2=p4ss run", "HUB_TOKEN_2=<removed> run"),
        ("store_key: p,4;", "store_key: <removed>;"),
        ("--encryption-key p4ss", "--encryption-key <removed>"),
        ('["--api-key", "p4ss"]', '["--api-key", "<removed>"]'),
        ("Namespace(api_key=['p4', 'ss'], n=4)", "Namespace(api_key=<removed>, n=4)"),
        ('password="a b c" n=4', 'password="<removed>" n=4'),
        (r'password="a \" b" n=4', 'password="<removed>" n=4'),
        (r"{\"password\": \"a b\", \"n\": 4}", r"{\"password\": \"<removed>\", \"n\": 4}"),
        ("--password 'a b c' --n 4", "--password '<removed>' --n 4"),
        ("password='a b\nnext line", "password='<removed>\nnext line"),
        ('-H "Cookie: a=b; c=d" -v', '-H "Cookie: <removed>" -v'),
        ("Authorization: Token p4ss\nnext line", "Authorization: <removed>\nnext line"),
        ("authorization:\np4ss and the rest", "authorization:\n<removed> and the rest"),
        ("https://p4ss@store/x", "https://<removed>@store/x"),
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
        "registry.hall/train:0123456789abcdef0123456789abcdef01234567",
        "reconcile failed queue=gangs key=ml/llama again_s=1.00",
        '{"key": "nvidia.com/gpu", "operator": "Exists"}',
        "python -u train.py --user anna",
        'secrets "pull" is forbidden: User "anna" cannot get resource "secrets"',
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
                "kopf.zalando.org/last-handled-configuration": '{"env": "s3cr3t-0"}',
                "kapp.k14s.io/original": '{"env": "s3cr3t-0"}',
                "objectset.rio.cattle.io/applied": "s3cr3t-0",
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
    planted = [f"s3cr3t-{number}" for number in range(18)]
    reference = {"secretKeyRef": {"name": "store", "key": "token"}}
    probe = {"path": "/", "httpHeaders": [{"name": "X-Api-Key", "value": planted[0]}]}
    raw = job(
        image="registry.hall/train:1",
        env=[{"name": "STEPS", "value": planted[1]}, {"name": "KEY", "valueFrom": reference}],
        command=[
            "train", "--api-key", planted[2], planted[3], f"--token={planted[4]}", "--steps", "4",
            "--encryption-key", planted[5], f"--key={planted[6]}", f"-p{planted[7]}",
            f"wandb login {planted[8]}", "curl", "-u", f"bob:{planted[9]}",
        ],
        args=["-c", f"MYSQL_PWD={planted[10]} DBPASS={planted[11]} run"],
        readinessProbe={"httpGet": probe},
        livenessProbe={"exec": {"command": ["sh", "-c", planted[12]]}},
    )  # fmt: skip
    pod = raw["spec"]["template"]["spec"]
    driver = {"driver": "store.csi", "volumeAttributes": {"pwd": planted[13], "url": planted[14]}}
    old = {"driver": "store/flex", "options": {"pw": planted[13]}}
    pod["volumes"] = [{"name": "data", "csi": driver}, {"name": "old", "flexVolume": old}]
    spread = {"topologyKey": "rack", "maxSkew": 1}
    pod["topologySpreadConstraints"] = [spread]
    pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}]
    raw["spec"]["webhookPassword"] = planted[15]
    raw["spec"]["headers"] = {"Authorization": f"Basic {planted[16]}"}
    raw["status"] = {"message": f"url http://u:{planted[17]}@host/"}
    strip = Stripper()
    left = strip.object(raw)
    text = json.dumps(left)
    assert [one for one in planted if one in text] == []
    assert strip.removed["value of a name"] == 2
    kept = left["spec"]["template"]["spec"]
    container = kept["containers"][0]
    assert container["image"] == "registry.hall/train:1"
    assert container["env"] == [
        {"name": "STEPS", "value": REMOVED}, {"name": "KEY", "valueFrom": reference},
    ]  # fmt: skip
    assert container["readinessProbe"]["httpGet"]["httpHeaders"] == [
        {"name": "X-Api-Key", "value": REMOVED}
    ]
    assert container["command"] == [
        "train", "--api-key", REMOVED, REMOVED, f"--token={REMOVED}", "--steps", REMOVED,
        "--encryption-key", REMOVED, f"--key={REMOVED}", f"-p{REMOVED}",
        REMOVED, REMOVED, "-u", REMOVED,
    ]  # fmt: skip
    assert container["args"] == ["-c", REMOVED]
    assert container["livenessProbe"]["exec"]["command"] == ["sh", "-c", REMOVED]
    assert kept["volumes"][0]["csi"] == {
        "driver": "store.csi", "volumeAttributes": {"pwd": REMOVED, "url": REMOVED},
    }  # fmt: skip
    assert kept["volumes"][1]["flexVolume"] == old | {"options": {"pw": REMOVED}}
    assert kept["topologySpreadConstraints"] == [spread]
    assert kept["tolerations"] == pod["tolerations"]
    assert kept["automountServiceAccountToken"] is False
    assert kept["imagePullSecrets"] == [{"name": "pull"}]
    assert left["metadata"] == {"name": "llama", "annotations": {"team": "red"}}


def test_what_a_program_would_be_is_taken_out_where_it_is_more_than_a_name() -> None:
    line = {"command": ["API=p4ss train"], "args": ["train"], "extraArgs": ["--lora-modules", "x"]}
    assert Stripper().object(line) == {
        "command": [REMOVED], "args": [REMOVED], "extraArgs": ["--lora-modules", REMOVED],
    }  # fmt: skip
