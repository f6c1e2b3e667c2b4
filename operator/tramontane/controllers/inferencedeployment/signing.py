"""Judge who vouches for a digest, and vouch for one: Ed25519 over the digest's text.

What is signed is the text `sha256:<64 hex digits>` and nothing else, so that OpenSSL can do either:
`printf %s DIGEST > d; openssl pkeyutl -sign -rawin -inkey key.pem -in d | base64 -w0`.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from tramontane.api.errors import InvalidValue

SIGNATURE_B: Final = 64


def is_trusted(digest: str, signature: str, pems: Mapping[str, str]) -> tuple[bool, str]:
    """Return whether one of the keys made the signature, and which, or why none did.

    | keys | signature | trusted |
    |---|---|---|
    | one made it | base64 of 64 bytes | yes, whatever the other entries are |
    | none made it | base64 of 64 bytes | no: names the tried keys, and what is no key |
    | any | anything else | no |
    | none at all | any | no |

    Args:
        digest: what must have been signed.
        signature: base64; white space at its ends and between its lines is left out.
        pems: public keys by the name of their entry.
    """
    try:
        raw = _signature(signature)
    except InvalidValue as error:
        return False, str(error)
    if not pems:
        return False, "trusted keys must be given (got none)"
    tried: list[str] = []
    faults: list[str] = []
    for name in sorted(pems):
        try:
            _public(pems[name]).verify(raw, digest.encode())
        except InvalidValue as error:
            faults.append(f"{name} {error}")
        except InvalidSignature:
            tried.append(name)
        else:
            return True, f"signed with {name}"
    names = ", ".join(tried) or "none"
    why = f"signature of {digest} must be made with a trusted key (tried {names})"
    return False, "; ".join([why, *faults])


def sign(digest: str, pem: bytes) -> str:
    """Return the signature of a digest in base64.

    Raises:
        InvalidValue: the PEM is no private Ed25519 key without a password.
    """
    return base64.b64encode(_private(pem).sign(digest.encode())).decode()


def _signature(text: str) -> bytes:
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidValue(f"signature must be base64 (got {error})") from None
    if len(raw) != SIGNATURE_B:
        raise InvalidValue(f"signature must be {SIGNATURE_B} bytes in base64 (got {len(raw)})")
    return raw


def _public(pem: str) -> Ed25519PublicKey:
    if "PRIVATE KEY" in pem:
        raise InvalidValue(
            "must be a public key (got a private one)",
            remedy="make another pair, and give only openssl pkey -pubout of it",
        )
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValue("must be a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidValue(f"must be an Ed25519 key (got {type(key).__name__})")
    return key


def _private(pem: bytes) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise InvalidValue(
            "key must have no password", remedy="take it off for this: openssl pkey -in key.pem"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValue(
            "key must be a private key in PEM",
            remedy="openssl genpkey -algorithm ed25519 makes one",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidValue(f"key must be an Ed25519 key (got {type(key).__name__})")
    return key
