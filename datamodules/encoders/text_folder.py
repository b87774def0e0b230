"""Where a pretrained encoder lies: a local folder, the hub's cache, or fetched from the hub."""

import importlib.util
from pathlib import Path

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model"]
UNWANTED = ["onnx/*", "openvino/*", "*/onnx/*", "original/*"]


def text_folder(name: str) -> Path:
    """Finds the encoder's files; fetches them only where they are on no disk.

    Raises:
        FileNotFoundError: if it is neither on disk nor can be fetched; says how to get it.
    """
    if Path(name).is_dir():
        return _complete(Path(name), name)
    if importlib.util.find_spec("transformers") is None:
        raise FileNotFoundError(
            f"`encoder` {name!r} needs the package transformers, which is not installed. "
            "Install vla-lens[text], or use the built-in encoder tfidf."
        )
    if name.startswith(("/", ".", "~")):
        raise FileNotFoundError(
            f"`encoder` must be tfidf, a folder or a name on the Hugging Face hub, but got "
            f"{name!r}, which is no folder."
        )
    return _from_hub(name)


def _complete(folder: Path, name: str) -> Path:
    missing = [
        what
        for what, pattern in (("config.json", "config.json"), ("weights", "*.safetensors"))
        if not any(folder.glob(pattern))
    ]
    if missing:
        raise FileNotFoundError(
            f"`encoder` must hold config.json and *.safetensors, but got {name!r} without "
            f"{' and '.join(missing)}. Save it with `save_pretrained`."
        )
    return folder


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    for local in (True, False):
        try:
            folder = huggingface_hub.snapshot_download(
                name, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=local
            )
            return _complete(Path(folder), name)
        except (OSError, ValueError, HfHubHTTPError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise FileNotFoundError(
        f"`encoder` {name!r} is not on this disk and cannot be downloaded ({reason.rstrip('.')}). "
        "Give the folder of a copy, or use the built-in encoder tfidf."
    )
