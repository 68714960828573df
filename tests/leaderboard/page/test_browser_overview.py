"""The first screen, the matrix and the figures in a browser."""

import json

import pytest
from selenium.webdriver.common.keys import Keys

TO = "\N{EN DASH}"


def cells(page):
    """What every cell of the matrix says to a screen reader."""
    return page.run("return [...document.querySelectorAll('#matrix [data-attack]')].map(n => n.ariaLabel)")


def focused(page):
    return page.run("return document.activeElement.ariaLabel || document.activeElement.id")


def press(page, *keys):
    page.driver.switch_to.active_element.send_keys(*keys)


def test_the_first_screen_says_what_this_is_and_what_was_found(site, visit):
    page = visit(site)
    assert page.errors() == []
    assert page.text("h1").startswith("How much of its private training data")
    assert page.text("#counts") == "2 datasets 5 attacks 4 defenses 1,234 runs 5,678 numbers beside their control"
    assert page.texts(".strip .row") == ["private", "recovered"] and page.texts(".row.recovered") == ["recovered"]
    assert page.run("return document.querySelector('.strip img').naturalWidth") == 1
    assert page.texts("#findings li") == ["92%of faces by GMI."]
    assert page.run("return document.querySelector('#findings a').hash") == "#/method/attack/gmi"


def test_the_matrix_has_a_bar_per_setting_with_colour_for_lift_and_height_for_the_verdict(site, visit):
    page = visit(site)
    assert page.texts("#matrix thead th") == ["no defense", "DP_SGD", "BIDO", "MID", "ROUNDING"]
    assert page.texts("#matrix tbody th") == ["GMIweights", "MIRRORlabels only"]
    bars = page.run(
        "return [...document.querySelectorAll('#matrix tbody tr:first-child td button')]"
        ".map(n => [...n.children].map(i => i.className.trim()))"
    )
    assert bars == [["step4"], ["zero low"], ["step3", "step2"], ["step4", "step3", "step2"]]
    said = cells(page)
    assert said[0] == "GMI against no defense: lift +0.80 [0.70, 0.90] accuracy 0.90 leak"
    assert said[2].endswith("strength 1 lift +0.50 [0.40, 0.60] accuracy 0.88 leak; "
                            "strength 2 lift +0.30 [0.20, 0.40] accuracy 0.86 leak")  # fmt: skip
    assert said[4] == "GMI against ROUNDING: cannot matter" and said[8] == "MIRROR against MID: withheld"
    assert said[6] == "MIRROR against DP_SGD: not measured"
    assert page.texts("#matrix tfoot td") == ["90", "", "86", f"88{TO}86", f"84{TO}72", TO]
    assert "2 more attacks were run on the undefended model only" in page.text("#matrix .note")
    assert [word for word in ("leak", "no evidence", "withheld") if word not in page.text("#matrix-legend")] == []
    heights = page.run("return [...document.querySelectorAll('#matrix tr:first-child i')].map(i => i.offsetHeight)")
    assert heights[1] < 0.6 * heights[0]


def test_pointing_at_a_cell_shows_its_intervals_and_a_click_its_groups(site, visit):
    page = visit(site)
    point = (
        'document.querySelector(\'#matrix [data-attack="0"][data-defense="{}"]\')'
        ".dispatchEvent(new MouseEvent('mouseover', {{bubbles: true}}))"
    )
    page.run(point.format(1))
    told = page.text("#tip")
    assert told.startswith("GMI against BIDO") and "[0.40, 0.60]" in told and "● leak" in told
    assert "less by 0.50 [0.30, 0.70]" in told and "undefended0.90+0.80[0.70, 0.90]" in told
    page.run(point.format(4))
    assert "Cannot matter" in page.text("#tip") and "Changes nothing." in page.text("#tip")
    page.click('#matrix [data-attack="0"][data-defense="1"]')
    assert page.run("return document.getElementById('dialog').open")
    assert page.text("#dialog h2") == "GMI against BIDO" and len(page.texts("#dialog tbody tr")) == 2
    assert "less by 0.50 [0.30, 0.70]" in page.text("#dialog tbody tr:nth-child(2)")
    assert page.run("return document.querySelector('#dialog tbody a').hash") == f"#/group/{0xABC0000001:016x}"


def test_the_matrix_is_one_tab_stop_and_arrows_move_in_it(site, visit):
    page = visit(site)
    assert page.run("return document.querySelectorAll('#matrix [tabindex=\"0\"]').length") == 1
    page.run("document.querySelector('#matrix button').focus()")
    press(page, Keys.ARROW_RIGHT)
    assert focused(page).startswith("GMI against DP_SGD") and "GMI against DP_SGD" in page.text("#tip")
    press(page, Keys.END)
    assert focused(page) == "GMI against ROUNDING: cannot matter"
    press(page, Keys.ARROW_RIGHT)
    assert focused(page) == "GMI against ROUNDING: cannot matter", "the border holds"
    press(page, Keys.ARROW_DOWN)
    assert focused(page).startswith("MIRROR against ROUNDING")
    press(page, Keys.HOME)
    press(page, Keys.ARROW_UP)
    assert focused(page).startswith("GMI against no defense")
    assert page.run("return document.querySelectorAll('#matrix [tabindex=\"0\"]').length") == 1
    press(page, Keys.ENTER)
    assert page.run("return document.getElementById('dialog').open")
    press(page, Keys.ESCAPE)
    assert not page.run("return document.getElementById('dialog').open")
    assert focused(page).startswith("GMI against no defense"), "the focus returns to the cell"


def test_dataset_and_access_are_chosen_and_stand_in_the_address(site, visit):
    page = visit(site)
    page.choose("#matrix-controls [name=access]", "labels")
    assert page.texts("#matrix tbody th") == ["MIRRORlabels only"] and "access=labels" in page.address()
    page.click('[data-dataset="1"]')
    assert page.texts("#matrix tbody th") == ["GIFD"] and page.address() == "#/?view=bbbb000002"
    assert page.run("return document.activeElement.dataset.dataset") == "1", "the focus stays on the control"
    assert "unpaired" in page.text("#matrix .note") and "unpaired" in page.text("#defenses-table .note:nth-of-type(2)")
    assert "accuracy of the defended models was not measured" in page.text("#defenses-table")
    assert "was not measured" in page.text("#plane-figure")
    page.click("#matrix button")
    assert "differences are unpaired" in page.text("#dialog p")
    again = visit(site, page.address())
    assert again.texts("#matrix tbody th") == ["GIFD"]
    assert again.text("#defenses-table tbody .num:last-of-type, #defenses-table tbody a.quiet") == "+0.20 dB"


def test_defenses_are_ranked_within_the_chosen_accuracy(site, visit):
    page = visit(site)
    rows = page.texts("#defenses-table tbody tr")
    assert [row.split()[0] for row in rows] == ["1BIDO", "2MID", "no"]
    assert "less by 0.50 [0.30, 0.70]" in rows[0] and "could be chance" in rows[1] and "● leak" in rows[2]
    assert "No setting stays within 5 points: DP_SGD." in page.text("#defenses-table")
    assert page.texts("#matrix-top tbody tr") == ["1BIDO+0.30", "2MID+0.70", "no defense+0.80"], "the card has room"
    page.choose("#defenses-controls [name=within]", "100")
    assert [row.split()[0] for row in page.texts("#defenses-table tbody tr")] == [
        "1DP_SGD",
        f"2{TO}3BIDO",
        f"2{TO}3MID",
        "no",
    ]
    assert page.address().endswith("within=100")
    assert len(visit(site, "#/?within=100").texts("#defenses-table tbody tr")) == 4
    assert len(visit(site, "#/?within=3&attack=none&view=x").texts("#defenses-table tbody tr")) == 3, (
        "unknown: defaults"
    )


def test_intervals_lie_inside_their_scale(site, visit):
    page = visit(site)
    ends = page.run(
        "return [...document.querySelectorAll('.interval line, .interval circle')].flatMap(n => "
        "['x1', 'x2', 'cx'].map(a => parseFloat(n.getAttribute(a))).filter(Number.isFinite))"
    )
    assert len(ends) > 20 and min(ends) > 0 and max(ends) < 100


def test_the_plane_joins_settings_and_colours_the_picked(site, visit):
    page = visit(site)
    assert page.texts("#plane-picks button") == ["BIDO", "DP_SGD", "MID"]
    dots = page.run(
        "return [...document.querySelectorAll('#plane-figure [data-group]')].map(c => [+c.dataset.group, "
        "+c.getAttribute('cx'), +c.getAttribute('cy'), c.getAttribute('fill')])"
    )
    place = {group: (x, y) for group, x, y, _ in dots}
    assert set(place) == set(range(7)) and place[0][0] > place[1][0] > place[2][0] > place[5][0] > place[6][0]
    assert place[0][1] < place[1][1] < place[2][1] < place[3][1], "more lift stands higher"
    page.click('#plane-picks [data-pick="mid"]')
    assert page.address() == "#/?pick=bido,dp_sgd"
    fills = dict(page.run("return [...document.querySelectorAll('#plane-figure [data-group]')]"
                          ".map(c => [c.dataset.group, c.getAttribute('fill')])"))  # fmt: skip
    assert fills["1"] == fills["2"] == "var(--line0)" and fills["3"] == "var(--line1)" and fills["4"] == "var(--soft)"
    assert page.texts("#plane-figure text[font-weight='600']") == ["no defense", "BIDO", "DP_SGD"]
    rings = page.run("return [...document.querySelectorAll('#plane-figure .ring')].length")
    assert rings == 1, "one coloured setting is on the front in most draws; the undefended model has its own mark"
    assert "70 %" in page.text("#plane-table tbody tr:nth-child(4)")
    lines = page.run(
        "return [...document.querySelectorAll('#plane-figure path')].map(p => p.getAttribute('d').split('L').length)"
    )
    assert sorted(lines) == [1, 2, 3]
    assert (
        visit(site, "#/?pick=mid").run("return document.querySelectorAll('[data-pick][aria-pressed=true]').length") == 1
    )


def test_labels_of_a_crowded_figure_are_moved_apart_or_left_out(tmp_path, visit, content, write_page):
    overview, _ = content()
    for name, value in (("lift", 0.5), ("accuracy", 0.8)):
        for group in range(1, 7):  # every setting of every defense on one spot
            overview["groups"][name][group] = value
    overview["attacks"] += [{"name": f"more{n}", "title": f"Another attack {n}", "floor": False} for n in range(12)]
    overview["views"][0]["curves"] = [[attack, [0]] for attack in range(17)]
    page = visit(write_page(tmp_path, overview))
    assert len(page.texts("#plane-figure text[font-weight='600']")) == 4, "who is picked is named"
    assert 3 < len(page.texts("#curves-figure text[font-weight='400']")) < 17
    assert touching_labels(page) == []


def test_labels_of_a_figure_do_not_overlap(site, visit):
    assert touching_labels(visit(site)) == []


def touching_labels(page):
    """Pairs of labels of the figures that lie on each other."""
    found = []
    for figure in ("plane", "curves"):
        boxes = page.run(
            f"return [...document.querySelectorAll('#{figure}-figure text')].map(t => [t.getBoundingClientRect(), t])"
            ".map(([b, t]) => [b.left, b.top, b.right, b.bottom, t.textContent])"
        )
        found += [
            (a[4], b[4]) for place, a in enumerate(boxes) for b in boxes[place + 1 :]
            if min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 3
        ]  # fmt: skip
    return found


def test_curves_show_lift_against_effort_on_a_logarithmic_axis(site, visit):
    page = visit(site, "#/?effort=queries")
    at = dict(page.run("return [...document.querySelectorAll('#curves-figure [data-group]')]"
                       ".map(c => [c.dataset.group, +c.getAttribute('cx')])"))  # fmt: skip
    assert set(at) == {"0", "7", "10", "11", "12"}
    decade = at["11"] - at["12"]  # 100 and 1,000 queries
    assert decade > 50 and at["7"] - at["10"] == pytest.approx(decade, abs=0.1), "9,000 and 90,000 queries"
    paths = page.run("return [...document.querySelectorAll('#curves-figure path')].map(p => p.getAttribute('d'))")
    ends = [float(point.split()[0]) for point in paths[0].removeprefix("M").split("L")]
    assert len(paths) == 1 and ends == pytest.approx([at["12"], at["11"]], abs=0.1), "two budgets, the smaller first"
    page.choose("#curves-controls [name=effort]", "gradients")
    assert "Without gradients, so not drawn: MIRROR, NEAREST_PUBLIC." in page.text("#curves-table")
    assert "effort=gradients" in page.address()


def test_attacks_are_ranked_with_the_floors_among_them(site, visit):
    page = visit(site)
    rows = page.texts("#attacks-table tbody tr")
    assert [row.split()[0] for row in rows] == [f"1{TO}2GMI", f"1{TO}3VMI", f"2{TO}4MIRROR", f"3{TO}4NEAREST_PUBLIC"]
    assert "floor: searches nothing" in rows[3] and "25.0 %" in rows[0] and "12.5 %" in rows[3]
    assert page.texts("#worst-table tbody tr")[0].startswith("BIDOstrength 20.86+0.35GMI, MIRROR")


def test_the_same_data_give_the_same_page(site, visit, tmp_path, content, write_page):
    first = visit(site).run("return document.getElementById('overview').outerHTML")
    overview, numbers = content()
    second = visit(write_page(tmp_path / "x", json.loads(json.dumps(overview)), numbers))
    assert second.run("return document.getElementById('overview').outerHTML") == first
