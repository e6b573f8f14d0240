"""TLS: certificate and key from files, verified before use, and read anew when they change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from recsys.errors import InvalidInput
from recsys.serve.auth.files import Watched, read_private


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. With `client_ca` only callers with a certificate of that authority are let in (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Raises InvalidInput, naming the file, where one cannot be used, or the key is open to others."""
        key, certificate = read_private(self.key, "tls_key_path"), _read(self.certificate, "tls_certificate_path")
        client_ca = _read(self.client_ca, "tls_client_ca_path") if self.client_ca else None
        self._check(client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

    def _check(self, client_ca: bytes | None) -> None:
        """gRPC takes whatever it is given, and then fails each handshake without a word."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A key with a passphrase is refused: OpenSSL would otherwise ask for it at the terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            reason = f"does not go with {self.certificate}, or is no PEM key: {_reason(error)}"
            raise InvalidInput.of("tls_key_path", str(self.key), reason) from None
        if client_ca is None:
            return
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            reason = f"is no PEM certificate: {_reason(error)}"
            raise InvalidInput.of("tls_client_ca_path", str(self.client_ca), reason) from None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: a handshake after a change, and a second, sees the new ones."""
    paths = tuple(filter(None, (files.certificate, files.key, files.client_ca)))
    watched = Watched(paths, files.configuration)
    given = watched.value

    def newer() -> Any:
        """Asked at each handshake; None is gRPC's word for no change, and its stubs do not know it."""
        nonlocal given
        found = watched.value
        if found is given:
            return None
        given = found
        return found

    return grpc.dynamic_ssl_server_credentials(given, newer, require_client_authentication=files.client_ca is not None)


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput.of(field, str(path), f"cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
