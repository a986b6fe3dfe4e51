import pytest

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
ADD = """type => { const node = LiteGraph.createNode(type); app.graph.clear(); app.graph.add(node) }"""
LOOK = """() => { const h = document.querySelector('.node-help-content'); 
 const wide = [...h.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible' && e.clientWidth).map(e => e.tagName + '.' + e.className.slice(0,60) + ' ' + e.scrollWidth + '>' + e.clientWidth + ' ' + e.textContent.slice(0, 60));
 const right = h.getBoundingClientRect().right;
 const out = [...h.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > right + 1).map(e => e.tagName + ' ' + Math.round(e.getBoundingClientRect().right - right) + ' ' + e.textContent.slice(0, 50));
 return [h.clientWidth, h.scrollWidth, getComputedStyle(h).overflowX, wide.slice(0, 5), out.slice(0, 5)] }"""


@pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
def test_it(front_end, comfy_server, renderer, tmp_path):
    page = front_end.page
    for type_ in sorted(t for t in comfy_server.object_info() if t.startswith("SVI")):
        page.evaluate(ADD, type_)
        front_end.show_help(type_)
        page.wait_for_timeout(700)
        try:
            print(type_, page.evaluate(LOOK))
        except Exception as e:
            print(type_, str(e)[:200])
            print(
                page.evaluate(
                    "[...document.querySelectorAll('h1')].map(h => { let p = [], e = h; while (e && p.length < 8) { p.push(e.tagName + '.' + e.className); e = e.parentElement } return h.textContent + ' < ' + p.join(' < ') })"
                )
            )
            page.screenshot(path="/tmp/walk/help.png")
            break
        if type_ in ("SVIGenerate", "SVIPromptStream"):
            page.screenshot(path=f"/tmp/walk/help_{type_}.png")
    assert 0
