"""Whether the tabletop policy learns: from demonstrations to success on starts it has not seen.

Run as `python -m benchmarks.tabletop_learning --folder DIR [--seeds 0 1 2] [-- OPTIONS]`. Every
part is a command that a user would type: questions about scenes; demonstrations of all 16
instructions, each in starts of its own; statistics, tokenizer, FAST targets; for each seed
`ki fit` with `ki_tabletop_words`, `ki_tabletop_ways` and `ki_tabletop`, each from the weights of
the one before; `ki eval` on held-out starts with the tasks' own words, and with those of another
task (swapped), where success means that the robot did what it was not told. What is there is not
made again: a stopped run goes on.

CPU seconds are those of a command and its children, whatever else the machine does.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASKS = 16
HORIZON, CODES = 8, 320
PICTURES = ("--env.image_size=96", "--env.view=base")
FIRST_HELD_OUT = 100_000
"""Starts from here on are never trained on."""
WANTED = 0.6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Does the tabletop policy learn?")
    parser.add_argument("--folder", type=Path, required=True, help="for data, runs and rollouts")
    parser.add_argument("--episodes", type=int, default=60, help="demonstrations a task")
    parser.add_argument("--scenes", type=int, default=24_000, help="that words are learnt from")
    parser.add_argument("--more_ways", type=int, default=24_000, help="that ways are learnt from")
    parser.add_argument("--ways", type=int, default=12_000, help="scenes that go on being asked")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--starts", type=int, default=6, help="held-out starts a task")
    parser.add_argument("--workers", type=int, default=1, help="simulators while evaluating")
    parser.add_argument("fit", nargs="*", help="more options of the last `ki fit`, behind --")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    arguments = parser.parse_args()
    result = {**surroundings(), "wanted": WANTED, "settings": arguments.fit}
    result["data"] = make_data(arguments)
    result["seeds"] = {str(seed): learn(arguments, seed) for seed in arguments.seeds}
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def surroundings() -> dict[str, Any]:
    """Where this ran."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": cores}


def run(*words: str) -> dict[str, float]:
    """Runs `vla-lens WORDS` and says what it took; stops where it fails."""
    print("$ vla-lens", " ".join(words), flush=True)
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    code = "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    took = {"cpu_s": round(cpu, 1), "wall_s": round(time.perf_counter() - begin, 1)}
    print(f"  {took['cpu_s']} CPU seconds, {took['wall_s']} s", flush=True)
    return took


def make_data(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Questions about scenes, and demonstrations with FAST targets."""
    took: dict[str, dict[str, float]] = {}
    questions = (
        ("questions", "whole", arguments.scenes, 0),
        ("ways", "way", arguments.ways, 1),
        ("more_ways", "way", arguments.more_ways, 2),
    )
    for name, kind, scenes, seed in questions:
        took[name] = run(
            "questions", f"--scenes={scenes}", *PICTURES, "--kinds", kind,
            "--per_frame=1", f"--seed={seed}", f"--out={arguments.folder / name}",
        )  # fmt: skip
    demos, tokenizer = arguments.folder / "demos", arguments.folder / "tokenizer"
    if not (demos / "fast").exists():
        for task in range(TASKS):
            first = task * arguments.episodes
            took[f"collect task {task}"] = run(
                "collect", "--env", "tabletop", *PICTURES,
                "--env.hand=anywhere", "--drive=demonstrator", "--record=demos",
                f"--horizon={HORIZON}", f"--tasks={task}:{task + 1}", "--after_success=3",
                f"--episodes={first}:{first + arguments.episodes}", f"--out={demos}",
            )  # fmt: skip
        took["norm-stats"] = run("norm-stats", str(demos))
        if not tokenizer.exists():
            took["fast fit"] = run(
                "fast", "fit", str(demos), f"--out={tokenizer}", f"--vocab_size={CODES}",
                "--scale=5",
            )  # fmt: skip
        took["fast attach"] = run("fast", "attach", str(demos), f"--tokenizer={tokenizer}")
    return took


def learn(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Trains the three stages with one seed, and evaluates with both kinds of words."""
    at = arguments.folder
    stages = {
        "ki_tabletop_words": (at / "questions",),
        "ki_tabletop_ways": (at / "more_ways", at / "ways"),
        "ki_tabletop": (at / "demos", at / "ways"),
    }
    found: dict[str, Any] = {}
    checkpoint: Path | None = None
    for config, paths in stages.items():
        found[config] = run(
            "ki", "fit", "-c", config, f"--data.paths=[{', '.join(map(str, paths))}]",
            f"--run.seed={seed}", f"--out={at / f'{config}_{seed}'}",
            *([f"--weights={checkpoint}"] if checkpoint else []),
            *(arguments.fit if config == "ki_tabletop" else []),
        )  # fmt: skip
        checkpoint = newest(at / f"{config}_{seed}" / "checkpoints")
    for name, told in (("own", []), ("swapped", ["--instructions=swapped"])):
        out = at / f"eval_{name}_{seed}"
        last = FIRST_HELD_OUT + arguments.starts
        took = run(
            "ki", "eval", f"--checkpoint={checkpoint}", *PICTURES,
            f"--episodes={FIRST_HELD_OUT}:{last}", "--replan=2", "--num_steps=5",
            f"--workers={arguments.workers}", "--videos=2", f"--out={out}", *told,
        )  # fmt: skip
        rates = json.loads((out / "report.json").read_text())["success"]["flow"]
        found[name] = {**rates[-1], **took, "tasks": rates[:-1]}
        rate, (low, high) = rates[-1]["rate"], rates[-1]["interval"]
        print(f"seed {seed}, {name} words: {rate:.1%} ({low:.1%} to {high:.1%})", flush=True)
    return found


def newest(folder: Path) -> Path:
    """The checkpoint of the last step."""
    steps: Sequence[int] = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return folder / str(max(steps))


if __name__ == "__main__":
    main()
