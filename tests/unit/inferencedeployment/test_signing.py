"""Whose signature a digest has."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tramontane.api.errors import InvalidValue
from tramontane.controllers.inferencedeployment.signing import is_trusted, sign

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def private(key: Private, password: bytes | None = None) -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        how = serialization.BestAvailableEncryption(password)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, how)


def public(key: Private) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


ANNA, BERT = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
CURVE = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SIGNED = sign(DIGEST, private(ANNA))


@pytest.mark.parametrize(
    ("signature", "pems"),
    [
        (SIGNED, {"anna": public(ANNA)}),
        (SIGNED, {"bert": public(BERT), "anna": public(ANNA)}),
        (SIGNED, {"a-readme": "keys of the hall", "anna": public(ANNA)}),
        (f" {SIGNED[:40]}\n{SIGNED[40:]}\n", {"anna": "\n" + public(ANNA)}),
    ],
    ids=["one key", "two keys", "beside nonsense", "broken lines"],
)
def test_a_trusted_signature(signature: str, pems: dict[str, str]) -> None:
    assert is_trusted(DIGEST, signature, pems) == (True, "signed with anna")


@pytest.mark.parametrize(
    ("digest", "signature", "pems", "why"),
    [
        (DIGEST, SIGNED, {"bert": public(BERT)}, "must be made with a trusted key (tried bert)"),
        (OTHER, SIGNED, {"anna": public(ANNA)}, f"signature of {OTHER} must be made with"),
        (DIGEST, SIGNED, {}, "trusted keys must be given (got none)"),
        (DIGEST, "not base64!", {"anna": public(ANNA)}, "signature must be base64"),
        (DIGEST, f"{SIGNED[:9]}!{SIGNED[9:]}", {"anna": public(ANNA)}, "signature must be base64"),
        (DIGEST, "ümlaut", {"anna": public(ANNA)}, "signature must be base64"),
        (DIGEST, "", {"anna": public(ANNA)}, "signature must be 64 bytes in base64 (got 0)"),
        (DIGEST, "q83vEjRWeJA=", {"anna": public(ANNA)}, "must be 64 bytes in base64 (got 8)"),
        (DIGEST, SIGNED, {"x": "hello"}, "(tried none); x must be a public key in PEM"),
        (DIGEST, SIGNED, {"x": public(ANNA)[:60]}, "x must be a public key in PEM"),
        (DIGEST, SIGNED, {"x": public(CURVE)}, "x must be an Ed25519 key (got E"),
        (DIGEST, SIGNED, {"x": public(RSA)}, "x must be an Ed25519 key (got R"),
        (
            DIGEST,
            SIGNED,
            {"x": private(ANNA).decode()},
            "x must be a public key (got a private one)",
        ),
    ],
    ids=[
        "other signer",
        "other digest",
        "no keys",
        "no base64",
        "with a mark",
        "no ascii",
        "empty",
        "short",
        "no pem",
        "cut pem",
        "curve",
        "rsa",
        "private",
    ],
)
def test_what_is_not_trusted(digest: str, signature: str, pems: dict[str, str], why: str) -> None:
    is_good, said = is_trusted(digest, signature, pems)
    assert not is_good
    assert why in said


@pytest.mark.parametrize("at", range(64))
def test_any_flipped_byte_of_the_signature_is_found(at: int) -> None:
    raw = bytearray(base64.b64decode(SIGNED))
    raw[at] ^= 1
    forged = base64.b64encode(raw).decode()
    assert not is_trusted(DIGEST, forged, {"anna": public(ANNA)})[0]


@pytest.mark.parametrize(
    ("pem", "must"),
    [
        (b"nonsense", "key must be a private key in PEM"),
        (public(ANNA).encode(), "key must be a private key in PEM"),
        (private(CURVE), "key must be an Ed25519 key (got E"),
        (private(ANNA, b"secret"), "key must have no password"),
    ],
    ids=["nonsense", "public", "curve", "password"],
)
def test_a_key_that_cannot_sign(pem: bytes, must: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        sign(DIGEST, pem)
    assert str(caught.value).startswith(must)


def openssl() -> str:
    """Return an OpenSSL that signs raw messages with Ed25519, or skip."""
    found = shutil.which("openssl")
    version = subprocess.run([found or "false", "version"], capture_output=True, check=False).stdout
    if found is None or not version.startswith(b"OpenSSL 3"):
        pytest.skip("no OpenSSL 3 here")
    return found


def test_openssl_signs_the_same(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(private(ANNA))
    (tmp_path / "digest").write_text(DIGEST)
    arguments = ["pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", "digest"]
    done = subprocess.run([openssl(), *arguments], cwd=tmp_path, capture_output=True, check=True)
    assert base64.b64encode(done.stdout).decode() == SIGNED
