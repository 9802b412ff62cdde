"""The pages of measures: one file a page, with the record's numbers, marks at ED and ES, and the masks' outlines."""

import re
import shutil
from urllib.parse import unquote

import numpy as np
import pytest
from made_measures import COLUMNS, FRAMES, HOSTILE_WORDS, ROWS, SLICES, make_measures, masks_of_cine
from made_scores import HOSTILE_CASE, HOSTILE_VENDOR
from skimage.draw import polygon2mask
from test_write_report import Elements

from utseg.cardiac.normal_ranges import NORMAL, SOURCES, sex_of
from utseg.errors import InputError
from utseg.measure.record import FrameFiles
from utseg.report.measures.contours import CineRequest, draw_contours
from utseg.report.measures.write import write_measures_page

LABELS = {"LV": 1, "MYO": 2, "RV": 3}


def page_of(measured, cine: str) -> str:
    return next(path for path in measured.pages.pages if path.stem == cine).read_text(encoding="utf-8")


def test_every_page_is_self_contained_and_hostile_names_are_text(measured):
    pages = [measured.pages.path, *measured.pages.pages]
    assert len(pages) == 5
    for path in pages:
        html = path.read_text(encoding="utf-8")
        elements = Elements(html)
        assert HOSTILE_CASE not in html and HOSTILE_WORDS not in html and HOSTILE_VENDOR not in html
        assert not {"img", "iframe", "b onclick"} & {tag for tag, _ in elements.elements}
        assert not [key for _, attributes in elements.elements for key in attributes if key.startswith("on")]
        assert "research only" in html and "not for diagnosis" in html
        addresses = [
            a.get("href") or a.get("src") for _, a in elements.elements if a.get("href") or a.get("src")
        ]
        for address in addresses:
            if not address.startswith(("#", "data:image/webp;base64,")):  # to another of the pages, and there
                assert (path.parent / unquote(address)).resolve() in pages
        policy = next(a["content"] for _, a in elements.elements if a.get("http-equiv"))
        assert "default-src 'none'" in policy and "unsafe" not in policy
    assert HOSTILE_WORDS in Elements(page_of(measured, HOSTILE_CASE)).texts


def test_the_numbers_are_those_of_the_record(measured):
    of_all = Elements(measured.pages.path.read_text(encoding="utf-8")).texts
    for cine in measured.record.cines:
        place = of_all.index(cine.cine)
        row = of_all[
            place : of_all.index(cine.cine, place + 1) if of_all.count(cine.cine) > 1 else place + 12
        ]
        texts = Elements(page_of(measured, cine.cine)).texts
        for key in ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "lv_mass_g"):
            assert f"{cine.values[key]:.1f}" in row
            assert texts.count(f"{cine.values[key]:.1f}") >= 2  # the tile and the table
        assert any("Not known" in text and "cardiac output" in text for text in texts)


def test_ranges_stand_for_the_sex_that_is_known_else_for_both(measured):
    texts = [Elements(page_of(measured, cine)).texts for cine in ("a_sa", "no image", HOSTILE_CASE)]
    heads = [[text for text in some if text.startswith("healthy ")] for some in texts]
    assert heads == [["healthy women"], ["healthy men"], ["healthy women", "healthy men"]]
    assert "124 ± 21" in texts[0] and "166 ± 32" in texts[1] and {"124 ± 21", "166 ± 32"} <= set(texts[2])
    assert all(any(SOURCES["Petersen 2017"] in text for text in some) for some in texts)
    women, men = (NORMAL["lv_ef_percent"][sex] for sex in ("women", "men"))
    assert [women.place(value) for value in (women.low - 0.1, women.low, women.high + 0.1)] == [
        "below",
        "within",
        "above",
    ]
    assert men.high < women.high and [sex_of(text) for text in ("F", " male", "", "O")] == [
        "women",
        "men",
        None,
        None,
    ]


def test_marks_stand_at_ed_and_es_and_each_value_has_its_frame(measured):
    html = page_of(measured, "a_sa")
    points = re.findall(r'<circle cx="([\d.]+)" [^>]*data-frame="(\d)"><title>(.*?)<', html)
    lv = {int(frame): float(x) for x, frame, title in points if ": LV " in title}
    marks = [float(x) for x in re.findall(r'<path class="mark" d="M([\d.]+) ', html)]
    assert marks == [lv[0], lv[3]] and sorted(lv) == list(range(FRAMES))
    assert sum(": RV " in title for _, _, title in points) == FRAMES - 1  # unknown in frame 0
    curve = measured.record.cines[0].curve.lv_ml
    assert [title.split("LV ")[1] for _, _, title in points if ": LV " in title] == [
        f"{ml:.1f}" for ml in curve
    ]


def test_outlines_are_those_of_the_masks(measured):
    data = Elements(page_of(measured, "a_sa")).data["cine-data"]
    assert (data["frames"], data["slices"], data["phases"]) == (FRAMES, [1, 2, 3], {"ED": 0, "ES": 3})
    assert (data["width"], data["height"]) == (COLUMNS * 1.25, ROWS * 1.5)  # the margin takes in all of it
    masks = masks_of_cine(0)
    for frame in range(FRAMES):
        assert data["paths"][frame * SLICES + 2] == ["", "", ""]
        for index, value in enumerate(LABELS.values()):
            drawn = filled(data["paths"][frame * SLICES][index])
            mask = masks[frame, 0] == value
            if value == LABELS["MYO"]:  # a wall's outlines are two
                mask |= masks[frame, 0] == LABELS["LV"]
            assert np.count_nonzero(drawn != mask) <= 4  # corners


def filled(path: str) -> np.ndarray:
    """The inside of a path's outer outline."""
    inside = np.zeros((ROWS, COLUMNS), bool)
    for part in path.split("z")[:-1]:
        start, steps = re.fullmatch(r"M(\d+ \d+)l(.*)", part).groups()
        numbers = np.array([start.split(), *np.reshape(re.findall(r"-?\d+", steps), (-1, 2))], dtype=float)
        inside |= polygon2mask(inside.shape, np.cumsum(numbers, axis=0)[:, ::-1] / 10 - 0.5)
    return inside


def test_without_image_outlines_stand_alone_and_frames_may_have_files_of_their_own(measured):
    assert [notice for notice in measured.pages.notices if notice.startswith("no image: no image behind")]
    assert measured.pages.pictured == 4
    html = page_of(measured, "no image")
    assert 'id="sheet"' not in html and 'id="cine-data"' in html
    cine = measured.record.cines[0]
    whole = draw_contours(CineRequest(cine, measured.masks, LABELS)).page
    single = FrameFiles(mask=cine.mask, image=cine.image)
    split = cine.model_copy(update={"files": (single,), "frames": 1})
    with pytest.raises(InputError, match="4-D"):
        draw_contours(CineRequest(split, measured.masks, LABELS))
    elsewhere = cine.model_copy(update={"image": str(measured.masks / "nowhere.nii.gz")})
    drawn = draw_contours(CineRequest(elsewhere, measured.masks, LABELS))
    assert drawn.page["image"] is None and "nowhere.nii.gz" in drawn.lacks
    assert drawn.page["paths"] == whole["paths"] and whole["image"] is not None


def test_one_cine_is_the_page_itself_and_needs_no_pictures(measured, tmp_path):
    record = make_measures(tmp_path, 1)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "mine.html").write_text("keep")
    shutil.copy(measured.pages.pages[0], tmp_path / "pages" / "gone.html")
    pages = write_measures_page(record, tmp_path / "masks", tmp_path / "out.html", pictures=False)
    html = pages.path.read_text(encoding="utf-8")
    assert pages.pages == (pages.path,) and pages.pictured == 0
    assert [path.name for path in (tmp_path / "pages").iterdir()] == [
        "mine.html"
    ]  # older pages show patients
    assert 'id="sheet"' not in html and "medical images" not in html and 'class="mark"' in html
    for wrong in ("../a", "a/b"):
        hostile = record.model_copy(update={"cines": [record.cines[0].model_copy(update={"cine": wrong})]})
        with pytest.raises(InputError, match="cine"):
            write_measures_page(hostile, tmp_path / "masks", tmp_path / "out.html")
