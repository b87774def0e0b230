"""The client's half: one connection to a policy server, made again where it breaks."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect

from jax_bridge.serving.wire import decode, encode

MESSAGE_TOO_BIG = 1009
"""Close code of a server that takes no message of this size."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two tries to connect; doubled each time."""


class ServerConnection:
    """Asks a policy server, and waits for it where it is away.

    Keepalive pings are left out: openpi's server answers none while its policy works.

    Args:
        address: `ws://host:port` or `wss://host`.
        patience: seconds to wait for a server that is not there.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str, *, patience: float, timeout: float) -> None:
        if not address.startswith(("ws://", "wss://")):
            raise ValueError(
                f"`remote` must be an address like ws://localhost:8000, but got {address!r}."
            )
        for name, value in (("patience", patience), ("timeout", timeout)):
            if value < 0:
                raise ValueError(f"`{name}` must not be negative, but got {value}.")
        self._address, self._patience, self._timeout = address, patience, timeout
        self._open = contextlib.ExitStack()
        self._connection: ClientConnection | None = None
        self._metadata: dict[str, Any] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says of itself.

        Raises:
            ConnectionError: if there is no server.
        """
        if self._metadata is None:
            self._patiently(None)
        assert self._metadata is not None
        return self._metadata

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer; the question is asked again where the connection breaks.

        Raises:
            ConnectionError: if the server stays away.
            ValueError: if it refuses the message, or is another server than before.
        """
        return decode(self._patiently(encode(message)))

    def close(self) -> None:
        """Says goodbye; a later question connects anew."""
        self._connection = None
        self._open.close()

    def _patiently(self, content: bytes | None) -> bytes:
        """The answer to some bytes; without bytes it only connects."""
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                connection = self._connected()
                return b"" if content is None else self._exchange(connection, content)
            except InvalidURI as error:
                raise ValueError(f"`remote` must be an address, but {error}.") from error
            except (ConnectionClosed, InvalidHandshake, OSError) as error:
                self._broken(error, deadline)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _broken(self, error: Exception, deadline: float) -> None:
        """Drops the connection; raises where trying again would not help."""
        with contextlib.suppress(Exception):
            self.close()
        closed = error.rcvd if isinstance(error, ConnectionClosed) else None
        if closed is not None and closed.code == MESSAGE_TOO_BIG:
            raise ValueError(
                f"The policy server at {self._address} takes no message of this size "
                f"({closed.reason or 'too big'}). Start it with a larger --message-bytes."
            ) from error
        if time.monotonic() >= deadline:
            raise ConnectionError(
                f"`remote` must be a policy server that runs, but {self._address} does not answer "
                f"({str(error) or type(error).__name__}). Start it: vla-lens serve --port PORT."
            ) from error

    def _connected(self) -> ClientConnection:
        if self._connection is None:
            connection = self._open.enter_context(
                connect(
                    self._address, compression=None, max_size=None, ping_interval=None,
                    open_timeout=max(self._patience, 1.0),
                )
            )  # fmt: skip
            told = decode(self._received(connection))
            if self._metadata is not None and told.get("model") != self._metadata.get("model"):
                raise ValueError(
                    f"The policy server at {self._address} must stay the same during a run, but "
                    "its model is another one now. Start it as it was, or collect elsewhere."
                )
            self._connection, self._metadata = connection, told
        return self._connection

    def _exchange(self, connection: ClientConnection, content: bytes) -> bytes:
        connection.send(content)
        return self._received(connection)

    def _received(self, connection: ClientConnection) -> bytes:
        content = connection.recv(timeout=self._timeout or None)
        if isinstance(content, str):  # openpi's servers send errors as text
            with contextlib.suppress(Exception):
                self.close()
            lines = [line.strip() for line in content.splitlines() if line.strip()]
            raise ValueError(
                f"The policy server at {self._address} refused: {lines[-1] if lines else 'no'}"
            )
        return content
