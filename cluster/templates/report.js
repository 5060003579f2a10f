"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (name, fields = {}, ...children) => {
    const element = Object.assign(document.createElement(name), fields);
    element.append(...children);
    return element;
  };
  const data = JSON.parse($("data").textContent);
  const many = data.runs.length > 1;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const mm = (value) => `${value.toFixed(1)} mm`;

  // ---- Plotly: unpacked when the first chart comes into view, for it is large

  let library;
  const plotly = () => (library ??= unpack());
  const unpack = async () => {
    if (!window.DecompressionStream) throw new Error("charts need a browser of 2023 or later");
    const bytes = Uint8Array.from(atob($("plotly").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(make("script", { textContent: await new Response(stream).text() }));
    return window.Plotly;
  };

  const drawn = new Map(); // element -> its draw function, once it has come into view
  const draw = async (element, make_chart) => {
    drawn.set(element, make_chart);
    try {
      const Plotly = await plotly();
      await make_chart(Plotly, element);
    } catch (error) {
      element.textContent = `This chart cannot be drawn: ${error.message}`;
    }
    element.removeAttribute("data-waiting");
    element.dataset.drawn = "";
  };

  // ---- charts

  const layout = (x, y, more = {}) => ({
    margin: { l: 52, r: 12, t: 8, b: 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("ink"), family: "system-ui, sans-serif", size: 12 }, showlegend: false, dragmode: false,
    xaxis: { title: { text: x }, gridcolor: color("line"), zerolinecolor: color("grid"), rangemode: "tozero", automargin: true },
    yaxis: { title: { text: y }, gridcolor: color("line"), zerolinecolor: color("grid"), rangemode: "tozero", automargin: true },
    hoverlabel: { bgcolor: color("card"), font: { color: color("ink") } }, bargap: many ? 0 : 0.06, ...more,
  });
  const config = { displayModeBar: false, responsive: true, scrollZoom: false };
  // Names come from outside, and Plotly takes some of HTML for markup.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const named = (run) => ({ name: plain(data.runs[run]), hovertemplate: `%{y}<extra>${many ? plain(data.runs[run]) : ""}</extra>` });

  const charts = {
    histogram: (Plotly, element) => Plotly.react(element, data.runs.map((_, run) => ({
      type: many ? "scatter" : "bar", x: data.histogram.middles, y: data.histogram.poses[run], ...named(run),
      ...(many ? { line: { color: color(`run-${run}`), shape: "hvh", width: 2 }, mode: "lines" } : { marker: { color: color(`run-${run}`) } }),
      hovertemplate: `%{y} poses near %{x:.0f} mm<extra>${many ? plain(data.runs[run]) : ""}</extra>`,
    })), layout("MPJPE of a pose, mm", "poses"), config),
    within: (Plotly, element) => Plotly.react(element, data.runs.map((_, run) => ({
      type: "scatter", mode: "lines", x: data.within.mm, y: data.within.share[run], line: { color: color(`run-${run}`), width: 2 },
      hovertemplate: `%{y:.1f} % within %{x:.0f} mm<extra>${many ? plain(data.runs[run]) : ""}</extra>`,
    })), layout("distance from the true joint, mm", "joints, %", {
      shapes: [{ type: "line", x0: 150, x1: 150, y0: 0, y1: 100, line: { color: color("soft"), width: 1, dash: "dot" } }],
      annotations: [{ x: 150, y: 4, text: "PCK", showarrow: false, xanchor: "left", font: { color: color("soft") } }],
    }), config),
    calibration: (Plotly, element) => {
      const known = data.calibration.map((entry, run) => ({ entry, run })).filter(({ entry }) => entry);
      const top = 1.08 * Math.max(1, ...known.flatMap(({ entry }) => [...entry.predicted, ...entry.observed]));
      return Plotly.react(element, [
        { type: "scatter", mode: "lines", x: [0, top], y: [0, top], line: { color: color("soft"), dash: "dash", width: 1.5 }, hoverinfo: "skip" },
        ...known.map(({ entry, run }) => ({
          type: "scatter", mode: "lines+markers", x: entry.predicted, y: entry.observed, line: { color: color(`run-${run}`), width: 2 },
          marker: { size: 8, color: color(`run-${run}`) },
          hovertemplate: `spread %{x:.0f} mm, error %{y:.0f} mm<extra>${many ? plain(data.runs[run]) : ""}</extra>`,
        })),
      ], layout("joint's own spread, mm", "root-relative error (rms), mm"), config);
    },
  };

  // ---- samples

  let group = 0, place = 0;
  const hidden = new Set();
  const shown = () => data.samples[data.groups[group][place]];
  const url = (sample) => `data:image/jpeg;base64,${sample.photo}`;

  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const side = (joint) => data.sides[joint];
  const bones = (into, points, stroke, width, dash) => {
    for (const [parent, child] of data.bones) {
      const [[x1, y1], [x2, y2]] = [points[parent], points[child]];
      into.append(svg("line", { x1, y1, x2, y2, stroke: stroke(child), "stroke-width": width, "stroke-linecap": dash ? "butt" : "round", ...(dash ? { "stroke-dasharray": dash } : {}) }));
    }
  };
  const boneColor = (run) => (child) => color(many ? `run-${run}` : side(child));

  const showPhoto = (sample) => {
    const photo = $("photo");
    photo.replaceChildren();
    if (sample.photo) photo.append(make("img", { src: url(sample), alt: `picture of ${sample.title}` }));
    else if (!sample.true_px) photo.append(make("p", { className: "none", textContent: "no picture" }));
    if (!sample.true_px) return;
    const drawing = svg("svg", { viewBox: `0 0 ${sample.side} ${sample.side}`, role: "img", "aria-label": "skeletons over the picture" });
    const unit = sample.side / 100;
    if (!hidden.has("true")) {
      bones(drawing, sample.true_px, () => "#000", 1.5 * unit);
      bones(drawing, sample.true_px, () => "#fff", 0.8 * unit, `${2.2 * unit} ${1.4 * unit}`);
    }
    sample.px.forEach((points, run) => {
      if (!points || hidden.has(String(run))) return;
      bones(drawing, points, () => "#14141499", 2.2 * unit);
      bones(drawing, points, boneColor(run), 1.2 * unit);
    });
    photo.append(drawing);
  };

  // Camera frame (x right, y down, z away) to the plot's (x right, y away, z up), metres.
  const upright = (pose) => pose.map(([x, y, z]) => [x / 1000, z / 1000, -y / 1000]);
  const views = { camera: { x: 0, y: -1.75, z: 0.12 }, side: { x: 1.75, y: 0, z: 0.12 }, above: { x: 0, y: -0.45, z: 1.7 } };
  const first = { x: 0.75, y: -1.6, z: 0.4 };

  const lines = (points, chosen, name, style) => {
    const [x, y, z] = [[], [], []];
    for (const [parent, child] of data.bones.filter(([, end]) => chosen(end))) {
      for (const point of [points[parent], points[child], [null, null, null]]) {
        x.push(point[0]); y.push(point[1]); z.push(point[2]);
      }
    }
    return { type: "scatter3d", mode: "lines", x, y, z, name, line: style, hoverinfo: "skip", connectgaps: false };
  };
  const dots = (points, run, errors) => {
    const [x, y, z] = [0, 1, 2].map((axis) => points.map((point) => point[axis]));
    const text = data.joints.map((joint, at) => `${joint}: ${mm(errors[at])}`);
    return {
      type: "scatter3d", mode: "markers", x, y, z, text, hovertemplate: `%{text}<extra>${many ? plain(data.runs[run]) : ""}</extra>`,
      marker: { size: 3, color: many ? color(`run-${run}`) : data.joints.map((_, at) => color(side(at))), line: { width: 0 } },
    };
  };
  const distance = (one, other) => Math.hypot(...one.map((value, axis) => value - other[axis]));
  const errorsOf = (sample, run) => sample.mm[run].map((joint, at) => distance(joint, sample.true_mm[at]));

  // None without WebGL: Plotly then says so in the chart's place.
  const cameraNow = () => {
    const scene = $("space")._fullLayout?.scene?._scene;
    return scene?.glplot ? scene.getCamera() : undefined;
  };

  charts.space = (Plotly, element) => {
    const sample = shown();
    const truth = upright(sample.true_mm);
    const poses = sample.mm.map(upright);
    const traces = hidden.has("true") ? [] : [lines(truth, () => true, "true", { color: color("true"), width: 5, dash: "dash" })];
    poses.forEach((pose, run) => {
      if (hidden.has(String(run))) return;
      if (many) traces.push(lines(pose, () => true, plain(data.runs[run]), { color: color(`run-${run}`), width: 8 }));
      else for (const part of ["right", "left", "trunk"]) traces.push(lines(pose, (end) => side(end) === part, part, { color: color(part), width: 8 }));
      traces.push(dots(pose, run, errorsOf(sample, run)));
    });
    const every = [truth, ...poses].flat();
    const bounds = [0, 1, 2].map((axis) => [Math.min(...every.map((point) => point[axis])), Math.max(...every.map((point) => point[axis]))]);
    const half = Math.max(0.5, ...bounds.map(([low, high]) => (high - low) * 0.53));
    const axis = ([low, high]) => ({
      range: [(low + high) / 2 - half, (low + high) / 2 + half], title: { text: "" }, showticklabels: false, gridcolor: color("grid"),
      zeroline: false, showspikes: false, showbackground: false, dtick: 0.5, showline: false,
    });
    const [xaxis, yaxis, zaxis] = bounds.map(axis);
    // Another sample is seen from where one looks now.
    const camera = cameraNow() ?? { eye: first, projection: { type: "perspective" } };
    return Plotly.react(element, traces, {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      hoverlabel: { bgcolor: color("card"), font: { color: color("ink") } },
      scene: { xaxis, yaxis, zaxis, aspectmode: "cube", dragmode: "turntable", camera },
    }, config);
  };

  const showJoints = (sample) => {
    const cell = (text, name = "td") => make(name, { textContent: text });
    $("jointhead").replaceChildren(make("tr", {}, cell("joint", "th"), ...data.runs.flatMap((label) => [cell(many ? `${label}: error` : "error", "th"), cell("spread", "th")])));
    const errors = data.runs.map((_, run) => errorsOf(sample, run));
    $("joints").replaceChildren(...data.joints.slice(1).map((joint, at) => make("tr", {}, cell(joint, "th"), ...data.runs.flatMap((_, run) => [
      cell(mm(errors[run][at + 1])), cell(sample.spread[run] ? mm(sample.spread[run][at + 1]) : "–"),
    ]))));
  };

  const show = () => {
    const sample = shown();
    $("what").textContent = sample.title;
    $("what").title = sample.picture;
    const errors = sample.errors.map((error, run) => (many ? `${data.runs[run]} ${mm(error)}` : mm(error))).join(" · ");
    $("howfar").textContent = `${errors} (${place + 1} of ${data.groups[group].length})`;
    showPhoto(sample);
    showJoints(sample);
    if (drawn.has($("space"))) draw($("space"), charts.space);
  };

  const thumbs = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      thumbs.unobserve(target);
      const sample = data.samples[target.dataset.sample];
      target.firstChild.replaceWith(make("img", { src: url(sample), alt: "" }));
    }
  }, { root: $("strip"), rootMargin: "0px 300px" });

  const fillStrip = () => {
    const buttons = data.groups[group].map((number, at) => {
      const sample = data.samples[number];
      const button = make("button", { type: "button", tabIndex: -1 }, make("span", { className: "blank" }), mm(sample.errors[0]));
      button.setAttribute("aria-label", `${sample.title}, ${mm(sample.errors[0])}`);
      button.dataset.sample = number;
      button.addEventListener("click", () => select(at));
      return button;
    });
    thumbs.disconnect();
    $("strip").replaceChildren(...buttons);
    for (const button of buttons) if (data.samples[button.dataset.sample].photo) thumbs.observe(button);
  };

  const select = (number, focus = false) => {
    const buttons = [...$("strip").children];
    const before = buttons[place];
    place = Math.max(0, Math.min(buttons.length - 1, number));
    if (before) { before.tabIndex = -1; before.removeAttribute("aria-current"); }
    const button = buttons[place];
    button.tabIndex = 0;
    button.setAttribute("aria-current", "true");
    if (focus) button.focus({ preventScroll: true });
    // Only the strip moves, never the page.
    const strip = $("strip");
    if (button.offsetLeft < strip.scrollLeft + strip.offsetLeft || button.offsetLeft + button.offsetWidth > strip.scrollLeft + strip.offsetLeft + strip.clientWidth) {
      strip.scrollLeft = button.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + button.offsetWidth / 2;
    }
    show();
  };

  const tabs = [...document.querySelectorAll("[role=tab]")];
  const choose = (number, focus = false) => {
    group = (number + tabs.length) % tabs.length;
    tabs.forEach((tab, at) => { tab.setAttribute("aria-selected", at === group); tab.tabIndex = at === group ? 0 : -1; });
    if (focus) tabs[group].focus();
    $("shown").setAttribute("aria-labelledby", `tab-${group}`);
    place = 0;
    fillStrip();
    $("strip").scrollLeft = 0;
    select(0);
  };

  const onKeys = (element, actions) => element.addEventListener("keydown", (event) => {
    const action = actions()[event.key];
    if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    action();
  });

  // ---- turning by keys and buttons

  const look = async (from) => { if (cameraNow()) (await plotly()).relayout($("space"), { "scene.camera.eye": from }); };
  const turn = (right, up, nearer) => {
    const from = cameraNow();
    if (!from) return;
    const { x, y, z } = from.eye;
    const radius = Math.min(6, Math.max(0.5, Math.hypot(x, y, z) * nearer));
    const around = Math.atan2(y, x) + right;
    const above = Math.max(-1.5, Math.min(1.5, Math.atan2(z, Math.hypot(x, y)) + up));
    look({ x: radius * Math.cos(above) * Math.cos(around), y: radius * Math.cos(above) * Math.sin(around), z: radius * Math.sin(above) });
  };

  // ---- wiring

  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => choose(at));
    onKeys(tab, () => ({ ArrowRight: () => choose(group + 1, true), ArrowLeft: () => choose(group - 1, true), Home: () => choose(0, true), End: () => choose(-1, true) }));
  });
  onKeys($("strip"), () => ({
    ArrowRight: () => select(place + 1, true), ArrowLeft: () => select(place - 1, true), Home: () => select(0, true), End: () => select(Infinity, true),
  }));
  onKeys($("space"), () => ($("space").dataset.drawn === undefined ? {} : {
    ArrowLeft: () => turn(-0.15, 0, 1), ArrowRight: () => turn(0.15, 0, 1), ArrowUp: () => turn(0, 0.12, 1), ArrowDown: () => turn(0, -0.12, 1),
    "+": () => turn(0, 0, 0.87), "=": () => turn(0, 0, 0.87), "-": () => turn(0, 0, 1.15),
  }));
  $("previous").addEventListener("click", () => select(place - 1));
  $("next").addEventListener("click", () => select(place + 1));
  for (const button of document.querySelectorAll("[data-run]")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      hidden[on ? "delete" : "add"](button.dataset.run);
      show();
    });
  }
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => look(views[button.dataset.view]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [element, chart] of drawn) draw(element, chart);
    showPhoto(shown());
  });

  if (data.samples.length) choose(0);
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target, charts[target.id]);
    }
  });
  // After the first paint: the page is there before its charts are.
  requestAnimationFrame(() => setTimeout(() => {
    document.documentElement.dataset.ready = "";
    for (const element of document.querySelectorAll(".plot[data-waiting]")) seen.observe(element);
  }));
})();
