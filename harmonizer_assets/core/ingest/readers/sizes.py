"""How many bytes the values of an Arrow array take, without making them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Sizes = npt.NDArray[np.int64]


def value_bytes(array: pa.Array) -> Sizes:
    """Measure each value of an array; shared values of a dictionary count for each use.

    Returns:
        n sizes in bytes; 0 for null.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(array)
    if pa.types.is_struct(kind):
        fields = [value_bytes(array.field(place)) for place in range(kind.num_fields)]
        return sum(fields, np.zeros(len(array), np.int64))
    if pa.types.is_fixed_size_list(kind):
        sizes = value_bytes(array.flatten()) if not array.null_count else value_bytes(array.values)
        return sizes[: len(array) * kind.list_size].reshape(len(array), -1).sum(axis=1)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _of_lists(array)
    if _has_length(kind):
        return _lengths(array)
    return np.full(len(array), max(1, _width(kind)), np.int64)


def _of_dictionary(array: pa.DictionaryArray) -> Sizes:
    sizes = np.append(value_bytes(array.dictionary), 0)
    places = pc.fill_null(array.indices, len(sizes) - 1).to_numpy(zero_copy_only=False)
    return sizes[places]


def _of_lists(array: pa.Array) -> Sizes:
    items = array.values if not pa.types.is_map(array.type) else _entries(array)
    upto = np.concatenate([[0], np.cumsum(value_bytes(items))])
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    return np.diff(upto[offsets]).astype(np.int64)


def _entries(array: pa.MapArray) -> pa.StructArray:
    return pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])


def _has_length(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _lengths(array: pa.Array) -> Sizes:
    found = pc.fill_null(pc.binary_length(array), 0)
    return found.to_numpy(zero_copy_only=False).astype(np.int64)


def _width(kind: pa.DataType) -> int:
    try:
        return (kind.bit_width + 7) // 8
    except ValueError:
        return 8
