"""Pages of groups, methods, datasets and claims; narrow, dark and hostile pages, in a browser."""

import pytest

FIRST = 0xABC0000000
GMI, BIDO, DP_SGD, NOISED = (f"{FIRST + place:016x}" for place in (0, 2, 3, 14))


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
