"""The C twins. Each is optional: where it does not build, its pure-Python twin does the same, only slower.

All other settings are in pyproject.toml. `python setup.py build_ext --inplace` builds them again after a change.
"""

from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent

setup(
    ext_modules=[
        Extension("dwcp.encoding._chunks", ["dwcp/encoding/_chunks.c"], extra_compile_args=["-O3"], optional=True),
        Extension(
            "dwcp.encoding._pages",
            ["dwcp/encoding/_pages.c"],
            depends=sorted(str(path.relative_to(HERE)) for path in HERE.glob("dwcp/encoding/_pages_*.h")),
            extra_compile_args=["-O3"],
            optional=True,  # needs xxhash.h (Debian: libxxhash-dev) and GCC 12
        ),
    ]
)
