"""A cell: one probe's place in the policy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jax_bridge.shards import FieldSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """Expert x site x region x pool x layer x flow time: the place that one probe reads."""

    expert: str
    site: str
    region: str
    pool: str
    layer: int | None = None
    """The block that produced it; None where the field has no layer axis."""
    flow_time: float | None = None
    """1.0 (noise) … 0.1; None where the field has no flow-time axis."""

    @property
    def field(self) -> str:
        """The field of the shards that holds this cell."""
        return f"{self.expert}.{self.site}.{self.region}.{self.pool}"

    @property
    def place(self) -> str:
        """Layer and flow time alone: `layer05`, `layer05/t0.90`, `t0.90` or `all`."""
        parts = [] if self.layer is None else [f"layer{self.layer:02d}"]
        parts += [] if self.flow_time is None else [f"t{self.flow_time:.2f}"]
        return "/".join(parts) or "all"

    @property
    def words(self) -> str:
        """The place for people: `layer 5, flow time 0.90`."""
        parts = [] if self.layer is None else [f"layer {self.layer}"]
        parts += [] if self.flow_time is None else [f"flow time {self.flow_time:.2f}"]
        return ", ".join(parts) or "the only cell"

    @property
    def name(self) -> str:
        """The whole address, `vlm.hidden_states.text.mean/layer05`."""
        return f"{self.field}/{self.place}"

    def to_json(self) -> dict[str, Any]:
        """Plain types, as checkpoints and result files hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Cell":
        """Reads what `to_json` wrote."""
        return cls(**entry)


def cells_of_field(
    spec: FieldSpec,
    *,
    layers: Sequence[int] | None,
    flow_times: Sequence[float] | None,
) -> list[Cell]:
    """Lists the cells of a field, layer first, in the order of its features.

    Args:
        spec: the field.
        layers: the chosen layers; None where the field has no layer axis.
        flow_times: the chosen flow times; None where the field has no such axis.
    """
    expert, site, region, pool = spec.name.split(".")
    return [
        Cell(expert=expert, site=site, region=region, pool=pool, layer=layer, flow_time=flow_time)
        for layer in (layers if layers is not None else [None])
        for flow_time in (flow_times if flow_times is not None else [None])
    ]
