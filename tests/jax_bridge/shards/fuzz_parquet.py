"""Reads broken index files: run as `python fuzz_parquet.py FILE COUNT`; a crash ends the process.

The memory of the process is bounded, so that a lying size fails an allocation.
"""

import pathlib
import resource
import sys
import time

import numpy as np
import pyarrow as pa

from jax_bridge.shards import DamagedShardError, index
from jax_bridge.shards.index import read_index_file
from jax_bridge.shards.parquet_digest import has_digest, is_as_written

ROOM = 512 * 2**20


def broken(content, rng):
    """Some bytes changed, cut, doubled or moved; often near the footer, which steers the reader."""
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        near_end = rng.random() < 0.7
        low = max(0, len(content) - 4000) if near_end else 0
        place = int(rng.integers(low, max(low + 1, len(content))))
        length = int(rng.integers(1, 9))
        kind = rng.integers(4)
        if kind == 0:
            content[place : place + 1] = bytes([int(rng.integers(256))])
        elif kind == 1:
            content[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del content[place : place + length]
        else:
            content[place:place] = content[place : place + length]
    return bytes(content)


def main(file, count):
    """Counts what was refused; raises at any other error."""
    rng = np.random.default_rng(0)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    index.AT_ONCE_VALUES = 0
    whole = pathlib.Path(file).read_bytes()
    path = pathlib.Path(f"{file}.broken")
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    refused, slowest, most = 0, 0.0, 0
    for _ in range(count):
        content = broken(whole, rng)
        path.write_bytes(content)
        start, before = time.perf_counter(), pa.total_allocated_bytes()
        try:
            table, _ = read_index_file(path, "x")
            most = max(most, pa.total_allocated_bytes() - before)
            del table
        except DamagedShardError:
            refused += 1
        try:  # as a large index is read: footer first, then one column after the other
            table, _ = index.open_index_file(path, "x")
            most = max(most, sum(table.column(n).nbytes for n in table.column_names))
            del table
        except DamagedShardError:
            pass
        slowest = max(slowest, time.perf_counter() - start)
        assert not (has_digest(content) and is_as_written(content)) or content == whole
    assert slowest < 5
    assert most < 100 * len(whole)
    sys.stdout.write(f"{refused} of {count} refused\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
