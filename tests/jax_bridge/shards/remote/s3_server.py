"""A real S3 server on the loopback (moto's), which counts what it sends and can be made to fail."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Fault = Callable[[Environ], int | None]
"""Looks at a request; a status such as 403 or 503 is answered instead, -1 breaks the connection
in the middle of the body."""

BROKEN = -1
_CODES = {
    400: ("BAD REQUEST", "InvalidRequest"),
    403: ("FORBIDDEN", "AccessDenied"),
    404: ("NOT FOUND", "NoSuchKey"),
    500: ("INTERNAL SERVER ERROR", "InternalError"),
    501: ("NOT IMPLEMENTED", "NotImplemented"),
    503: ("SERVICE UNAVAILABLE", "SlowDown"),
}


class S3Server:
    """Serves buckets in memory until `stop`; `endpoint` is its address."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.reset()
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def reset(self) -> None:
        """Counts from zero again, and fails no more."""
        self.fault: Fault = lambda _: None
        self.bytes_sent = 0
        """Of bodies only."""
        self.bytes_received = 0
        self.requests: list[str] = []
        """`GET /bucket/key?query`, one a request."""

    def stop(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        query = environ["QUERY_STRING"]
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' if query else ''}{query}"
        with self._lock:
            self.requests.append(line)
            self.bytes_received += int(environ.get("CONTENT_LENGTH") or 0)
            status = self.fault(environ)
        if status not in (None, BROKEN):
            return self._refusal(environ, start, status)
        return self._counted(self._moto(environ, start), broken=status == BROKEN)

    def _refusal(self, environ: Environ, start: Callable[..., Any], status: int) -> list[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        phrase, code = _CODES[status]
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
            f"<Message>asked for by a test</Message></Error>"
        ).encode()
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else body
        start(
            f"{status} {phrase}",
            [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))],
        )
        return [body]

    def _counted(self, body: Iterable[bytes], *, broken: bool) -> Iterator[bytes]:
        for piece in body:
            sent = piece[: len(piece) // 2] if broken else piece
            with self._lock:
                self.bytes_sent += len(sent)
            yield sent
            if broken:
                raise ConnectionResetError("broken by a test")
