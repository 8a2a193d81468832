"""Certificates for tests, made by OpenSSL: a root, a server's for loopback, a time stamping authority's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.process import find_program

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Root"]

_DAYS = "30"


@dataclass(frozen=True, slots=True)
class Root:
    """A root certificate that signs others, in a folder of its own."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, name: str = "Test root") -> Root:
        """A new one in ``folder``."""
        root = cls(folder)
        root.openssl(
            *("req", "-x509", "-newkey", "ed25519", "-nodes", "-days", _DAYS, "-subj", f"/CN={name}"),
            *("-keyout", "root.key", "-out", "root.pem"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        )
        return root

    @property
    def certificate(self) -> Path:
        """The root certificate."""
        return self.folder / "root.pem"

    def server(self) -> tuple[Path, Path]:
        """Certificate and key of a server on loopback."""
        return self.issue("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")

    def time_stamper(self) -> tuple[Path, Path]:
        """Certificate and key of a time stamping authority."""
        return self.issue("stamper", "extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")

    def issue(self, name: str, extensions: str) -> tuple[Path, Path]:
        """Certificate and key of ``name``, with the extensions in OpenSSL's words."""
        (self.folder / f"{name}.ext").write_text(extensions)
        self.openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self.openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"),
            *("-days", _DAYS, "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def openssl(self, *words: str) -> None:
        """Run OpenSSL in the folder."""
        done = subprocess.run(
            [str(find_program("openssl")), *words], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
