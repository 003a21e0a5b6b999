"""Each published network trained for real, stopped by Ctrl-C after its first epoch, and resumed.

    python -m benchmarks.interrupted_training ../shared/data -o benchmarks/interrupted_training.json

``bccd`` is taken whole, of ``pbc`` 200 images a class.  VGG16 starts from scratch (its ImageNet weights are not needed
for this) and sees 64 cells an epoch.  Printed and written: exit codes (130 stopped, 0 done), seconds, and each epoch's
losses and validation accuracy; two epochs show that a training runs and resumes, not how good a network gets.  Rows
that the output holds already are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NETWORKS = ("cnn3", "cnn4", "cnn6", "cnn4bn", "cnn5bn", "vgg16")
OF_VGG16 = ["--weights", "none", "--batch-size", "8", "--set", "sampler.epoch_cells=64"]
COMMAND = [sys.executable, "-c", "from napari_bloodcells.cli import main; main()", "train"]


def main() -> None:
    """Run all networks on both data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder that holds bccd and pbc")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(chosen.output.read_text()) if chosen.output.exists() else []
    done = {(row["network"], row["data"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        part = take_part(chosen.data / "pbc", Path(folder) / "pbc200", 200)
        for data, scheme in ((chosen.data / "bccd", "wbc5"), (part, "pbc8")):
            for network in chosen.networks:
                if (network, data.name) in done:
                    continue
                row = interrupt_and_resume(network, data, scheme, Path(folder) / f"{network}-{data.name}")
                print(json.dumps(row), flush=True)
                rows.append(row)
                chosen.output.write_text(json.dumps(rows, indent=1) + "\n")


def take_part(source: Path, target: Path, n: int) -> Path:
    """Copy ``n`` images of each class folder, evenly spread over the names."""
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        images = sorted(folder.iterdir())
        (target / folder.name).mkdir(parents=True)
        for i in range(min(n, len(images))):
            image = images[i * len(images) // min(n, len(images))]
            shutil.copy(image, target / folder.name / image.name)
    return target


def interrupt_and_resume(network: str, data: Path, scheme: str, output: Path) -> dict[str, Any]:
    """Train two epochs with a SIGINT after the first."""
    command = [*COMMAND, str(data), "--arch", network, "--scheme", scheme, "--epochs", "2", "-o", str(output)]
    command += OF_VGG16 if network == "vgg16" else []
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    while process.poll() is None and not (output / "history.csv").exists():
        time.sleep(0.05)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    stopped, seconds = process.wait(), time.monotonic() - start
    start = time.monotonic()
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    with open(output / "history.csv", newline="") as file:
        epochs = list(csv.DictReader(file))
    return {
        "network": network,
        "data": data.name,
        "stopped": {"exit": stopped, "seconds": round(seconds)},
        "resumed": {"exit": resumed.returncode, "seconds": round(time.monotonic() - start)},
        "traceback": "Traceback" in resumed.stderr,
        "epochs": [{k: float(e[k]) for k in ("train_loss", "val_loss", "val_accuracy")} for e in epochs],
    }


if __name__ == "__main__":
    main()
