"""A worker that computes nothing: `do` among a run's settings says how it ends."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa

from lightning_modules.sweep.folder import SweepFolder

folder = SweepFolder(Path(sys.argv[1]))
sys.stdout.write("ready\n")
sys.stdout.flush()
for line in sys.stdin:
    for run in json.loads(line):
        with (folder.path / "calls.txt").open("a") as file:
            settings = [os.environ.get(n, "") for n in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
            file.write(" ".join([run["name"], str(os.getpid()), *settings]) + "\n")
        do = run["settings"]["do"]
        if do == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "leave":
            sys.exit(7)
        if do == "hang":
            time.sleep(1000)
        if do == "fail":
            folder.write_failure(run["name"], "it had to")
        if do == "done":
            folder.write_result(run["name"], pa.table({"run": [run["name"]]}))
    sys.stdout.write("done\n")
    sys.stdout.flush()
