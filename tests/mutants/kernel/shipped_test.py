# SPDX-License-Identifier: Apache-2.0
"""No file that is shipped has a mutant in it: shipped_test.py MUTANTS_BINARY FOLDER..."""

import pathlib
import sys

MARK = b"keyway: mutants are built in"  # kMark in kernel/base/mutant.h


def main():
    with_mutants, folders = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if MARK not in with_mutants.read_bytes():
        sys.exit(f"{with_mutants} has no mark: this test could not see one elsewhere")
    files = [path for folder in folders for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()]
    for name in ("keywayd", "log-segmented.so"):
        if not any(path.name == name for path in files):
            sys.exit(f"{name} is not in {', '.join(folders)}")
    marked = [str(path) for path in files if MARK in path.read_bytes()]
    if marked:
        sys.exit(f"mutants are built into {', '.join(marked)}")
    print(f"{len(files)} files without mutants")


main()
