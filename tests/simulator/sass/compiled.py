"""Kernels that Triton compiles for sm_80 and sm_90, in a process of its own: cubins, and the facts of their launch."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import triton

from tidepool.simulator.sass import Instruction, Launch, disassemble

NVDISASM = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
_COMPILE = """
import json, sys
from pathlib import Path
from tidepool.kernels.compile_check.compile import collecting, compile_for, gpu_of
from tidepool.kernels.compile_check.conv_cases import CASES
from tidepool.kernels.compile_check.conv_launches import launch_case
from tidepool.kernels.runtime.targets import target_named
target, folder = target_named(sys.argv[1]), Path(sys.argv[2])
compile_for(gpu_of(target), target)
(case,) = [case for case in CASES if case.name == "3x3_c256"]
with collecting("bf16") as asked:
    launch_case(case, "bf16")
for launch in asked:
    compiled = launch.kernel.warmup(*launch.arguments, grid=(1,), **launch.keywords)
    file = folder / f"{target.name}.{launch.name}.cubin"
    file.write_bytes(compiled.asm["cubin"])
    facts = {"threads": 32 * launch.warps, "shared": compiled.metadata.shared}
    file.with_suffix(".json").write_text(json.dumps(facts))
"""


@dataclass(frozen=True)
class Kernels:
    """A convolution of 256 channels with its gradients, in bfloat16, compiled into a folder."""

    folder: Path
    read: dict[str, dict[str, tuple[list[Instruction], Launch]]] = field(default_factory=dict)

    def files(self, target: str) -> list[Path]:
        """Its cubins, compiled when they are first asked for."""
        if not list(self.folder.glob(f"{target}.*")):
            environment = {**os.environ, "TRITON_INTERPRET": "0"}
            command = [sys.executable, "-c", _COMPILE, target, str(self.folder)]
            subprocess.run(command, env=environment, check=True)
        return sorted(self.folder.glob(f"{target}.*.cubin"))

    def on(self, target: str) -> dict[str, tuple[list[Instruction], Launch]]:
        """Code and launch of each kernel by its name."""
        if target not in self.read:
            files = self.files(target)
            codes = disassemble([file.read_bytes() for file in files], target, NVDISASM)
            facts = [json.loads(file.with_suffix(".json").read_text()) for file in files]
            self.read[target] = {
                file.stem.partition(".")[2]: (code, Launch(**given))
                for file, code, given in zip(files, codes, facts, strict=True)
            }
        return self.read[target]
