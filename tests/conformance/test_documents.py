# SPDX-License-Identifier: Apache-2.0
"""Pages that must agree with the code."""

import re

from server import ROOT


def test_the_configuration_page_has_every_setting_and_no_other():
    code = (ROOT / "Sources/swiftlet/Options/Setting.swift").read_text()
    settings = set(re.findall(r"^    case (\w+)$", code, re.MULTILINE))
    page = (ROOT / "docs/configuration.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)`", page, re.MULTILINE))
    assert set(rows) == settings
    for setting, environment in rows.items():
        assert environment == "SWIFTLET_" + re.sub("([A-Z])", r"_\1", setting).upper()


def test_what_is_kept_for_how_long_names_settings_that_exist():
    code = (ROOT / "Sources/swiftlet/Options/Setting.swift").read_text()
    settings = set(re.findall(r"^    case (\w+)$", code, re.MULTILINE))
    page = (ROOT / "docs/configuration.md").read_text()
    section = page.split("## What is kept for how long")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+)`", section)
    assert "auditRetentionDays" in named and set(named) <= settings
    # Whatever limits what is kept is in the table.
    assert {setting for setting in settings if "retention" in setting.lower()} <= set(named)


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), "%s -> %s" % (page.name, target)
