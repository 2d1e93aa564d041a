// Keeps a page up to date: parts of its text, its figures, its tables; and sends requests.
(() => {
  "use strict";
  const token = new URLSearchParams(location.search).get("token") ?? "";
  const withToken = (path) => {
    const url = new URL(path, location.origin);
    url.searchParams.set("token", token);
    return url.pathname + url.search + url.hash;
  };

  async function ask(path, options = {}) {
    const headers = { Authorization: "Bearer " + token, ...options.headers };
    const response = await fetch(path, { ...options, headers });
    if (!response.ok) {
      const told = await response.json().catch(() => ({ error: response.statusText }));
      throw new Error(told.error);
    }
    return response;
  }

  // Links and pictures of this site carry the token.
  function adopt(root) {
    const study = location.pathname.match(/^\/studies\/[^/]+/)?.[0];
    for (const link of root.querySelectorAll("a[data-trial]")) {
      link.setAttribute("href", study + "/trials/" + link.dataset.trial);
    }
    for (const link of root.querySelectorAll('a[href^="/"]')) link.setAttribute("href", withToken(link.getAttribute("href")));
    for (const picture of root.querySelectorAll("img[data-source]")) picture.src = withToken(picture.dataset.source);
    plots.showHints(root);
  }

  // Figures

  let plotly;
  function plotlyLoaded() {
    plotly ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = "/static/plotly.js";
      script.onload = done;
      script.onerror = () => {
        plotly = undefined;  // to be tried again
        failed(new Error("the figures' script could not be loaded"));
      };
      document.head.append(script);
    });
    return plotly;
  }

  const RETRY = 5000;  // milliseconds
  const figures = new Map();  // element -> { visible, stale, busy, away, text, figure }

  async function drawn(place, figure) {
    await plotlyLoaded();
    await plots.draw(place, figure);
  }

  async function load(element) {
    const state = figures.get(element);
    if (!state.visible || !state.stale || state.busy) return;
    state.busy = true;
    state.stale = false;
    element.classList.add("loading");
    const place = element.querySelector(".plot");
    try {
      const text = await (await ask(element.dataset.source)).text();
      if (text !== state.text) {
        state.text = text;
        const { says, least_width, figure } = JSON.parse(text);
        element.querySelector("figcaption").textContent = says;
        place.setAttribute("aria-label", says);
        place.style.minWidth = least_width + "px";
        state.figure = figure;
        state.away = false;
        if (figure) await drawn(place, figure);
        else if (place.children.length) Plotly.purge(place);
      }
      element.dataset.drawn = "yes";
    } catch (error) {
      element.querySelector("figcaption").textContent = "It could not be drawn: " + error.message;
      state.text = "";
      setTimeout(() => renew(element), RETRY);
    }
    element.classList.remove("loading");
    state.busy = false;
    if (!state.visible) putAway(element);
    load(element);  // if it has changed meanwhile
  }

  function renew(element) {
    figures.get(element).stale = true;
    load(element);
  }

  // The figures of a large study take hundreds of megabytes: only those near the screen are kept drawn.
  const LARGE = 100_000;

  function putAway(element) {
    const state = figures.get(element);
    if (state.busy || state.away || !state.figure || state.text.length < LARGE) return;
    const place = element.querySelector(".plot");
    place.style.minHeight = place.offsetHeight + "px";
    Plotly.purge(place);
    state.away = true;
  }

  async function bringBack(element) {
    const state = figures.get(element);
    state.away = false;
    const place = element.querySelector(".plot");
    await drawn(place, state.figure);
    place.style.minHeight = "";
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const state = figures.get(entry.target);
        state.visible = entry.isIntersecting;
        if (!state.visible) putAway(entry.target);
        else if (state.away) bringBack(entry.target);
        load(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  for (const element of document.querySelectorAll("figure.live")) {
    figures.set(element, { visible: false, stale: true, busy: false, away: false, text: "", figure: null });
    seen.observe(element);
  }
  const redraw = () => {
    for (const [element, { figure, away }] of figures) if (figure && !away) drawn(element.querySelector(".plot"), figure);
  };
  plots.redrawn(redraw);

  // Tables, a page at a time

  const wanted = new Map();  // element -> query
  async function loadTable(element) {
    const asked = wanted.get(element);
    try {
      const html = await (await ask(element.dataset.source + "?" + new URLSearchParams(asked))).text();
      if (asked !== wanted.get(element)) return;  // something else was asked for meanwhile
      if (element.dataset.html !== html) {
        element.dataset.html = html;
        const focused = document.activeElement?.dataset.sort;
        replace(element, html);
        adopt(element);
        if (focused) element.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
      }
      element.dataset.drawn = "yes";
    } catch (error) {
      element.textContent = error.message;
      delete element.dataset.html;
    }
  }
  for (const element of document.querySelectorAll(".paged")) {
    wanted.set(element, {});
    loadTable(element);
    element.addEventListener("click", (event) => {
      const query = wanted.get(element);
      const { sort, page } = event.target.closest("button")?.dataset ?? {};
      if (sort) {
        const again = (query.sort ?? "rank") === sort;
        wanted.set(element, { ...query, sort, page: 1, descending: again && query.descending !== "yes" ? "yes" : "no" });
      } else if (page) {
        wanted.set(element, { ...query, page });
      } else return;
      loadTable(element);
    });
  }

  for (const form of document.querySelectorAll("form.choose")) {
    const target = document.getElementById(form.dataset.for);
    const chosen = () => Object.fromEntries(new FormData(form));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => {
      if (wanted.has(target)) {
        wanted.set(target, { ...wanted.get(target), ...chosen(), page: 1 });
        loadTable(target);
      } else {
        const figure = target.querySelector("figure");
        figure.dataset.source = figure.dataset.source.split("?")[0] + "?" + new URLSearchParams(chosen());
        renew(figure);
      }
    });
    const figure = target.querySelector("figure.live");
    if (figure) figure.dataset.source += "?" + new URLSearchParams(chosen());
  }

  // Text that changes

  // Replace the content of an element; what is scrolled or focused inside of it stays so.
  function replace(element, html) {
    const scrolled = [...element.querySelectorAll(".wide")].map((one) => [one.scrollLeft, one.scrollTop]);
    const reachable = "a, button, [tabindex], summary, input";
    const focused = [...element.querySelectorAll(reachable)].indexOf(document.activeElement);
    element.innerHTML = html;
    [...element.querySelectorAll(".wide")].forEach((one, index) => one.scrollTo(...(scrolled[index] ?? [0, 0])));
    if (focused >= 0) element.querySelectorAll(reachable)[focused]?.focus({ preventScroll: true });
  }

  async function update() {
    const parts = await (await ask(document.body.dataset.parts)).json();
    for (const [name, html] of Object.entries(parts)) {
      const place = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
      // Nobody is disturbed while typing; boxes that are ticked and parts that are unfolded stay so.
      const typing = document.activeElement?.matches("textarea, select, input:not([type=checkbox])");
      if (!place || place.dataset.html === html || (typing && place.contains(document.activeElement))) continue;
      const ticked = [...place.querySelectorAll("input:checked")].map((box) => box.value);
      const unfolded = [...place.querySelectorAll("details")].map((one) => one.open);
      place.dataset.html = html;
      replace(place, html);
      for (const box of place.querySelectorAll("input[type=checkbox]")) box.checked = ticked.includes(box.value);
      [...place.querySelectorAll("details")].forEach((one, index) => (one.open = unfolded[index] ?? false));
      adopt(place);
    }
    for (const element of figures.keys()) renew(element);
    for (const element of wanted.keys()) loadTable(element);
  }

  const connection = document.getElementById("connection");
  const say = (words) => {
    connection.hidden = !words;
    connection.textContent = words;
  };
  let source, latest, running = false, again = false;

  async function changed(version) {
    latest = version;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await update();
      document.body.dataset.version = version;
      say("");
    } catch (error) {
      say("This page could not be updated: " + error.message + " It tries again.");
      setTimeout(() => changed(latest), RETRY);
    }
    running = false;
    if (again) {
      again = false;
      changed(latest);
    }
  }

  function connect() {
    source?.close();
    source = new EventSource(withToken(document.body.dataset.changes));
    source.onmessage = (event) => {
      if (event.data !== latest) changed(event.data);
      else say("");
    };
    source.onerror = async () => {
      say("The page is not connected: what it shows may be old. It tries again by itself.");
      if (source.readyState !== EventSource.CLOSED) return;
      // The server has answered, but not as it should: a browser gives up then.
      try {
        await ask(document.body.dataset.parts);
      } catch (error) {
        say("The page is not connected: " + error.message);
      }
      setTimeout(connect, RETRY);
    };
  }
  // Browsers allow few connections to one address: a page that nobody sees gives its own back.
  document.addEventListener("visibilitychange", () => (document.hidden ? source?.close() : connect()));
  connect();

  // Requests

  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form.request");
    if (!form) return;
    event.preventDefault();
    if (form.dataset.ask && !confirm(form.dataset.ask)) return;
    const fields = new FormData(form);
    const body = form.classList.contains("values")
      ? { values: Object.fromEntries([...fields].filter(([, text]) => text.trim())) }
      : Object.fromEntries(fields);
    if (form.dataset.trial) body.trial = Number(form.dataset.trial);
    const answer = form.querySelector(".answer");
    try {
      const headers = { "Content-Type": "application/json" };
      const response = await ask(form.dataset.post, { method: "POST", headers, body: JSON.stringify(body) });
      const { done, was } = await response.json();
      answer.textContent = done;
      answer.classList.remove("failed");
      if (was !== undefined) form.elements.was.value = was;
    } catch (error) {
      answer.textContent = error.message;
      answer.classList.add("failed");
    }
  });
  for (const form of document.querySelectorAll("form.compare")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      location.href = withToken("/compare?" + new URLSearchParams(new FormData(form)));
    });
  }

  adopt(document);
})();
