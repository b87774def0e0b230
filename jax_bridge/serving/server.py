"""The policy server: openpi's websocket protocol, many clients, one policy.

Every client is first told the metadata; then each binary message is answered by one. An error is
a text frame to the client that caused it, after which its connection is closed; the others go on.
The policy runs in one thread and shards are written in another, so that the loop always answers.

Source: openpi, `src/openpi/serving/websocket_policy_server.py`.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import http
import logging
import time
from collections.abc import Callable
from typing import Any

import websockets.asyncio.server as ws
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.serving.client_episodes import ClientEpisodes, EpisodeCount, default_noise_key
from jax_bridge.serving.client_words import EpisodeEnd
from jax_bridge.serving.served_episodes import ServedEpisodes
from jax_bridge.serving.served_policy import Question, ServedPolicy, encode_answer
from jax_bridge.serving.wire import encode

HEALTH = "/healthz"
INTERNAL_ERROR = 1011
"""Close code that openpi's server ends a failed conversation with."""
_log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.CRITICAL)  # whoever knocks with something else than a websocket


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where the server listens, and its limits."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free one."""
    message_bytes: int = 32 * 2**20
    """Largest message, in bytes; three images of 1920 by 1080 pixels are 19 MB."""
    idle_seconds: float = 30.0
    """Silence of a client that ends its episode, in seconds."""
    keep_images: bool = True
    """Whether camera images are written beside the latents."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"`port` must lie in 0 to 65535, but got {self.port}.")
        for name in ("message_bytes", "idle_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")


@dataclasses.dataclass(kw_only=True)
class Client:
    """What the server knows of one connection."""

    number: int
    count: EpisodeCount
    episodes: ClientEpisodes | None
    failure: Exception | None = None
    """Why its last call could not be written."""
    last_total: float | None = None
    """Seconds from the last question to the end of its answer."""


class PolicyServer:
    """Serves a policy until it is told to stop.

    Args:
        served: the policy.
        options: where and how.
        store: where calls are written; None writes nothing.
    """

    def __init__(
        self, served: ServedPolicy, options: ServerOptions, store: ServedEpisodes | None = None
    ) -> None:
        self._served = served
        self._options = options
        self._store = store
        self._metadata = encode(served.metadata())
        self._connections = 0
        self._policy_thread = concurrent.futures.ThreadPoolExecutor(1, "policy")
        self._writing_thread = concurrent.futures.ThreadPoolExecutor(1, "shards")

    async def run(self, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
        """Listens until `stop` is set; then lets every client finish its call, and commits.

        Args:
            stop: ends the server.
            ready: told the port as soon as clients can come.

        Raises:
            OSError: if the port is taken, or the disk refuses the last commit.
        """
        try:
            async with contextlib.AsyncExitStack() as stack:
                server = await self._listen(stack)
                ready(next(iter(server.sockets)).getsockname()[1])
                await stop.wait()
        finally:
            if self._store is not None:
                await self._write(self._store.close)
            self._policy_thread.shutdown()
            self._writing_thread.shutdown()

    async def _listen(self, stack: contextlib.AsyncExitStack) -> ws.Server:
        options = self._options
        server = ws.serve(
            self._converse, options.host, options.port, compression=None,
            max_size=options.message_bytes, max_queue=2, process_request=answer_health,
            origins=[None],  # no web page may drive a robot
            logger=_quiet,
        )  # fmt: skip
        try:
            return await stack.enter_async_context(server)
        except OSError as error:
            raise OSError(
                f"`port` must be free at `host`, but got {options.host}:{options.port} "
                f"({error.strerror or error}). Choose another."
            ) from error

    async def _converse(self, connection: ws.ServerConnection) -> None:
        client = await self._welcome()
        _log.info("client %d came from %s", client.number, connection.remote_address)
        try:
            await connection.send(self._metadata)
            while True:
                content = await self._next_message(connection, client)
                await self._answer(connection, client, content)
        except ConnectionClosed as closed:
            _log.info("client %d left (%s)", client.number, closed)
        except Exception as error:
            _log.warning("client %d: %s", client.number, error, exc_info=not _is_users(error))
            await _explain(connection, error)
        finally:
            await self._leave(client)

    async def _welcome(self) -> Client:
        if self._store is None:
            number, episodes = self._connections, None
        else:
            number = await self._write(self._store.connection)
            policy = self._served.policy
            episodes = ClientEpisodes(self._store, policy, keep_images=self._options.keep_images)
        self._connections += 1
        return Client(number=number, count=EpisodeCount(number), episodes=episodes)

    async def _next_message(self, connection: ws.ServerConnection, client: Client) -> bytes | str:
        try:
            async with asyncio.timeout(self._options.idle_seconds):
                return await connection.recv()
        except TimeoutError:
            if not client.count.is_in_named:  # a client that names episodes ends them itself
                client.count.end()
                await self._leave(client)
        return await connection.recv()

    async def _answer(
        self, connection: ws.ServerConnection, client: Client, content: bytes | str
    ) -> None:
        if client.failure is not None:
            raise client.failure
        start = time.perf_counter()
        question = await asyncio.to_thread(self._served.read, content)
        if question.words.end_episode is not None:
            await self._end(client, question.words.end_episode)
            await connection.send(encode({"episode_ended": True}))
            return
        await self._begin(client, question)
        output, seconds = await self._in_policy_thread(client, question)
        timing = {"infer_ms": 1e3 * seconds}
        if client.last_total is not None:
            timing["prev_total_ms"] = 1e3 * client.last_total
        wanted = question.words.collect_latents
        await connection.send(
            await asyncio.to_thread(encode_answer, output, timing, with_latents=wanted)
        )
        client.last_total = time.perf_counter() - start
        await self._keep(client, question, output)

    async def _keep(self, client: Client, question: Question, output: PolicyOutput) -> None:
        """Writes a call after its answer; what goes wrong is told at the client's next message."""
        if client.episodes is None:
            return
        try:
            await self._write(
                client.episodes.append, client.count, question.words, question.observation, output
            )
        except (ValueError, OSError) as error:
            _log.warning("client %d: %s", client.number, error)
            client.failure = error

    async def _begin(self, client: Client, question: Question) -> None:
        assert question.observation is not None
        instruction = question.observation.instruction
        if client.count.advance(question.words, instruction) and client.episodes is not None:
            await self._write(client.episodes.begin, client.count, instruction)

    async def _in_policy_thread(self, client: Client, question: Question) -> Any:
        records, key = client.episodes is not None, default_noise_key(client.count)
        return await asyncio.get_running_loop().run_in_executor(
            self._policy_thread, lambda: self._served.infer(question, key, records=records)
        )

    async def _end(self, client: Client, end: EpisodeEnd) -> None:
        client.count.end()
        if client.episodes is not None:
            await self._write(client.episodes.end, end)

    async def _leave(self, client: Client) -> None:
        if client.episodes is None:
            return
        try:
            await self._write(client.episodes.leave)
        except OSError as error:
            _log.warning("client %d: %s", client.number, error)

    async def _write(self, function: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writing_thread, function, *args)


def answer_health(connection: ws.ServerConnection, request: Request) -> Response | None:
    """200 to whoever asks for `/healthz`: the policy is compiled, clients can come."""
    if request.path.partition("?")[0] == HEALTH:
        return connection.respond(http.HTTPStatus.OK, "OK\n")
    return None


def _is_users(error: Exception) -> bool:
    return isinstance(error, ValueError | OSError)


async def _explain(connection: ws.ServerConnection, error: Exception) -> None:
    """Sends the error as text and closes, as openpi's server does."""
    text = str(error)
    if not _is_users(error):
        text = f"{type(error).__name__}: {error}. The traceback is in the server's log."
    with contextlib.suppress(ConnectionClosed):
        await connection.send(text)
        await connection.close(INTERNAL_ERROR, "The error is in the frame before.")
