"use strict";
// Replaces the sections of a page that have changed, once a second. Everything works without this
// script, by links.
(() => {
  const INTERVAL = 1000;
  const PATIENCE = 8000;
  const live = document.getElementById("live");
  const state = document.getElementById("refresh");
  const pause = document.getElementById("pause");
  const search = document.getElementById("q");
  // Reasons of answers without a page, by their status.
  const REASONS = {
    401: "Signed out: reload the page to sign in",
    429: "Too many wrong tokens from this address: the page is out of date",
    503: "Other pages take too long: the page is out of date",
  };
  let isPaused = false;
  let isOver = false;

  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };

  // A selection, or a field in use, is not taken away.
  const isInUse = (section) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && section.contains(selection.anchorNode);
  };

  const position = (element, within) => {
    const all = [...within.querySelectorAll("a, [tabindex]")];
    return { href: element.getAttribute("href"), id: element.id, place: all.indexOf(element) };
  };

  // The focus stays at the same link, wherever that is now.
  const restore = (section, focus) => {
    const all = [...section.querySelectorAll("a, [tabindex]")];
    const found =
      (focus.id && all.find((each) => each.id === focus.id)) ||
      (focus.href && all.find((each) => each.getAttribute("href") === focus.href)) ||
      all[Math.min(focus.place, all.length - 1)];
    if (found) found.focus({ preventScroll: true });
  };

  const replace = (old, fresh) => {
    if (old.outerHTML === fresh.outerHTML || isInUse(old)) return;
    const active = document.activeElement;
    const focus = old.contains(active) ? position(active, old) : null;
    const scrolled = old.querySelector(".scroll");
    const left = scrolled ? scrolled.scrollLeft : 0;
    old.replaceWith(fresh);
    const scroll = fresh.querySelector(".scroll");
    if (scroll && left) scroll.scrollLeft = left;
    if (focus) restore(fresh, focus);
  };

  const update = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const sections = [...fresh.querySelectorAll("section[id]")];
    const old = [...live.querySelectorAll("section[id]")];
    const isSame =
      sections.length === old.length && sections.every((each, n) => each.id === old[n].id);
    if (isSame) {
      sections.forEach((each, n) => replace(old[n], document.adoptNode(each)));
    } else {
      live.replaceChildren(...[...fresh.body.childNodes].map((each) => document.adoptNode(each)));
    }
  };

  const fail = (text) => {
    state.classList.add("bad");
    say(text);
  };

  // The browser has no token until the page is reloaded.
  const finish = () => {
    isOver = true;
    pause.hidden = true;
  };

  const refresh = async () => {
    const begin = performance.now();
    const address = new URL(location.href);
    address.hash = "";
    address.searchParams.set("part", "1");
    try {
      const answer = await fetch(address, { signal: AbortSignal.timeout(PATIENCE) });
      const text = await answer.text();
      // `Pause` may have been pressed meanwhile.
      if (isPaused) return;
      if (answer.status === 401) finish();
      if (!answer.ok) {
        return fail(REASONS[answer.status] || `Status ${answer.status}: the page is out of date`);
      }
      update(text);
      performance.clearMeasures("refresh");
      performance.measure("refresh", { start: begin });
      state.classList.remove("bad");
      say("Refreshed every second");
    } catch {
      if (!isPaused) fail("No answer: the page is out of date");
    }
  };

  const turn = async () => {
    if (!isPaused && !document.hidden) await refresh();
    if (!isOver) setTimeout(turn, INTERVAL);
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Continue" : "Pause";
    state.classList.remove("bad");
    say(isPaused ? "Paused" : "Refreshed every second");
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });
  setTimeout(turn, INTERVAL);
})();
