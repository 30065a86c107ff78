import pytest

WAIT_MS = 120_000
# elements of gradio 6.31.0 that neither labels nor CSS can change: a part of their tag, and the rule of axe that they break
EXCLUDED = {
    'class="toast-header': "nested-interactive",  # error message: the button that folds it has the one that closes it inside
    'aria-label="Click to Upload"': "nested-interactive",  # Gallery with uploads: a button inside a button
}
# an infinite animation cannot be finished
FINISH = "document.getAnimations().forEach(each => { try { each.finish() } catch { each.cancel() } })"
STILL = "*, ::before, ::after { transition: none !important; animation: none !important; }"


@pytest.fixture
def serious():
    """A function that returns the serious findings of axe on a page: rule, selector and HTML of the element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def found(tab):
        tab.add_style_tag(content=STILL)  # a colour half way between two others has a contrast of its own
        tab.evaluate(FINISH)  # those of a script, which CSS does not stop
        violations = axe.run(tab).response["violations"]
        nodes = [
            (violation["id"], node["target"][0], node["html"])
            for violation in violations
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]
        # by the tag in the finding, not in the page: a message may be gone by now
        return [
            (rule, target, html)
            for rule, target, html in nodes
            if not any(rule == known and part in html.partition(">")[0] for part, known in EXCLUDED.items())
        ]

    return found


@pytest.fixture
def opened(browser, monkeypatch):
    """A function that serves a page and opens it; no request leaves this machine."""
    from pipelines.ui import page

    served, tabs, asked = [], [], []

    def open_(*args, **screen):
        made = page.serve(page.page(*args), out=args[2])
        served.append(made)
        tab = browser.new_page(**screen)
        tabs.append(tab)
        tab.set_default_timeout(WAIT_MS)
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(made.local_url)
        return tab

    yield open_
    for tab in tabs:
        tab.close()  # the server waits for open connections
    for made in served:
        made.close()
    outside = [url for url in asked if not url.startswith(("http://127.0.0.1", "data:", "blob:"))]
    assert not outside
