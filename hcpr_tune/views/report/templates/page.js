// Draws the figures in the colours of the page, light or dark, sorts the table, and says what can be scrolled.
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
      ticklabelstandoff: 4,
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

  const PAPER_WIDTH = 660; // pixels; fits on A4 and on letter paper
  const paper = window.matchMedia("print");

  async function draw(name) {
    const place = document.getElementById("plot-" + name);
    const options = { displaylogo: false, displayModeBar: false };
    const layout = layoutOf(structuredClone(figures[name]));
    // On paper a figure is lower, so that a page has two, and one that needs more width is made smaller. The browser
    // counts the pages before it is redrawn, so its height there is set beforehand.
    const least = parseFloat(place.style.minWidth) || 0;
    const [height, zoom] = [0.8 * layout.height, Math.min(1, PAPER_WIDTH / least)];
    place.parentElement.style.setProperty("--height-on-paper", height * zoom + "px");
    place.style.zoom = paper.matches ? zoom : "";
    layout.width = paper.matches ? Math.max(PAPER_WIDTH, least) : place.clientWidth;
    if (paper.matches) layout.height = height;
    await Plotly.react(place, structuredClone(figures[name].data), layout, options);
    await breakTitles(place, figures[name].layout);
  }

  // plotly cuts an axis title that is longer than its axis: break it into lines that fit.
  async function breakTitles(place, layout) {
    const broken = {};
    for (const [axis, { title }] of Object.entries(layout).filter(([key]) => /^[xy]axis\d*$/.test(key))) {
      const drawn = place.querySelector("." + axis.replace("axis", "") + "title");
      if (!title?.text || !drawn) continue;
      const room = place._fullLayout[axis]._length;
      const taken = drawn.getComputedTextLength();
      if (taken <= room) continue;
      const most = Math.max(8, Math.floor((title.text.length * room) / taken));
      broken[axis + ".title.text"] = linesOf(title.text, most).join("<br>");
    }
    if (Object.keys(broken).length) await Plotly.relayout(place, broken);
  }

  function linesOf(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const longer = (lines.at(-1) + " " + word).trim();
      if (longer.length <= most || !lines.at(-1)) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
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
  // On paper the page is white, and as narrow as on a small screen.
  paper.addEventListener("change", () => Object.keys(figures).forEach(draw));
  let resized;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => {
      if (document.body.dataset.drawn) Object.keys(figures).forEach(draw);
    }, 200);
  });

  // Say where a table or a figure is larger than its place on the page.
  function hint(place) {
    const words = [];
    if (place.scrollWidth > place.clientWidth + 1) words.push("sideways");
    if (place.scrollHeight > place.clientHeight + 1) words.push("down");
    const said = place.previousElementSibling;
    said.textContent = words.length ? "Scroll " + words.join(" and ") + " for the rest." : "";
    said.hidden = !words.length;
  }
  const sizes = new ResizeObserver((entries) => {
    for (const place of new Set(entries.map(({ target }) => target.closest(".wide")))) hint(place);
  });
  for (const place of document.querySelectorAll(".wide")) {
    sizes.observe(place);
    for (const inner of place.children) sizes.observe(inner);
  }

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
