"""`tramontane weights digest`, `manifest`, `sign` and `verify`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tramontane.cli.main import main
from tramontane.controllers.inferencedeployment.podfiles import weightfiles
from unit.inferencedeployment.modeldirs import adapter_files, model, put

OTHER = "sha256:" + "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return model(tmp_path / "claims-v7")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a private key; its public one lies beside it as `key.pub`."""
    made = ed25519.Ed25519PrivateKey.generate()
    encoding = serialization.Encoding.PEM
    path = tmp_path / "key.pem"
    path.write_bytes(
        made.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.with_suffix(".pub").write_bytes(made.public_key().public_bytes(encoding, form))
    return path


def says(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["weights", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout.rstrip("\n")


def refuses(*arguments: object, status: int | None = None) -> str:
    done = CliRunner().invoke(main, ["weights", *map(str, arguments)])
    assert done.exit_code == status if status is not None else done.exit_code, done.output
    assert "Traceback" not in done.output
    assert not done.stdout
    return " ".join(done.stderr.split())


def test_the_digest_is_what_a_pod_computes(root: Path) -> None:
    listed = weightfiles.verified(str(root), None)
    assert says("digest", root) == weightfiles.digest_of(weightfiles.manifest_of(listed))


def test_a_manifest_is_saved_and_changes_no_digest(root: Path) -> None:
    digest = says("digest", root)
    shown = says("manifest", root, "--dry-run")
    assert not (root / "tramontane-manifest.txt").exists()
    assert says("manifest", root) == digest
    assert (root / "tramontane-manifest.txt").read_text().rstrip("\n") == shown
    assert says("digest", root) == digest


def test_with_a_manifest_the_changed_file_is_named(root: Path) -> None:
    digest = says("manifest", root)
    put(root, {"tokenizer.json": b'{"model": 17}'})
    assert "other content: tokenizer.json" in refuses("digest", root)
    assert "other content: tokenizer.json" in refuses("verify", root, "--digest", digest)
    assert says("manifest", root, "--yes") != digest


@pytest.mark.parametrize(
    ("old", "differs"),
    [
        pytest.param(None, "other content: tokenizer.json", id="of other files"),
        pytest.param("no manifest\n", 'line 1 must be "<sha256> <size> <path>"', id="no manifest"),
    ],
)
def test_another_manifest_is_not_replaced_unasked(
    root: Path, old: str | None, differs: str
) -> None:
    saved = root / "tramontane-manifest.txt"
    says("manifest", root)
    says("manifest", root)  # the same again takes no question
    if old is not None:
        saved.write_text(old)
    put(root, {"tokenizer.json": b'{"model": 17}'})
    before = saved.read_text()
    said = refuses("manifest", root, "-o", "json", status=2)
    assert f"Will write: {saved}, in place of the one that is there" in said
    assert f"It differs: {differs}" in said.replace("tramontane-manifest.txt: ", "")
    assert "give --yes to make it" in said
    assert says("manifest", root, "--dry-run") != before.rstrip("\n")
    assert saved.read_text() == before
    digest = says("manifest", root, "--yes")
    assert says("digest", root) == digest


def test_programs_get_objects(root: Path, key: Path) -> None:
    digest = says("digest", root)
    assert json.loads(says("digest", root, "-o", "json")) == {"digest": digest}
    planned = yaml.safe_load(says("manifest", root, "--dry-run", "-o", "yaml"))
    saved = json.loads(says("manifest", root, "-o", "json"))
    assert (planned["written"], saved["written"]) == (False, True)
    assert planned["files"] == saved["files"]
    manifest = (root / "tramontane-manifest.txt").read_text().splitlines()
    lines = [f"{one['sha256']}  {one['size']}  {one['path']}" for one in saved["files"]]
    assert (lines, saved["digest"]) == (manifest, digest)
    signature = says("sign", "--key", key, root)
    signed = json.loads(says("sign", "--key", key, root, "-o", "json"))
    assert signed == {"digest": digest, "signature": signature}
    public = ("--signature", signature, "--key", key.with_suffix(".pub"))
    verified = json.loads(says("verify", root, *public, "-o", "json"))
    assert verified["digest"] == digest
    assert "key.pub" in verified["trust"]
    assert json.loads(says("verify", root, "-o", "json")) == {"digest": digest, "trust": None}


def test_who_signed_is_verified(root: Path, key: Path, tmp_path: Path) -> None:
    signature = says("sign", "--key", key, root)
    assert says("sign", "--key", key, says("digest", root)) == signature
    public = key.with_suffix(".pub")
    digest = says("digest", root)
    arguments = ("verify", root, "--digest", digest, "--signature", signature, "--key")
    assert says(*arguments, public) == digest
    (tmp_path / "nonsense.pub").write_bytes(b"\xff")
    assert "nonsense.pub must be a public key in PEM" in refuses(
        *arguments, tmp_path / "nonsense.pub"
    )
    put(root, {"tokenizer.json": b"{}"})
    assert "must be made with a trusted key (tried key.pub)" in refuses(
        "verify", root, "--signature", signature, "--key", public, status=3
    )


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nowhere", "must be a directory or a digest; digest must be sha256: and 64 hex digits"),
        ("sha256:12", "must be a directory or a digest"),
    ],
)
def test_what_cannot_be_signed(key: Path, what: str, message: str) -> None:
    assert message in refuses("sign", "--key", key, what)


def test_a_key_that_cannot_sign(root: Path, key: Path) -> None:
    said = refuses("sign", "--key", key.with_suffix(".pub"), root)
    assert "key must be a private key in PEM" in said
    assert "openssl genpkey -algorithm ed25519" in said


def test_what_a_pod_would_refuse_is_refused(root: Path, tmp_path: Path) -> None:
    said = refuses("verify", root, "--digest", OTHER, status=3)
    assert f"digest must be {OTHER} (got sha256:" in said
    assert "64 hex digits" in refuses("verify", root, "--digest", "sha256:12", status=2)
    assert "must have a .gguf file" in refuses("verify", root, "--engine", "llamacpp")
    assert "--signature and --key must be given together" in refuses(
        "verify", root, "--signature", "x"
    )
    (root / "model-00002-of-00002.safetensors").unlink()
    assert "got none of model-00002-of-00002.safetensors" in refuses("verify", root)
    (tmp_path / "empty").mkdir()
    said = refuses("digest", tmp_path / "empty", status=1)
    assert "must have files (got an empty directory)" in said


def test_adapters_are_verified_too(tmp_path: Path) -> None:
    root = put(tmp_path / "de", adapter_files())
    assert says("verify", root, "--adapter") == says("digest", root)
    assert "must have config.json" in refuses("verify", root)


@pytest.mark.parametrize("command", [(), ("verify",)], ids=["weights", "verify"])
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    script = (
        "import sys; from tramontane.cli.main import main\n"
        f"try: main({['weights', *command, '--help']!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'cryptography', 'pydantic', 'tramontane.controllers'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"--help" in done.stdout
