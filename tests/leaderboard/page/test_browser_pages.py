"""Pages of groups, methods, datasets and claims; narrow, dark and hostile pages, in a browser."""

import pytest

FIRST = 0xABC0000000
GMI, BIDO, DP_SGD, NOISED = (f"{FIRST + place:016x}" for place in (0, 2, 3, 14))
HOSTILE = '<img src=x onerror="window.harmed=1"></script><!--\'"&'


def open_page_of(visit, site, fragment):
    page = visit(site, fragment)
    page.wait("document.querySelector('#detail h1')")
    return page


def test_a_group_page_has_the_claim_its_neighbours_and_every_number(site, visit):
    page = open_page_of(visit, site, f"#/group/{BIDO}")
    assert page.errors() == []
    assert page.text("#detail h1") == "GMI against BIDO on AT&T faces, strength 2"
    assert page.text(".claim") == "With BIDO it leaks. ● leak"
    assert "No picture: the terms of the data" in page.text("#detail") and page.texts("#detail img") == []
    rows = page.texts("#group-neighbours tbody tr")
    assert [row.split("0.")[0] for row in rows] == ["no defense", "strength 1", "strength 2"]
    assert page.run("return document.querySelector('#group-neighbours .reference b').ariaCurrent") == "true"
    assert page.texts("#group-numbers tbody tr td:first-child") == ["attack accuracy (vote)", "ssim"]
    told = page.text("#detail .facts")
    for word in (
        "weights",
        "4,000 queries, 2,000 gradients, 12.0 s on cpu",
        "1.50 \N{MULTIPLICATION SIGN} the undefended",
        "0.86 [0.82, 0.90]",
    ):
        assert word in told
    assert page.text("#group-command pre") == "python -m mibench attack=gmi"
    assert f"rows 0123456789ab, group {BIDO}" in page.text("#group-reference pre")
    assert "lift +0.30 [0.20, 0.40]" in page.text("#group-reference pre")
    assert page.text("#group-papers pre") == "@inproceedings{gmi, } @inproceedings{bido, } @misc{att, }"
    assert "A note." in page.text("#detail") and '"name": "gmi"' in page.text("#detail details pre")


def test_a_guarantee_stands_apart_and_a_picture_where_there_is_one(site, visit):
    page = open_page_of(visit, site, f"#/group/{DP_SGD}")
    assert "What is guaranteed" in page.text("#detail") and "epsilon 8 at delta 0.00001" in page.text("#detail")
    page = open_page_of(visit, site, f"#/group/{NOISED}")
    assert "What is guaranteed" not in page.text("#detail")
    assert page.run("return document.querySelector('.sheet img').naturalWidth") == 1
    assert "unpaired" in page.text("#group-neighbours")


def test_what_was_not_measured_says_why(site, visit):
    page = open_page_of(visit, site, f"#/group/{FIRST + 255:016x}")
    assert "Nothing was measured. Incompatible: no labels." in page.text("#group-numbers")


def test_a_method_page_shows_every_setting_against_the_undefended_model(site, visit):
    page = open_page_of(visit, site, "#/method/attack/gmi")
    assert page.text("#detail h1") == "GMI generative"
    assert "A latent search. Measured in 7 settings; the verdict is leak in 6 of them." in page.text(".claim")
    assert page.text(".equation") == "L = D + CE" and "Its largest lift: GMI against no defense" in page.text("#detail")
    assert len(page.texts("#method-blocks tbody tr")) == 7
    assert page.run("return document.querySelectorAll('#method-blocks .reference').length") == 6, "dashed lines"
    assert page.run(
        "return [...document.querySelectorAll('#detail a')].map(a => a.href).filter(h => h.includes('github'))"
    ) == ["https://github.com/x/y"]
    page = open_page_of(visit, site, "#/method/defense/bido")
    assert page.text("#detail h1") == "BIDO acts on training"
    assert len(page.texts("#method-blocks details")) == 2, "one block per view"
    page.click("#detail a[href^='#/numbers?']")
    page.wait("document.querySelector('#numbers-table tr[data-place]')")
    assert page.run("return document.querySelector('#numbers-controls [name=defense]').value") == "bido"


def test_a_dataset_page_lists_what_may_be_compared(site, visit):
    page = open_page_of(visit, site, "#/dataset/att_faces")
    assert page.text(".claim") == "Forty people." and "are measured, never shown" in page.text("#detail")
    assert page.texts("#detail li") == ["the trained model, cnn, standard 4 attacks, 3 defenses"] or page.texts(
        "#detail li"
    )
    assert page.run("return document.querySelector('#detail li a').hash") == "#/?view=aaaa000001"


def test_claims_are_listed_and_each_has_a_page(site, visit):
    page = open_page_of(visit, site, "#/claims")
    assert page.texts("#claims-table tbody tr") == [
        "GMI beats MIRROR.holds+0.20 [0.10, 0.30]403",
        "Nothing.not tested" + 3 * "\N{EN DASH}",
    ]
    assert "holds 1, not tested 1" in page.text(".claim")
    page.click("#claims-table tbody a")
    page.wait("document.querySelector('#claim-table')")
    assert page.text("#detail h1") == "GMI beats MIRROR." and page.text(".claim").startswith(
        "holds: +0.20 [0.10, 0.30]"
    )
    assert len(page.texts("#claim-table tbody tr")) == 2 and "@inproceedings{gmi," in page.text("#claim-source pre")


def test_published_figures_stand_beside_ours(site, visit):
    page = visit(site, "#/published")
    page.wait("document.querySelector('#published-table tbody tr')")
    assert page.text("#published-table tbody tr").startswith("GMIceleba, vgg16, 64 px")
    assert "0.28 ± 0.02" in page.text("#published-table") and "other faces" in page.text("#published-table")
    assert page.run("return document.querySelector('#published-table a[href^=\"#/group\"]').textContent") == "0.90"


@pytest.mark.parametrize("path", ["group/nothing", "method/attack/nothing", "method/x/gmi", "dataset/x", "claim/x"])
def test_unknown_names_are_said(site, visit, path):
    page = open_page_of(visit, site, f"#/{path}")
    assert page.text("#detail h1").startswith("Nothing is measured under") and page.errors() == []


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
