"""The C twins. Each is optional: where it does not build, its pure-Python twin does the same, only slower.

All other settings are in pyproject.toml. `python setup.py build_ext --inplace` builds them again after a change.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("dwcp.encoding._chunks", ["dwcp/encoding/_chunks.c"], extra_compile_args=["-O3"], optional=True),
    ]
)
