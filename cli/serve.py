"""`vla-lens serve`: a policy behind openpi's websocket protocol, with its latents."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from cli.choice import Choice
from cli.configs import resolve_config_args
from cli.serve_extra import require_serve_extra

if TYPE_CHECKING:
    from jax_bridge.pi0 import CaptureSpec
    from jax_bridge.serving.served_episodes import ServedEpisodes
    from jax_bridge.serving.served_policy import ServedPolicy

DESCRIPTION = """Serves a policy as openpi's own server does, so that openpi-client and scripts
that use it work unchanged. A client that adds `collect_latents: true` to its observation gets the
latents as well; --out DIR writes what all clients ask to episode shards (docs/serving.md)."""


def build_parser(args: list[str], policy: Choice) -> ArgumentParser:
    """The parser for these (expanded) arguments."""
    parser = ArgumentParser(prog="vla-lens serve", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    policy.add_to(parser, args)
    parser.add_argument("--host", type=str, default="127.0.0.1", help="0.0.0.0 lets everybody in")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument(
        "--capture",
        type=str,
        default="pooled",
        help="pooled, tokens, attention, ar_steps, a YAML or JSON file, or none",
    )
    parser.add_argument(
        "--out", type=str | None, default=None, help="folder or address of a data set to write"
    )
    parser.add_argument(
        "--images", type=str, default="jpg", help="jpg, png or none: what --out keeps of images"
    )
    parser.add_argument(
        "--idle_seconds",
        "--idle-seconds",
        type=float,
        default=30.0,
        help="silence of a client that ends its episode",
    )
    parser.add_argument(
        "--message_bytes",
        "--message-bytes",
        type=int,
        default=32 * 2**20,
        help="largest message that is taken",
    )
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens serve ...` until Ctrl-C.

    Raises:
        ValueError: if an option does not fit, or the `serve` extra is not installed.
        OSError: if the port is taken.
    """
    require_serve_extra("serve")
    from jax_bridge.policies.registry import POLICIES

    served = {name: path for name, path in POLICIES.items() if name != "remote"}
    policy = Choice("policy", registry=served, default="pi0", what="kind of policy")
    args = policy.expand(resolve_config_args(args[1:] if args[:1] == ["serve"] else args))
    config = build_parser(args, policy).parse_args(args)
    return _serve(config, policy.build(config))


def _serve(config: Namespace, policy: Any) -> int:
    from jax_bridge.serving.served_policy import ServedPolicy
    from jax_bridge.serving.server import PolicyServer, ServerOptions

    options = ServerOptions(
        host=config.host,
        port=config.port,
        idle_seconds=config.idle_seconds,
        message_bytes=config.message_bytes,
        keep_images=config.images != "none",
    )
    if not hasattr(policy, "convention"):
        raise ValueError(
            f"`--policy` must have a `convention`, the keys of clients' messages, but "
            f"{type(policy).__name__} has none. Serve another kind of policy."
        )
    capture = _capture(config.capture)
    served = ServedPolicy(policy=policy, convention=policy.convention, capture=capture)
    store = _store(config, served)
    print("compiling ...", flush=True)
    served.warm_up()
    _run(PolicyServer(served, options, store), options.host, served)
    if store is not None:
        found = store.report
        dropped = f", {found.dropped} that no client ended were dropped" if found.dropped else ""
        print(f"{found.episodes} episodes, {found.samples:,} samples{dropped} -> {config.out}")
    return 0


def _run(server: Any, host: str, served: "ServedPolicy") -> None:
    import asyncio
    import signal

    _log_clients()

    def ready(port: int) -> None:
        names = served.policy.fields(served.capture) if served.capture else {}
        print(
            f"serving at ws://{host}:{port}, convention {served.convention.name}, "
            f"{len(names)} latents a call; Ctrl-C ends",
            flush=True,
        )

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await server.run(stop, ready)

    asyncio.run(run())


def _log_clients() -> None:
    """Who comes, leaves and is refused goes to stderr; libraries keep their own ways."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("jax_bridge.serving")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


def _capture(text: str) -> "CaptureSpec | None":
    from jax_bridge.pi0 import CaptureSpec

    if text == "none":
        return None
    if Path(text).suffix in (".yaml", ".yml", ".json"):
        return CaptureSpec.from_file(text)
    return CaptureSpec.preset(text)


def _store(config: Namespace, served: "ServedPolicy") -> "ServedEpisodes | None":
    from jax_bridge.serving.served_episodes import ServedEpisodes
    from jax_bridge.shards import ImageFormat

    if config.images not in ("jpg", "png", "none"):
        raise ValueError(f"`--images` must be jpg, png or none, but got {config.images!r}.")
    if config.out is None:
        return None
    form = ImageFormat() if config.images == "none" else ImageFormat(kind=config.images)
    return ServedEpisodes(config.out, served.dataset_info(), images=form)
