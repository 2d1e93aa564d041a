"""The example notebook runs from top to bottom, and shows what it says."""

from __future__ import annotations

import re
import warnings

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.cluster


def test_the_example_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing it"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's event loop, not of the notebook
        nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "application/vnd.plotly.v1+json"} <= kinds
    text = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert "optimistic" in text
    # The bar of the search: a widget where there are such, else a line of text.
    assert "application/vnd.jupyter.widget-view+json" in kinds or re.search(r"100%\|.*\| (\d+)/\1 \[.* best \d", text)
    assert list(tmp_path.glob("results/default-*/report.html"))
