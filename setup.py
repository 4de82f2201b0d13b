"""Build of the C extension ``attnkit._core``; everything else is in pyproject.toml.

Most sources are compiled with baseline flags. Each ``csrc/kernels/target_<word>.c`` is compiled with the flags of its
row in ``csrc/core/isa.def``, and all objects are linked into one extension that chooses among them at run time.

Environment variables (docs/environment.md): CC, CFLAGS, LDFLAGS, ATTNKIT_NO_OPENMP, ATTNKIT_DEBUG, ATTNKIT_SANITIZE,
ATTNKIT_WERROR, ATTNKIT_LEAVE_OUT.
"""

import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"

# The same bytes on every machine come before speed, so nothing here lets the compiler change a result.
LANGUAGE_FLAGS = [
    "-std=c11",
    "-fno-fast-math",  # takes back a -ffast-math that CFLAGS may have brought
    "-ffp-contract=off",  # a*b+c is fused only where the source says fma()
    "-fno-math-errno",  # sqrt and fma become one instruction; the value does not depend on it, only errno does
    "-fno-trapping-math",  # selects may replace branches; only exception flags could differ, and those are given back
    "-fvisibility=hidden",  # PyInit__core is the only symbol that leaves the extension
    "-fPIC",
    "-pthread",
]
WARNING_FLAGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
LINK_FLAGS = ["-pthread", "-Wl,-z,noexecstack", "-Wl,-z,relro", "-Wl,-z,now"]


def switch(name):
    """Value of an on/off environment variable."""
    return os.environ.get(name, "") not in ("", "0")


def isa_rows():
    """Rows (NAME, word, machine, flags) of csrc/core/isa.def, best first."""
    text = (CSRC / "core" / "isa.def").read_text()
    pattern = r'^AK_ISA\((\w+), "(\w+)", "(\w+)", "([^"]*)"\)$'
    return [(name, word, machine, flags.split()) for name, word, machine, flags in re.findall(pattern, text, re.M)]


def dependencies(depfile):
    """Files named by a make rule that the compiler wrote with -MMD."""
    text = depfile.read_text().replace("\\\n", " ").partition(": ")[2]
    return [Path(word.replace("\0", " ")) for word in text.replace("\\ ", "\0").split()]


class BuildExt(build_ext):
    """Compile in parallel, each file with its own flags, and only what changed."""

    def build_extension(self, ext):
        if self.compiler.compiler_type != "unix":
            raise RuntimeError("attnkit needs a compiler with gcc's command line (gcc or clang)")
        self.cc = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        self.user_flags = shlex.split(os.environ.get("CFLAGS", ""))
        self.objects = Path(self.build_temp).resolve()

        flags, link_flags = self.common_flags()
        openmp = self.openmp_flags()
        targets = self.usable_targets()

        # The slowest first: one target takes longer than all the rest. Only core knows OpenMP and the list of targets, so a
        # build that differs in them compiles little.
        core_flags = flags + openmp + [f"-DAK_HAVE_{name}=1" for name, _, _ in targets]
        jobs = [(CSRC / "kernels" / f"target_{word}.c", flags + row_flags) for _, word, row_flags in reversed(targets)]
        jobs += [(source, core_flags) for source in sorted((CSRC / "core").glob("*.c"))]
        jobs += [(source, flags) for source in sorted((CSRC / "attend").glob("*.c"))]
        binding_flags = flags + self.binding_flags(flags + openmp)
        jobs += [(source, binding_flags) for source in sorted((CSRC / "python").glob("*.c"))]

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(lambda job: self.compile_one(*job), jobs))
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(ext.name), extra_postargs=link_flags + openmp)

    def common_flags(self):
        """Compile and link flags that every file of this build shares."""
        debug = switch("ATTNKIT_DEBUG")
        sanitizers = os.environ.get("ATTNKIT_SANITIZE", "")
        flags = ["-O1", "-g", "-DAK_DEBUG=1"] if debug else ["-O1", "-g"] if sanitizers else ["-O3"]
        flags += LANGUAGE_FLAGS + WARNING_FLAGS
        link_flags = list(LINK_FLAGS)
        if switch("ATTNKIT_WERROR"):
            flags.append("-Werror")
        if sanitizers:
            # Undefined behaviour ends the process as a bad address does, so that no test passes over a report.
            sanitize = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
            flags += [*sanitize, "-fno-omit-frame-pointer"]
            link_flags += sanitize
        return flags, link_flags

    def openmp_flags(self):
        """-fopenmp if the compiler can compile and link with it."""
        if switch("ATTNKIT_NO_OPENMP"):
            print("attnkit: ATTNKIT_NO_OPENMP is set: building a serial extension (same results, one thread)")
            return []
        if self.links(["-fopenmp"], "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"):
            return ["-fopenmp"]
        print(f"attnkit: {self.cc[0]} cannot build with -fopenmp: building a serial extension (same results, one thread)")
        return []

    def usable_targets(self):
        """(NAME, word, flags) of the rows of isa.def for this machine whose flags the compiler takes."""
        machine = subprocess.run([*self.cc, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.split("-")[0], machine.split("-")[0])
        targets = []
        for name, word, row_machine, flags in isa_rows():
            if row_machine not in ("any", machine):
                continue
            if self.links([*flags, "-Werror"], "int main(void) { return 0; }\n"):
                targets.append((name, word, flags))
            else:
                print(f"attnkit: {self.cc[0]} does not know the flags of target {word}: left out")
        return targets

    def binding_flags(self, flags):
        """What only csrc/python needs: the headers of Python and NumPy, and the text of build_info()."""
        import numpy as np

        version = subprocess.run([*self.cc, "--version"], capture_output=True, text=True, check=True).stdout
        info = {
            "AK_BUILD_COMPILER": version.splitlines()[0],
            "AK_BUILD_FLAGS": " ".join(f for f in flags if not f.startswith(("-W", "-D"))),
            "AK_BUILD_SANITIZERS": os.environ.get("ATTNKIT_SANITIZE", ""),
        }
        paths = sysconfig.get_paths()
        # -isystem: the warnings of other people's headers are not ours to fix.
        includes = {paths["include"], paths["platinclude"], np.get_include()}
        return [
            *(f'-D{name}="{value}"' for name, value in info.items()),
            "-DNPY_TARGET_VERSION=NPY_2_0_API_VERSION",
            "-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION",
            *(word for path in sorted(includes) for word in ("-isystem", path)),
        ]

    def links(self, flags, program):
        """Does the compiler build and link a program with these flags?"""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program)
            command = [*self.cc, *self.user_flags, *flags, str(source), "-o", str(Path(folder, "probe"))]
            return subprocess.run(command, capture_output=True).returncode == 0

    def compile_one(self, source, flags):
        """Compile one file unless its object is newer than all it was made from, by the same command."""
        target = self.objects / source.relative_to(ROOT).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        depfile, cmdfile = target.with_suffix(".d"), target.with_suffix(".cmd")
        command = [*self.cc, *self.user_flags, *flags, "-c", str(source), "-o", str(target), "-MMD", "-MF", str(depfile)]
        line = shlex.join(command)

        def up_to_date():
            if self.force or not (target.exists() and depfile.exists() and cmdfile.exists()):
                return False
            made = target.stat().st_mtime
            same_command = cmdfile.read_text() == line
            return same_command and all(f.exists() and f.stat().st_mtime < made for f in dependencies(depfile))

        if not up_to_date():
            cmdfile.unlink(missing_ok=True)
            print(line)
            if subprocess.run(command).returncode != 0:
                raise RuntimeError(f"compiling {source.relative_to(ROOT)} failed")
            cmdfile.write_text(line)
        return str(target)


# The list of sources only makes setuptools include them in a source distribution and call build_extension.
SOURCES = sorted(str(path.relative_to(ROOT)) for path in CSRC.glob("*/*.c"))

setup(ext_modules=[Extension("attnkit._core", SOURCES)], cmdclass={"build_ext": BuildExt})
