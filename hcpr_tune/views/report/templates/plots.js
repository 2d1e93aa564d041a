// What the report and the live page share: figures in the colours of the page, light or dark, on screen and on paper;
// and hints where something is larger than its place.
const plots = (() => {
  "use strict";
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
    // The same `uirevision` each time: zoom and hidden traces outlast an update.
    return { ...figure.layout, template: { layout }, uirevision: "kept" };
  }

  const PAPER_WIDTH = 660; // pixels; fits on A4 and on letter paper
  const paper = window.matchMedia("print");

  // Draw a figure, or draw it again, in an element of its own inside a `.wide` one.
  async function draw(place, figure) {
    const options = { displaylogo: false, displayModeBar: false };
    const layout = layoutOf(structuredClone(figure));
    // On paper a figure is lower, so that a page has two, and one that needs more width is made smaller. The browser
    // counts the pages before it is redrawn, so its height there is set beforehand.
    const least = parseFloat(place.style.minWidth) || 0;
    const [height, zoom] = [0.8 * layout.height, Math.min(1, PAPER_WIDTH / least)];
    place.parentElement.style.setProperty("--height-on-paper", height * zoom + "px");
    place.style.zoom = paper.matches ? zoom : "";
    layout.width = paper.matches ? Math.max(PAPER_WIDTH, least) : place.clientWidth;
    if (paper.matches) layout.height = height;
    await Plotly.react(place, structuredClone(figure.data), layout, options);
    await breakTitles(place, figure.layout);
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

  // Say where a table or a figure is larger than its place on the page.
  function hint(place) {
    const words = [];
    if (place.scrollWidth > place.clientWidth + 1) words.push("sideways");
    if (place.scrollHeight > place.clientHeight + 1) words.push("down");
    const said = place.previousElementSibling;
    if (!said?.classList.contains("hint")) return;
    said.textContent = words.length ? "Scroll " + words.join(" and ") + " for the rest." : "";
    said.hidden = !words.length;
  }
  const sizes = new ResizeObserver((entries) => {
    // What has been replaced since is in no such place any more.
    const places = entries.map(({ target }) => target.closest(".wide")).filter(Boolean);
    for (const place of new Set(places)) hint(place);
  });
  function showHints(root) {
    for (const place of root.querySelectorAll(".wide")) {
      sizes.observe(place);
      for (const inner of place.children) sizes.observe(inner);
    }
  }

  const redrawn = (redraw) => {
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    // On paper the page is white, and as narrow as on a small screen.
    paper.addEventListener("change", redraw);
    let resized;
    window.addEventListener("resize", () => {
      clearTimeout(resized);
      resized = setTimeout(redraw, 200);
    });
  };

  return { draw, showHints, redrawn };
})();
