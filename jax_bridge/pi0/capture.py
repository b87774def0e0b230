"""Which latents to keep: `CaptureSpec`, its presets, and what it comes to for a given model."""

import dataclasses
import itertools
import json
import numbers
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from jax_bridge.pi0.attention_pooling import (
    SEPARATOR,
    is_spoken,
    pair_of,
    pairs_of,
    spoken_pairs,
)
from jax_bridge.pi0.attention_pooling import SITE as ATTENTION
from jax_bridge.pi0.capture_plan import CapturePlan
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.shards.field import FieldSpec, field_name
from jax_bridge.vocabulary import (
    EXPERTS,
    IMAGE_REGIONS,
    POOLS,
    REGIONS,
    REGIONS_OF_EXPERT,
    SAMPLER_SITES,
    SCALE_SITES,
    SITES,
    SPOKEN_REGIONS,
    TEXT_REGIONS,
)


def why_impossible(expert: str, site: str, region: str, pool: str) -> str | None:
    """Why a field can exist in no model; None if it can."""
    if site == ATTENTION:
        return _why_no_attention(expert, region, pool)
    if expert == "vlm" and region in SPOKEN_REGIONS:
        return f"{site} exists for expert action alone" if site in SAMPLER_SITES else None
    if region not in REGIONS_OF_EXPERT[expert]:
        return f"expert {expert} has the regions {', '.join(REGIONS_OF_EXPERT[expert])}"
    if site in SAMPLER_SITES and (expert, region, pool) != ("action", "action", "tokens"):
        return f"{site} exists as action.{site}.action.tokens only"
    return None


def _why_no_attention(expert: str, region: str, pool: str) -> str | None:
    """Why no model has such a pair; None if one can have it."""
    pairs = pairs_of(expert) + (spoken_pairs() if expert == "vlm" else ())
    if pair_of(region) in pairs and pool in ("mean", "tokens"):
        return None
    return (
        f"attention of expert {expert} is named {expert}.attention.<region>_to_<region>.mean, or "
        ".tokens for whole matrices"
    )


def why_missing(region: str, config: Pi0Config) -> str | None:
    """Why this model has no such region, or one of a pair's; None if it has."""
    if is_spoken(region):
        return "no token is decoded; --policy fast does"
    for one in pair_of(region):
        if one == "state" and config.pi05:
            return "π0.5 has no state token"
        if one == "state_text" and not config.pi05:
            return "π0's prompt holds no state"
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptureSpec:
    """Names the latents to keep: every possible expert, site, region, pool; and `names`.

    Each word that is written down must be part of at least one field; `resolve` makes the spec
    definite for a model.
    """

    experts: Sequence[str] = EXPERTS
    sites: Sequence[str] = ()
    """Empty: only `names` are captured."""
    regions: Sequence[str] | None = None
    """None: every region that the model's experts have; of the prompt's tokens, `text` once."""
    pools: Sequence[str] = ("tokens",)
    names: Sequence[str] = ()
    """Whole field names, `{expert}.{site}.{region}.{pool}`, besides the product."""
    layers: Sequence[int] | None = None
    """Blocks to keep, from 0; None: all."""
    flow_times: Sequence[float] | None = None
    """Times to keep, the nearest evaluated one within 1e-3 each; None: all."""
    pooled_float32: bool = False
    """Whether pooled fields are stored in float32 instead of the model's dtype."""
    leave_out_missing: bool = False
    """Whether a name that the model has not is left out (and listed by `left_out`) instead of
    being an error; so for presets."""

    def __post_init__(self) -> None:
        for name in _ENTRIES:
            object.__setattr__(self, name, _plain(name, getattr(self, name)))
        known = {
            "experts": EXPERTS,
            "sites": SITES,
            "regions": (*REGIONS, *SPOKEN_REGIONS),
            "pools": POOLS,
        }
        for word, words in known.items():
            for given in getattr(self, word) or ():
                if given not in words:
                    raise ValueError(
                        f"`{word}` must be among {', '.join(words)}, but got {given!r}."
                    )
        for name in self.names:
            _check_name(name)
        self._check_words()
        if not self.sites and not self.names:
            raise ValueError("`sites` or `names` must name latents to capture, but got neither.")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "CaptureSpec":
        """Makes a named spec.

        Args:
            name: `pooled` (means of every region), `tokens` (every token), `attention` (from
                region to region) or `ar_steps` (tokens that the backbone says).
            **changes: Fields to change, such as `layers=(5,)`.

        Raises:
            ValueError: if there is no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {', '.join(PRESETS)}, but got {name!r}.")
        return cls(**{"names": PRESETS[name], "leave_out_missing": True, **changes})

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "CaptureSpec":
        """Reads what `to_json` wrote; `{"preset": NAME, ...}` starts from a preset.

        Raises:
            ValueError: if a key is unknown, or its value of a wrong kind.
        """
        known = {"preset", *(field.name for field in dataclasses.fields(cls))}
        unknown = sorted(set(entry) - known)
        if unknown:
            raise ValueError(
                f"A capture spec must have keys among {', '.join(sorted(known))}, but got "
                f"{', '.join(unknown)}."
            )
        changes: dict[str, Any] = {
            key: _plain(key, value) if key in _ENTRIES else value for key, value in entry.items()
        }
        preset = changes.pop("preset", None)
        return cls(**changes) if preset is None else cls.preset(preset, **changes)

    @classmethod
    def from_file(cls, path: str | pathlib.Path) -> "CaptureSpec":
        """Reads a YAML or JSON file with the fields of this class, or `preset` and changes.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no mapping, or an unknown key or word.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"`capture` must be {', '.join(PRESETS)} or a file, but got {str(path)!r}."
            )
        try:
            entry = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} must be YAML or JSON, but it is not: {error}") from error
        if not isinstance(entry, Mapping):
            raise ValueError(f"{path} must hold keys and values, but got {type(entry).__name__}.")
        return cls.from_json({str(key): value for key, value in entry.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain lists, words and numbers."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def left_out(self, config: Pi0Config) -> dict[str, str]:
        """Names that the spec asks for and this model has not, with the reason."""
        reasons = {name: why_missing(name.split(".")[2], config) for name in self.all_names()}
        return {name: reason for name, reason in reasons.items() if reason}

    def resolve(self, config: Pi0Config, num_steps: int = 10) -> CapturePlan:
        """Makes the spec definite for a model and its sampler.

        Raises:
            ValueError: if one of them has not what the spec names.
        """
        return CapturePlan.make(
            self.field_names(config),
            config=config,
            num_steps=num_steps,
            layers=self.layers,
            flow_times=self.flow_times,
            pooled_float32=self.pooled_float32,
        )

    def fields(self, config: Pi0Config, *, num_steps: int = 10) -> dict[str, FieldSpec]:
        """Type, shape and axes of every latent of one sample (no batch axis), masks included.

        Raises:
            ValueError: if the model or the sampler has not what the spec names.
        """
        return self.resolve(config, num_steps).fields()

    def bytes_per_call(self, config: Pi0Config, *, num_steps: int = 10) -> int:
        """Bytes of the latents of one sample of one policy call."""
        return sum(spec.nbytes for spec in self.fields(config, num_steps=num_steps).values())

    def field_names(self, config: Pi0Config) -> tuple[str, ...]:
        """Names of the fields with values that this model gives; masks not included.

        Raises:
            ValueError: if an explicitly named field cannot exist in this model.
        """
        return self.without(self.left_out(config))

    def without(self, missing: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the fields with values that are not missing.

        Args:
            missing: names that a model has not, with the reason.

        Raises:
            ValueError: if an explicitly named field is missing, or every field.
        """
        explicit = [
            name
            for name in missing
            if not self.leave_out_missing and (self.regions is not None or name in self.names)
        ]
        there = tuple(name for name in self.all_names() if name not in missing)
        explicit += [] if there else list(missing)
        if explicit:
            raise ValueError(
                f"`capture` must name latents that the model has, but got {explicit[0]}: "
                f"{missing[explicit[0]]}. Leave it out."
            )
        return there

    def all_names(self) -> tuple[str, ...]:
        """Every possible field of the product, then `names`; each once."""
        regions = REGIONS if self.regions is None else self.regions
        product = itertools.product(self.experts, self.sites, regions, self.pools)
        names = [
            field_name(*words)
            for words in product
            if why_impossible(*words) is None and not self._doubled(*words[2:])
        ]
        return tuple(dict.fromkeys([*names, *self.names]))

    def _doubled(self, region: str, pool: str) -> bool:
        """Whether a field that nobody named would store tokens of `text` a second time."""
        return self.regions is None and pool == "tokens" and region in TEXT_REGIONS[1:]

    def _check_words(self) -> None:
        """Raises if a word of the product is part of no possible field."""
        if not self.sites:
            return
        regions = REGIONS if self.regions is None else self.regions
        axes = (self.experts, self.sites, regions, self.pools)
        for word, given in zip(("experts", "sites", "regions", "pools"), axes, strict=True):
            if not given:
                raise ValueError(f"`{word}` must name at least one of them, but got none.")
        possible = [w for w in itertools.product(*axes) if why_impossible(*w) is None]
        for axis, (word, given) in enumerate(
            zip(("experts", "sites", "regions", "pools"), axes, strict=True)
        ):
            for value in given:
                if word == "regions" and self.regions is None:
                    continue
                if not any(words[axis] == value for words in possible):
                    tried = [words for words in itertools.product(*axes) if words[axis] == value]
                    # The most telling reason: one about words that are otherwise fine.
                    tried = max(tried, key=lambda w: w[2] in REGIONS_OF_EXPERT[w[0]])
                    raise ValueError(
                        f"`{word}` must go with the other words, but got {value!r} in "
                        f"{'.'.join(tried)}: {why_impossible(*tried)}."
                    )


_ENTRIES: dict[str, tuple[type, type, str]] = {
    **dict.fromkeys(("experts", "sites", "regions", "pools", "names"), (str, str, "words")),
    "layers": (numbers.Integral, int, "whole numbers"),
    "flow_times": (numbers.Real, float, "numbers"),
}
"""What each sequence of a spec must hold, as what it is kept, and how that is called."""


def _plain(name: str, given: Any) -> tuple[Any, ...] | None:
    """A sequence as a tuple of words or Python numbers, so that specs compare, hash and print.

    Raises:
        ValueError: if it is no such sequence.
    """
    if given is None and name in ("regions", "layers", "flow_times"):
        return None
    kind, kept, called = _ENTRIES[name]
    if (
        isinstance(given, str)
        or not isinstance(given, Iterable)
        or not all(isinstance(entry, kind) for entry in given)
    ):
        raise ValueError(f"`{name}` must be a sequence of {called}, but got {given!r}.")
    return tuple(kept(entry) for entry in given)


def _check_name(name: str) -> None:
    """Raises unless a field's name is whole and possible."""
    words = name.split(".")
    if len(words) != 4:
        raise ValueError(f"`names` must have the form expert.site.region.pool, but got {name!r}.")
    field_name(*words)
    reason = why_impossible(*words)
    if reason:
        raise ValueError(f"`names` must name latents that can exist, but got {name!r}: {reason}.")


def _names(expert: str, sites: tuple[str, ...], regions: tuple[str, ...], pool: str) -> list[str]:
    """Names of one expert's product."""
    return [field_name(expert, site, region, pool) for site in sites for region in regions]


_VLM_MEANS = ("instruction", "text", *IMAGE_REGIONS)
_RESIDUAL = ("hidden_states", "post_attn_embedding", *SCALE_SITES)
PRESETS: dict[str, tuple[str, ...]] = {
    "pooled": (
        *_names("vlm", _RESIDUAL, _VLM_MEANS, "mean"),
        *_names("vlm", ("hidden_states",), ("text",), "last"),
        *_names("action", _RESIDUAL, ("state", "action"), "mean"),
        *_names("action", ("velocity",), ("action",), "tokens"),
    ),
    # `instruction` and `state_text` are tokens of `text`: stored once, told apart by their masks.
    "tokens": (
        *_names("vlm", ("hidden_states",), (*IMAGE_REGIONS, TEXT_REGIONS[0]), "tokens"),
        *_names("action", ("hidden_states",), ("state", "action"), "tokens"),
    ),
    "attention": tuple(
        field_name(expert, ATTENTION, SEPARATOR.join(pair), "mean")
        for expert in EXPERTS
        for pair in pairs_of(expert)
    ),
    # What the backbone says, one token a decoding step; and what it read before the first.
    "ar_steps": (
        *_names("vlm", _RESIDUAL, SPOKEN_REGIONS, "tokens"),
        *_names("vlm", (ATTENTION,), tuple(map(SEPARATOR.join, spoken_pairs())), "tokens"),
        *_names("vlm", ("hidden_states",), ("text",), "last"),
    ),
}
"""Field names of every preset."""
