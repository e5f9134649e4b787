"""The certificates of one executor: a pair of keys for its driver and one for its agents, made anew for each executor.

Nobody signs them: each side trusts exactly the one certificate of the other side, so there are no names, no authorities
and no dates to check.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from typing import NamedTuple

from ..serialize.shared_memory import anonymous_file

__all__ = ["Identity", "agent_context", "driver_context", "make_identity"]


class Identity(NamedTuple):
    """One side of the channel.

    Attributes:
        certificate: what the other side knows of it (PEM).
        key: the secret part (PEM).
    """

    certificate: str
    key: str


def make_identity(name: str) -> Identity:
    """Return a new key on the curve P-256, with a certificate signed by itself.

    The dates say "always", as clocks of nodes differ: RFC 5280, 4.1.2.5.
    """
    import datetime as dt  # here and below, because only drivers with nodes need them

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"callyard {name}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2000, 1, 1, tzinfo=dt.timezone.utc))
        .not_valid_after(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.timezone.utc))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), secret.decode())


def driver_context(own: Identity, agents: str) -> ssl.SSLContext:
    """Return the driver's settings of TLS: agents must prove to have the key of this certificate."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, own, agents)
    context.num_tickets = 0  # no session is taken up again
    return context


def agent_context(own: Identity, driver: str) -> ssl.SSLContext:
    """Return an agent's settings of TLS: the driver must prove to have the key of this certificate."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, own, driver)


def _context(protocol: ssl._SSLMethod, own: Identity, other: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate is the name
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=other)
    _load(context, own)
    return context


def _load(context: ssl.SSLContext, own: Identity) -> None:
    """Load key and certificate, which `ssl` reads from files alone: from memory where it can be a file."""
    text = (own.key + own.certificate).encode()
    if os.path.isdir("/proc/self/fd"):
        descriptor = anonymous_file(len(text))
        with open(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return
    with tempfile.NamedTemporaryFile() as file:  # readable for this user alone
        file.write(text)
        file.flush()
        context.load_cert_chain(file.name)
