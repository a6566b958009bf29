# Flame graphs: how py-spy's stacks become one small file that names no path of the machine it was made on.

import re
from collections import Counter
from xml.etree import ElementTree

from bench.flamegraph import MOST_BYTES, fold, svg


def test_stacks_are_folded_without_paths_noise_and_waits():
    stacks = fold(
        [
            "main (/home/someone/imserver/app.py:12);0x7f00 (libc.so.6);run (loop.c:7);run (loop.c:9) 3",
            "main (app.py);run (loop.c);Py_DECREF (object.h);write (libc.so.6) 4",
            "main (app.py);run (loop.c);epoll_pwait (libc.so.6) 500",
            "py-spy> Sampling process",
            "",
        ]
    )
    assert stacks == {
        ("main (app.py)", "run (loop.c)"): 3,
        ("main (app.py)", "run (loop.c)", "write (libc.so.6)"): 4,
    }


def test_a_graph_shows_shares_and_escapes_names():
    text = svg(Counter({("outer (a.py)", "<b> (b.py)"): 3, ("outer (a.py)",): 1}), "a & b")
    root = ElementTree.fromstring(text)  # noqa: S314 - made here
    titles = [element.text for element in root.iter() if element.tag.endswith("title")]
    assert titles == ["all: 4 samples: 100.0%", "outer (a.py): 100.0%", "<b> (b.py): 75.0%"]
    widths = [float(w) for w in re.findall(r'<rect x="[^"]+" y="[^"]+" width="([^"]+)"', text)]
    assert widths[2] == 899.6


def test_a_graph_of_very_many_frames_stays_small_and_keeps_the_wide_ones():
    tiny = {(f"module{n} (m.py)", *(f"deep{n}-{level} (d.py)" for level in range(20))): 1 + n % 3 for n in range(450)}
    text = svg(Counter(tiny | {("wide (w.py)",): 500}), "many")
    assert len(text.encode()) <= MOST_BYTES
    assert "wide (w.py)" in text


def test_nothing_recorded_is_an_empty_graph():
    ElementTree.fromstring(svg(Counter(), "nothing"))  # noqa: S314 - made here
