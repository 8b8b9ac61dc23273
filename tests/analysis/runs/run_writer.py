"""Run folders of the documented format, with curves that look like training, for the tests of analysis."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CPU = {"cpu": "Test CPU 3000", "gpu": None, "device": "cpu", "cuda": None, "cudnn": None, "driver": None}
GPU = {
    "cpu": "Test CPU 3000",
    "gpu": "Test GPU 80GB",
    "device": "cuda",
    "cuda": "13.0",
    "cudnn": 91002,
    "driver": "590",
}


def encode(value: Any) -> Any:
    """Non-finite floats as the strings the records use."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return {k: encode(v) for k, v in value.items()} if isinstance(value, dict) else value


def write_json(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(encode({"schema_version": 1, **record})))


def write_run(
    folder: Path,
    *,
    backend: str = "triton",
    seed: int = 0,
    status: str | None = "finished",
    accuracy: float = 0.97,
    step_ms: float | None = None,
    gpu: bool = False,
    media: bool = False,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    steps: int = 60,
    rounding: float = 1e-6,
) -> Path:
    """Write one run; ``status`` None leaves it without a summary. Losses of a seed agree to ``rounding``."""
    interpreted = backend == "triton" and not gpu
    settings = {"data": "digits", "model": "lenet5", "backend": backend, "dtype": "fp32", "epochs": 3, "batch_size": 64,
                "lr": 0.05, "optimizer": "sgd", "seed": seed, "run_dir": str(folder), "name": folder.name,
                "max_steps": None, "track": "offline"} | (config or {})  # fmt: skip
    write_json(folder / "config.json", settings)
    write_json(folder / "environment.json", {
        "commit": "0123456789abcdef", "dirty": False, "command": f"python train.py --backend={backend} --seed={seed}",
        **(GPU if gpu else CPU), "torch": "2.13.0", "triton": "3.7.1", "python": "3.12.3",
        "precision": {"conv_tf32": False, "matmul_tf32": False}, "date": "2026-01-02T03:04:05+00:00",
        **(environment or {})})  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(encode(r)) + "\n" for r in _rows(settings, steps, accuracy,
                                                                                             rounding)))  # fmt: skip
    if status is not None:
        library = {"triton": "triton"}.get(backend, "cudnn 9.10" if gpu else "onednn")
        write_json(folder / "summary.json", {
            "status": status, "exit_reason": None, "run_id": f"{backend}{seed}", "group": "g",
            "started_at": "2026-01-02T03:04:05+00:00", "data": settings["data"], "model": settings["model"],
            "backend": backend, "conv_library": library, "kernel_mode": "interpreted" if interpreted else "compiled",
            "dtype": settings["dtype"], "seed": seed, "parameters": 61706, "epochs": 3, "steps": steps,
            "test_accuracy": accuracy, "test_loss": 0.1, "train_seconds": 12.5,
            "step_ms_p50": step_ms if step_ms is not None else (250.0 if interpreted else 4.0),
            "samples_per_second": 64000.0 / (step_ms or 4.0), "peak_memory_bytes": 200 * 2**20,
            "checkpoint": "checkpoints/last.pt", **(summary or {})})  # fmt: skip
    if media:
        write_media(folder / "media", seed)
    return folder


def write_media(folder: Path, seed: int) -> None:
    """confusion.csv of ten digits and two pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    counts = np.diag(rng.integers(33, 38, 10))
    for _ in range(7):
        counts[tuple(rng.integers(0, 10, 2))] += 1
    lines = [f"{t},{p},{counts[t, p]}" for t in range(10) for p in range(10) if counts[t, p]]
    (folder / "confusion.csv").write_text("true,predicted,count\n" + "\n".join(lines) + "\n")
    for name, size in (("filters", (96, 16)), ("feature_maps", (120, 40))):
        Image.fromarray(rng.integers(0, 255, size[::-1], dtype=np.uint8)).save(folder / f"{name}.png")


def write_sweep(
    folder: Path,
    *,
    seeds: int = 3,
    margin: float | None = 0.5,
    gpu: bool = False,
    media: bool = False,
    steps: int = 60,
    description: str = "Does lenet5 reach the same accuracy on both backends? margin=0.5 points",
) -> Path:
    """A sweep of triton and cudnn over seeds, accuracies on the grid of 360 test pictures."""
    for seed in range(seeds):
        right = 350 + (seed * 7) % 5
        write_run(folder / f"t{seed:03d}", backend="triton", seed=seed, accuracy=(right + seed % 2) / 360, gpu=gpu,
                  media=media, steps=steps, step_ms=None if not gpu else 3.0 + 0.1 * seed)  # fmt: skip
        write_run(folder / f"c{seed:03d}", backend="cudnn", seed=seed, accuracy=right / 360, gpu=gpu, media=media,
                  steps=steps,
                  step_ms=4.0 + 0.1 * seed)  # fmt: skip
    write_json(folder / "sweep.json", {"name": folder.name, "description": description, "margin_points": margin})
    return folder


def _rows(settings: dict[str, Any], steps: int, accuracy: float, rounding: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(settings["seed"])
    other = np.random.default_rng(1000 + settings["seed"])
    rows: list[dict[str, Any]] = []
    per_epoch = max(1, steps // 3)
    for step in range(1, steps + 1):
        loss = 2.2 * math.exp(-3.5 * step / steps) + 0.12 + 0.08 * rng.random()
        if settings["backend"] != "cudnn":
            loss *= 1 + rounding * (other.random() - 0.5)
        row = {"schema_version": 1, "step": step, "epoch": step / per_epoch, "time_s": 0.1 * step}
        rows.append(row | {"train/loss": loss, "train/accuracy": 1 - loss / 2.5, "train/lr": 0.05})
        if step % per_epoch == 0:
            rows.append(row | {"test/loss": loss * 1.1, "test/accuracy": accuracy - 0.2 * math.exp(-step / per_epoch)})
    return rows
