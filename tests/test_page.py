"""The page at `/`, used in a headless Chromium against `l2d serve`: by keyboard, on a phone, in the dark, cut off."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chromium import CHROMIUM, Tab, chromium
from l2d.recommender import Recommender
from shop import ok

pytest.importorskip("fastapi", reason="the server needs the extra `serve`")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}: set L2D_CHROMIUM to one")

PAGE = Path(__file__).resolve().parent.parent / "src" / "l2d" / "serve" / "page"
ALT = 1

TITLES = "[...document.querySelectorAll('.recommended .line button.title')].map(one => one.textContent)"
HISTORY = "[...document.querySelectorAll('#history .title')].map(one => one.textContent)"
SETTLED = "document.getElementById('recommended').getAttribute('aria-busy') == 'false'"
REASONS = "document.querySelectorAll('.recommended .short:not(.old) .words').length"


@dataclass
class Served:
    """A server with a key.

    Args:
        address: of the page.
        key: it may read and write.
        process: it, to be stopped by whoever tests that.
    """

    address: str
    key: str
    process: subprocess.Popen[str]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers."""
        request = urllib.request.Request(self.address + path, None if body is None else json.dumps(body).encode())
        request.method = method
        request.add_header("Authorization", f"Bearer {self.key}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def titles(self, history: list[str], **more: Any) -> list[str]:
        """The titles of an answer to what the page asks for."""
        body = {"history": history, "k": 10, "exclude_seen": True, **more}
        return [item["title"] for item in self.ask("POST", "/v1/recommend", body)["items"]]


@pytest.fixture(scope="module")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`l2d serve` of a calibrated copy of the small run."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(run, folder / "shop")
    Recommender.load(folder / "shop", device="cpu").calibrate()
    key = ok("keys", "add", folder / "keys", "--name", "page", "--scope", "read", "--scope", "write").out.strip()
    command = [sys.executable, "-m", "l2d", "serve", folder / "shop", "--port", "0", "--keys", folder / "keys"]
    command += ["--threads", "1", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the server does not say where it is"
        yield Served(found[0], key, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Tab]]:
    with chromium(tmp_path_factory.mktemp("chromium")) as tabs:
        yield tabs


@pytest.fixture
def tab(browser: Callable[[], Tab], served: Served) -> Iterator[Tab]:
    """The page with its key, its first list shown; in the end nobody complained and nobody else was asked."""
    tab = browser()
    tab.sized(1280, 800)
    place = json.dumps(served.key)
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=f"sessionStorage.setItem('l2d key', {place})")
    tab.go(served.address)
    tab.until(f"{SETTLED} && {TITLES}.length == 10")
    yield tab
    assert tab.complaints == []
    assert {address.startswith((served.address + "/", "about:")) for address in tab.requested} == {True}
    tab.close()


def add(tab: Tab, *titles: str) -> None:
    """Finds items by their whole titles and adds them, by keyboard alone."""
    tab.value("document.getElementById('query').focus()")
    for title in titles:
        tab.type(title)
        tab.until(f"document.querySelector('#found [aria-selected=true] .title')?.textContent == {json.dumps(title)}")
        tab.press("Enter")
    tab.until(f"{HISTORY}.length == {len(titles)} && {SETTLED}")


def some_titles(served: Served, number: int) -> list[str]:
    return served.titles([])[:number]


def test_a_cold_list_says_so_and_is_what_the_server_answers(tab: Tab, served: Served) -> None:
    assert tab.value(TITLES) == served.titles([])
    assert "popular" in tab.value("document.getElementById('cold').innerText")
    assert tab.value("document.getElementById('history-empty').checkVisibility()")


def test_typing_finds_items_and_keys_make_a_history(tab: Tab, served: Served) -> None:
    title = some_titles(served, 1)[0]
    word = title.split()[0]
    tab.value("document.getElementById('query').focus()")
    tab.type(word)
    tab.until("document.querySelectorAll('#found li[id]').length > 1")
    found = tab.value("[...document.querySelectorAll('#found .title')].map(one => one.textContent)")
    assert found == [item["title"] for item in served.ask("GET", f"/v1/items?query={word}&k=12")["items"]]
    active = "document.getElementById('query').getAttribute('aria-activedescendant')"
    assert tab.value(active) == "found-0"
    tab.press("ArrowDown")
    assert tab.value(active) == "found-1"
    assert tab.value("document.getElementById('found-1').getAttribute('aria-selected')") == "true"
    tab.press("ArrowUp", "ArrowUp")
    assert tab.value(active) == f"found-{len(found) - 1}"
    tab.press("ArrowDown", "ArrowDown", "Enter")
    tab.until(f"{HISTORY}.length == 1")
    assert tab.value(HISTORY) == [found[1]]
    state = "document.getElementById('query').getAttribute('aria-expanded')"
    assert (tab.value("document.getElementById('query').value"), tab.value(state)) == ("", "false")
    tab.type(word)
    tab.until("document.getElementById('query').getAttribute('aria-expanded') == 'true'")
    tab.press("Escape")
    assert tab.value(state) == "false"
    assert tab.value("document.getElementById('query').value") == word


def test_the_list_follows_the_history_and_says_why(tab: Tab, served: Served) -> None:
    first, second, third = some_titles(served, 3)
    add(tab, first, second, third)
    assert tab.value(TITLES) == served.titles([first, second, third])
    tab.until(REASONS)
    words = tab.value("[...document.querySelectorAll('.short:not([hidden]) .words')].map(one => one.textContent)")
    assert any("thought" in line or "people" in line for line in words)

    rows = "document.querySelectorAll('#history li')"
    tab.value(f"{rows}[2].querySelector('button').focus()")
    tab.press("ArrowUp", modifiers=ALT)
    tab.until(f"JSON.stringify({HISTORY}) == {json.dumps(json.dumps([first, third, second], separators=(',', ':')))}")
    tab.until(SETTLED)
    assert tab.value(TITLES) == served.titles([first, third, second])
    assert tab.value(f"{rows}[1].contains(document.activeElement)"), "the focus goes with the line"
    tab.press("Delete")
    tab.until(f"{HISTORY}.length == 2 && {SETTLED}")
    assert tab.value(TITLES) == served.titles([first, second])
    assert tab.value(f"{rows}[1].contains(document.activeElement)"), "the focus stays in the list"

    tab.value("document.querySelector('.line button.title').focus()")
    tab.press("Enter")
    tab.until("document.querySelector('.full .reasons').innerText.includes('.')")
    body = {"history": [first, second], "k": 10, "exclude_seen": True, "explain": True, "deadline_ms": 20000}
    why = served.ask("POST", "/v1/recommend", body)["items"][0]["explanation"]
    told = tab.value("document.querySelector('.full .reasons').innerText")
    assert [one["title"] for one in (*why["history"], *why["evidence"]) if one["title"] not in told] == []
    tab.press("Escape")
    assert not tab.value("document.querySelector('.full').checkVisibility()")


def test_choices_change_what_is_asked_for(tab: Tab, served: Served) -> None:
    first, second = some_titles(served, 2)
    add(tab, first, second)
    tab.value(
        "(one => {one.value = 'global'; one.dispatchEvent(new Event('change'))})(document.getElementById('decoder'))"
    )
    tab.value("(one => {one.value = '4'; one.dispatchEvent(new Event('input'))})(document.getElementById('k'))")
    tab.until(f"{TITLES}.length == 4 && {SETTLED}")
    assert tab.value(TITLES) == served.titles([first, second], decoder="global", k=4)
    tab.value("document.getElementById('filter').focus()")
    tab.type("colour=red|blue price<20")
    tab.until("!document.getElementById('notice').hidden")
    assert "colour" in tab.value("document.getElementById('notice').innerText")
    assert json.loads(tab.value("document.getElementById('filter-note').innerText")) == {
        "colour": ["red", "blue"],
        "price": {"lt": 20},
    }
    tab.value("document.getElementById('filter').select()")
    tab.press("Backspace")
    tab.until(f"document.getElementById('notice').hidden && {TITLES}.length == 4")


def test_beam_search_stands_beside_with_both_latencies(tab: Tab, served: Served) -> None:
    first, second = some_titles(served, 2)
    add(tab, first, second)
    tab.value("document.getElementById('beam-ask').focus()")
    tab.press("Enter")
    tab.until("document.querySelector('.ratio')")
    cells = tab.value("[...document.querySelectorAll('.timings td')].map(one => one.textContent)")
    assert len(cells) == 4
    assert all(re.fullmatch(r"[\d,.]+ ms", cell) for cell in cells)
    own = [float(cell.removesuffix(" ms").replace(",", "")) for cell in cells]
    assert own[0] <= own[1] and own[2] <= own[3], "the server's part is part of what the browser waits"
    assert re.match(r"[\d.]+\S as long", tab.value("document.querySelector('.ratio').innerText"))
    beamed = tab.value("[...document.querySelectorAll('.beamed .title')].map(one => one.textContent)")
    assert beamed == served.titles([first, second], decoder="beam", deadline_ms=60_000)
    tab.value("document.getElementById('clear').click()")
    tab.until("!document.querySelector('.ratio')")


def test_writing_an_interaction_changes_memory_and_list(tab: Tab, served: Served) -> None:
    first, second = some_titles(served, 2)
    add(tab, first, second)
    entries = "document.getElementById('memory-entries').innerText"
    tab.until("document.getElementById('memory-entries')")
    before, version = int(tab.value(entries).replace(",", "")), served.ask("GET", "/v1/memory")["runs"][0]
    top, *_, last = tab.value(TITLES)
    asked = {"history": [first, second], "decoder": "vote", "allow": [top, last], "k": 2}

    def ratio() -> float:
        """How many votes the last has for each of the first."""
        scores = {item["title"]: item["score"] for item in served.ask("POST", "/v1/recommend", asked)["items"]}
        return float(scores[last] / scores[top])

    former = ratio()
    tab.value("[...document.querySelectorAll('.line button.title')].at(-1).click()")
    tab.until("document.querySelector('.record input')")
    tab.value("document.querySelector('.record input').focus()")
    tab.type("a new visitor")
    tab.press("Enter")
    tab.until("document.querySelector('.record [role=status]').innerText.includes('written')")
    assert "3 interactions written, 2 new entries" in tab.value(
        "document.querySelector('.record [role=status]').innerText"
    )
    tab.until(f"{entries} == {json.dumps(f'{before + 2:,}')}")
    tab.until("document.getElementById('memory-writes').innerText.includes('3 interactions')")
    tab.until(SETTLED)
    assert served.ask("GET", "/v1/memory")["runs"][0]["memory_version"] != version["memory_version"]
    assert ratio() > former, "an entry with this very history votes for it now"
    tab.until(
        f"JSON.stringify({TITLES}) == {json.dumps(json.dumps(served.titles([first, second]), separators=(',', ':')))}"
    )


def test_a_users_own_history_is_asked_for_by_id(tab: Tab, served: Served) -> None:
    tab.value("document.getElementById('user').focus()")
    tab.type("7")
    tab.press("Enter")
    tab.until(f"{HISTORY}.length == 1 && document.getElementById('cold').hidden && {SETTLED}")
    found = served.ask("POST", "/v1/recommend", {"user": "7", "k": 10, "exclude_seen": True})["items"]
    assert tab.value(TITLES) == [item["title"] for item in found]
    tab.value("document.querySelector('#history button').click()")
    tab.until("!document.getElementById('cold').hidden")


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Callable[[], Tab], served: Served) -> None:
    tab = browser()
    tab.go(served.address)
    tab.until("document.getElementById('key-dialog').open && document.activeElement.id == 'key'")
    tab.type("l2d_wrong")
    tab.press("Enter")
    tab.until(
        "document.getElementById('key-dialog').open && document.getElementById('key-reason').innerText.includes('not')"
    )
    tab.press("Escape")
    tab.until("document.getElementById('notice').innerText.includes('Enter a key')")
    tab.value("document.querySelector('#notice button').click()")
    tab.until("document.getElementById('key-dialog').open")
    tab.value("document.getElementById('key').focus()")
    tab.type(served.key)
    tab.press("Enter")
    tab.until(f"{TITLES}.length == 10")
    assert tab.value("[sessionStorage.getItem('l2d key'), localStorage.length]") == [served.key, 0]
    assert tab.complaints == []
    tab.close()


def test_a_phone_scrolls_one_way_only(tab: Tab, served: Served) -> None:
    add(tab, *some_titles(served, 3))
    long = "document.querySelectorAll('.title')[1].textContent = 'Unbreakable'.repeat(40)"
    tab.value(long)
    tab.until(REASONS)
    tab.value("document.querySelector('.line button.title').click()")
    for width in (360, 320):
        tab.sized(width, 740)
        assert tab.value("document.documentElement.scrollWidth") == width
    small = """[...document.querySelectorAll('button, input, select')].filter(one => one.checkVisibility()
        && one.type != 'checkbox' && !one.matches('.title') && one.getBoundingClientRect().height < 30)
        .map(one => one.outerHTML)"""
    assert tab.value(small) == []


CONTRAST = """(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map(one => one / 255)
        .map(one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4)
        .reduce((sum, one, place) => sum + one * [.2126, .7152, .0722][place], 0);
    const behind = node => {
        for (; node; node = node.parentElement) {
            const found = rgba(getComputedStyle(node).backgroundColor);
            if (found[3] == 255) return found;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode, node = text.parentElement;
        if (!text.textContent.trim() || !node.checkVisibility() || node.closest(':disabled, option')) continue;
        const [a, b] = [light(rgba(getComputedStyle(node).color)), light(behind(node))];
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        if (ratio < 4.5) faint.push([node.outerHTML, ratio]);
    }
    return [walker.root.innerText.length, faint];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(tab: Tab, served: Served, scheme: str) -> None:
    tab.scheme(scheme)
    add(tab, *some_titles(served, 2))
    tab.until(REASONS)
    tab.value("document.querySelector('.line button.title').click()")
    paper = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) > 128) == (scheme == "light")
    length, faint = tab.value(CONTRAST)
    assert length > 500
    assert faint == []


def test_the_tab_key_alone_reaches_everything_in_order(tab: Tab, served: Served) -> None:
    add(tab, *some_titles(served, 2))
    tab.until(REASONS)
    tab.value("(document.activeElement.blur(), document.querySelector('.skip').focus())")
    seen = []
    where = """(one => [one.closest('section, header')?.className ?? '', one.id || one.textContent || one.ariaLabel,
        getComputedStyle(one).outlineStyle != 'none'])(document.activeElement)"""
    for _ in range(60):
        tab.press("Tab")
        part, name, outlined = tab.value(where)
        if part == "beam":
            break
        assert outlined, f"{name} has the focus and does not show it"
        seen.append((part, name))
    parts = [part for part, _ in seen]
    assert list(dict.fromkeys(parts)) == ["top", "compose", "answer"]
    names = [name for _, name in seen]
    for name in ("key-open", "query", "clear", "user", "decoder", "k", "filter", "exclude-seen"):
        assert name in names
    assert {title for title in tab.value(TITLES)} <= set(names)
    unnamed = """[...document.querySelectorAll('button, input, select')].filter(one => one.checkVisibility()
        && !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).map(one => one.outerHTML)"""
    assert tab.value(unnamed) == []


def test_a_title_is_text_whatever_it_holds(tab: Tab, served: Served) -> None:
    title = "<img src=x onerror=alert(1)> \u05e9\u05dc\u05d5\u05dd & <b>bold</b>"
    served.ask("PUT", "/v1/items", {"items": [{"item_id": "424242", "title": title}]})
    add(tab, title)
    assert tab.value(HISTORY) == [title]
    assert tab.value("document.querySelectorAll('main img, main b').length") == 0
    assert tab.value("document.querySelector('#history .title').dir") == "auto"


def test_an_answer_to_a_former_question_is_not_shown(tab: Tab, served: Served) -> None:
    first, second = some_titles(served, 2)
    tab.value("""(() => {
        const real = window.fetch;
        window.held = [];
        window.fetch = (address, how) => {
            if (!String(address).includes('recommend') || held.length) return real(address, how);
            return new Promise(done => {
                const answer = () => done(real(address, {...how, signal: null}));
                held.push({signal: how.signal, answer});
            });
        };
    })()""")
    tab.value("document.getElementById('query').focus()")
    tab.type(first)
    tab.until("document.querySelector('#found li[id]')")
    tab.press("Enter")
    tab.until("held.length")
    tab.type(second)
    tab.until("document.querySelector('#found li[id]')")
    tab.press("Enter")
    tab.until(SETTLED)
    assert tab.value("held[0].signal.aborted")
    tab.value("held[0].answer()")
    tab.until(REASONS)
    assert tab.value(TITLES) == served.titles([first, second])


def test_enter_takes_no_item_that_was_found_for_another_word(tab: Tab, served: Served) -> None:
    tab.value("document.getElementById('query').focus()")
    tab.type(some_titles(served, 1)[0])
    tab.until("document.querySelector('#found li[id]')")
    tab.value("void (document.getElementById('query').value = 'zzzzzz qqqqqq')")
    tab.press("Enter")
    tab.until("document.querySelector('#found .none')")
    assert tab.value(HISTORY) == []


def test_beam_search_is_offered_where_the_server_answers_it_alone(tab: Tab, served: Served) -> None:
    seen = "document.getElementById('beam-ask').checkVisibility()"
    tab.until(seen)
    tab.value("""(() => {
        const real = window.fetch;
        window.fetch = async (address, how) => {
            const answer = await real(address, how);
            if (!String(address).includes('v1/memory')) return answer;
            const data = await answer.json();
            data.runs.forEach(run => { run.decoders = run.decoders.filter(name => name != 'beam'); });
            return Response.json(data);
        };
    })()""")
    tab.until(f"!{seen}")


def test_the_memory_is_left_alone_while_nobody_looks(tab: Tab, served: Served) -> None:
    hidden = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}}),"
    hidden += "document.dispatchEvent(new Event('visibilitychange'))"
    state = "document.getElementById('memory-state').innerText"
    tab.until(f"{state} == 'live'")
    tab.value(hidden.format("true"))
    tab.until(f"{state} == 'paused'")
    asked = tab.requested.count(f"{served.address}/v1/memory")
    tab.value(hidden.format("false"))
    tab.until(f"{state} == 'live'")
    assert tab.requested.count(f"{served.address}/v1/memory") == asked + 1


def test_text_of_the_api_is_never_html() -> None:
    script = "\n".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js"))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function", script
    )
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", page)
    everything = script + page + "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.css"))
    assert not re.search(r"https?://|url\(|@import", everything)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 400 for path in PAGE.iterdir())


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(tab: Tab, served: Served) -> None:
    """The first answers are replaced on their way to the page: a server that is really busy cannot be had at will."""
    tab.value("""(() => {
        const real = window.fetch;
        let left = 1;
        window.fetch = (address, how) => {
            if (!String(address).includes('recommend') || left-- < 1) return real(address, how);
            const body = JSON.stringify({error: {what: 'the queue is full'}, request_id: '1'});
            return Promise.resolve(new Response(body, {status: 503, headers: {'Retry-After': '1'}}));
        };
    })()""")
    first = some_titles(served, 1)
    tab.value("document.getElementById('query').focus()")
    tab.type(first[0])
    tab.until("document.querySelector('#found li[id]')")
    tab.press("Enter")
    tab.until("!document.getElementById('notice').hidden")
    assert tab.value("document.getElementById('notice').innerText") == "Busy, again in 1 s."
    tab.until(f"{SETTLED} && document.getElementById('notice').hidden")
    assert tab.value(TITLES) == served.titles(first)


def test_without_the_server_the_page_says_so(tab: Tab, served: Served) -> None:
    """The last test, since it stops the server."""
    first = some_titles(served, 1)
    tab.value("document.getElementById('query').focus()")
    tab.type(first[0])
    tab.until("document.querySelector('#found li[id]')")
    served.process.send_signal(signal.SIGKILL)
    served.process.wait()
    tab.press("Enter")
    tab.until("document.getElementById('notice').innerText.includes('cannot be reached')")
    tab.until("document.getElementById('health').dataset.state == 'away'")
    assert tab.value(HISTORY) == first
    assert tab.value(f"{TITLES}.length") == 10, "the former list stays"
