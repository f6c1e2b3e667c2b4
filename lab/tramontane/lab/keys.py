"""Keys of one lab: a certificate authority, a serving certificate, tokens, kubeconfigs.

All are made anew for each lab, live in its folder (mode 0700) and are worth nothing elsewhere.
"""

import base64
import datetime as dt
import ipaddress
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_LIFE = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the API server knows by a static token."""

    name: str
    groups: tuple[str, ...]
    token: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The files of one lab."""

    ca: Path
    cert: Path
    key: Path
    account_key: Path
    tokens: Path
    users: Mapping[str, User]


def _pem(key: _PrivateKey) -> bytes:
    """Return a private key as unencrypted PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    """Start a certificate with what both of ours have in common."""
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )


def make_keys(folder: Path, users: Mapping[str, Sequence[str]], address: str = "127.0.0.1") -> Keys:
    """Make all keys of a lab in `folder`; `users` maps names to groups.

    The serving certificate is good for loopback and for `address`.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = (
        _builder("tramontane-lab", "tramontane-lab", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = dict.fromkeys(("127.0.0.1", "10.96.0.1", address))
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.DNSName("kubernetes.default.svc"),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses),
    ]
    cert = (
        _builder("localhost", "tramontane-lab", key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .add_extension(_usage(signs_certificates=False), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    known = {
        name: User(name, tuple(groups), secrets.token_urlsafe(24)) for name, groups in users.items()
    }
    table = "".join(f'{u.token},{u.name},{u.name},"{",".join(u.groups)}"\n' for u in known.values())
    pem = serialization.Encoding.PEM
    return Keys(
        ca=_write(folder / "ca.crt", ca.public_bytes(pem)),
        cert=_write(folder / "server.crt", cert.public_bytes(pem)),
        key=_write(folder / "server.key", _pem(key)),
        account_key=_write(folder / "service-accounts.key", _pem(account_key)),
        tokens=_write(folder / "tokens.csv", table.encode()),
        users=known,
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Say what a key is for; Python 3.13 refuses an authority that does not."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def write_kubeconfig(path: Path, server: str, ca: Path, user: User) -> Path:
    """Write a kubeconfig (JSON is YAML) with which `user` reaches `server`."""
    data = base64.b64encode(ca.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "lab", "cluster": {"server": server, "certificate-authority-data": data}}
        ],
        "users": [{"name": user.name, "user": {"token": user.token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user.name}}],
        "current-context": "lab",
    }
    return _write(path, json.dumps(config, indent=1).encode())
