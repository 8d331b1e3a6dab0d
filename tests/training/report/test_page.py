"""The page is whole, closed and safe: every section, nothing from outside, hostile words stay words."""

import os
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from models.checkpoint import save
from models.taxonomy import Attribute, Taxonomy
from tests.tiny_tagger import picture, tiny_checkpoint
from training.__main__ import main
from training.report import page as module
from training.report.measured import measured_from
from training.report.page import axis, figure, percent, render, signed, write_report

HOSTILE = """</title></style><script>alert(1)</script><img src=x onerror="alert(2)"> '"&\u202e"""
DOCUMENT = {"checkpoint": "runs/x", "version": "0123456789abcdef", "rows": 12}
SECTIONS = ("glance", "conditions", "attributes", "training", "data", "card")


@pytest.fixture
def page(measured, row, tmp_path):
    (tmp_path / "red.jpg").write_bytes(picture("red"))

    def make(title="红色 shirt", card="# tiny\n", training=(), part="test"):
        rows = [
            row(n, "blue" if n == 5 else "red", title=title, photos=(tmp_path / "red.jpg",) if n % 2 else ())
            for n in range(12)
        ]
        said = {"colour": ["red"] * 12, "kind": ["shirt"] * 12, "material": [("cotton",)] * 12}
        found = measured(rows, said)
        metrics = {"training": list(training)}
        return render(
            replace(found, checkpoint=replace(found.checkpoint, card=card, metrics=metrics)),
            DOCUMENT,
            "shop.csv",
            part,
        )

    return make


def test_every_section_is_there_and_the_contents_lead_to_it(page):
    html = page()
    for section in SECTIONS:
        assert f'<section id="{section}">' in html
        assert f'href="#{section}"' in html
    for attribute in ("colour", "kind", "material"):
        assert f"<h3>{attribute}</h3>" in html


def test_nothing_is_loaded_or_linked_from_outside(page):
    html = page(
        card="# x\n\n![a](https://evil.example/a.png) [b](https://evil.example) <https://evil.example>\n"
    )
    assert re.findall(r'(?:src|href|action|data|xlink:href)\s*=\s*"(?!#|data:image/webp;base64,)', html) == []
    assert not re.search(r"<(?:script|link|iframe|object|embed|base|form)\b|@import|url\(", html)
    assert "default-src 'none'" in html


def test_a_hostile_title_stays_text(page):
    html = page(title=HOSTILE, card=f"# tiny\n\n{HOSTILE}\n")
    assert "alert(1)" in html
    assert not re.search(r"<script|<img[^>]*onerror", html)
    assert html.count("</style>") == html.count("</title>", 0, html.index("</head>")) == 1


def test_a_title_in_chinese_is_shown_as_it_is(page):
    assert "红色 shirt" in page()


def test_the_same_measurement_makes_the_same_page(page):
    assert page() == page()


def test_the_curves_of_every_stage_are_drawn_with_the_epoch_that_was_kept(page):
    stage = {"stage": "tagging", "best_epoch": 1, "history": [{"loss": 3.25}, {"loss": 0.5}, {"loss": 0.75}]}
    html = page(training=[stage])
    assert "<h4>tagging</h4>" in html
    assert re.search(r'class="chosen both"[^>]*><title>epoch 1: 0.500', html)
    assert "no history" not in html
    assert "no history" in page()


@pytest.mark.parametrize(("part", "warned"), [("all", True), ("train", True), ("test", False)])
def test_rows_that_may_have_trained_the_checkpoint_are_warned_of(page, part, warned):
    assert ('class="notice"' in page(part=part)) == warned


@pytest.mark.parametrize("attributes", [1, 30])
def test_one_attribute_and_thirty_make_a_page(measured, row, attributes):
    taxonomy = Taxonomy(
        tuple(Attribute(f"attribute {n}", ("red", "green", "blue")) for n in range(attributes))
    )
    rows = [
        replace(row(n), values={attribute.name: ("red",) for attribute in taxonomy}, photos=())
        for n in range(6)
    ]
    said = {attribute.name: ["red"] * 5 + ["blue"] for attribute in taxonomy}
    html = render(measured(rows, said, taxonomy=taxonomy), DOCUMENT, "shop.csv", "test")
    assert html.count('<article class="panel chapter"') == attributes
    assert len(html) < 60_000 + attributes * 25_000


def only(measured, row, pattern, **seen):
    """The page of a catalogue whose products all lack a modality."""
    rows = [replace(row(n), **seen) for n in range(6)]
    found = measured(rows, {"colour": ["red"] * 6, "kind": ["shirt"] * 6, "material": [("cotton",)] * 6})
    blind = {"photos": "without_photos", "text": "without_text"}[pattern]
    logits = {
        name: replace(run, patterns=[None if name == blind else pattern] * 6)
        for name, run in found.logits.items()
    }
    return render(measured_from(found.checkpoint, rows, logits), DOCUMENT, "shop.csv", "test")


def test_a_catalogue_of_photos_alone_has_no_word_of_titles_or_fusion(measured, row, tmp_path):
    (tmp_path / "red.jpg").write_bytes(picture("red"))
    html = only(measured, row, "photos", title="", photos=(tmp_path / "red.jpg",))
    assert "nothing to fuse" in html and "Fusion pays" not in html
    assert "#conditions" not in html and "masked titles" not in html.partition("<main>")[2]


def test_a_catalogue_of_texts_alone_shows_masked_titles_and_no_column_of_photos(measured, row):
    html = only(measured, row, "text")
    assert "with masked titles" in html and "Text alone" in html
    assert "Photos alone" not in html and "without photos" not in html
    assert "nothing to fuse" in html and "Fusion pays" not in html


def test_an_attribute_is_shown_under_the_conditions_that_leave_something_of_it_to_see(
    measured, row, tmp_path
):
    """Only products without a text have a colour."""
    (tmp_path / "red.jpg").write_bytes(picture("red"))
    rows = [
        *(replace(row(n, colour=""), photos=()) for n in range(6)),
        *(replace(row(n), title="", photos=(tmp_path / "red.jpg",)) for n in range(6, 12)),
    ]
    found = measured(rows, {"colour": ["red"] * 12, "kind": ["shirt"] * 12, "material": [("cotton",)] * 12})
    texts, photos, nothing = ["text"] * 6, ["photos"] * 6, [None] * 6
    patterns = {"without_photos": texts + nothing, "without_text": nothing + photos}
    logits = {
        name: replace(run, patterns=patterns.get(name, texts + photos)) for name, run in found.logits.items()
    }
    html = render(measured_from(found.checkpoint, rows, logits), DOCUMENT, "shop.csv", "test")
    lines = html.partition('<section id="conditions">')[2].partition('<section id="attributes">')[0]
    assert '<th rowspan="3">colour</th>' in lines
    assert '<th rowspan="4">kind</th>' in lines
    assert lines.count('<td class="l">without photos</td>') == 2
    assert lines.count('<td class="l">without text</td>') == 3


def test_gains_have_a_sign_that_reads():
    assert [signed(gain) for gain in (0.0124, -0.02, 0.0, None)] == ["+0.012", "−0.020", "±0.000", "–"]


@pytest.mark.parametrize(
    ("share", "shown"), [(397 / 400, "99.3%"), (0.57275, "57.3%"), (1.0, "100.0%"), (None, "–")]
)
def test_a_share_is_rounded_as_in_the_printed_table(share, shown):
    assert percent(share) == shown
    assert share is None or float(figure(share)) * 100 == pytest.approx(float(shown[:-1]))


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ((3.25, 0.5, 0.75), (0.5, 3.25)),
        ((0.949, 0.9495), (0.94425, 0.95425)),
        ((1.0, 1.0), (0.99, 1.0)),
        ((0.001, 0.002), (0.0, 0.01)),
        ((2.5,), (2.495, 2.505)),
    ],
)
def test_a_change_of_nearly_nothing_is_not_drawn_as_a_leap(values, drawn):
    assert axis(values) == pytest.approx(drawn)


def test_the_labels_of_every_axis_differ(page):
    history = [{"accuracy": 0.9492}, {"accuracy": 0.9494}, {"accuracy": 0.9493}]
    html = page(training=[{"stage": "rebalance", "best_epoch": 1, "history": history}])
    drawn = html.partition('aria-label="rebalance: accuracy by epoch"')[2].partition("</svg>")[0]
    assert re.findall(r'x="40"[^>]*>([^<]+)<', drawn) == ["0.944", "0.949", "0.954"]


def test_one_wrong_row_is_one_row(page):
    html = page()
    assert "1 row wrong" in html and "1 rows wrong" not in html


def test_mistakes_that_are_left_out_are_counted(measured, row):
    """Eight values, each tagged as the next one: as many pairs, six of them shown."""
    values = tuple("abcdefgh")
    rows = [replace(row(n), values={"letter": (value,)}) for n, value in enumerate(values)]
    taxonomy = Taxonomy((Attribute("letter", values),))
    html = render(
        measured(rows, {"letter": [*values[1:], "a"]}, taxonomy=taxonomy), DOCUMENT, "shop.csv", "test"
    )
    assert "Most frequent mistakes (6 of 8), the surest examples first" in html


def test_a_dot_beside_its_curve_is_explained(page):
    assert "products unlike those rows are held back, so it may lie off its curve" in page()


def test_the_command_writes_the_report_beside_its_figures(catalogue, tmp_path):
    save(tiny_checkpoint(), tmp_path / "checkpoint")
    report = tmp_path / "report.html"
    arguments = ["evaluate", str(tmp_path / "checkpoint"), str(catalogue), "--workers", "0"]
    plain = CliRunner().invoke(main, arguments)
    written = CliRunner().invoke(main, [*arguments, "--report", str(report)])
    assert written.exit_code == 0, written.output
    assert written.stdout == plain.stdout
    assert "<h3>colour</h3>" in report.read_text(encoding="utf-8")


@pytest.fixture
def write(measured, row, monkeypatch):
    found = measured([row(0)], {"colour": ["red"], "kind": ["shirt"], "material": [("cotton",)]})

    def write(path, html):
        monkeypatch.setattr(module, "render", lambda *_: html)
        write_report(path, found, DOCUMENT, "shop.csv", "test")

    return write


def test_an_earlier_report_stays_where_the_new_one_cannot_be_written(write, tmp_path):
    report = tmp_path / "report.html"
    write(report, "earlier")
    with pytest.raises(UnicodeEncodeError):
        write(report, "<html>\udc00")  # which no file takes
    assert report.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [report]


def test_a_report_follows_a_link_and_goes_into_a_pipe(write, tmp_path):
    (tmp_path / "there.html").write_text("earlier")
    (tmp_path / "link.html").symlink_to(tmp_path / "there.html")
    write(tmp_path / "link.html", "<html>")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "there.html").read_text() == "<html>"
    os.mkfifo(tmp_path / "pipe")
    with os.fdopen(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)) as reader:
        write(tmp_path / "pipe", "<html>")
        assert reader.read() == "<html>"
    assert (tmp_path / "pipe").is_fifo()
