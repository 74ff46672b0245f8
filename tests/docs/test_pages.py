"""Settings, files and pages that the pages name exist."""

import re

import pytest
from nerfstudio.configs.method_configs import all_methods

from tests.helpers.markdown import DOCS, ROOT, code_blocks
from tools.make_settings_page import METHODS, leaves

SITE = sorted(DOCS.glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]
METHOD_FLAG = r"--((?:pipeline|optimizers|machine|viewer)\.[a-z][a-z.-]*[a-z])"
LINK = r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)"
FILE = r"\b(?:configs|tools)/[a-z0-9_/]+\.(?:yaml|py|sh)\b"
MODULE = r"python -m (tools\.\w+)"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_settings_exist(page):
    others = [all_methods[name] for name in ("vanilla-nerf", "splatfacto")]
    known = {flag for config in [*METHODS.values(), *others] for flag, _ in leaves(config)}
    groups = {flag[: end.start()] for flag in known for end in re.finditer(r"\.", flag)}
    unknown = set(re.findall(METHOD_FLAG, page.read_text())) - known - groups
    assert not unknown, f"{page.name} names settings that do not exist"


@each_page
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(LINK, page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


@each_page
def test_experiments_and_tools_exist(page):
    text = page.read_text()
    named = [*re.findall(FILE, text), *(f"{module.replace('.', '/')}.py" for module in re.findall(MODULE, text))]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


@each_page
def test_methods_in_commands_exist(page):
    commands = "".join(code_blocks(page.read_text(), "bash"))
    unknown = set(re.findall(r"^ns-train ([\w-]+)", commands, re.MULTILINE)) - all_methods.keys()
    assert not unknown, f"{page.name} trains {unknown}"


def test_the_table_of_contents_has_every_page():
    contents = (DOCS / "README.md").read_text()
    missing = [page.name for page in SITE if page.name != "README.md" and f"]({page.name})" not in contents]
    assert not missing


def test_the_benchmark_page_describes_every_experiment():
    page = (DOCS / "benchmark.md").read_text()
    missing = [path.stem for path in (ROOT / "configs").glob("*.yaml") if f"`{path.stem}`" not in page]
    assert not missing
