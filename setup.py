import os
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*parts):
    with open(os.path.join(HERE, *parts), encoding="utf-8") as file:
        return file.read()


class BuildWithStart(build_py):
    """Puts the start-up file at the top of site-packages, where site.py looks for it."""

    def run(self):
        super().run()
        name = "stalepool-start.pth"
        self.copy_file(os.path.join(HERE, name), os.path.join(self.build_lib, name))


TESTING = ["trustme", "pytest"]  # for the tests of others, by stalepool_testing
DEMO = ["eventlet>=0.33.1", "urllib3>=1.26.5", "requests", "keystoneauth1"]
TEST = [
    *DEMO,
    "pytest>=8",
    "pytest-timeout",
    "pytest-xdist",
    "pyperf",
    "hypothesis",
    "trustme",
    "pyOpenSSL",
    "gevent",
    # vcrpy holds urllib3 below 2 on Pythons before 3.10
    "vcrpy; python_version >= '3.10'",
    "h2; python_version >= '3.9'",
    "PySocks",
    "freezegun",
    "pytest-socket",
    # botocore holds urllib3 below 2 on Pythons before 3.10
    "botocore; python_version >= '3.10'",
    "pywinrm",
    "setuptools>=70.1",
]
# metrics
PROMETHEUS = ["prometheus_client"]
OPENTELEMETRY = ["opentelemetry-api"]
OSLO = ["oslo.config", "oslo.reports"]
TEST += [*PROMETHEUS, *OPENTELEMETRY, "opentelemetry-sdk", *OSLO, "oslo.log"]
LINT = ["ruff==0.17.6", "mypy==2.4.1", "types-requests"]
DOCS = ["sphinx", *TESTING, *PROMETHEUS, *OPENTELEMETRY, *OSLO]
BENCH = [*DEMO, "pyperf", "trustme"]

setup(
    name="stalepool",
    version=re.search(r'__version__ = "(.+?)"', read("stalepool", "__init__.py")).group(1),
    description="Keeps services from talking into dead pooled connections",
    long_description=read("README.rst"),
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    keywords="urllib3 requests keystoneauth1 eventlet connection-pool keepalive pytest",
    packages=find_packages(include=["stalepool", "stalepool.*", "stalepool_testing*"]),
    py_modules=["pytest_stalepool"],
    package_data={
        "stalepool": ["py.typed", "inject/sitecustomize.py"],
        "stalepool_testing": ["py.typed"],
    },
    cmdclass={"build_py": BuildWithStart},
    python_requires=">=3.8",
    install_requires=["wrapt>=1.14"],
    extras_require={
        "testing": TESTING,
        "demo": DEMO,
        "prometheus": PROMETHEUS,
        "opentelemetry": OPENTELEMETRY,
        "oslo": OSLO,
        "test": TEST,
        "lint": LINT,
        "bench": BENCH,
        "docs": DOCS,
    },
    entry_points={
        "console_scripts": ["stalepool = stalepool.__main__:main"],
        "oslo.config.opts": ["stalepool = stalepool.contrib.oslo:list_opts"],
        # by the name of its module, so that "-p pytest_stalepool" is the same plugin
        "pytest11": ["pytest_stalepool = pytest_stalepool"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Pytest",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: 3.15",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
