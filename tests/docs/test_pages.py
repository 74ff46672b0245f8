"""Settings and pages that the pages name exist."""

import re

import pytest
from nerfstudio.configs.method_configs import method_configs

from tests.docs.markdown import DOCS, ROOT
from tools.make_settings_page import METHODS, leaves

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
METHOD_FLAG = r"--((?:pipeline|optimizers|machine|viewer)\.[a-z][a-z.-]*[a-z])"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page):
    known = {flag for config in [*METHODS.values(), method_configs["vanilla-nerf"]] for flag, _ in leaves(config)}
    groups = {flag[: end.start()] for flag in known for end in re.finditer(r"\.", flag)}
    unknown = set(re.findall(METHOD_FLAG, page.read_text())) - known - groups
    assert not unknown, f"{page.name} names settings that do not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)", page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_the_table_of_contents_has_every_page():
    contents = (DOCS / "README.md").read_text()
    missing = [
        page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"]({page.name})" not in contents
    ]
    assert not missing
