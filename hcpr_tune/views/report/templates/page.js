// Draws the figures one after the other, and sorts the table.
(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const draw = (name) => plots.draw(document.getElementById("plot-" + name), figures[name]);

  const painted = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));

  // Show the text first: plotly's script is large, so it runs after the first paint, and then one figure at a time.
  async function drawAll() {
    await painted();
    if (!window.Plotly) {
      const script = document.createElement("script");
      script.textContent = document.getElementById("plotly").textContent;
      document.head.append(script);
    }
    for (const name of Object.keys(figures)) {
      await new Promise((go) => setTimeout(go));
      await draw(name);
    }
    document.body.dataset.drawn = "yes";
  }
  drawAll();
  plots.redrawn(() => {
    if (document.body.dataset.drawn) Object.keys(figures).forEach(draw);
  });
  plots.showHints(document);

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const keyOf = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const rows = [...body.rows].map((row) => [keyOf(row), row]);
        rows.sort(([a], [b]) => {
          // Rows without a value come last in either order.
          if (a === "" || b === "") return (a === "") - (b === "");
          const order = a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b);
          return rising ? order : -order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
})();
