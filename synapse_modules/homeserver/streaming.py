"""Sending an answer of any length, as fast as the client takes it and no faster."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from synapse.module_api import make_deferred_yieldable
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from synapse.module_api import SynapseRequest

    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.homeserver.routes import Content, Stream

__all__ = ["send_content", "send_stream"]

logger = logging.getLogger(__name__)


async def send_stream(homeserver: Homeserver, request: SynapseRequest, stream: Stream, status: int) -> None:
    """Send ``stream``; at most one chunk waits for a client that does not read.

    The iterator is closed in every case. If it fails, the connection is cut: a chunked answer without its last chunk is
    an error to every client.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", stream.content_type.encode())
    request.setHeader(b"Content-Disposition", f'attachment; filename="{stream.filename}"'.encode())
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    request.setHeader(b"Cache-Control", b"no-store")
    sink = _Sink(request)
    try:
        async for chunk in stream.chunks:
            if not await sink.write(chunk):
                logger.info("the client went away before the end of %s", stream.filename)
                return
            await homeserver.sleep_ms(0)  # an iterator that never waits must not keep the reactor to itself
        sink.finish()
    except Exception:
        logger.exception("%s was cut off: its source failed", stream.filename)
        sink.cut()
    finally:
        await _close(stream.chunks)


def send_content(request: SynapseRequest, content: Content, status: int) -> None:
    """Send ``content``, to whoever is still there."""
    channel: Any = request.channel
    if channel is None:
        return
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", content.content_type.encode())
    request.setHeader(b"Content-Length", b"%d" % len(content.data))
    request.setHeader(b"Cache-Control", content.cache_control.encode())
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    if content.gzip:
        request.setHeader(b"Content-Encoding", b"gzip")
    request.setHeader(b"Vary", b"Accept-Encoding, Authorization")
    request.write(content.data)
    request.finish()


async def _close(chunks: Any) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


@implementer(IPushProducer)
class _Sink:
    """The client, as something that can be written to and says when it is full."""

    def __init__(self, request: SynapseRequest) -> None:
        self._request = request
        self._gone = False
        self._full: Deferred[None] | None = None
        request.registerProducer(self, True)

    async def write(self, chunk: bytes) -> bool:
        """Send ``chunk`` and wait until there is room for the next; False when nobody is there."""
        if not self._gone:
            self._request.write(chunk)
        if self._full is not None and not self._gone:
            await make_deferred_yieldable(self._full)
        return not self._gone

    def finish(self) -> None:
        """End the answer well."""
        if not self._gone:
            self._request.unregisterProducer()
            self._request.finish()

    def cut(self) -> None:
        """End the answer so that the client sees that it is not whole."""
        channel = None if self._gone else self._request.channel
        if channel is not None:
            with contextlib.suppress(Exception):  # it may have gone this very moment
                channel.forceAbortClient()

    def pauseProducing(self) -> None:  # noqa: N802  Twisted's name
        """The client's buffer is full."""
        if self._full is None:
            self._full = Deferred()

    def resumeProducing(self) -> None:  # noqa: N802  Twisted's name
        """There is room again."""
        waiting, self._full = self._full, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:  # noqa: N802  Twisted's name
        """The client went away."""
        self._gone = True
        self.resumeProducing()
