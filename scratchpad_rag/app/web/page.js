"use strict";
// Gradio rewrites what lies inside its blocks at every update and takes away what it did not write
// itself. So nothing here is bound to an element: clicks are heard at the document, and what is to
// stay is put back after each change.
(() => {
  if (window.scratchpadPage) return;
  window.scratchpadPage = true;

  const HANDS_OFF_MS = 4000; // after the user scrolled the strip, it is left alone for so long
  const REST_MS = 500; // between two moves of the strip, or a reader that wavers would shake it
  let touched = -Infinity; // when the user last scrolled the strip
  let followed = null; // the quote, and how far down, that was last scrolled to
  let seen = ""; // the quotes of the last look, each with its passage
  const opened = new Set(); // the `<details>` that the user has open

  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  const scroller = () => document.querySelector(".sp-scroller");

  // Scrolls the strip itself and never the window.
  function bring(element, share) {
    const strip = element.closest(".sp-scroller");
    if (!strip) return;
    const box = strip.getBoundingClientRect();
    const top = element.getBoundingClientRect().top - box.top + strip.scrollTop;
    strip.scrollTo({ top: top - share * strip.clientHeight, behavior: calm() ? "auto" : "smooth" });
  }

  function follow() {
    const strip = scroller();
    if (!strip) return;
    // A run may be over between two updates: then its last quote is brought into view, once.
    const marks = [...strip.querySelectorAll("mark[id]")];
    const known = marks.map((mark) => `${mark.id} in ${mark.closest("li").id}`).join();
    const news = known !== seen;
    seen = known;
    if (!strip.dataset.live) {
      if (news && !followed && marks.length && performance.now() - touched > HANDS_OFF_MS)
        bring(marks[marks.length - 1].closest("li"), 0.2);
      followed = null;
      return;
    }
    const growing = strip.querySelectorAll("mark.sp-growing");
    const target = growing[growing.length - 1] ?? document.getElementById(strip.dataset.live);
    if (!target || performance.now() - touched < HANDS_OFF_MS) return;
    const lines = target.getClientRects();
    const box = strip.getBoundingClientRect();
    const bottom = lines.length ? lines[lines.length - 1].bottom : target.getBoundingClientRect().top;
    const first = lines.length ? lines[0].top : bottom;
    const passage = strip.dataset.live;
    const inside = first >= box.top && bottom <= box.top + 0.85 * box.height;
    const rest = followed ? followed.when + REST_MS - performance.now() : 0;
    if (inside && passage === followed?.passage) return;
    if (rest > 0) { setTimeout(soon, rest); return; }
    followed = { passage, when: performance.now() };
    if (inside) return;
    const item = document.getElementById(passage) ?? target;
    // Where the passage does not fit, its quote's growing end is what is kept in view.
    const deep = bottom - item.getBoundingClientRect().top;
    if (deep < 0.65 * box.height) bring(item, 0.15);
    else bring(item, 0.7 - deep / box.height);
  }

  function flash(element) {
    if (calm()) return;
    // An animation, not a class: Gradio would take the class away at the next update.
    element.animate(
      [{ outline: "3px solid var(--sp-blue)", outlineOffset: "2px" },
       { outline: "3px solid transparent", outlineOffset: "6px" }],
      { duration: 1400, easing: "ease-out" },
    );
  }

  function show(id) {
    const element = document.getElementById(id);
    if (!element) return false;
    touched = performance.now();
    const strip = element.closest(".sp-scroller");
    if (strip) {
      bring(element, 0.3);
      const box = strip.getBoundingClientRect();
      const hidden = box.top < 0 || box.bottom > innerHeight;
      const behavior = calm() ? "auto" : "smooth";
      if (hidden) strip.scrollIntoView({ block: "nearest", behavior });
    } else {
      element.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
    }
    element.focus({ preventScroll: true });
    const same = element.dataset.quote;
    for (const piece of document.querySelectorAll("[data-quote]"))
      if (piece.dataset.quote === same) flash(piece);
    return true;
  }

  // On a phone the results lie below the buttons: who asks wants to see them.
  function lookDown() {
    const results = document.getElementById("results");
    if (results && results.getBoundingClientRect().top > 0.6 * innerHeight)
      results.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#ask, #walk")) lookDown();
    const link = event.target.closest?.('.sp a[href^="#"]');
    if (link && show(decodeURIComponent(link.getAttribute("href").slice(1)))) {
      event.preventDefault(); // Gradio's <base> would make it another page
      return;
    }
    const cell = event.target.closest?.(".sp-cell");
    const passage = cell && document.getElementById(cell.dataset.goto);
    if (passage) { touched = performance.now(); bring(passage, 0.02); }
    const summary = event.target.closest?.(".sp summary");
    if (summary) {
      const key = summary.textContent;
      if (summary.parentElement.open) opened.delete(key); else opened.add(key);
    }
  });
  for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"])
    document.addEventListener(kind, (event) => {
      if (event.target.closest?.(".sp-scroller")) touched = performance.now();
    }, { passive: true, capture: true });

  // Which passages are in view, marked under the map.
  function look() {
    const strip = scroller();
    if (!strip) return;
    const box = strip.getBoundingClientRect();
    for (const cell of document.querySelectorAll(".sp-cell")) {
      const passage = document.getElementById(cell.dataset.goto)?.getBoundingClientRect();
      const seen = !!passage && passage.bottom > box.top + 8 && passage.top < box.bottom - 8;
      if (cell.classList.contains("sp-seen") !== seen) cell.classList.toggle("sp-seen", seen);
    }
  }

  let due = false;
  function soon() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      for (const details of document.querySelectorAll(".sp details"))
        if (opened.has(details.querySelector("summary")?.textContent) && !details.open) details.open = true;
      follow();
      look();
    });
  }
  document.addEventListener("scroll", soon, { passive: true, capture: true });
  const start = () => {
    new MutationObserver(soon).observe(document.body, { childList: true, subtree: true, characterData: true,
      attributes: true, attributeFilter: ["class", "data-live", "open"] });
    soon();
  };
  if (document.body) start(); else document.addEventListener("DOMContentLoaded", start);
})();
