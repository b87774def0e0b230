"""From the arrays of a step to the fields of a sample."""

import dataclasses
import difflib
from collections.abc import Mapping

import numpy as np

from jax_bridge.old_pickles.layout import SCALES, Source
from jax_bridge.old_pickles.regions import Regions, cut, regions_of
from jax_bridge.shards.field import FieldSpec, field_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutting:
    """How sequences are cut into regions; None goes by openpi's own lengths."""

    vlm: Regions | None = None
    action: Regions | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedField:
    """One field, and its array of one step."""

    spec: FieldSpec
    values: np.ndarray


def fields_of(arrays: Mapping[Source, np.ndarray], cutting: Cutting) -> dict[str, ImportedField]:
    """The fields of one sample.

    Args:
        arrays: [layer, token, width], or [layer, token] for scales.
        cutting: which tokens are which region.

    Raises:
        ValueError: if two sources give one field different values, or an axis does not fit.
    """
    parts: dict[tuple[str, str, str], dict[float | None, np.ndarray]] = {}
    for source, array in arrays.items():
        for region, piece in _regions(source, array, cutting).items():
            labelled = parts.setdefault((source.expert, source.site, region), {})
            before = labelled.setdefault(source.label, piece)
            if before is not piece and not _same(before, piece):
                raise ValueError(
                    f"{source.expert}.{source.site}.{region} stands there twice with different "
                    "values (text_only_hidden_states beside the whole sequence, say). Leave one "
                    "out with --leave_out."
                )
    return {field.spec.name: field for field in (_field(*item) for item in parts.items())}


def _regions(source: Source, array: np.ndarray, cutting: Cutting) -> dict[str, np.ndarray]:
    if source.text_only:
        return {"text": array}
    given = cutting.vlm if source.expert == "vlm" else cutting.action
    return cut(array, regions_of(array.shape[1], source.expert, given))


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


def _field(
    words: tuple[str, str, str], labelled: Mapping[float | None, np.ndarray]
) -> ImportedField:
    name = field_name(*words, "tokens")
    labels = [label for label in labelled if label is not None]
    if labels and None in labelled:
        raise ValueError(f"{name} stands there with and without a flow time. Leave one out.")
    arrays = [labelled[label] for label in sorted(labels, reverse=True) or [None]]
    if len({(array.shape, array.dtype) for array in arrays}) != 1:
        raise ValueError(f"{name} must have one shape and dtype at all flow times.")
    values = np.stack(arrays, axis=1) if labels else np.ascontiguousarray(arrays[0])
    axes = ("layer", *(["flow_time"] if labels else []), "token", "width")
    spec = FieldSpec(
        name=name,
        dtype=values.dtype.name,
        shape=values.shape,
        axes=axes[: -1 if words[1] in SCALES else None],
        layers=tuple(range(values.shape[0])),
        flow_times=tuple(sorted(labels, reverse=True)) or None,
    )
    return ImportedField(spec=spec, values=values)


def require_same(
    fields: Mapping[str, ImportedField], specs: Mapping[str, FieldSpec]
) -> dict[str, np.ndarray]:
    """The values, where the fields are those of the data set.

    Raises:
        ValueError: naming a field that is missing, new or of another shape.
    """
    for name in sorted({*fields, *specs}):
        if name not in fields:
            raise ValueError(f"{name} is missing.")
        if name not in specs:
            near = difflib.get_close_matches(name, specs, n=1)
            raise ValueError(f"{name} is new (the first step has {', '.join(near or specs)}).")
        if fields[name].spec != specs[name]:
            mine, due = fields[name].spec, specs[name]
            raise ValueError(
                f"{name} is {mine.dtype} {mine.shape} {mine.flow_times or ''}, where the first "
                f"step has {due.dtype} {due.shape} {due.flow_times or ''}."
            )
    return {name: field.values for name, field in fields.items()}
