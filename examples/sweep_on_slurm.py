"""One sweep as a SLURM job array: each job takes points from one storage until none is left, or its time is up.

    pip install "tidepool[postgres,slurm]"
    python examples/sweep_on_slurm.py sweeps/architecture.yaml postgresql://user@host/database --jobs 8

Submit it again to go on. `--cluster local` runs the jobs as processes of this machine.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import submitit

SAVE_S = 120  # kept of a job's time for runs to save and end in


def submit(file: Path, storage: str, *, jobs: int, minutes: int, cluster: str, **slurm: Any) -> list[Any]:
    """Submit the array; `slurm` are submitit's settings, such as slurm_partition or gpus_per_node. Logs go to
    slurm_logs/."""
    executor = submitit.AutoExecutor(folder="slurm_logs", cluster=cluster)
    executor.update_parameters(timeout_min=minutes, name=f"sweep-{file.stem}", **slurm)
    budget = max(60 * minutes - SAVE_S, 1)
    command = [sys.executable, "-m", "tidepool", "sweep", str(file), "--storage", storage, "--budget_s", str(budget)]
    with executor.batch():
        return [executor.submit(submitit.helpers.CommandFunction(command)) for _ in range(jobs)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("storage", help="postgresql://…, which every job can reach")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--gpus", type=int, default=0, help="of each job; a job runs as many runs at a time")
    parser.add_argument("--cluster", default="slurm")
    options = parser.parse_args()
    gpus = {"gpus_per_node": options.gpus} if options.gpus else {}
    for job in submit(options.file, options.storage, jobs=options.jobs, minutes=options.minutes,
                      cluster=options.cluster, **gpus):  # fmt: skip
        print(f"job {job.job_id}: log {job.paths.stdout}")


if __name__ == "__main__":
    main()
