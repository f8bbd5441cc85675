"""Metadata for `pip install -e .`; the tested versions are in requirements.txt."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

SIMULATOR = [  # and, apart: pip install --no-deps safety-gymnasium==1.0.0
    "mujoco>=3.1.6,<4",
    "imageio>=2.30",
    "xmltodict>=0.13",
    "pyyaml>=6",
]
VIDEO = ["av>=12"]
PLOTS = ["matplotlib>=3.8"]
DEVELOPMENT = ["pytest>=8", "ruff>=0.15"]

setup(
    name="fosp-pytorch",
    version="0.1.0",
    description="FOSP: safe offline-to-online reinforcement learning from pixels with world models",
    long_description=Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["dreamer", "dreamer.*", "fosp_ext", "fosp_ext.*"]),
    py_modules=["train", "eval"],
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "h5py>=3.10",
        "gymnasium>=0.29,<1",
        "ruamel.yaml>=0.18",
        "tensorboard>=2.16",
        "tqdm>=4.66",
        "pillow>=10.1",
    ],
    extras_require={
        "sim": SIMULATOR,
        "video": VIDEO,
        "plots": PLOTS,
        "dev": DEVELOPMENT,
        "all": [*SIMULATOR, *VIDEO, *PLOTS, *DEVELOPMENT],
    },
)
