from setuptools import setup

setup(
    name="drmguard",
    version="0.1.0",
    description="Find, remove and prove the absence of known backdoor behaviour "
    "in deep regression models for driver monitoring",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        "guard",
        "export",
        "tools",
        "tools.attacks",
        "tools.datasets",
        "tools.faces",
        "tools.report",
        "tools.zoo",
        "tools.sample",
    ],
    package_data={
        "tools.sample": ["*.safetensors", "*.json", "*.npz", "*.csv"],
        "tools.zoo": ["plans/*.csv"],
    },
    install_requires=[
        "torch>=2.6",
        "numpy>=2.0",
        "opencv-python>=4.10",
        "onnx>=1.18",
        "onnxscript>=0.5.7",
        "onnxruntime-gpu>=1.22",
        "fire>=0.7",
        "safetensors>=0.5",
        "tqdm>=4.66",
        "matplotlib>=3.9",
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6", "mypy>=1.15", "ruff>=0.9"]
    },
    entry_points={"console_scripts": ["drmguard=tools.cli:main"]},
)
