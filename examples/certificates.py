"""Certificates for a day, to try TLS with where nobody has any: an authority, a server, and clients by their number."""

import datetime as dt
import ipaddress
import ssl
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOT_USED = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")


def make_certificates(folder: Path, clients: int, host: str = "127.0.0.1") -> None:
    """Makes ``authority.pem``, its certificate, and ``server.pem`` and ``client-0.pem`` ..., each with its key.

    Args:
        folder: Where they are put. What is in it lets anybody in: hand each client its own file and the authority's.
        clients: How many there are.
        host: Address of the server.
    """
    signing = ec.generate_private_key(ec.SECP256R1())
    for name in ("authority", "server", *(f"client-{number}" for number in range(clients))):
        key = signing if name == "authority" else ec.generate_private_key(ec.SECP256R1())
        file = folder / f"{name}.pem"
        file.touch(0o600)
        file.write_bytes(_certificate(name, key.public_key(), signing, host))
        if key is not signing:
            no_password = serialization.NoEncryption()
            pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            file.write_bytes(key.private_bytes(pem, form, no_password) + file.read_bytes())


def tls_context(folder: Path, name: str) -> ssl.SSLContext:
    """Both sides show a certificate, and ask for one that the authority signed."""
    purpose = ssl.Purpose.CLIENT_AUTH if name == "server" else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose, cafile=folder / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.pem")
    return context


def _certificate(name: str, public: ec.EllipticCurvePublicKey, signing: ec.EllipticCurvePrivateKey, host: str) -> bytes:
    signs = name == "authority"
    now = dt.datetime.now(dt.UTC)
    usage = dict.fromkeys((*NOT_USED, "encipher_only", "decipher_only"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("authority"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if name == "server":
        address = x509.IPAddress(ipaddress.ip_address(host))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


if __name__ == "__main__":
    make_certificates(Path(sys.argv[1]), clients=int(sys.argv[2]))
