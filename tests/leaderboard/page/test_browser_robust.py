"""Hostile texts, telephones, the dark, the keyboard and empty data, in a browser."""

import pytest

BIDO = f"{0xABC0000000 + 2:016x}"
HOSTILE = '<img src=x onerror="window.harmed=1"></script><!--\'"&'


def test_hostile_texts_stay_texts(tmp_path, visit, write_page, content):
    overview, numbers = content()
    for kind in ("attacks", "defenses", "datasets"):
        for entry in overview[kind]:
            entry["title"] += HOSTILE
    overview["attacks"][0]["name"] = HOSTILE
    overview["findings"][0]["text"] = [HOSTILE, [HOSTILE, "javascript:harm()"], [HOSTILE, '#/x" onclick="harm()']]
    overview["verdicts"][0] = dict.fromkeys(("word", "mark", "tone", "meaning"), HOSTILE)
    for view in overview["views"]:
        view |= {"sees": HOSTILE, "under": HOSTILE, "unit": HOSTILE}
        view["empty"] = [[a, d, kind, HOSTILE] for a, d, kind, _ in view["empty"]]
    for name in ("level", "attackLevel", "reason", "status", "confirmed"):
        overview["groups"][name] = [HOSTILE] * len(overview["groups"]["id"])
    numbers["texts"] = [HOSTILE] * 3
    for name in ("claim", "command", "cells", "notes", "picture", "pictureWhy", "knows", "guarantee", "device"):
        numbers["groups"][name] = [HOSTILE] * len(overview["groups"]["id"])
    numbers["groups"]["cells"] = [[[HOSTILE, HOSTILE, HOSTILE, HOSTILE]]] * len(overview["groups"]["id"])
    numbers["groups"]["notes"] = [[HOSTILE]] * len(overview["groups"]["id"])
    numbers["metrics"][0]["name"] = HOSTILE
    numbers["methods"] = {f"attack/{HOSTILE}": dict.fromkeys(("summary", "equation", "knows", "code"), HOSTILE)
                          | {"paper": dict.fromkeys(("title", "authors", "url"), HOSTILE)}}  # fmt: skip
    numbers["claims"][0] |= {"text": HOSTILE, "verdict": HOSTILE, "id": HOSTILE}
    numbers["published"][0] |= dict.fromkeys(("attack", "dataset", "source", "metric"), HOSTILE)
    numbers["setAside"] = [[HOSTILE, HOSTILE]]
    numbers["self"] = HOSTILE
    site = write_page(tmp_path, overview, numbers)
    from urllib.parse import quote

    inside = quote(HOSTILE, safe="")
    fragments = ["#/numbers", f"#/?view={inside}&attack={inside}&pick={inside}", f"#/numbers?q={inside}&sort={inside}"]
    fragments += [f"#/group/{BIDO}", f"#/group/{inside}", f"#/method/attack/{inside}", "#/method/defense/bido"]
    fragments += ["#/claims", f"#/claim/{inside}", "#/dataset/att_faces", f"#/{inside}", "#/%zz"]
    for fragment in fragments:
        page = visit(site, fragment)
        page.wait("window.mibench")
        if any(word in fragment for word in ("numbers", "group", "claim")):
            page.wait("document.querySelector('#detail h1') || mibench.table.content")
        for cell in range(3):
            page.run("const c = document.querySelectorAll('#matrix [data-attack]')[arguments[0]];"
                     "c?.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})); c?.click();"
                     "document.getElementById('dialog').close()", cell)  # fmt: skip
        assert page.run("return window.harmed") is None, fragment
        assert page.run("return document.querySelectorAll('img[onerror], [onclick], a[href^=javascript]').length") == 0
        assert [error for error in page.errors() if "ERR_FILE_NOT_FOUND" not in error] == [], fragment


@pytest.mark.parametrize("fragment", ["", f"#/group/{BIDO}", "#/method/attack/gmi", "#/claims", "#/numbers"])
def test_a_telephone_needs_no_sideways_scroll(site, visit, fragment):
    page = visit(site)
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                {"width": 400, "height": 860, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    try:
        page = visit(site, fragment)
        there = "#detail h1, #numbers-table tr[data-place]" if fragment else "#matrix tbody th"
        page.wait(f"document.querySelector('{there}')")
        assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.run("return getComputedStyle(document.querySelector('.matrix')).overflowX") == "auto"
        if not fragment:
            assert page.run("return getComputedStyle(document.querySelector('#matrix tbody th')).position") == "sticky"
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def luminance(page, name):
    """The brightness of a colour variable, 0 to 255."""
    text = page.run(f"return getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
    return sum(int(text[place : place + 2], 16) for place in (1, 3, 5)) / 3


def test_dark_mode_follows_the_system_and_the_switch(site, visit):
    page = visit(site)
    steps = ["zero", "step1", "step2", "step3", "step4", "step5"]
    light = [luminance(page, step) for step in steps]
    assert luminance(page, "paper") > 200 and light == sorted(light, reverse=True)
    page.click("#theme")
    dark = [luminance(page, step) for step in steps]
    assert luminance(page, "paper") < 50 and dark == sorted(dark), "what leaks most is brightest in the dark"
    page.click("#theme")
    assert luminance(page, "paper") > 200
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert luminance(visit(site), "paper") < 50
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_skip_link_and_motion(site, visit):
    page = visit(site, "#/?within=10")
    page.click(".skip")
    assert page.run("return document.activeElement.id") == "main" and page.address() == "#/?within=10"
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    try:
        assert page.run("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_links_to_sections_keep_the_choices(site, visit):
    page = visit(site, "#/?view=bbbb000002")
    page.click(".bar nav a[href^='#/plane']")
    page.wait("location.hash.startsWith('#/plane')")
    assert page.address() == "#/plane?view=bbbb000002" and page.texts("#matrix tbody th") == ["GIFD"]


def test_an_empty_overview_is_a_page_too(tmp_path, visit, write_page, content):
    overview, _ = content()
    overview |= {"views": [], "groups": {name: [] for name in overview["groups"]}, "strips": [], "findings": []}
    page = visit(write_page(tmp_path, overview), "")
    assert [
        error for error in page.errors() if "ERR_FILE_NOT_FOUND" not in error
    ] == [] and "No row is measured yet." in page.text("#matrix")
