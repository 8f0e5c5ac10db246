"""The contact sheet: one HTML file with all results, failures first, then by decreasing doubt."""

import base64
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from napari_embryo import __version__
from napari_embryo.batch.folder import JOURNAL, OWN
from napari_embryo.batch.job import Outcome, Plan
from napari_embryo.batch.journal import Journal
from napari_embryo.io import replacing
from napari_embryo.notes import RESEARCH_ONLY

SHEET = "contact_sheet.html"
MOST = 2000
"""Largest number of images on the sheet; each takes about 8 kB, and a browser has to show them all."""

_WIDTH = 220
"""Size of a thumbnail in pixels."""

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; background: #16181c; color: #e4e6ea }
h1 { font-size: 1.3rem; margin: 0 0 .3rem } p { margin: .2rem 0 1rem; color: #a9b0ba }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px }
figure { margin: 0; background: #22262c; border-radius: 6px; overflow: hidden; border-top: 3px solid #3b4250 }
figure.failed { border-top-color: #e5484d } figure.partly { border-top-color: #f5a524 }
img { width: 100%; display: block } a { color: inherit; text-decoration: none }
figcaption { padding: 6px 8px; overflow-wrap: anywhere } small { color: #a9b0ba; display: block }
.reason { color: #ff9592 } .missing { padding: 2.5rem 8px; text-align: center; color: #ff9592 }
input { background: #22262c; color: inherit; border: 1px solid #3b4250; border-radius: 4px; padding: 4px 8px }
"""

_SCRIPT = """
document.querySelector('input').addEventListener('input', event => {
  const words = event.target.value.toLowerCase();
  document.querySelectorAll('figure').forEach(each =>
    each.style.display = each.textContent.toLowerCase().includes(words) ? '' : 'none');
});
"""


def contact_sheet(plan: Plan) -> Path:
    """The contact sheet of what is done so far."""
    with Journal(plan.out / OWN / JOURNAL) as journal:
        return write_sheet(plan, journal)


def write_sheet(plan: Plan, journal: Journal) -> Path:
    """Write the contact sheet of a folder of results.

    Its images are embedded, so it opens anywhere, even offline; each is linked to its full overlay.
    """
    path = plan.out / SHEET
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(_page(plan, journal))
    return path


def _page(plan: Plan, journal: Journal) -> Iterator[str]:
    count = journal.count(job.name for job in plan.jobs)
    said = f"{count['done']} done, {count['partly done']} partly done, {count['failed']} failed"
    more = f"; the first {MOST} of them are shown" if sum(count.values()) > MOST else ""
    yield (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(plan.out.name)}: contact sheet</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(plan.out.name)}</h1><p>{said}{more}. Failures come first, then the results with the highest "
        f"doubt. napari-embryo {__version__}, weights {escape(plan.settings.segment.weights)}. "
        f'{RESEARCH_ONLY}.</p><p><input type="search" placeholder="Filter by name or reason"></p><main>'
    )
    for outcome in journal.outcomes(MOST):
        yield _figure(plan.out, outcome)
    yield f"</main><script>{_SCRIPT}</script></html>\n"


def _figure(out: Path, outcome: Outcome) -> str:
    kind = {"failed": "failed", "partly done": "partly"}.get(outcome.status, "done")
    overlay = next((output.name for output in outcome.outputs if output.name.endswith("_overlay.png")), None)
    shown = _picture(out, overlay) if overlay else f'<div class="missing">{escape(outcome.status)}</div>'
    doubt = "" if outcome.doubt is None else f"<small>doubt {outcome.doubt:.2f}</small>"
    reasons = "".join(f'<small class="reason">{escape(failure.text())}</small>' for failure in outcome.failures[:5])
    notes = "".join(f"<small>{escape(note.text)}</small>" for note in outcome.notes[:3])
    below = f"{escape(outcome.job)}{doubt}{reasons}{notes}"
    return f'<figure class="{kind}">{shown}<figcaption>{below}</figcaption></figure>\n'


def _picture(out: Path, overlay: str) -> str:
    data = _thumbnail(out / overlay)
    if data is None:
        return '<div class="missing">the overlay is missing</div>'
    return f'<a href="{quote(overlay)}"><img loading="lazy" alt="" src="data:image/jpeg;base64,{data}"></a>'


def _thumbnail(path: Path) -> str | None:
    """A small JPEG as text."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
            small.thumbnail((_WIDTH, 4 * _WIDTH))
    except OSError:
        return None
    data = BytesIO()
    small.save(data, "JPEG", quality=72)
    return base64.b64encode(data.getvalue()).decode()
