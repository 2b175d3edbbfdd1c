# SPDX-License-Identifier: Apache-2.0
"""The pages for people: what they name exists, and they stay small enough to be read."""

import re
import subprocess
import tomllib

import pytest

from harness import paths

PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/operations.md",
         "docs/configuration.md"]  # fmt: skip
LINES_MAX = {"README.md": 110, "ARCHITECTURE.md": 110, "CONTRIBUTING.md": 110}
FOLDER_README_LINES_MAX = 25


def tracked(*patterns):
    done = subprocess.run(
        ["git", "ls-files", *patterns], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    return [paths.ROOT / line for line in done.stdout.splitlines()]


def make_targets():
    text = (paths.ROOT / "Makefile").read_text()
    heads = re.findall(r"^([a-z][a-z -]*):(?!=)", text, re.MULTILINE)
    return {target for head in heads for target in head.split()}


@pytest.mark.parametrize("page", PAGES)
def test_page_exists_and_is_small(page):
    lines = (paths.ROOT / page).read_text().splitlines()
    assert len(lines) <= LINES_MAX.get(page, 200), f"{page} has {len(lines)} lines"


@pytest.mark.parametrize("page", PAGES)
def test_make_commands_in_pages_are_targets(page):
    text = (paths.ROOT / page).read_text()
    # A command stands in backquotes or alone on an indented line.
    named = set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.MULTILINE))
    assert named <= make_targets(), f"{page} names {named - make_targets()}"


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_in_pages_lead_somewhere(page):
    path = paths.ROOT / page
    text = path.read_text()
    broken = []
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http") and not (path.parent / link).exists():
            broken.append(link)
    for name in re.findall(r"`((?:sdk|kernel|plugins|tests|docs|packaging|cmake)/[\w./-]*)`", text):
        if not (paths.ROOT / name).exists():
            broken.append(name)
    assert not broken, f"{page} names what is not there: {broken}"


def test_readme_tells_of_every_user_and_both_commands():
    text = (paths.ROOT / "README.md").read_text()
    for needed in ("make run", "make cluster", "make test", "etcdctl put", "operate", "assemble",
                   "write a plugin", "Apache"):  # fmt: skip
        assert needed in text, f"README.md does not say '{needed}'"


def test_folder_readmes_are_small():
    long = []
    for readme in tracked("*/README.md"):
        count = len(readme.read_text().splitlines())
        if count > FOLDER_README_LINES_MAX:
            long.append(f"{readme.relative_to(paths.ROOT)}: {count} lines")
    assert not long, long


def test_sources_open_with_their_licence():
    without = []
    for source in tracked("*.c", "*.cc", "*.h", "*.py", "*.go", "*.js", "*.proto", "Makefile"):
        if "SPDX-License-Identifier: Apache-2.0" not in source.read_text()[:300]:
            without.append(str(source.relative_to(paths.ROOT)))
    assert not without, without


def test_configuration_page_is_a_valid_file():
    text = (paths.ROOT / "docs" / "configuration.md").read_text()
    example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]
    document = tomllib.loads(example)
    assert document["node"]["name"] in document["cluster"]["members"]
    if not paths.KEYWAYD.exists():
        pytest.skip("keywayd is not built")
    file = paths.WORK / "documented.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(example)
    command = [str(paths.KEYWAYD), "--config", str(file), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr


def test_examples_are_valid():
    examples = sorted((paths.ROOT / "packaging" / "examples").rglob("*.toml"))
    assert examples, "there is no example"
    if not paths.KEYWAYD.exists():
        pytest.skip("keywayd is not built")
    for example in examples:
        command = [str(paths.KEYWAYD), "--config", str(example), "--check-config"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{example.name}: {done.stdout + done.stderr}"
