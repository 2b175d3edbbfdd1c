#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks every built plugin from outside: see README.md."""
import pathlib
import re
import subprocess
import sys

ENTRY = "kw_plugin_entry"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def faults_of(path):
    symbols = [line.split()[-1] for line in run("nm", "-D", "--defined-only", path).splitlines()]
    if symbols != [ENTRY]:
        yield f"exports {symbols}, not {ENTRY} alone"
    dynamic = run("readelf", "-d", "-W", path)
    if not re.search(r"BIND_NOW|NOW", dynamic):
        yield "is not linked with -z now"
    if "TEXTREL" in dynamic:
        yield "has text relocations"
    if re.search(r"\((RPATH|RUNPATH)\)", dynamic):
        yield "carries a library path of the build"
    if ".note.keyway" not in run("readelf", "-S", "-W", path):
        yield "has no manifest"
    id_text = re.search(rb"id=([^;]+);", pathlib.Path(path).read_bytes())
    if id_text and id_text.group(1).decode() != pathlib.Path(path).stem:
        yield f"has the id {id_text.group(1).decode()}, not the name of its file"


def main():
    plugins = sorted(pathlib.Path(sys.argv[1]).glob("*.so"))
    if not plugins:
        sys.exit("no plugin was built")
    faults = [f"{path.name} {fault}" for path in plugins for fault in faults_of(str(path))]
    if faults:
        sys.exit("\n".join(faults))
    print(", ".join(path.stem for path in plugins))


main()
