"""Which build of PyTorch to install: for the CPU or with CUDA, by what is asked for and at hand."""

from __future__ import annotations

import shlex
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from packages import Packages, Planned

VERSION = "2.13.0"
TORCH = f"torch=={VERSION}"
CUDA_TORCH = f"torch==={VERSION}"  # not one that ends in +cpu, as some indexes have
CPU, CUDA = "cpu", "cuda"  # the choices by name; "" is what suits the machine
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")
GPU_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/usr/lib/wsl/lib/nvidia-smi")
SECONDS = 10.0  # to wait for the size of one package


def has_gpu() -> bool:
    """Is there a GPU of NVIDIA's, with its driver?"""
    return any(Path(sign).exists() for sign in GPU_SIGNS)


def is_choice(torch: str) -> bool:
    """Is this one of the choices by name, or arguments of pip that name PyTorch?"""
    named = any(Path(word).name.startswith("torch") for word in shlex.split(torch))
    return torch in ("", CPU, CUDA) or named


def torch_arguments(choice: str, packages: Packages, say: Callable[[str], None]) -> list[str]:
    """The arguments of `pip install` for a choice; never refuses one.

    Without a GPU, and with `cpu`, it is a build without CUDA where the package index has one for
    this Python, or uv knows one; else what the index has, after one line about it.
    """
    if choice not in ("", CPU, CUDA):
        return shlex.split(choice)
    if choice == CUDA or (not choice and has_gpu()):
        say("looking for the CUDA build of PyTorch")
        return [CUDA_TORCH if packages.can_install(CUDA_TORCH) else TORCH]
    if packages.uv:
        return _arguments_of_uv(packages, say)
    say("looking for a build of PyTorch without CUDA")
    plan = packages.plan(TORCH)
    if not cuda_packages(plan):
        return [TORCH]
    say(f"{_NO_CPU_BUILD}: {len(plan)} packages, {megabytes(plan)}. {_CHOOSE}")
    return [TORCH]


def cuda_packages(plan: Iterable[Planned]) -> list[Planned]:
    """Those that only a CUDA build brings."""
    return [package for package in plan if package.name.startswith(CUDA_PREFIXES)]


def megabytes(plan: Iterable[Planned]) -> str:
    """How much there is to fetch, in words."""
    sizes = [_size(package.url) for package in plan]
    more = "" if all(sizes) else "more than "
    return f"{more}{sum(sizes) / 1e6:,.0f} MB" if any(sizes) else "several gigabytes"


_NO_CPU_BUILD = (
    "no build of PyTorch without CUDA can be had here for this Python; taking the one of the "
    "package index, which computes on the CPU just as well"
)
_CHOOSE = (
    'To take another: make setup TORCH="...", with the arguments that "Get started" on pytorch.org '
    "gives for pip install, or INSTALLER=uv, which finds it by itself"
)


def _arguments_of_uv(packages: Packages, say: Callable[[str], None]) -> list[str]:
    words = [TORCH, "--torch-backend", CPU]
    if packages.can_install(*words):
        return words
    say(f"{_NO_CPU_BUILD}. {_CHOOSE}")
    return [TORCH]


def _size(url: str) -> int:
    """Bytes of a file; 0 where that cannot be learned."""
    parts = urllib.parse.urlsplit(url)
    try:
        if parts.scheme == "file":
            return Path(urllib.parse.unquote(parts.path)).stat().st_size
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return int(reply.headers.get("Content-Length", 0))
    except (OSError, ValueError):
        return 0
