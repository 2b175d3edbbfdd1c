#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes layout_test.c: the offset and size of every field of every public struct, as they are now.

Run it after an additive change of a header, and review the diff: lines may be added, and the size of a
growing struct may change; a changed offset is a break of the ABI.

  sdk/abi/make_layout_test.py [--check]     --check: fail if the file is not what would be written
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "sdk" / "include"
OUT = ROOT / "sdk" / "abi" / "layout_test.c"


def structs(text):
    """Yields (name, body) of each struct definition, comments and macros removed."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^#[^\n]*(\\\n[^\n]*)*", " ", text, flags=re.M)
    for match in re.finditer(r"struct (kw_\w+) \{(.*?)\n\}", text, flags=re.S):
        yield match.group(1), match.group(2)


def fields(body):
    for part in body.split(";"):
        part = " ".join(part.split())
        if not part:
            continue
        function = re.search(r"\(\*(\w+)\)\(", part)
        if function:
            yield function.group(1)
            continue
        for declarator in part.split(","):
            yield re.search(r"(\w+)(\[\w+\])?$", declarator.strip()).group(1)


def layout():
    headers = sorted(path.name for path in INCLUDE.glob("keyway/*.h"))
    found = [(header, name, list(fields(body))) for header in headers
             for name, body in structs((INCLUDE / "keyway" / header).read_text())]
    lines = ["#include <stdio.h>"] + [f"#include <keyway/{header}>" for header in headers]
    lines.append("int main(void) {")
    for _, name, names in found:
        lines.append(f'printf("%zu %zu\\n", sizeof({name}), _Alignof({name}));')
        for field in names:
            lines.append(f'printf("%zu %zu\\n", offsetof({name}, {field}), sizeof((({name}*)0)->{field}));')
    lines.append("return 0; }")
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "probe.c"
        source.write_text("\n".join(lines))
        subprocess.run(["cc", "-std=c11", f"-I{INCLUDE}", str(source), "-o", folder + "/probe"], check=True)
        numbers = subprocess.run([folder + "/probe"], check=True, capture_output=True, text=True).stdout
    numbers = iter(tuple(map(int, line.split())) for line in numbers.splitlines())
    out = ["/* SPDX-License-Identifier: Apache-2.0", " *",
           " * The layout of every public struct on 64-bit Linux. Written by make_layout_test.py, reviewed",
           " * as a diff: offsets never change, structs grow only at the end. */", "/* clang-format off */"]
    out += [f"#include <keyway/{header}>" for header in headers]
    out += ["", "#define LAYOUT(type, field, offset, bytes)                              \\",
            '  _Static_assert(offsetof(type, field) == (offset), #type "." #field);  \\',
            '  _Static_assert(sizeof(((type *)0)->field) == (bytes), #type "." #field " size")',
            "#define SIZE(type, bytes, align)                              \\",
            '  _Static_assert(sizeof(type) == (bytes), #type " size");     \\',
            '  _Static_assert(_Alignof(type) == (align), #type " align")']
    last = None
    for header, name, names in found:
        if header != last:
            out += ["", f"/* ---- {header} */"]
            last = header
        total, align = next(numbers)
        out.append("")
        end = 0
        rows = []
        for field in names:
            offset, size = next(numbers)
            assert offset == end, f"{name} has padding before {field}: name it `reserved`"
            end = offset + size
            rows.append(f"LAYOUT({name}, {field}, {offset}, {size});")
        assert end == total, f"{name} has padding at its end: name it `reserved`"
        out.append(f"SIZE({name}, {total}, {align});")
        out += rows
    return "\n".join(out) + "\n"


def main():
    text = layout()
    if "--check" in sys.argv[1:]:
        if OUT.read_text() != text:
            sys.exit("layout_test.c is not what the headers say; see make_layout_test.py")
        return
    OUT.write_text(text)


main()
