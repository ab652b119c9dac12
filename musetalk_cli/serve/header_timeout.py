"""Connections that nothing is done for: they end where the client does not come to its request in time.

The time that uvicorn gives a connection begins when a request was answered, and ends with any byte. A client
that sends one a minute, of its first request, of the next, or of a body that nobody reads, would stay.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 10.0
"""How long the head of a request may take, from the connection or from its first byte."""
HEADER_BYTES = 32 << 10
"""The longest head, so that many of them that are not complete take bounded memory."""


class HeaderTimeoutProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; whoever keeps it waiting for the head of a request is sent away."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base has it
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take some of a request; from its first byte on, its head may take so long."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_longer()
        elif self.transport.get_protocol() is self:
            self._wait()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the connection to a WebSocket."""
        super().handle_websocket_upgrade(event)
        self._wait_no_longer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEADER_S, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
