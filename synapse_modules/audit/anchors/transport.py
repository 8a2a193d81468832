"""HTTP for anchors: short, bounded, without redirects, and with errors that name the anchor."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from synapse_modules.audit.anchors.model import AnchorFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MAX_ANSWER_BYTES", "Answer", "Transport"]

MAX_ANSWER_BYTES = 256 * 1024
"""No answer of an anchor may be longer: a time stamp with its certificates is a twentieth of that."""
_SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    content_type: str
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it said yes."""
        return self.status in _SUCCESS

    def text(self, limit: int = 200) -> str:
        """The beginning of its body, on one line, for an error."""
        return " ".join(self.body[:limit].decode("utf-8", "replace").split())


class Transport:
    """Requests to one server, over connections that are kept.

    Args:
        where: names the anchor in errors. timeout_s: for each step, and for the whole answer once its head is there.
        ca_file: certificates to trust instead of the usual ones. proxy: its URL; what the environment says is not used.
    """

    def __init__(self, where: str, *, timeout_s: float, ca_file: Path | None = None, proxy: str | None = None) -> None:
        self._where = where
        self._timeout_s = timeout_s
        context: ssl.SSLContext | bool = True if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
        self._client = httpx.Client(
            timeout=timeout_s, verify=context, proxy=proxy, trust_env=False, follow_redirects=False
        )

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Read ``url``. Raises as :meth:`post` does."""
        return self._request("GET", url, None, headers or {})

    def post(self, url: str, content: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send ``content``.

        Raises:
            AnchorFailed: no whole answer came in time, or one that is too long. A refusal is an answer.
        """
        return self._request("POST", url, content, {"Content-Type": content_type, **(headers or {})})

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _request(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            headers = {"Accept-Encoding": "identity", **headers}
            with self._client.stream(method, url, content=content, headers=headers) as response:
                body = self._body(response)
                return Answer(response.status_code, response.headers.get("Content-Type", ""), body)
        except httpx.TimeoutException:
            raise AnchorFailed(f"no answer within {self._timeout_s:g} s", where=self._where) from None
        except httpx.HTTPError as error:
            raise AnchorFailed(f"cannot be reached: {str(error) or type(error).__name__}", where=self._where) from None

    def _body(self, response: httpx.Response) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise AnchorFailed(f"the answer is longer than {MAX_ANSWER_BYTES} bytes", where=self._where)
            if time.monotonic() > deadline:
                raise AnchorFailed(f"no whole answer within {self._timeout_s:g} s", where=self._where)
        return bytes(body)
