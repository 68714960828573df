import re

import pytest

from mibench.leaderboard.build import build, write_study
from mibench.leaderboard.page import Reproduction


def around(lift):
    """Lifts of six targets with that mean."""
    return [lift + step / 100 for step in (-2, -1, 0, 0, 1, 2)]


def command(config):
    return Reproduction(f"python -m mibench attack={config['attack']['name']}")


@pytest.fixture(scope="module")
def results(tmp_path_factory, add_cell):
    """Four defended victims under one attack, another attack, a skipped cell, faces, and a shard that is none."""
    folder = tmp_path_factory.mktemp("page") / "results"
    for defense, lift, accuracy in [
        ("none", 0.8, 0.95),
        ("bido", 0.5, 0.9),
        ("bido_coco", 0.6, 0.85),
        ("dp_sgd", 0.1, 0.6),
    ]:
        for seed in (0, 1):
            add_cell(
                folder,
                f"defense={defense}",
                f"seed={seed}",
                lift=lift,
                gains=around(lift),
                accuracy=accuracy,
                picture=seed == 0,
            )
    add_cell(folder, "attack=mi_face", lift=0.05, accuracy=0.95)
    add_cell(folder, "dataset=att_faces", lift=0.3, picture=True)
    add_cell(folder, "attack=random_prior", "defense=bido", status="skipped", reason="Vacuous: it says.")
    write_study(folder, "first", [path.stem for path in (folder / "shards").iterdir()])
    (folder / "shards" / "odd.parquet").write_bytes(b"no parquet")
    build(folder, command)
    return folder


def test_committed_pages_come_from_studies_alone_and_the_same_bytes_every_time(results, add_cell, tmp_path):
    names = ["leaderboard.parquet", "README.md", "index.html"]
    before = [(results / name).read_bytes() for name in names]
    local = [(results / "local" / name).read_bytes() for name in names]
    build(results, command)
    assert [(results / name).read_bytes() for name in names] == before
    assert [(results / "local" / name).read_bytes() for name in names] == local
    assert b"odd.parquet" in local[1] and b"odd.parquet" in local[2]
    assert b"odd.parquet" not in before[1] and b"odd.parquet" not in before[2]
    add_cell(tmp_path, lift=0.5)
    assert [one.scope for one in build(tmp_path, command)] == ["local"]
    assert not (tmp_path / "index.html").exists()


def test_the_page_needs_nothing_from_elsewhere(results):
    text = (results / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(https?:)?//", text) and "fetch(" not in text and "import(" not in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


def test_no_picture_of_faces_is_committed_and_the_local_page_has_it(results, data_of):
    public, local = data_of(results / "index.html"), data_of(results / "local" / "index.html")
    pictures = {group["dataset"]: group["picture"] for group in public["groups"] if group["attack"] == "gmi"}
    assert pictures["digits"].startswith("data:image/png;base64,") and pictures["att_faces"] is None
    (faces,) = [group for group in local["groups"] if group["dataset"] == "att_faces"]
    assert (results / "local" / faces["picture"]).resolve().exists()


def test_a_picture_that_slipped_into_a_study_is_not_shown(results, data_of, tmp_path):
    import shutil

    copy = tmp_path / "results"
    shutil.copytree(results / "studies", copy / "studies")
    (faces,) = [group for group in data_of(results / "index.html")["groups"] if group["dataset"] == "att_faces"]
    cell = faces["cells"][0][0]
    shutil.copy(results / "pictures" / f"{cell}.png", copy / "studies" / "first")
    build(copy, command)
    assert all(g["picture"] is None for g in data_of(copy / "index.html")["groups"] if g["dataset"] == "att_faces")


def test_the_readme_has_a_table_per_dataset_and_task(results):
    text = (results / "README.md").read_text()
    assert "## digits, task `class`: attack_accuracy top1 vote" in text and "## att_faces" in text
    (line,) = [line for line in text.splitlines() if "| dp_sgd |" in line]
    assert "| 0.3 [0.285, 0.315] | 0.2 | +0.1 [0.0852, 0.115] | ● leak | 0.6 | 2 |" in line


# The page in a browser


def rows_of(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('#numbers tbody tr')].map(row => Object.fromEntries("
        "[...row.querySelectorAll('td[data-label]')].map(cell => [cell.dataset.label, cell.firstChild ? "
        "cell.firstChild.textContent : ''])))"
    )


def click(driver, selector):
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(driver, selector, value):
    driver.execute_script(
        "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
        "node.dispatchEvent(new Event('change', {bubbles: true}))",
        selector, value,
    )  # fmt: skip


def test_columns_sort_both_ways(results, open_page):
    driver = open_page(results / "index.html")
    assert driver.get_log("browser") == []
    click(driver, "th[data-column=lift] button")
    falling = [row["lift"] for row in rows_of(driver)]
    assert falling == ["+0.8", "+0.6", "+0.5", "+0.3", "+0.1", "+0.05"]
    click(driver, "th[data-column=lift] button")
    assert [row["lift"] for row in rows_of(driver)] == falling[::-1]
    click(driver, "th[data-column=defense] button")
    assert [row["defense"] for row in rows_of(driver)] == sorted(row["defense"] for row in rows_of(driver))


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [("dataset", "att_faces", 1), ("task", "class", 6), ("access", "white_box", 6), ("modality", "image", 6),
     ("fidelity", "paper", 1), ("defense", "none", 3)],
)  # fmt: skip
def test_a_filter_keeps_what_it_names(results, open_page, name, value, left):
    driver = open_page(results / "index.html")
    assert len(rows_of(driver)) == 6
    choose(driver, f"#filters select[name={name}]", value)
    assert len(rows_of(driver)) == left
    click(driver, "#reset")
    assert len(rows_of(driver)) == 6


def test_the_metric_filter_shows_every_number(results, open_page):
    driver = open_page(results / "index.html")
    choose(driver, "#filters select[name=metric]", "")
    shown = rows_of(driver)
    assert {row["metric"] for row in shown} == {"attack_accuracy", "target_accuracy"}
    assert len(shown) == 24 and "skipped" in {row["evidence"] for row in shown}


def test_the_scatter_draws_the_pareto_front(results, open_page, data_of):
    driver = open_page(results / "index.html")
    choose(driver, "#scatter-controls select[name=dataset]", "digits")
    choose(driver, "#scatter-controls select[name=attack]", "gmi")
    defense = {group["id"]: group["defense"] for group in data_of(results / "index.html")["groups"]}
    points = driver.execute_script(
        "return [...document.querySelectorAll('#scatter .point')].map(p => [p.dataset.id, "
        "+p.querySelector('circle').getAttribute('cx'), +p.querySelector('circle').getAttribute('cy')])"
    )
    place = {defense[one]: (x, y) for one, x, y in points}
    assert set(place) == {"none", "bido", "bido_coco", "dp_sgd"}
    assert place["dp_sgd"][0] < place["bido_coco"][0] < place["bido"][0] < place["none"][0]
    assert place["dp_sgd"][1] > place["bido"][1] > place["bido_coco"][1] > place["none"][1], "a larger lift is higher"
    front = driver.execute_script("return document.querySelector('#scatter .front').dataset.ids").split()
    assert [defense[one] for one in front] == ["none", "bido", "dp_sgd"], "bido_coco leaks more at less accuracy"
    assert not driver.execute_script("return document.querySelectorAll('#scatter .front').length > 1")


def test_of_many_points_the_front_and_the_undefended_are_named_with_their_options(tmp_path, add_cell, open_page):
    def told(config):
        return Reproduction("", tuple(f"defense.a1={a1}" for a1 in [config["defense"].get("a1")] if a1))

    def named():
        return driver.execute_script("return [...document.querySelectorAll('#scatter .label')].map(l => l.textContent)")

    def add(*words, lift, accuracy):
        return add_cell(tmp_path, *words, lift=lift, gains=around(lift), accuracy=accuracy)

    add(lift=0.8, accuracy=0.9)
    best = add("defense=bido", "defense.a1=0.5", lift=0.1, accuracy=0.95).group_id
    for step in range(14):
        add("defense=bido", f"defense.a1={step + 1}", lift=0.2 + step / 20, accuracy=0.5 + step / 40)
    build(tmp_path, told)
    driver = open_page(tmp_path / "local" / "index.html")
    assert len(named()) > 10 and not driver.execute_script("return document.querySelectorAll('#scatter .minor').length")
    add("defense=bido_coco", lift=0.3, accuracy=0.4)
    build(tmp_path, told)
    driver = open_page(tmp_path / "local" / "index.html")
    assert sorted(named()) == ["bido a1=0.5", "none"]
    minor = driver.execute_script("return [...document.querySelectorAll('#scatter .minor')].map(p => p.dataset.id)")
    assert len(minor) == 15 and best not in minor


def test_only_what_was_measured_under_the_same_conditions_is_compared(tmp_path, add_cell, open_page):
    def told(config):
        samples, restarts = config["budget"]["samples"], config["attack"]["restarts"]
        return Reproduction(
            "", (f"attack.restarts={restarts}", *([f"budget.samples={samples}"] if samples == 4 else []))
        )

    def add(*words, lift, accuracy=0.9):
        return add_cell(tmp_path, *words, lift=lift, gains=around(lift), accuracy=accuracy).group_id

    add(lift=0.8)
    add("defense=bido_coco", lift=0.6)
    best = add("defense=bido", lift=0.5)
    longer = add("defense=bido", "attack.restarts=9", lift=0.7, accuracy=0.95)
    add("budget.samples=4", lift=0.1, accuracy=0.99)
    fewer = add("budget.samples=4", "defense=bido", lift=0.05, accuracy=0.99)
    build(tmp_path, told)
    driver = open_page(tmp_path / "local" / "index.html")

    def fronts():
        drawn = "return [...document.querySelectorAll('#scatter .front')].map(front => front.dataset.ids)"
        return set(driver.execute_script(drawn))

    assert fronts() == {best, longer}, "another run of the attack has a front of its own"
    choose(driver, "#scatter-controls select[name=conditions]", "cnn, standard, budget.samples=4")
    assert fronts() == {fewer}


def test_a_cells_page_has_its_config_command_and_numbers(results, open_page, data_of):
    (group,) = [g for g in data_of(results / "index.html")["groups"] if g["defense"] == "bido" and g["attack"] == "gmi"]
    driver = open_page(results / "index.html", f"#{group['cells'][1][0]}")
    shown = driver.execute_script("return document.querySelector('#cell').textContent")
    assert "python -m mibench attack=gmi seed=0" in shown and "python -m mibench -m attack=gmi seed=0,1" in shown
    assert (
        '"a1": 0.05' in shown and "Top-5 of five </script> classes" in shown and "null" not in shown.split("Run it")[0]
    )
    assert driver.execute_script("return document.querySelector('#cell img.sheet').naturalWidth") > 0
    click(driver, "#cell .crumb a")
    assert (
        driver.execute_async_script("setTimeout(() => arguments[0](document.querySelector('#overview').hidden), 50)")
        is False
    )


def test_the_local_page_shows_ones_own_pictures(results, open_page, data_of):
    (faces,) = [
        group for group in data_of(results / "local" / "index.html")["groups"] if group["dataset"] == "att_faces"
    ]
    driver = open_page(results / "local" / "index.html", f"#{faces['id']}")
    assert driver.execute_script("return document.querySelector('#cell img.sheet').src").startswith("file://")
