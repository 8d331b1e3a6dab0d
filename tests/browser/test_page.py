"""The page in a real browser: what a person does with it and what they see."""

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import Engine, text

from catalog.database import transaction
from tests.web.seller import encoded, picture

pytestmark = pytest.mark.slow

RED = {"name": "red.jpg", "mimeType": "image/jpeg", "buffer": encoded(picture(300, 400))}
BLUE = {"name": "blue.png", "mimeType": "image/png", "buffer": encoded(picture(200, 200), "PNG")}
NOTE = {"name": "note.txt", "mimeType": "text/plain", "buffer": b"not a photo"}
EMPTY = {"name": "empty.jpg", "mimeType": "image/jpeg", "buffer": b""}
BROKEN = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": encoded(picture(300, 400))[:-300]}


def products(engine: Engine) -> int:
    with transaction(engine) as session:
        return session.execute(text("SELECT count(*) FROM products")).scalar_one()


@pytest.mark.usefixtures("worker")
def test_the_printed_address_tags_a_product_and_shows_the_evidence(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.get_by_label("Title").fill("Navy blue running shoes")
    page.get_by_label("Description").fill("Light mesh upper.")
    page.locator("#picker").set_input_files([RED, BLUE])
    expect(page.locator("#photos img")).to_have_count(2)
    numbered = "getComputedStyle(document.querySelector('#photos li'), '::before').content"
    assert "counter(photo)" in page.evaluate(numbered)  # what a refusal calls it can be seen
    page.get_by_role("button", name="Remove photo 1").click()
    expect(page.locator("#photos img")).to_have_count(1)
    page.get_by_role("button", name="Tag this product").click()
    tags = page.locator("#tags > li")
    expect(tags).to_have_count(3)
    first, second, third = tags.nth(0), tags.nth(1), tags.nth(2)
    expect(first).to_contain_text("Article type")
    expect(first).to_contain_text("Casual Shoes")
    expect(first).to_contain_text("Auto")
    # Each percentage is spoken once.
    expect(first).to_match_aria_snapshot(
        """
        - listitem:
          - text: Article type Auto Casual Shoes 97 %
          - term: Text
          - definition: 93 %
          - term: Photos
          - definition: 88 %
          - paragraph: "Or: Sports Shoes 2 %"
        """
    )
    expect(first).to_contain_text("Or: Sports Shoes 2 %")
    expect(first).not_to_contain_text("Sandals")
    expect(second).to_contain_text("Review")
    expect(second.get_by_role("definition").last).to_have_text("none given")
    # The figures would be those of a value that is not offered.
    expect(third).to_have_text(
        re.compile(r"^\s*Season\s*No value\s*No value offered\s*Closest: Winter 34 %\s*$")
    )
    expect(page.get_by_role("status")).to_contain_text("3 tags in")
    expect(page.locator("#model")).to_contain_text("starter")


@pytest.mark.usefixtures("worker")
def test_a_refused_photo_is_explained_and_the_form_stays(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.get_by_label("Title").fill("Shoes")
    page.locator("#picker").set_input_files([BROKEN])
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("alert")).to_contain_text("photo 1 is truncated or damaged")
    expect(page.get_by_label("Title")).to_have_value("Shoes")
    page.get_by_role("button", name="Remove photo 1").click()
    expect(page.get_by_role("alert")).to_be_hidden()  # the next photo has its number now
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    expect(page.get_by_role("alert")).to_be_hidden()


def come(page: Page, held: list[Route]) -> list[Route]:
    """The requests that are held, once there is one: the page says that it sends before the browser has told."""
    for _ in range(1000):
        if held:
            return held
        page.wait_for_timeout(10)
    raise AssertionError("no request came")


def test_an_empty_form_is_not_sent(serve: Callable[..., str], open_page: Callable[..., Page]) -> None:
    page = open_page(serve())
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("alert")).to_contain_text("Give a title or a photo")
    expect(page.get_by_label("Title")).to_be_focused()


def test_a_queued_product_can_be_cancelled(serve: Callable[..., str], open_page: Callable[..., Page]) -> None:
    page = open_page(serve())
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Cancelled")


def test_a_queued_product_shows_its_place_and_time(
    serve: Callable[..., str], open_page: Callable[..., Page], engine: Engine, api_key: str
) -> None:
    address = serve()
    for _ in range(2):
        request = urllib.request.Request(
            f"{address}/v1/products",
            data=json.dumps({"title": "Shoes"}).encode(),
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
    page = open_page(address)
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("status")).to_contain_text("Waiting in the queue, 2 before it…")
    with transaction(engine) as session:
        # A worker took the first one, and it has just ended after 100 s.
        session.execute(
            text(
                "UPDATE jobs SET status = 'failed', submitted_at = now() - interval '100 s', "
                "started_at = now() - interval '100 s', finished_at = now() "
                "WHERE id = (SELECT min(id) FROM jobs)"
            )
        )
    expect(page.get_by_role("status")).to_contain_text(re.compile("1 before it, about [34] min"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Cancelled")


@pytest.mark.usefixtures("worker")
def test_a_service_for_other_machines_asks_for_a_key_once(
    serve: Callable[..., str], open_page: Callable[..., Page], api_key: str
) -> None:
    page = open_page(serve(host="0.0.0.0"))
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    key.fill("tsk_wrong")
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_role("button", name="Tag this product")).to_be_focused()
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("alert")).to_contain_text("A valid API key is required")
    expect(page.get_by_role("alert")).to_contain_text("Paste a key above, then send the product again.")
    expect(page.get_by_role("alert")).not_to_contain_text("Bearer")
    key.fill(api_key)
    page.get_by_role("button", name="Use").click()
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    expect(key).to_be_hidden()


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ({"status": 503, "json": {"title": "Try again later", "status": 503}}, "Try again later"),
        ({"status": 429, "body": "<p>Slow down</p>"}, "The service answered 429Try again in a moment."),
        ({"status": 404, "body": "<p>Not yet</p>"}, "The service answered 404Try again in a moment."),
    ],
)
def test_a_service_that_can_give_no_token_now_does_not_ask_for_a_key(
    serve: Callable[..., str], open_page: Callable[..., Page], refusal: dict[str, Any], told: str
) -> None:
    """Its database is away for a moment, or what stands before it answers in its place: no key would help."""
    page = open_page(serve())
    status, key = page.get_by_role("status"), page.get_by_label("API key")
    is_away = True

    def give(route: Route) -> None:
        if is_away:
            route.fulfill(**refusal)
        else:
            route.continue_()

    page.route("**/page/token", give)
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("alert")).to_have_text(told)
    expect(status).to_have_text("Not sent.")
    expect(key).to_be_hidden()
    is_away = False
    page.route("**/v1/jobs/*", lambda route: route.abort())
    page.get_by_role("button", name="Tag this product").click()
    expect(status).to_contain_text("trying again…")
    is_away = True
    page.reload()
    expect(status).to_contain_text("trying again…")  # the product sent before is followed all the same
    expect(key).to_be_hidden()
    is_away = False
    page.unroute("**/v1/jobs/*")
    expect(page.locator("#tags > li")).to_have_count(3)


@pytest.mark.usefixtures("worker")
def test_a_job_that_cannot_be_asked_for_is_followed_again_later(
    serve: Callable[..., str], open_page: Callable[..., Page], engine: Engine
) -> None:
    page = open_page(serve())
    tries: list[str] = []
    is_away = True

    def ask(route: Route) -> None:
        tries.append(route.request.url)
        if not is_away:
            route.continue_()
        elif len(tries) % 2:
            route.fulfill(status=503, json={"title": "Try again later", "status": 503})
        else:
            route.abort()

    page.route("**/v1/jobs/*", ask)
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("status")).to_contain_text("Sent. Its tags cannot be asked for right now")
    with page.expect_request("**/v1/jobs/*"):
        pass  # it tries again by itself
    expect(page.get_by_role("status")).to_contain_text("trying again…")
    expect(page.get_by_role("alert")).to_be_hidden()
    is_away = False
    expect(page.locator("#tags > li")).to_have_count(3)
    assert len(tries) >= 3
    assert products(engine) == 1


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "Nothing is herePaste a key above, then load this page again."), (404, "Nothing is here")],
)
def test_a_job_that_will_not_be_told_is_not_followed_for_ever(
    serve: Callable[..., str], open_page: Callable[..., Page], status: int, told: str
) -> None:
    """Gone, or the key was revoked meanwhile."""
    page = open_page(serve())
    page.route("**/v1/jobs/*", lambda route: route.fulfill(status=status, json={"title": "Nothing is here"}))
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("status")).to_have_text("Sent, but its tags cannot be shown.")
    expect(page.locator("#job-problem")).to_have_text(told)
    expect(page.get_by_role("button", name="Tag this product")).to_be_enabled()


@pytest.mark.usefixtures("worker")
def test_a_product_whose_answer_was_lost_is_made_once(
    serve: Callable[..., str], open_page: Callable[..., Page], engine: Engine
) -> None:
    page = open_page(serve())
    keys: list[str] = []

    def lose_the_first_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/products", lose_the_first_answer)
    send = page.get_by_role("button", name="Tag this product")
    page.get_by_label("Title").fill("Shoes")
    send.click()
    expect(page.get_by_role("status")).to_have_text("No answer came. Sent again, it is not taken twice.")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    send.click()
    expect(page.locator("#tags > li")).to_have_count(3)
    assert (keys[0] == keys[1], products(engine)) == (True, 1)
    # Accepted: who sends the same once more wants another.
    send.click()
    expect(page.locator("#tags > li")).to_have_count(3)
    assert (keys[1] == keys[2], products(engine)) == (False, 2)


@pytest.mark.usefixtures("worker")
def test_other_content_has_another_key(serve: Callable[..., str], open_page: Callable[..., Page]) -> None:
    page = open_page(serve())
    keys: list[str] = []

    def answer_nothing(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        route.abort()

    page.route("**/v1/products", answer_nothing)
    send, lost = page.get_by_role("button", name="Tag this product"), page.get_by_text("No answer came.")
    for change in (
        lambda: page.get_by_label("Title").fill("Shoes"),
        lambda: page.get_by_label("Description").fill("Light."),
        lambda: page.locator("#picker").set_input_files([RED]),
        lambda: page.locator("#picker").set_input_files([BLUE]),
        lambda: page.get_by_role("button", name="Remove photo 1").click(),
        lambda: None,
    ):
        change()
        send.click()
        expect(lost).to_be_visible()
        expect(send).to_be_enabled()
    assert len(set(keys[:5])) == 5
    assert keys[4:] == [keys[4]] * 2


@pytest.mark.usefixtures("worker")
def test_what_is_given_before_the_script_has_loaded_is_kept(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    address = serve()
    page = open_page(address)
    held: list[Route] = []
    page.route("**/static/tags.js", lambda route: held.append(route))
    page.goto(address, wait_until="commit")
    page.get_by_label("Title").fill("Shoes")
    page.get_by_label("Title").press("Enter")
    page.locator("#picker").set_input_files([RED, BLUE])
    page.wait_for_function("document.querySelector('#picker').files.length === 2")
    assert page.url == f"{address}/"  # the browser did not send the form by itself
    come(page, held)[0].continue_()
    expect(page.locator("#photos img")).to_have_count(2)
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    expect(page.get_by_label("Title")).to_have_value("Shoes")


@pytest.mark.usefixtures("worker")
def test_a_product_sent_after_clear_has_the_page_for_itself(
    serve: Callable[..., str], open_page: Callable[..., Page], engine: Engine
) -> None:
    page = open_page(serve())
    status, send = page.get_by_role("status"), page.get_by_role("button", name="Tag this product")
    held: list[Route] = []
    page.route("**/v1/products", lambda route: route.continue_() if held else held.append(route))
    page.get_by_label("Title").fill("Shoes")
    send.click()
    expect(status).to_have_text("Sending…")
    expect(send).to_be_focused()
    page.keyboard.press("Enter")  # one product, not two
    page.get_by_role("button", name="Clear").click()
    expect(status).to_have_text("The product before is still being sent; its tags will not be shown here.")
    page.get_by_label("Title").fill("Handbag")
    send.click()
    expect(status).to_contain_text("3 tags in")
    with page.expect_response("**/v1/products"):
        come(page, held)[0].continue_()
    page.get_by_role("button", name="Clear").click()
    # Not that the first one was sent, which the page has learned last.
    expect(status).to_have_text("The product before was tagged.")
    assert (len(held), products(engine)) == (1, 2)


def test_clear_says_what_became_of_the_product(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    status, clear = page.get_by_role("status"), page.get_by_role("button", name="Clear")
    held: list[Route] = []
    page.route("**/v1/products", lambda route: held.append(route))

    def send() -> None:
        page.get_by_label("Title").fill("Shoes")
        page.get_by_role("button", name="Tag this product").click()

    clear.click()
    expect(status).to_have_text("Nothing sent yet.")
    send()
    clear.click()
    expect(status).to_have_text("The product before is still being sent; its tags will not be shown here.")
    come(page, held).pop().continue_()
    expect(status).to_have_text("The product before was sent; its tags are not shown here.")
    send()
    clear.click()
    come(page, held).pop().fulfill(status=422, json={"title": "No"})
    expect(status).to_have_text("The product before was not sent.")
    send()
    clear.click()
    come(page, held).pop().abort()
    expect(status).to_have_text("The product before may have been sent, but no answer came.")
    page.unroute("**/v1/products")
    send()
    expect(status).to_contain_text("Waiting in the queue")
    clear.click()
    expect(status).to_have_text("The product before was sent; its tags are not shown here.")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def test_the_keyboard_reaches_cancel_while_the_queue_is_asked(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.get_by_label("Title").fill("Shoes")
    page.get_by_label("Title").press("Enter")
    cancel = page.get_by_role("button", name="Cancel")
    cancel.focus()
    page.evaluate(
        """() => {
            const status = document.querySelector("[role=status]");
            window.spoken = 0;
            new MutationObserver((changes) => { window.spoken += changes.length; })
                .observe(status, { childList: true, characterData: true, subtree: true });
        }"""
    )
    with page.expect_request("**/v1/jobs/*"):
        pass  # the answer to the one before is shown
    assert page.evaluate("window.spoken") == 0
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Tag this product")).to_be_focused()


def test_a_reason_is_spoken_and_goes_when_it_is_no_longer_so(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    asked: list[Route] = []
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    cancel = page.get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible()
    page.route(
        "**/v1/jobs/*",
        lambda route: route.abort() if route.request.method == "DELETE" else asked.append(route),
    )
    with page.expect_request(lambda request: "wait=" in request.url):
        pass  # from here on no answer comes before the test lets it
    cancel.click()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    asked[0].continue_()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_what_no_key_can_be_is_refused_where_it_is_pasted(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve(host="0.0.0.0"))
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    key = page.get_by_label("API key")
    key.fill("tsk_schlüssel–ü")
    page.get_by_role("button", name="Use").click()
    expect(page.locator("#key-form").get_by_role("alert")).to_contain_text("This cannot be a key")
    expect(key).to_be_focused()


def test_photos_are_taken_wherever_they_are_dropped_or_pasted(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.evaluate(
        """() => {
            window.brought = (name, text) => {
                const data = new DataTransfer();
                data.items.add(new File(["x"], name, { type: name.endsWith(".png") ? "image/png" : "" }));
                if (text) data.setData("text/plain", text);
                return data;
            };
            window.act = (Kind, type, place, data) => !document.querySelector(place).dispatchEvent(new Kind(type, {
                bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data }));
        }"""
    )
    for place in ("#title", "h1", "#photos"):
        # Who does not prevent the browser's own doing loses the page to the file.
        assert page.evaluate(f"act(DragEvent, 'dragover', '{place}', brought('a.png'))")
        assert page.evaluate(f"act(DragEvent, 'drop', '{place}', brought('a.png'))")
    expect(page.locator("#photos img")).to_have_count(3)
    # A name without a type says nothing: the service looks at the content.
    for place, name in (("#title", "b.png"), ("body", "b")):
        assert page.evaluate(f"act(ClipboardEvent, 'paste', '{place}', brought('{name}'))")
    expect(page.locator("#photos img")).to_have_count(5)
    # Text of an office program has a picture of itself beside it.
    assert not page.evaluate("act(ClipboardEvent, 'paste', '#title', brought('b.png', 'Shoes'))")
    expect(page.locator("#photos img")).to_have_count(5)


def test_what_cannot_be_a_photo_is_refused_at_once(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.locator("#picker").set_input_files([NOTE, RED, EMPTY])
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("By its name, note.txt is not a JPEG, PNG, WebP or AVIF.")
    expect(alert).to_contain_text("empty.jpg is empty.")
    expect(page.locator("#photos img")).to_have_count(1)


def test_a_photo_that_can_no_longer_be_read_is_named(
    serve: Callable[..., str], open_page: Callable[..., Page], tmp_path: Path, engine: Engine
) -> None:
    page = open_page(serve())
    page.get_by_label("Title").fill("Shoes")
    photo = tmp_path / "shoes.jpg"
    photo.write_bytes(RED["buffer"])
    page.locator("#picker").set_input_files(photo)
    expect(page.locator("#photos img")).to_have_count(1)
    photo.write_bytes(encoded(picture(100, 100)))
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("alert")).to_contain_text("Photo 1 (shoes.jpg) cannot be read any more")
    expect(page.get_by_role("status")).to_have_text("Not sent.")
    assert products(engine) == 0


def test_a_reload_finds_the_product_again(serve: Callable[..., str], open_page: Callable[..., Page]) -> None:
    page = open_page(serve())
    status = page.get_by_role("status")
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(status).to_contain_text("Waiting in the queue")
    page.reload()
    expect(status).to_contain_text("Waiting in the queue")
    page.get_by_role("button", name="Cancel").click()
    expect(status).to_have_text("Cancelled.")
    page.reload()
    expect(status).to_have_text("Nothing sent yet.")  # it has ended, and that was shown


@pytest.mark.usefixtures("worker")
def test_a_product_that_was_tagged_meanwhile_is_shown_after_a_reload(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    is_back = False
    page.route("**/v1/jobs/*", lambda route: route.continue_() if is_back else route.abort())
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.get_by_role("status")).to_contain_text("trying again…")
    page.reload()
    is_back = True
    expect(page.get_by_role("status")).to_have_text("3 tags of the product sent before.")
    expect(page.locator("#tags > li")).to_have_count(3)


@pytest.mark.usefixtures("worker")
def test_the_way_back_leads_to_the_title_as_it_was(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    address = serve()
    page = open_page(address)
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    page.goto(f"{address}/docs")
    page.go_back()
    expect(page.get_by_label("Title")).to_have_value("Shoes")


def luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    shares = [int(channel) / 255 for channel in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fields_and_their_examples_can_be_seen(
    serve: Callable[..., str], open_page: Callable[..., Page], scheme: Literal["light", "dark"]
) -> None:
    """WCAG 2.2: 1.4.11 asks 3:1 of what shows where to type, 1.4.3 asks 4.5:1 of text."""
    page = open_page(serve())
    page.emulate_media(color_scheme=scheme)

    def style(selector: str, name: str, part: str = "") -> str:
        found = page.evaluate(
            "([selector, name, part]) => getComputedStyle(document.querySelector(selector), part)[name]",
            [selector, name, part],
        )
        return str(found)

    panel = style("#product-form", "backgroundColor")
    for field in ("#title", "#description", "#drop"):
        assert contrast(style(field, "borderTopColor"), panel) >= 3
    assert style("#title", "opacity", "::placeholder") == "1"
    example = style("#title", "color", "::placeholder")
    assert contrast(example, style("#title", "backgroundColor")) >= 4.5


@pytest.mark.usefixtures("worker")
def test_bars_are_printed(serve: Callable[..., str], open_page: Callable[..., Page]) -> None:
    page = open_page(serve())
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    page.emulate_media(media="print")
    expect(page.locator(".bar span").first).to_have_css("print-color-adjust", "exact")


@pytest.mark.usefixtures("worker")
def test_bars_can_be_seen_in_a_contrast_theme(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.emulate_media(forced_colors="active")
    page.get_by_label("Title").fill("Shoes")
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    bars = page.locator("#tags > li").first.locator(".bar span")
    ground = "part => getComputedStyle(part).backgroundColor"
    assert page.locator("body").evaluate(ground) not in [bar.evaluate(ground) for bar in bars.all()]
    assert bars.count() == 3


@pytest.mark.usefixtures("worker")
def test_the_pages_fit_a_phone(serve: Callable[..., str], open_page: Callable[..., Page]) -> None:
    address = serve()
    page = open_page(address, width=360, height=740)
    page.get_by_label("Title").fill("Shoes")
    page.locator("#picker").set_input_files([RED, BLUE])
    page.get_by_role("button", name="Tag this product").click()
    expect(page.locator("#tags > li")).to_have_count(3)
    # They are below the form, and the page has gone there.
    assert page.evaluate(
        "document.querySelector('#tags > li').getBoundingClientRect().bottom < innerHeight / 2"
    )
    page.locator("#picker").set_input_files([{**EMPTY, "name": "n" * 200 + ".jpg"}])
    expect(page.get_by_role("alert")).to_contain_text("is empty.")
    for path in ("", "/docs", "/problems"):
        if path:
            page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path


def test_all_text_is_as_large_as_the_browser_is_set_to(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    address = serve()
    page = open_page(address, width=400, height=740)
    for path in ("", "/docs", "/problems"):
        if path:
            page.goto(address + path)
        page.evaluate("document.documentElement.style.fontSize = '32px'")  # as a browser's own setting does
        assert page.evaluate("getComputedStyle(document.body).fontSize") == "32px"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path


def test_what_a_seller_writes_is_shown_as_text(
    serve: Callable[..., str], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.locator("#picker").set_input_files([{**RED, "name": '"><script>alert(1)</script>.jpg'}])
    expect(page.locator("#photos img")).to_have_attribute("alt", 'Photo 1: "><script>alert(1)</script>.jpg')
    assert page.locator("#photos script").count() == 0
