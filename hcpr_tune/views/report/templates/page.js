// Draws the figures in the colours of the page, light or dark, and sorts the table.
(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function layoutOf(figure) {
    const axis = {
      gridcolor: colour("--line"),
      zerolinecolor: colour("--line"),
      linecolor: colour("--line"),
      automargin: true,
    };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 13 },
      xaxis: axis,
      yaxis: axis,
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    };
    return { ...figure.layout, template: { layout } };
  }

  function draw(name) {
    const place = document.getElementById("plot-" + name);
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    return Plotly.react(place, structuredClone(figures[name].data), layoutOf(structuredClone(figures[name])), options);
  }

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
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
  // Redraw for print, where the page is white and as wide as the paper.
  const paper = window.matchMedia("print");
  paper.addEventListener("change", () => {
    for (const name of Object.keys(figures)) draw(name);
  });

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
