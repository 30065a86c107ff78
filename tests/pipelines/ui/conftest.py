import pytest

WAIT_MS = 120_000


@pytest.fixture
def opened(browser, monkeypatch):
    """A function that serves a page and opens it; no request leaves this machine."""
    from pipelines.ui import page

    served, asked = [], []

    def open_(*args, **screen):
        made = page.serve(page.page(*args), out=args[2])
        served.append(made)
        tab = browser.new_page(**screen)
        tab.set_default_timeout(WAIT_MS)
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(made.local_url)
        return tab

    yield open_
    for made in served:
        made.close()
    outside = [url for url in asked if not url.startswith(("http://127.0.0.1", "data:", "blob:"))]
    assert not outside
