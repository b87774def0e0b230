"""An HTTP server of a folder, as well- or as badly-mannered as a test asks."""

import dataclasses
import http.server
import random
import re
import threading
from pathlib import Path


@dataclasses.dataclass(kw_only=True)
class Manners:
    """How the server answers; may be changed while it runs."""

    ranges: bool = True
    """Whether `Range` is obeyed; otherwise the whole file comes with status 200."""
    drop_rate: float = 0.0
    """Share of bodies whose connection breaks in their middle."""
    length_lie: int = 0
    """Added to Content-Length, while the body stays as it is."""
    status: int | None = None
    """Answered to every request instead of content."""
    failures: int = 0
    """So many requests get `failure_status` first, then all is well."""
    failure_status: int = 503


class FileServer:
    """Serves `root` until `stop`, and counts; `url` is its address."""

    def __init__(self, root: Path, manners: Manners, *, seed: int = 0) -> None:
        self.root, self.manners = root, manners
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.reset()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def reset(self) -> None:
        """Counts from zero again."""
        self.bytes_sent = 0
        """Of bodies only."""
        self.drops = 0
        """Bodies that broke off."""
        self.requests: list[str] = []
        """`GET /path bytes=0-9`, one a request."""

    def stop(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def note(self, line: str) -> None:
        """Counts a request."""
        with self._lock:
            self.requests.append(line)

    def refusal(self) -> int | None:
        """The status of a request that is to fail."""
        with self._lock:
            if self.manners.status is not None:
                return self.manners.status
            if self.manners.failures > 0:
                self.manners.failures -= 1
                return self.manners.failure_status
        return None

    def cut(self, body: bytes) -> bytes:
        """The part of a body that is sent."""
        with self._lock:
            drop = len(body) > 1 and self._random.random() < self.manners.drop_rate
            self.drops += drop
            sent = body[: len(body) // 2] if drop else body
            self.bytes_sent += len(sent)
        return sent

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(_Handler):
            files = server

        return Handler


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.files.note(f"{self.command} {self.path} {wanted}".rstrip())
        refusal = self.files.refusal()
        path = self.files.root / self.path.split("?")[0].lstrip("/")
        if refusal is None and not path.is_file():
            refusal = 404
        if refusal is not None:
            self.send_response(refusal)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted) if self.files.manners.ranges else None
        if match and int(match[1]) >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(path, content, match, body=body)

    def _send(self, path: Path, content: bytes, match: re.Match[str] | None, *, body: bool) -> None:
        start, total = int(match[1]) if match else 0, len(content)
        stop = min(int(match[2]) + 1, total) if match and match[2] else total
        piece = content[start:stop]
        self.send_response(206 if match else 200)
        stat = path.stat()
        self.send_header("ETag", f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"')
        self.send_header("Last-Modified", self.date_time_string(int(stat.st_mtime)))
        self.send_header("Accept-Ranges", "bytes" if self.files.manners.ranges else "none")
        if match:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        lie = self.files.manners.length_lie
        self.send_header("Content-Length", str(max(0, len(piece) + lie)))
        self.end_headers()
        if not body:
            return
        sent = self.files.cut(piece)
        self.wfile.write(sent)
        if lie or len(sent) < len(piece):
            self.close_connection = True
