// A picture that can be looked at closely: buttons, keys, the wheel, and dragging what is larger than the place it has.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { iconButton } from "../ui/controls.js";

const STEP = 1.5;
const ZOOM_MAX = 8;

/** Shows a picture; `failed` is called when it cannot be shown. */
export function zoomable(address, name, failed) {
  const picture = h("img", { src: address, alt: name, draggable: false, onerror: failed });
  const frame = h("div", { class: "zoom-frame", tabindex: "0", role: "group", "aria-label": name }, picture);
  const level = h("span", { role: "status" });
  const less = iconButton("minus", t("zoom.out"), () => zoom(1 / STEP));
  const more = iconButton("add", t("zoom.in"), () => zoom(STEP));
  const fit = iconButton("fit", t("zoom.fit"), () => set(null));
  const tools = h("div", { class: "stage-tools floating", role: "toolbar", "aria-label": t("zoom.label") }, less, level, more, fit);
  /** Times its own size; null: as large as the place. */
  let scale = null;

  const fitted = () => Math.min(1, frame.clientWidth / picture.naturalWidth, frame.clientHeight / picture.naturalHeight) || 1;

  /** Sets the scale; what is at `point` (parts of the place) stays there. */
  function set(next, point = { x: 0.5, y: 0.5 }) {
    const before = picture.getBoundingClientRect();
    const place = frame.getBoundingClientRect();
    const at = { x: place.left + point.x * frame.clientWidth, y: place.top + point.y * frame.clientHeight };
    const of = { x: (at.x - before.left) / (before.width || 1), y: (at.y - before.top) / (before.height || 1) };
    const smallest = fitted();
    scale = next === null || next <= smallest ? null : Math.min(ZOOM_MAX, next);
    frame.classList.toggle("zoomed", scale !== null);
    picture.style.width = scale === null ? "" : `${picture.naturalWidth * scale}px`;
    if (scale !== null) {
      const after = picture.getBoundingClientRect();
      frame.scrollLeft += after.left + of.x * after.width - at.x;
      frame.scrollTop += after.top + of.y * after.height - at.y;
    }
    level.textContent = t("zoom.level", { percent: Math.round((scale ?? smallest) * 100) });
    less.disabled = fit.disabled = scale === null;
    more.disabled = scale === ZOOM_MAX;
  }
  const zoom = (by, point) => set((scale ?? fitted()) * by, point);

  picture.addEventListener("load", () => set(null));
  frame.addEventListener("dblclick", (event) => {
    const place = frame.getBoundingClientRect();
    if (scale === null) set(Math.max(1, fitted() * 2), { x: (event.clientX - place.left) / place.width, y: (event.clientY - place.top) / place.height });
    else set(null);
  });
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const place = frame.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), { x: (event.clientX - place.left) / place.width, y: (event.clientY - place.top) / place.height });
  }, { passive: false });
  frame.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || scale === null) return;
    const from = { x: event.clientX + frame.scrollLeft, y: event.clientY + frame.scrollTop };
    const move = (moved) => { frame.scrollTo(from.x - moved.clientX, from.y - moved.clientY); };
    frame.setPointerCapture(event.pointerId);
    frame.addEventListener("pointermove", move);
    frame.addEventListener("lostpointercapture", () => frame.removeEventListener("pointermove", move), { once: true });
  });
  frame.addEventListener("keydown", (event) => {
    const keys = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), "0": () => set(null), "1": () => set(1) };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  const resized = new ResizeObserver(() => picture.naturalWidth && scale === null && set(null));
  resized.observe(frame);
  return { element: h("div", { class: "zoom" }, frame, tools), end: () => resized.disconnect() };
}
